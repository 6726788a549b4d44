"""Sweeps without training: what jobs are made of the words, where they belong, how a sweep begins, goes on and ends."""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn

from fakegan.config.overrides import to_hydra
from fakegan.errors import AlreadyReportedError, UsageError
from fakegan.runs.claim import Claim
from fakegan.runs.compose import register_resolvers
from fakegan.runs.folder import CONFIG_FILE, JOBS_FILE, METRICS_FILE, STUDY_FILE
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.sweep import launcher, lifecycle, opening
from fakegan.sweep.jobs import Ending, Job, Running
from fakegan.sweep.planning import Folders, runs_in
from fakegan.sweep.progress import Progress
from fakegan.sweep.table import read_rows, write_rows
from fakegan.system.places import CONF
from fakegan.system.processes import SHARING
from fakegan.system.shell import local_path
from tests.conftest import Compose


class Started:
    """A sweep as Hydra's sweeper starts it, on jobs that finish at once."""

    gpus: int  # of the machine; asking is an error where a test sets none: it takes seconds, and CPU jobs need none

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, fixed: Sequence[str]) -> None:
        self.folder, self.fixed = folder, [*fixed, f"hydra.sweep.dir={folder}"]
        self.ran: list[Job] = []
        self.threads: int | None = None
        self.handed: tuple[str, ...] = ()  # GPUs
        monkeypatch.setattr(sys, "argv", ["train.py", "-m", "seed=1,2"])
        monkeypatch.setattr(launcher, "run_jobs", self._play)
        monkeypatch.setattr(launcher, "visible_gpus", lambda: tuple(map(str, range(self.gpus))))

    def _play(
        self, jobs: Sequence[Job], side: int, gpus: Sequence[str], threads: int | None, stop: bool, progress: Progress
    ) -> int:
        self.threads, self.handed = threads, tuple(gpus)
        for job in jobs:
            job.prepare()
            progress.started(Running(job=job, log_from=0))
            (job.folder / METRICS_FILE).write_text('{"objective": 0.5}')
            progress.ended(job, Ending("finished", 2.0))
        self.ran += jobs
        return 0

    def __call__(self, *jobs: str, options: Sequence[str] = ()) -> Sequence[JobReturn]:
        """Start it on jobs of an override each; what ran is in `ran`."""
        self.ran = []
        register_resolvers()
        lifecycle.register()
        with initialize_config_dir(str(CONF), version_base="1.3"):
            master = compose("train", [*map(to_hydra, self.fixed), *options], return_hydra_config=True)
            made = launcher.ProcessLauncher(**{k: v for k, v in master.hydra.launcher.items() if k != "_target_"})
            made.config, made.loader = master, GlobalHydra.instance().config_loader()
            self.folder.mkdir(exist_ok=True)
            return made.launch([[*map(to_hydra, [*self.fixed, word])] for word in jobs], 0)

    @property
    def states(self) -> list[str]:
        return [row.state for row in read_rows(self.folder)]


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, store_path: Path) -> Started:
    fixed = ("data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu", "pipeline=classify")
    return Started(monkeypatch, tmp_path / "sweep", fixed)


def _name(number: int) -> str:
    return f"{number}_x"


def test_a_sweep_that_got_more_values_finds_its_jobs_again_and_takes_free_numbers(
    tmp_path: Path, compose_settings: Compose
) -> None:
    """seed=1,2 with two learning rates had jobs 0 to 3; with seed=1,2,3 the fourth is another."""
    rates = ("classifier.optimizer.lr=0.1", "classifier.optimizer.lr=0.2")
    jobs = {(rate, seed): compose_settings(rate, f"seed={seed}") for rate in rates for seed in (1, 2, 3)}
    before = [job for (_, seed), job in jobs.items() if seed < 3]
    for i in range(4):
        (tmp_path / _name(i)).mkdir()
    folders = Folders(tmp_path, {tmp_path / _name(i): job for i, job in enumerate(before)})
    places = [folders.place(i, job.identity(), _name) for i, job in enumerate(jobs.values())]
    assert [place.folder.name for place in places] == ["0_x", "1_x", "4_x", "2_x", "3_x", "5_x"]
    assert [place.kind for place in places] == ["begun", "begun", "new", "begun", "begun", "new"]


