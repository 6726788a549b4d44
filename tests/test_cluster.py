"""Jobs of a sweep on a cluster: by submitit on this machine, and by a SLURM that is played by three small scripts."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from hydra.utils import instantiate

from fakegan.errors import UsageError
from fakegan.runs.ledger import COMMAND_VARIABLE
from fakegan.sweep import lifecycle, submitted
from fakegan.sweep.cluster import SlurmLauncher
from fakegan.sweep.jobs import Job
from fakegan.sweep.submitted import run_jobs
from tests.conftest import Compose
from tests.helpers import Recorded, composed, run_script

submitit = pytest.importorskip("submitit")
pytest.importorskip("hydra_plugins.hydra_submitit_launcher")

# A job as this module knows it: a script and words. It says who it is, and finishes unless it is told otherwise.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
from submitit import JobEnvironment
folder, word = Path(sys.argv[1].removeprefix("resume=")), sys.argv[2]
print("told", word, os.environ["FAKEGAN_COMMAND"], flush=True)
place = JobEnvironment()
(folder / f"rank_{place.global_rank}").write_text(f"{place.num_tasks} {place.num_nodes}")
if word == "fails":
    print("error: training diverged")
    sys.exit(1)
if word == "refuses":
    print("error: data.root holds no store")
    sys.exit(2)
if word == "dies":
    os.kill(os.getpid(), signal.SIGKILL)
if word == "deaf":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
if word in ("waits", "deaf") and not (folder / "begun").exists():
    try:
        (folder / "begun").touch()
        time.sleep(60)
    except KeyboardInterrupt:
        time.sleep(3)
        (folder / "saved").touch()
        sys.exit(130)
if place.global_rank == 0:
    (folder / "metrics.json").write_text('{"objective": 0.5}')
"""

# What is asked of SLURM: sbatch runs an array's jobs at once, srun a job's processes; beside them lie a file of
# process numbers for each job, which scancel reads, and one of its state, for squeue. There is no sacct.
SBATCH = """#!{python}
import os, re, subprocess, sys
text = open(sys.argv[1]).read()
flags = dict(re.findall(r"#SBATCH --([\\w-]+)=(.*)", text))
tasks = int(flags["nodes"]) * int(flags["ntasks-per-node"])
jobs = re.match(r"'?0-(\\d+)%", flags.get("array", ""))
for index in range(int(jobs[1]) + 1) if jobs else [None]:
    own = dict(SLURM_JOB_ID="7", SLURM_NTASKS=str(tasks), SLURM_JOB_NUM_NODES=flags["nodes"])
    if index is not None:
        own |= dict(SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(index))
    name = "7" if index is None else f"7_{index}"
    with open(f"{os.path.dirname(__file__)}/{name}.state", "w") as state:
        print(name, "PENDING 0:00 0", file=state)
    nowhere = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.Popen(["bash", sys.argv[1]], env=os.environ | own, start_new_session=True, **nowhere)
print("Submitted batch job 7")
"""
SRUN = """#!{python}
import os, subprocess, sys
arguments = sys.argv[1:]
pattern = arguments[arguments.index("--output") + 1]
command = arguments[next(i for i, a in enumerate(arguments) if a.endswith("python") or "/python" in a):]
job = "_".join(filter(None, (os.environ["SLURM_JOB_ID"], os.environ.get("SLURM_ARRAY_TASK_ID"))))
tools = os.path.dirname(__file__)
def is_now(state):
    with open(f"{tools}/{job}.new", "w") as file:
        print(job, state, "0:07 0", file=file)
    os.replace(f"{tools}/{job}.new", f"{tools}/{job}.state")
children = []
for rank in range(int(os.environ["SLURM_NTASKS"])):
    nodes = int(os.environ["SLURM_JOB_NUM_NODES"])
    node, local = divmod(rank, int(os.environ["SLURM_NTASKS"]) // nodes)
    path = pattern.replace("%A_%a", job).replace("%j", job).replace("%t", str(rank))
    own = dict(SLURM_PROCID=str(rank), SLURM_LOCALID=str(local), SLURM_NODEID=str(node), SLURM_JOB_NODELIST="localhost")
    with open(path, "a") as log:
        children.append(subprocess.Popen(command, env=os.environ | own, stdout=log, stderr=subprocess.STDOUT))
with open(f"{tools}/{job}.pids", "w") as pids:
    print(*(child.pid for child in children), file=pids)
is_now("RUNNING")
failed = any([child.wait() for child in children])
is_now("FAILED" if failed else "COMPLETED")
sys.exit(failed)
"""
SCANCEL = """#!{python}
import os, signal, sys
tools = os.path.dirname(__file__)
options, jobs = [[a for a in sys.argv[1:] if a.startswith("--") == its] for its in (True, False)]
with open(f"{tools}/scancel.log", "a") as log:
    print(*options, *jobs, file=log)
number = signal.SIGINT if "--signal=INT" in options else signal.SIGKILL
asked = [o.partition("=")[2] for o in options if o.startswith("--state=")] or ["RUNNING", "PENDING"]
for job in jobs:
    if open(f"{tools}/{job}.state").read().split()[1] in asked:
        for pid in open(f"{tools}/{job}.pids").read().split():
            os.kill(int(pid), number)
"""
SQUEUE = "#!/bin/sh\ncat $(dirname $0)/*.state\n"


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with sbatch, srun, squeue and scancel; where they are."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (tools / name).write_text(text.replace("{python}", sys.executable))
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return tools


