"""FakeGAN as a Python program uses it: import, load, train, compose, and every block of docs/python.md."""

import io
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from PIL import Image

import fakegan
from fakegan import FakeganError, UsageError
from fakegan.runs.folder import DETECTOR_FILE
from fakegan.system import places
from tests.helpers import smooth_faces
from tests.pages import blocks
from tests.pictures import detector

ROOT = Path(__file__).parent.parent


def test_importing_it_loads_no_library() -> None:
    """Python's own modules and fakegan's are all; the names are there all the same."""
    code = "import sys; before = set(sys.modules); import fakegan; print(*set(sys.modules) - before)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {name.partition(".")[0] for name in done.stdout.split()} - sys.stdlib_module_names == {"fakegan"}
    assert set(fakegan.__all__) <= set(dir(fakegan))
    assert all(getattr(fakegan, name) for name in fakegan.__all__)
    with pytest.raises(AttributeError, match="'fakegan' has no attribute 'Detektor'"):
        fakegan.Detektor  # noqa: B018


def test_a_detector_is_loaded_from_a_folder_or_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    saved = detector("pixels")
    saved.save(tmp_path / "run" / DETECTOR_FILE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    faces = smooth_faces(3, np.random.default_rng(0))
    for path in ("run", Path("run"), "~/run", f"run/{DETECTOR_FILE}", tmp_path / "run"):
        loaded = fakegan.load(path, device="cpu")
        assert isinstance(loaded, fakegan.Detector)
        assert np.array_equal(loaded.scores(faces), saved.scores(faces))
    assert fakegan.Detector.load("run").device == torch.device("cpu")
    with pytest.raises(UsageError, match="there is no run at gone"):
        fakegan.load("gone")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts this code in place of train.py."""

    def write(code: str) -> None:
        (tmp_path / "train.py").write_text(f"import os, signal, sys, time\nfrom fakegan.system import reply\n{code}")
        monkeypatch.setattr(places, "SCRIPTS", tmp_path)

    return write


def test_a_run_is_a_process_whose_output_and_result_are_the_programs(script, tmp_path: Path) -> None:
    """A notebook's sys.stdout is no file; what it prints comes in order, whatever letters it has."""
    (tmp_path / "metrics.json").write_text('{"objective": 0.75}')
    script(
        f"reply.give(folder={str(tmp_path)!r})\n"
        "print('words:', *sys.argv[1:]); print('· and errors', file=sys.stderr)\n"
        "import modules_of_the_program\nassert reply.VARIABLE not in os.environ"
    )
    (tmp_path / "beside").mkdir()
    (tmp_path / "beside" / "modules_of_the_program.py").touch()
    sys.path.append(str(tmp_path / "beside"))
    shown = io.StringIO()
    with redirect_stdout(shown):
        run = fakegan.train("seed=2", "data.root=a b")
    sys.path.pop()
    assert shown.getvalue() == "words: seed=2 data.root=a b\n· and errors\n"
    assert (run.folder, run.metrics) == (tmp_path, {"objective": 0.75})


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        ("reply.give(error='no such key'); sys.exit(2)", UsageError, "^no such key$"),
        ("reply.give(error='the disk is full'); sys.exit(1)", FakeganError, "^the disk is full$"),
        ("os.kill(os.getpid(), 9)", FakeganError, "ended with exit code -9, and its output says why$"),
        (
            "reply.give(folder='out/a b'); sys.exit(143)",
            FakeganError,
            r"exit code 143.*resume it with fakegan.train\('resume=\"out/a b\"'\)$",
        ),
        ("print('help')", UsageError, "^--help: no run was started"),
    ],
)
def test_what_goes_wrong_is_a_sentence(script, code: str, kind: type[Exception], sentence: str) -> None:
    script(code)
    with pytest.raises(kind, match=sentence):
        fakegan.train("--help")


def test_a_word_is_a_text() -> None:
    with pytest.raises(UsageError, match="is no text: train takes texts such as 'model=autogan1'"):
        fakegan.train(["model=autogan1"])  # type: ignore[arg-type]


