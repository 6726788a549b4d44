"""Small generated faces and settings for the tests; no test needs a photograph."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakegan import prepare
from fakegan.data.store import FaceStore
from fakegan.labels import FAKE, REAL
from fakegan.runs.finished import FinishedRun
from fakegan.runs.settings import RunSettings
from fakegan.system import log, processes, signals
from tests.helpers import smooth_faces, tiny_run, write_store
from tests.simulated import simulated
from tests.untrusted import OWN_CODE

Compose = Callable[..., RunSettings]
Finish = Callable[..., FinishedRun]


@pytest.fixture(autouse=True)
def as_in_a_new_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test's signals, notes, threads and seed are not for the tests after it.

    Ctrl-C is heard: in a script's background it is ignored, which the tests' child processes would inherit.
    """
    monkeypatch.setattr(signals, "_state", signals._State())
    log.begin()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    before = {number: signal.getsignal(number) for number in processes.STOP_SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 160 real and 160 fake made-up faces; the fakes carry a checkerboard."""
    rng = np.random.default_rng(7)
    parts = [("camera", REAL, 160, 0.0), ("gan_a", FAKE, 110, 12.0), ("gan_b", FAKE, 50, 12.0)]
    faces = [
        (pixels, f"{source}/{i:04d}", label, source)
        for source, label, count, board in parts
        for i, pixels in enumerate(smooth_faces(count, rng, board))
    ]
    return write_store(tmp_path_factory.mktemp("stores") / "faces", faces)


@pytest.fixture
def store(store_path: Path) -> FaceStore:
    return FaceStore.open(store_path)


@pytest.fixture
def compose_settings(store_path: Path, tmp_path: Path) -> Compose:
    """Settings of a tiny run on the generated store, from the shipped config and overrides."""
    return partial(tiny_run, store_path, tmp_path)


@pytest.fixture(scope="session")
def finished_once(store_path: Path, tmp_path_factory: pytest.TempPathFactory) -> RunSettings:
    """A tiny run with an autoencoder and a classifier, to its end. Nothing may be written into its folder."""
    from fakegan.stages.run import run

    settings = tiny_run(store_path, tmp_path_factory.mktemp("finished"), "pipeline=recon_classify", "model=autogan4")
    run(settings)
    return settings


@pytest.fixture
def finished(finished_once: RunSettings, tmp_path: Path) -> RunSettings:
    """A copy of such a run; artifacts are shared."""
    copy = Path(shutil.copytree(finished_once.paths.run_dir, tmp_path / "run"))
    return replace(finished_once, paths=replace(finished_once.paths, run_dir=copy))


@pytest.fixture
def run_prepare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Calls prepare in this process with --out tmp_path/faces; returns exit code, stdout, stderr."""

    def call(*words: object) -> tuple[int, str, str]:
        out = [] if "--out" in words else ["--out", tmp_path / "faces"]
        workers = [] if "--workers" in words else ["--workers", 1]
        code = prepare.main([str(word) for word in [*words, *out, *workers]])
        return code, *capsys.readouterr()

    return call


@pytest.fixture
def prepared(tmp_path: Path, run_prepare: Callable[..., tuple[int, str, str]]) -> Callable[..., FaceStore]:
    """The same where it succeeds, over what is there; returns the store."""

    def call(*words: object) -> FaceStore:
        code, _, err = run_prepare(*words, "--overwrite")
        assert code == 0, err
        return FaceStore.open(tmp_path / "faces")

    return call


@pytest.fixture
def finish(compose_settings: Compose, tmp_path: Path) -> Finish:
    """Makes a finished run: overrides of the shipped config, how good it is, its seed."""
    names = (f"run{number}" for number in itertools.count(1))

    def make(*overrides: str, strength: float = 1.0, seed: int = 1) -> FinishedRun:
        words = (
            "data.split.test=0.5",
            "budget.name=quick",
            f"seed={seed}",
            f"paths.run_dir={tmp_path / 'runs' / next(names)}",
        )
        return simulated(compose_settings(*words, *overrides), strength)

    return make


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Makes a folder that the system treats as a mount point: it can be neither renamed, replaced nor removed."""
    points: set[Path] = set()

    def refusing(name: str) -> None:
        original = getattr(os, name)

        def call(*paths: Any, **options: Any) -> Any:
            if points & {Path(path) for path in paths}:
                raise OSError(errno.EBUSY, "Device or resource busy", str(paths[0]))
            return original(*paths, **options)

        monkeypatch.setattr(os, name, call)

    def mount(name: str) -> Path:
        points.add(tmp_path / name)
        (tmp_path / name).mkdir()
        return tmp_path / name

    for name in ("rename", "replace", "rmdir"):
        refusing(name)
    return mount


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that a package `own_nets` beside the user makes when it is imported."""
    marker = tmp_path / "imported"
    (tmp_path / "code" / "own_nets").mkdir(parents=True)
    (tmp_path / "code" / "own_nets" / "__init__.py").write_text(OWN_CODE.format(marker=str(marker)))
    (tmp_path / "code" / "own_nets" / "other.py").write_text("from own_nets import Net\n")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield marker
    for name in [name for name in sys.modules if name.partition(".")[0] == "own_nets"]:
        del sys.modules[name]


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A folder that hostile content tries to make; none has, when the test is over."""
    path = tmp_path / "owned"
    yield path
    assert not path.exists()