def _launcher(tmp_path: Path, *words: str) -> SlurmLauncher:
    lifecycle.register()
    made = instantiate(composed(*words, f"hydra.sweep.dir={tmp_path / 'sweep'}").hydra.launcher)
    assert isinstance(made, SlurmLauncher)
    return made


def _jobs(tmp_path: Path, *told: str) -> list[Job]:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    jobs = []
    for number, word in enumerate(told):
        folder = tmp_path / f"{number}_run"
        command = (sys.executable, str(script), f"resume={folder}", word)
        environment = {COMMAND_VARIABLE: f"job{number}"}
        jobs.append(Job(number, word, folder, command, environment, prepare=folder.mkdir))
    return jobs


def _run(tmp_path: Path, jobs: list[Job], where: str = "slurm_local", *words: str) -> Recorded:
    told = Recorded(tmp_path, jobs)
    assert run_jobs(jobs, _launcher(tmp_path, f"hydra/launcher={where}", *words).make_executor(), told) == 0
    return told


def test_what_slurm_is_asked_for(tmp_path: Path, slurm: Path) -> None:
    made = _launcher(
        tmp_path,
        *("hydra/launcher=slurm", "hydra.launcher.partition=big", "hydra.launcher.nodes=2"),
        *("hydra.launcher.gpus_per_node=4", "hydra.launcher.timeout_min=90", "hydra.launcher.account=us"),
    )
    executor = made.make_executor()
    assert executor._executor.max_num_timeout == 10
    asked = dict(re.findall(r"#SBATCH --([\w-]+)=(.*)", executor._executor._make_submission_file_text("x", "1")))
    expected = {
        **{"partition": "big", "account": "us", "nodes": "2", "gpus-per-node": "4", "ntasks-per-node": "4"},
        **{"time": "90", "cpus-per-task": "4", "mem": "32GB", "job-name": "fakegan", "signal": "USR2@120"},
    }
    assert {key: asked[key] for key in expected} == expected
    assert asked["output"].startswith(str(tmp_path / "sweep" / ".submitit"))


def test_a_job_has_a_process_for_each_gpu_or_one_without(tmp_path: Path, compose_settings: Compose) -> None:
    """And a job of several processes is one that trains on as many."""
    assert _launcher(tmp_path, "hydra/launcher=slurm_local").tasks_per_node == 1
    assert _launcher(tmp_path, "hydra/launcher=slurm_local", "hydra.launcher.gpus_per_node=3").tasks_per_node == 3
    made = _launcher(tmp_path, "hydra/launcher=slurm_local", "hydra.launcher.tasks_per_node=2")
    assert [made._gpus(compose_settings(word).trainer) for word in ("trainer=ddp_cpu", "trainer=ddp")] == [0, 0]
    with pytest.raises(UsageError, match=r"2 processes, but trainer\.devices=1: add trainer=ddp"):
        made._gpus(compose_settings("trainer=cpu").trainer)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("hydra/launcher=slurm",), r"no SLURM here.*slurm_local"),
        (("hydra/launcher=slurm_local", "hydra.launcher.nodes=2"), r"hydra\.launcher: .*one node"),
    ],
)
def test_what_cannot_be_submitted_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no srun
    with pytest.raises(UsageError, match=sentence):
        _launcher(tmp_path, *words).make_executor()


@pytest.mark.parametrize("where", ["slurm_local", "slurm"])
def test_jobs_run_where_they_are_submitted(tmp_path: Path, slurm: Path, where: str) -> None:
    jobs = _jobs(tmp_path, "finishes", "finishes too")
    assert _run(tmp_path, jobs, where, "hydra.launcher.tasks_per_node=2").states == ["finished", "finished"]
    for job, word in zip(jobs, ("finishes", "finishes too"), strict=True):
        assert {path.name for path in job.folder.glob("rank_*")} == {"rank_0", "rank_1"}
        assert (job.folder / "rank_1").read_text() == "2 1"
        assert f"told {word} job{job.number}" in (job.folder / "log.txt").read_text()


@pytest.mark.parametrize(("where", "state"), [("slurm_local", "FINISHED"), ("slurm", "FAILED")])
def test_a_job_that_fails_shows_why_and_stops_no_other(tmp_path: Path, slurm: Path, where: str, state: str) -> None:
    """A job that dies without a word has the state that submitit or SLURM gives it."""
    told = _run(tmp_path, _jobs(tmp_path, "fails", "finishes", "refuses", "dies"), where)
    assert told.states == ["failed", "finished", "failed", "failed"]
    failed, refused, died = (told.endings[number] for number in (0, 2, 3))
    assert (failed.reason, failed.refused) == ("training diverged", False)
    assert failed.tail[-2:] == ("error: training diverged", "ended with exit code 1")
    assert (refused.reason, refused.refused) == ("data.root holds no store", True)
    assert (died.reason, died.refused) == (f"it has left no result; its state is {state}", False)