def test_ctrl_c_is_passed_on_and_the_run_saves_first(script, tmp_path: Path) -> None:
    """The run interrupts the program that waits for it, as a notebook's stop does, and is asked to stop in turn."""
    script(
        "saved = []\n"
        "signal.signal(signal.SIGINT, lambda *_: saved.append(1))\n"
        "from fakegan.system import processes\n"
        "processes.unblock_signals()\n"
        f"reply.give(folder={str(tmp_path / 'run')!r})\n"
        "os.kill(os.getppid(), signal.SIGINT)\n"
        "while not saved: time.sleep(0.01)\n"
        f"open({str(tmp_path / 'saved')!r}, 'w'); sys.exit(130)"
    )
    for stream in (io.StringIO(), sys.__stdout__):
        with pytest.raises(KeyboardInterrupt, match=r"stopped; resume it with fakegan.train"), redirect_stdout(stream):
            fakegan.train()
        (tmp_path / "saved").unlink()


def test_the_config_is_shown_as_train_would_run_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cfg = fakegan.compose("model=autogan1", "seed=3", "data=faces", "data.root=007")
    assert isinstance(cfg, DictConfig)
    assert (cfg.model.net.depth, cfg.seed, cfg.data.root) == (1, 3, "007")
    assert "hydra" not in cfg
    assert OmegaConf.missing_keys(cfg) == {"paths.run_dir"}
    assert OmegaConf.create(str(cfg)) == cfg
    assert "model:\n" in repr(cfg)
    assert fakegan.compose("paths.run_dir=x").paths.run_dir == "x"
    other = fakegan.compose("classifier=dcgan", "classifier.optimizer._target_=torch.optim.SGD").classifier.optimizer
    assert "betas" not in other  # which the one before had
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model=autogan2"], "model=autogan2 does not exist.*autogan"),
        (["sead=1"], "sead is not a config key.*seed"),
        (["data=faces", "data.root=null"], "data.root=null names no faces"),
        (["trainer=null"], "GROUP=null chooses nothing"),
        (["data.modules.classifer._target_=my_package.Mine"], "did you mean data.modules.classifier"),
        (["resume=outputs/run"], "resume=DIR takes its own config.yaml"),
        (["--config-dir=nowhere"], "there is no such folder"),
    ],
)
def test_words_that_cannot_be_composed_are_refused(words: list[str], sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        fakegan.compose(*words)


def test_a_config_folder_of_ones_own_is_composed_with_the_code_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("FAKEGAN_CODE", "")
    (tmp_path / "conf" / "pipeline").mkdir(parents=True)
    (tmp_path / "conf" / "pipeline" / "mine.yaml").write_text("name: mine\nview: seen_by_compose.twice\n")
    view = "from fakegan.views import View\ntwice = View(6, ('image',), lambda image: image.repeat(1, 2, 1, 1))\n"
    (tmp_path / "seen_by_compose.py").write_text(view)
    assert fakegan.compose(f"--config-dir={tmp_path / 'conf'}", "pipeline=mine").pipeline.shows.channels == 6


def test_a_program_that_uses_hydra_itself_keeps_its_own(tmp_path: Path) -> None:
    from hydra import compose, initialize_config_dir

    (tmp_path / "mine.yaml").write_text("a: 1")
    with initialize_config_dir(str(tmp_path), version_base="1.3"):
        fakegan.compose("seed=2")
        with pytest.raises(UsageError):
            fakegan.compose("sead=2")
        assert compose("mine").a == 1


@pytest.mark.slow
def test_a_sweep_and_wrong_words_are_refused_by_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = io.StringIO()
    with redirect_stdout(shown), pytest.raises(UsageError, match=r"is a sweep.*train.py -m seed=1,2"):
        fakegan.train("-m", "seed=1,2")
    with redirect_stdout(shown), pytest.raises(UsageError, match=r"^sead is not a config key"):
        fakegan.train("sead=1")
    assert shown.getvalue() == ""
    assert not any(tmp_path.rglob("*.yaml"))


@pytest.mark.slow
def test_the_page_about_python_runs(store_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block, in order, as in one notebook; on the tests' store, which is quicker than drawing faces."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(smooth_faces(1, np.random.default_rng(0))[0]).resize((90, 80)).save("face.png")
    original = fakegan.train
    store = ("data=faces", f"data.root={store_path}", f"paths.artifact_dir={tmp_path}", "trainer=cpu")
    monkeypatch.setattr(fakegan, "train", lambda *words: original(*words, *store))
    names: dict[str, object] = {}
    shown = io.StringIO()
    code = blocks(ROOT / "docs" / "python.md", "python")
    assert len(code) == 3
    with redirect_stdout(shown):
        for block in code:
            exec(block, names)
    assert "classifier: training alexnet" in shown.getvalue()
    assert len((tmp_path / "rows.csv").read_text().splitlines()) == 4
