"""python -m fakegan.sample, in process: what it writes, what prepare makes of it, what it refuses."""

import errno
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from hydra import compose, initialize_config_dir
from PIL import Image

from fakegan import sample
from fakegan.data.build import Recipe, Source, build_store
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE
from fakegan.nets.dcgan import DCGANGenerator
from fakegan.runs import compose as composing
from fakegan.runs import config_file as runs
from fakegan.runs.checkpoints import save_checkpoint
from fakegan.runs.folder import GENERATOR_FILE
from fakegan.runs.settings import RunSettings

OPTIONS = {"latent": 5, "width": 4, "out_channels": 3}


def _write_generator(run_dir: Path, view: str = "pixels", **options: int) -> DCGANGenerator:
    options = {**OPTIONS, **options}
    generator = DCGANGenerator(**options)
    with torch.no_grad():
        generator.to_image.weight.mul_(20)  # some contrast
        for _ in range(30):  # eval mode rests on statistics that only train mode gathers
            generator(torch.randn(8, options["latent"]))
    net = {"_target_": "fakegan.nets.dcgan.DCGANGenerator", **options}
    save_checkpoint({"net": net, "weights": generator.state_dict(), "view": view}, run_dir / GENERATOR_FILE)
    return generator


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    _write_generator(tmp_path / "run")
    return tmp_path / "run"


def _run(run_dir: Path, out: Path, *words: object, count: int = 3) -> int:
    return sample.main([str(w) for w in ("--run", run_dir, "--out", out, "--count", count, "--device", "cpu", *words)])


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_samples_are_the_generators_in_eval_mode(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "_BATCH", 2)
    generator = _write_generator(run_dir)
    assert _run(run_dir, tmp_path / "out", "--seed", 4, count=3) == 0
    assert sorted(_bytes(tmp_path / "out")) == ["000000.png", "000001.png", "000002.png"]
    noise = torch.Generator().manual_seed(4)
    drawn = torch.cat([torch.randn(2, 5, generator=noise), torch.randn(1, 5, generator=noise)])
    with torch.no_grad():
        faces = generator.eval()(drawn)
    expected = ((faces + 1) * 127.5).round().permute(0, 2, 3, 1).numpy()
    for i in range(3):
        face = np.asarray(Image.open(tmp_path / "out" / f"{i:06d}.png")).astype(int)
        assert face.shape == (64, 64, 3)
        assert np.abs(face - expected[i]).max() <= 1  # another batch may round otherwise
        assert face.std() > 10


def test_the_same_seed_gives_the_same_bytes(run_dir: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(hash(name))
        assert _run(run_dir, tmp_path / name, "--seed", seed) == 0
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert _bytes(tmp_path / "a") != _bytes(tmp_path / "c")


def test_prepare_takes_them_as_one_more_generator(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()  # empty: may be filled
    assert _run(run_dir, tmp_path / "out", count=5) == 0
    assert f"-m fakegan.prepare --fake dcgan={tmp_path / 'out'}" in capsys.readouterr().out
    build_store(Recipe([Source("dcgan", FAKE, tmp_path / "out")]), tmp_path / "store")
    store = FaceStore.open(tmp_path / "store")
    assert store.files.tolist() == [f"dcgan/{i:06d}.png" for i in range(5)]
    assert (store.labels == FAKE).all()
    assert np.array_equal(store.images[4], np.asarray(Image.open(tmp_path / "out" / "000004.png")))


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--run", "nowhere"], 2, "nowhere is not a run"),
        (["--count", "0"], 2, "0 is not a number from 1"),
        (["--count", "some"], 2, "--count"),
        (["--seed", "-1"], 2, "-1 is not a number from 0"),
        (["--seed", str(2**64)], 2, "is not a number from 0"),
        (["--device", "tpu"], 2, "--device"),
        (["--out", "run"], 2, "run is there already: choose another --out"),
        (["--out", "run/generator.pt"], 2, "generator.pt is there already"),
        (["--out", "run/generator.pt/below"], 1, "cannot write"),
    ],
)
def test_what_bad_words_get(
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert sample.main(["--run", "run", "--count", "2", "--out", "new", "--device", "cpu", *words]) == code
    error = capsys.readouterr().err.strip()
    assert sentence in error
    assert "\n" not in error
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
    tmp_path: Path,
    store_path: Path,
    capsys: pytest.CaptureFixture[str],
    overrides: list[str],
    code: int,
    sentence: str,
) -> None:
    composing.register_resolvers()
    words = ["data=faces", f"data.root={store_path}", f"paths.run_dir={tmp_path / 'run'}", *overrides]
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        runs.write_down(composing.settings_of(RunSettings, compose("train", words)), tmp_path / "run")
    assert _run(tmp_path / "run", tmp_path / "out") == code
    error = capsys.readouterr().err
    assert sentence in error
    assert str(tmp_path / "run") in error


@pytest.mark.parametrize("view", ["residual", "stack"])
def test_samples_that_are_no_faces_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], view: str) -> None:
    _write_generator(tmp_path / "run", view, out_channels=9 if view == "stack" else 3)
    assert _run(tmp_path / "run", tmp_path / "out") == 2
    assert f"view '{view}', which are no faces" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("stop", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_ctrl_c_leaves_nothing(
    run_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    stop: BaseException,
) -> None:
    written: list[Path] = []

    def write(path: Path, face: object) -> None:
        if written:
            raise stop
        path.write_bytes(b"")
        written.append(path)

    (tmp_path / ".out.building").mkdir()  # of a process that was killed
    monkeypatch.setattr(sample, "write_png", write)
    assert _run(run_dir, tmp_path / "out") == (1 if isinstance(stop, OSError) else 130)
    assert written[0].parent.parent == tmp_path  # made beside its place
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    error = capsys.readouterr().err
    assert ("is full" in error) if isinstance(stop, OSError) else ("nothing was written" in error)


def test_two_processes_do_not_write_one_folder(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with FileLock(tmp_path / ".out.building.lock"):
        (tmp_path / ".out.building").mkdir()
        assert _run(run_dir, tmp_path / "out") == 1
    assert "another process is writing" in capsys.readouterr().err
    assert (tmp_path / ".out.building").is_dir()  # the other's


def test_a_checkpoint_of_another_kind_is_no_generator(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint({"weights": {}}, run_dir / "generator.pt")
    assert _run(run_dir, tmp_path / "out") == 1
    assert "is no generator's file" in capsys.readouterr().err


def test_samples_into_a_mount_point_are_those_made_beside_a_new_folder(
    run_dir: Path, tmp_path: Path, mounted: Callable[[str], Path]
) -> None:
    assert _run(run_dir, tmp_path / "out") == 0
    volume = mounted("volume")
    (volume / "lost+found").mkdir()
    assert _run(run_dir, volume) == 0
    made = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert {path.name: path.read_bytes() for path in volume.glob("*.png")} == made
    assert {path.name for path in volume.iterdir()} == {*made, "lost+found"}
