"""What several test files share: made-up pictures, settings of a run, and what a folder holds."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from fakegan.cli.start import start_run
from fakegan.config.overrides import to_hydra
from fakegan.runs.compose import register_resolvers, settings_of
from fakegan.runs.settings import RunSettings
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.sweep.progress import Progress
from fakegan.sweep.table import Row
from fakegan.system import processes
from fakegan.system.places import CONF, PROJECT


def smooth_faces(count: int, rng: np.random.Generator, checkerboard: float = 0.0) -> npt.NDArray[np.uint8]:
    """Smooth random colour fields (count, 64, 64, 3); fakes get a checkerboard of that amplitude."""
    coarse = rng.uniform(60, 190, (count, 4, 4, 3)).repeat(16, axis=1).repeat(16, axis=2)
    board = checkerboard * (2 * (np.indices((64, 64)).sum(axis=0) % 2) - 1)
    noise = rng.normal(0, 2, (count, 64, 64, 3))
    return np.clip(coarse + board[..., None] + noise, 0, 255).astype(np.uint8)


def encode(picture: Image.Image, format: str = "PNG", **options: object) -> bytes:
    """A picture as the content of a file."""
    content = io.BytesIO()
    picture.save(content, format, **options)
    return content.getvalue()


def snapshot(folder: Path) -> dict[str, bytes]:
    """The content of every file below a folder, by its path there."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def csv_rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def compose_run(*overrides: str) -> RunSettings:
    """The settings that `python train.py` makes of these words, but for the run's folder, if they do not name it."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", list(map(to_hydra, overrides)))
    return settings_of(RunSettings, cfg, overrides)


def begin(store_path: Path, run_dir: Path, *words: str) -> RunSettings:
    """A tiny run, written down but not run."""
    register_resolvers()
    fixed = [
        *("data=faces", f"data.root={store_path}", "+debug=fast", "logger=csv", f"paths.run_dir={run_dir}"),
        *(f"paths.artifact_dir={run_dir}/artifacts", f"paths.data_dir={run_dir}/data"),
    ]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return start_run(compose("train", [*fixed, *map(to_hydra, words)]))


def record(settings: RunSettings, *modes: str) -> list[dict[str, float]]:
    """Run it in processes of its own, as many as it asks for; returns the means of every training step."""
    run_dir, out = settings.paths.run_dir, settings.paths.run_dir / "steps.json"
    command = [sys.executable, "-m", "tests.recorded", str(run_dir), str(out), *modes]
    if settings.trainer.processes > 1:
        processes.run_ranks(command, settings.trainer.processes, run_dir)
    else:
        subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=PROJECT)
    steps: list[dict[str, float]] = json.loads(out.read_text())
    return steps


def be_job_17(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: int = 0) -> Path:
    """Play scontrol: it writes its arguments to the returned file and ends with `answer`; it shows the file `shown`."""
    scontrol = tmp_path / "bin" / "scontrol"
    scontrol.parent.mkdir()
    asked = f'case "$1" in --oneliner) cat {tmp_path}/shown ;; *) echo "$@" > {tmp_path}/asked; exit {answer} ;; esac'
    scontrol.write_text(f"#!/bin/sh\n{asked}\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{scontrol.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    places = ("RANK", "SLURM_PROCID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID", "SLURM_RESTART_COUNT")
    for name in (*places, "FAKEGAN_PARENT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "asked"


class Recorded(Progress):
    """The progress of a sweep's jobs, which remembers how they ended and may act on its way."""

    def __init__(self, folder: Path, jobs: Sequence[Job], when_started: Callable[[Running], None] = lambda _: None):
        super().__init__(folder)
        self.rows = {job.number: Row(job.number, job.name, "waiting", folder=job.folder.name) for job in jobs}
        self.when_started = when_started
        self.when_going: Callable[[], None] = lambda: None
        self.endings: dict[int, Ending] = {}
        self.stops: list[str] = []
        self.most = 0  # jobs that ran at once

    def started(self, running: Running) -> None:
        super().started(running)
        self.when_started(running)

    def going(self, jobs: Sequence[Running]) -> None:
        super().going(jobs)
        self.most = max(self.most, len(jobs))
        self.when_going()

    def stopping(self, reason: str) -> None:
        super().stopping(reason)
        self.stops.append(reason)

    def ended(self, job: Job, ending: Ending) -> None:
        assert job.number not in self.endings
        self.endings[job.number] = ending
        super().ended(job, ending)

    @property
    def states(self) -> list[str]:
        return [row.state for row in self.rows.values()]