def test_a_result_that_comes_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            (tmp_path / "metrics.json").touch()

    monkeypatch.setattr(submitted.time, "sleep", sleep)
    assert not submitted.has_result(tmp_path, looks=1)
    assert submitted.has_result(tmp_path, looks=3)
    assert waits == [0, 0, 1]


def test_what_slurm_refuses_is_one_sentence_and_leaves_no_folder(tmp_path: Path, slurm: Path) -> None:
    (slurm / "sbatch").write_text("#!/bin/sh\necho 'sbatch: error: invalid partition specified: bg' >&2\nexit 1\n")
    begun, new = _jobs(tmp_path, "one", "two")
    begun.folder.mkdir()
    begun = dataclasses.replace(begun, prepare=lambda: None)
    with pytest.raises(UsageError, match=r"^the jobs were not taken .*: invalid partition specified: bg$"):
        _run(tmp_path, [begun, new], "slurm")
    assert begun.folder.is_dir()
    assert not new.folder.exists()


def test_without_a_job_left_nothing_is_submitted(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _run(tmp_path, [])


def test_a_job_that_must_make_room_is_put_into_the_queue_again(tmp_path: Path) -> None:
    (job,) = jobs = _jobs(tmp_path, "waits")
    told = Recorded(tmp_path, jobs)
    asked: list[int] = []

    def going() -> None:
        """Signal the process that runs the job; submitit names its files by the process that watches it."""
        if (job.folder / "begun").exists() and not asked:
            (stored,) = (tmp_path / "sweep" / ".submitit").glob("*_submitted.pkl")
            watcher = stored.name.split("_")[0]
            found = subprocess.run(["pgrep", "-P", watcher], capture_output=True, text=True, check=True)
            asked.append(int(found.stdout.split()[0]))
            os.kill(asked[0], signal.SIGUSR2)

    told.when_going = going
    run_jobs(jobs, _launcher(tmp_path, "hydra/launcher=slurm_local").make_executor(), told)
    assert told.states == ["finished"]
    log = (job.folder / "log.txt").read_text()
    assert "this job is preempted" in log
    assert log.count("told waits job0") == 2


@pytest.mark.parametrize(
    ("where", "word", "signals", "saves"),
    [("slurm_local", "waits", 1, False), ("slurm", "waits", 1, True), ("slurm", "deaf", 2, False)],
)
def test_a_signal_lets_slurms_jobs_save_and_a_second_cancels_them(
    tmp_path: Path, slurm: Path, capsys: pytest.CaptureFixture[str], where: str, word: str, signals: int, saves: bool
) -> None:
    """On this machine, which has no queue, the first one cancels them."""
    (job,) = jobs = _jobs(tmp_path, word)
    told = Recorded(tmp_path, jobs)
    sent: list[float] = []

    def going() -> None:
        due = not sent or time.monotonic() - sent[-1] > 1  # nearer to it, a second one would be the same one
        if (job.folder / "begun").exists() and len(sent) < signals and due:
            sent.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGTERM)

    told.when_going = going
    executor = _launcher(tmp_path, f"hydra/launcher={where}").make_executor()
    assert run_jobs(jobs, executor, told) == signal.SIGTERM
    assert told.states == ["stopped"]
    assert capsys.readouterr().out.count("SIGTERM: the jobs that run save and end") == 1
    assert (job.folder / "saved").exists() == saves
    assert len(sent) == signals


@pytest.mark.slow
def test_a_sweep_by_submitit_ends_in_a_table_and_a_report(tmp_path: Path, store_path: Path) -> None:
    """Two jobs of two processes each, with the numbers that one process has."""
    words = [
        *("-m", "seed=1,2", "pipeline=classify", "data=faces", f"data.root={store_path}", "+debug=fast"),
        f"paths.artifact_dir={tmp_path / 'artifacts'}",
    ]
    processes = ("hydra/launcher=slurm_local", "hydra.launcher.tasks_per_node=2", "trainer=ddp_cpu")
    found: dict[str, list[Any]] = {}
    for name, own in (("cluster", processes), ("here", ("trainer=cpu",))):
        result = run_script("train.py", *words, *own, f"hydra.sweep.dir={tmp_path / name}", cwd=tmp_path)
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("  finished  ") == 2
        assert (tmp_path / name / "report.html").is_file()
        runs = sorted((tmp_path / name).glob("*/metrics.json"))
        found[name] = [json.loads(path.read_text())["objective"] for path in runs]
    assert len(found["cluster"]) == 2
    assert found["cluster"] == pytest.approx(found["here"], abs=0.02)
