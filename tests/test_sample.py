"""python -m fakegan.sample, in process: the pictures that it writes, as prepare takes them, and its refusals."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fakegan import sample
from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.config_file import write_down
from fakegan.runs.folder import GENERATOR_FILE
from tests.helpers import compose_run, snapshot

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def generator(tmp_path: Path) -> DCGANGenerator:
    """Of the run in tmp_path/run; it makes faces."""
    options = {"latent": 5, "width": 4, "out_channels": 3}
    generator = DCGANGenerator(**options)
    with torch.no_grad():
        generator.to_image.weight.mul_(20)  # some contrast
        for _ in range(30):  # eval mode rests on statistics that only train mode gathers
            generator(torch.randn(8, 5))
    net = {"_target_": "fakegan.nets.dcgan.DCGANGenerator", **options}
    content = {"net": net, "weights": generator.state_dict(), "view": "pixels"}
    save_checkpoint(content, tmp_path / "run" / GENERATOR_FILE)
    return generator.eval()


@pytest.fixture
def run(
    tmp_path: Path, generator: DCGANGenerator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """Samples the run of the generator; returns exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def call(out: Path | str, *words: object) -> tuple[int, str, str]:
        argv = ("--run", "run", "--out", out, "--count", 3, "--device", "cpu", *words)
        return sample.main([str(argument) for argument in argv]), *capsys.readouterr()

    return call


def test_samples_are_the_generators_in_eval_mode_and_the_same_for_a_seed(
    generator: DCGANGenerator, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_BATCH", 2)
    for name, seed in (("out", 4), ("again", 4), ("other", 5)):
        torch.manual_seed(ord(name[0]))
        assert run(name, "--seed", seed)[0] == 0
    made, again, other = (snapshot(Path(name)) for name in ("out", "again", "other"))
    assert sorted(made) == ["000000.png", "000001.png", "000002.png"]
    assert made == again != other
    noise = torch.Generator().manual_seed(4)
    drawn = torch.cat([torch.randn(2, 5, generator=noise), torch.randn(1, 5, generator=noise)])
    with torch.no_grad():
        expected = ((generator(drawn) + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for i in range(3):
        face = np.asarray(Image.open(f"out/{i:06d}.png")).astype(int)
        assert face.shape == (64, 64, 3)
        assert np.abs(face - expected[i]).max() <= 1  # another batch may round otherwise
        assert face.std() > 10


def test_prepare_takes_them_as_another_generator(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()  # empty: may be filled
    code, out, _ = run("out", "--count", 5)
    assert code == 0
    assert "-m fakegan.prepare --fake dcgan=" in out
    build_store(Recipe([Source("dcgan", FAKE, tmp_path / "out")]), tmp_path / "store")
    store = FaceStore.open(tmp_path / "store")
    assert store.files.tolist() == [f"dcgan/{i:06d}.png" for i in range(5)]
    assert (store.labels == FAKE).all()
    assert np.array_equal(store.images[4], np.asarray(Image.open(tmp_path / "out" / "000004.png")))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--run", "nowhere"], 2, "nowhere is not a run"),
        (["--count", "0"], 2, "0 is not a whole number from 1"),
        (["--count", "some"], 2, "--count"),
        (["--seed", "-1"], 2, "-1 is not a whole number from 0"),
        (["--seed", str(2**64)], 2, "is not a whole number from 0"),
        (["--device", "tpu"], 2, "--device"),
        (["--out", "run"], 2, "run is there already: choose another --out"),
        (["--out", "run/generator.pt"], 2, "generator.pt is there already"),
        (["--out", "run/generator.pt/below"], 1, "cannot write"),
    ],
)
def test_bad_arguments_get_one_sentence(run: Run, tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    got, _, err = run("new", *words)
    assert got == code
    assert sentence in err
    assert "\n" not in err.strip()
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


@pytest.mark.parametrize(
    ("overrides", "code", "sentence"),
    [
        (["classifier=simple_cnn"], 2, "classifier=simple_cnn: only classifier=dcgan has a generator"),
        (["pipeline=autoencoder"], 2, "an autoencoder only: only classifier=dcgan has a generator"),
        (["classifier=dcgan"], 1, "train.py resume="),
    ],
)
def test_a_run_without_a_generator_says_why(
    run: Run, tmp_path: Path, store_path: Path, overrides: list[str], code: int, sentence: str
) -> None:
    fixed = ["data=faces", f"data.root={store_path}", f"paths.run_dir={tmp_path / 'run'}"]
    write_down(compose_run(*fixed, *overrides), tmp_path / "run")
    (tmp_path / "run" / GENERATOR_FILE).unlink()
    got, _, err = run("out")
    assert got == code
    assert sentence in err


@pytest.mark.parametrize(
    ("content", "code", "sentence"),
    [
        ({"net": {}, "weights": {}, "view": "residual"}, 2, "view 'residual', which are no faces"),
        ({"net": {}, "weights": {}, "view": "stack"}, 2, "view 'stack', which are no faces"),
        ({"weights": {}}, 1, "is no generator's file"),
    ],
)
def test_a_file_that_makes_no_faces_is_refused(
    run: Run, tmp_path: Path, content: dict[str, Any], code: int, sentence: str
) -> None:
    save_checkpoint(content, tmp_path / "run" / GENERATOR_FILE)
    got, _, err = run("out")
    assert got == code
    assert sentence in err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("stop", "code", "sentence"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 1, "is full: nothing was written"),
        (KeyboardInterrupt(), 130, "nothing was written"),
    ],
)
def test_a_full_disk_or_ctrl_c_leaves_nothing(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: BaseException, code: int, sentence: str
) -> None:
    written: list[Path] = []

    def write(path: Path, face: object) -> None:
        if written:
            raise stop
        path.write_bytes(b"")
        written.append(path)

    (tmp_path / ".out.building").mkdir()  # of a process that was killed
    monkeypatch.setattr(sample, "write_png", write)
    got, _, err = run("out")
    assert got == code
    assert sentence in err
    assert written[0].parent.parent == tmp_path  # made beside its place
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_terminal_sees_a_bar_but_for_q(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert "3/3" in run("out")[2]
    code, out, err = run("other", "-q")
    assert (code, err) == (0, "")
    assert "3 faces: other" in out  # the result


def test_samples_into_a_mount_point_are_those_made_beside_a_new_folder(
    run: Run, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    volume = mounted("volume")
    (volume / "lost+found").mkdir()
    assert run("out")[0] == run(volume)[0] == 0
    made = snapshot(tmp_path / "out")
    assert len(made) == 3
    assert snapshot(volume) == made
    assert {path.name for path in volume.iterdir()} == {*made, "lost+found"}