@pytest.mark.parametrize("fixed", ["run", "1_run"])
def test_folders_without_a_number_of_the_job_get_one(tmp_path: Path, fixed: str) -> None:
    folders = Folders(tmp_path, {})
    places = [folders.place(i, f"identity {i}", lambda _: fixed) for i in range(3)]
    assert [place.folder.name for place in places] == [fixed, f"{fixed}_2", f"{fixed}_3"]


@pytest.mark.parametrize("subdir", ["${seed}/run", "..", "runs/"])
def test_a_jobs_folder_lies_in_that_of_its_sweep(start: Started, subdir: str) -> None:
    start.fixed.append(f"hydra.sweep.subdir='{subdir}'")
    with pytest.raises(UsageError, match=r"hydra\.sweep\.subdir=.* leave out the /"):
        start("seed=1", "seed=2")


def test_names_of_jobs_and_commands_are_as_overrides_are_typed(start: Started) -> None:
    start.fixed.append("hydra.sweep.subdir='${hydra.job.num}_${hydra.job.override_dirname}'")
    start.fixed.append("hydra.job.config.override_dirname.exclude_keys=[data,debug,pipeline,trainer,data.root]")
    start("classifier.net.dropout=0.1", "classifier.net.dropout=0.3")
    assert [job.name for job in start.ran] == ["classifier.net.dropout=0.1", "classifier.net.dropout=0.3"]
    assert [job.folder.name for job in start.ran] == ["0_classifier.net.dropout=0.1", "1_classifier.net.dropout=0.3"]
    assert start.ran[0].environment[COMMAND_VARIABLE].endswith(" classifier.net.dropout=0.1 hydra.mode=RUN")
    assert "++" not in (start.folder / JOBS_FILE).read_text()


def test_a_job_is_written_down_as_it_was_composed(start: Started) -> None:
    """The classes that an experiment sweeps stand in no override of the sweep itself, only in those of its jobs."""
    start.fixed.append("classifier=dcgan")
    classes = (
        "classifier.optimizer._target_=torch.optim.SGD",
        "classifier.net._target_=fakegan.nets.simple_cnn.SimpleCNN",
    )
    for _ in range(2):
        start(*classes)
        assert start.states == ["finished", "finished"]
    assert start.ran == []  # the second time: each is known again
    first, second = runs_in(start.folder).values()
    assert "betas" not in first.classifier.node["optimizer"]
    assert second.classifier.name == "SimpleCNN"


def test_a_job_that_cannot_be_fails_alone_and_only_if_none_can_be_the_sweep_is_refused(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("classifier.drpout=0.1", "classifier.net.dropout=high", "model=autogan9", "classifier.net.dropout=0.3")
    answers = start(*words)
    assert [job.number for job in start.ran] == [3]
    reasons = [row.reason for row in read_rows(start.folder)]
    assert reasons[0] == "classifier.drpout is not a config key: did you mean classifier.net.dropout?"
    assert reasons[1] == "classifier.net.dropout='high' must be a number"
    assert "job 2 failed: model=autogan9 does not exist: did you mean autogan" in capsys.readouterr().out
    assert answers[3].return_value == 0.5
    with pytest.raises(AlreadyReportedError):
        _ = answers[2].return_value
    with pytest.raises(UsageError, match=r"did you mean classifier\.net\.dropout"):
        start("classifier.drpout=0.1", "model=autogan8")
    assert start.ran == []
    (start.folder / STUDY_FILE).touch()  # a search's later trials: it is the proposed values that cannot be
    assert [type(answer._return_value) for answer in start("model=autogan8", "model=autogan9")] == [UsageError] * 2


def test_a_split_that_cannot_be_is_refused_before_the_first_job(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"val split has no real faces .* give data\.split\.val=0\.15"):
        start("data.split.val=0", "data.split.val=0.0001")
    assert start.ran == []
    with pytest.raises(UsageError, match="names nope, which the store does not hold: did you mean"):
        start("data.split.unseen=[]", "data.split.unseen=[nope]")  # all jobs' sources are checked before one starts
    assert start.ran == []
    start("data.split.unseen=[gan_a,gan_b]", "data.split.unseen=[gan_a]", "data.split.unseen=[]")
    assert [job.number for job in start.ran] == [1, 2]
    assert "job 0 failed: the train split has no fake faces" in capsys.readouterr().out
    assert len(list(start.folder.glob(f"*/{CONFIG_FILE}"))) == 2


def test_a_job_that_failed_before_for_its_source_stops_no_other_job_of_a_resumed_sweep(start: Started) -> None:
    start("data.split.unseen=[gan_a,gan_b]", "data.split.unseen=[gan_a]")
    table = start.folder / "jobs.csv"
    table.write_text(table.read_text().replace("gan_a,gan_b", "nope"))  # as if the store had held it
    start("data.split.unseen=[nope]", "data.split.unseen=[gan_a]", "data.split.unseen=[]")
    assert [row.state for row in read_rows(start.folder)] == ["failed", "finished", "finished"]
    assert "did you mean" in read_rows(start.folder)[0].reason
    with pytest.raises(UsageError, match="names other, which the store does not hold"):
        start("data.split.unseen=[nope]", "data.split.unseen=[other]")


def test_generators_are_not_held_out_where_none_is_learnt_from(
    start: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    sweep = opening.Sweep(Claim(tmp_path, made=False), lock=None, each_fake=True)  # type: ignore[arg-type]
    monkeypatch.setattr(opening, "current", sweep)
    with pytest.raises(UsageError, match=r"pipeline=recon_fakes learns from no generator: .* would be all alike"):
        start("pipeline=classify", "pipeline=recon_fakes")
    assert start.ran == []
    start("pipeline=classify")
    assert len(start.ran) == 1


def test_the_same_run_twice_is_told_from_what_has_no_effect(start: Started, capsys: pytest.CaptureFixture[str]) -> None:
    start("seed=1", "seed=2", "seed=1", "model=autogan1")  # pipeline=classify has no autoencoder
    said = capsys.readouterr().out.splitlines()
    folder = start.ran[0].folder.name
    assert f"job 2 is the same run as {folder}" in said
    assert f"job 3 is the same run as {folder}: what is swept has no effect on it" in said
    assert start.states == ["finished", "finished", "repeats 0", "repeats 0"]
    assert len([path for path in start.folder.iterdir() if path.is_dir()]) == 2


def test_damaged_results_and_configs_cost_the_other_jobs_nothing(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    start("seed=1", "seed=2", "seed=3")
    folders = sorted(path for path in start.folder.iterdir() if path.is_dir())
    (folders[0] / METRICS_FILE).write_text("{")
    (folders[1] / CONFIG_FILE).write_text("")
    capsys.readouterr()
    start("seed=1", "seed=2", "seed=3", "seed=4")
    said = capsys.readouterr().out
    assert start.states == ["failed", "finished", "finished", "finished"]
    assert [job.number for job in start.ran] == [1, 3]
    assert f"job 0 failed: {folders[0] / METRICS_FILE} is damaged" in said
    assert f"{local_path(folders[1])} is left as it is, and is no job's: " in said
    assert "jobs finished before: 1; begun before and resumed now: 0" in said
    assert len(runs_in(start.folder)) == 4  # what the report is on: not the damaged one


def test_a_resumed_sweep_mends_the_table_of_a_killed_one_and_keeps_its_seconds(start: Started) -> None:
    start("seed=1", "seed=2")
    rows = read_rows(start.folder)
    write_rows(start.folder, [dataclasses.replace(rows[0], state="running"), rows[1]])
    (start.folder / rows[1].folder / METRICS_FILE).unlink()
    start("seed=1", "seed=2")
    found = [(row.state, row.objective, row.seconds) for row in read_rows(start.folder)]
    assert found == [("finished", 0.5, 2.0), ("finished", 0.5, 4.0)]


def test_a_jobs_threads_do_not_depend_on_how_many_jobs_are_left(
    start: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    start("seed=1", "seed=2", "seed=3", options=["hydra.launcher.jobs=3"])
    assert start.threads == 2
    start("seed=1", "seed=2", "seed=3", "seed=4", options=["hydra.launcher.jobs=3"])
    assert [job.number for job in start.ran] == [3]
    assert start.threads == 2


def test_a_job_that_cannot_have_its_gpus_fails_alone_and_owns_no_folder(start: Started) -> None:
    start.gpus = 2
    start.fixed += ["trainer=auto", "hydra.launcher.devices_per_job=1"]
    start("trainer.devices=2", "trainer.devices=1", "trainer=cpu")
    assert start.states == ["failed", "finished", "repeats 1"]
    assert "devices_per_job=1, but trainer.devices=2" in read_rows(start.folder)[0].reason
    assert [job.gpus for job in start.ran] == [1]


def test_a_finished_job_stays_finished_where_there_are_fewer_gpus_than_it_had(start: Started) -> None:
    start.fixed += ["trainer=auto", "trainer.accelerator=gpu", "trainer.devices=4"]
    start.gpus = 4
    start("seed=1")
    start.gpus = 2
    answers = start("seed=1", "seed=2")
    assert start.states == ["finished", "failed"]
    assert answers[0].return_value == 0.5
    assert "needs 4 GPUs" in read_rows(start.folder)[1].reason


def test_too_few_gpus_side_by_side_are_told_before_the_sweep_has_begun(start: Started) -> None:
    start.gpus = 4
    start.fixed += ["trainer=auto", "trainer.devices=2"]
    with pytest.raises(UsageError, match=r"jobs=3 needs 6 GPUs.* there are 4 GPUs: at most hydra\.launcher\.jobs=2"):
        start("seed=1", "seed=2", "seed=3", options=["hydra.launcher.jobs=3"])
    assert not list(start.folder.iterdir())
    start("seed=1", "seed=2", "seed=3", options=["hydra.launcher.jobs=2"])
    assert start.states == ["finished"] * 3


def test_jobs_that_share_gpus_divide_the_memory_and_the_plan_says_so(
    start: Started, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    start.gpus = 2
    start.fixed += ["trainer=auto", "trainer.accelerator=gpu"]
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    seeds = [f"seed={seed}" for seed in range(5)]
    with pytest.raises(UsageError, match=r"jobs=5 needs 3 GPUs, 2 jobs on each, .*: at most hydra\.launcher\.jobs=4"):
        start(*seeds, options=["hydra.launcher.jobs_per_gpu=2", "hydra.launcher.jobs=5"])
    capsys.readouterr()
    start(*seeds, options=["hydra.launcher.jobs_per_gpu=2"])
    told, sharing = capsys.readouterr().out.splitlines()[:2]
    assert told.endswith(": 5 jobs, 2 side by side")
    assert sharing == (
        "2 jobs share each GPU, 1/2 of its memory each; they compute by turns: no NVIDIA MPS daemon is seen here"
    )
    assert {(job.gpus, job.environment.get(SHARING)) for job in start.ran} == {(1, "2")}
    assert start.handed == ("0", "1", "0", "1")
    (tmp_path / "nvidia-cuda-mps-control.pid").write_text(str(os.getpid()))
    start("seed=7", options=["hydra.launcher.jobs_per_gpu=3"])
    assert "1/3 of its memory each; they compute at once, by NVIDIA MPS" in capsys.readouterr().out
    start("seed=8")
    assert "share each GPU" not in capsys.readouterr().out
    assert (start.handed, start.ran[0].environment.get(SHARING)) == (("0", "1"), None)


@pytest.mark.parametrize(
    ("jobs", "jobs_per_gpu", "devices", "said"),
    [
        (2, 0, None, "jobs_per_gpu=0 must be a whole number from 1"),
        (2, 1.5, None, "jobs_per_gpu=1.5 must be a whole number from 1"),
        (1, 2, None, "jobs_per_gpu=2 needs as many hydra.launcher.jobs, not 1"),
        (2, 2, 2, "jobs_per_gpu=2 is for jobs of one GPU, but hydra.launcher.devices_per_job=2: leave one out"),
    ],
)
def test_what_a_launcher_cannot_do_is_refused(jobs: int, jobs_per_gpu: Any, devices: int | None, said: str) -> None:
    made = launcher.ProcessLauncher(jobs, jobs_per_gpu, devices, stop_on_failure=False)
    context: Any = SimpleNamespace(config_loader=None)
    with pytest.raises(UsageError, match=re.escape(f"hydra.launcher.{said}")):
        made.setup(hydra_context=context, task_function=None, config=None)  # type: ignore[arg-type]


def test_a_finished_or_repeated_run_is_not_tested_again_in_silence(
    start: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    start("seed=1", "seed=2")
    assert "test.robustness" not in capsys.readouterr().out
    start.fixed.append("test.robustness=true")
    start("seed=1", "seed=2", "seed=3", "seed=3")
    said = capsys.readouterr().out
    for number, seed in ((0, 1), (1, 2)):
        told = f"job {number}: {number}_classify_alexnet_s{seed} was begun without test.robustness=true; later: "
        assert told in said
    assert said.count("was begun without") == 2
    assert f"evaluate.py run={start.folder / '1_classify_alexnet_s2'} robustness=true" in said.replace("'", "")
