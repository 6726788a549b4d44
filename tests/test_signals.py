"""A signal that asks to stop does so, whatever moment it comes at and whatever library is at work then."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fakegan.system.places import PROJECT

CODES = {signal.SIGTERM: 143, signal.SIGINT: 130}
# A module whose import raises a signal where Python lets no exception out, as when an import lets go of its lock.
SWALLOWS = """
import os, signal, weakref
class Lock: pass
lock = Lock()
called_back = weakref.ref(lock, lambda _: signal.raise_signal(signal.{name}))
del lock
"""
# And one that makes another error of it.
MISTAKES = """
import signal
try:
    signal.raise_signal(signal.{name})
except BaseException:
    None._invalidate_flags_cache
"""


def _python(script: str, folder: Path, module: str = "") -> subprocess.CompletedProcess[str]:
    (folder / "library.py").write_text(module)
    heard = (
        "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\nfrom fakegan.system import signals\n"
    )
    environment = os.environ | {"PYTHONPATH": f"{PROJECT}{os.pathsep}{folder}"}
    return subprocess.run(
        [sys.executable, "-c", heard + script], check=False, capture_output=True, text=True, env=environment
    )


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("module", [SWALLOWS, MISTAKES])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("signals.begin()\nwith signals.before_exit(print): import library\nprint('goes on')", True),
        (
            "with signals.stop_over_error(), signals.exit_at_once():\n signal.signal(signal.{name}, signals.stop)\n"
            " import library",
            False,
        ),
        (
            "signals.begin(); signals.raise_from_now_on()\ntry:\n with signals.stop_over_error():\n  import library\n"
            "  signals.raise_if_stopped()\nexcept KeyboardInterrupt: raise SystemExit(130)\nprint('goes on')",
            False,
        ),
    ],
    ids=["while it starts", "while it loads", "later"],
)
def test_no_library_swallows_it(number: signal.Signals, module: str, script: str, said: bool, tmp_path: Path) -> None:
    name = signal.Signals(number).name
    result = _python(script.replace("{name}", name), tmp_path, module.format(name=name))
    assert result.returncode == CODES[number]
    assert result.stdout == (f"{CODES[number]}\n" if said else "")
    assert result.stderr == ""


def test_a_signal_that_a_script_ignores_in_the_background_stays_ignored(tmp_path: Path) -> None:
    script = "signal.signal(signal.SIGINT, signal.SIG_IGN)\nsignals.begin()\nsignal.raise_signal(signal.SIGINT)"
    assert _python(script, tmp_path).returncode == 0


def test_what_python_cannot_raise_and_is_no_stop_is_shown(tmp_path: Path) -> None:
    script = "import weakref\nclass A: pass\na = A(); r = weakref.ref(a, lambda _: 1 / 0); signals.begin(); del a"
    assert "ZeroDivisionError" in _python(script, tmp_path).stderr


def test_at_its_end_a_process_is_not_to_be_stopped(tmp_path: Path) -> None:
    """What torch does as it is unloaded takes seconds, and shows a trace where Ctrl-C comes between."""
    script = (
        "from fakegan.system.processes import ignore_signals_after\nwith ignore_signals_after(): print('done')\n"
        "for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1): signal.raise_signal(number)"
    )
    done = _python(script, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


HEARD = "from fakegan.system import signals; signals.begin(); print('heard', flush=True)\n"
TRAIN = "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"


class _Started:
    """A run without end, in a process of its own."""

    def __init__(self, folder: Path, store_path: Path) -> None:
        self.run_dir, self.log = folder / "run", folder / "log.txt"
        words = ["pipeline=classify", "data=faces", f"data.root={store_path}", "+debug=fast", "trainer=cpu"]
        words += [f"hydra.run.dir={self.run_dir}", "callbacks.early_stopping.patience=99999"]
        words += ["budget.classifier={max_epochs: 4000, batch_size: 8}", f"paths.artifact_dir={folder}"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HEARD + TRAIN, str(PROJECT / "train.py"), *words],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROJECT)},
            )

    def epoch(self) -> int:
        """The last that it has told of; 0: none."""
        told = re.findall(r"epoch (\d+)/", self.log.read_text())
        return int(told[-1]) if told else 0

    def code(self) -> int:
        """Its exit code; -1 where it goes on training, however slow the machine: then it has not heard."""
        before = self.epoch()
        while self.process.poll() is None:
            if self.epoch() > before + 1000:
                self.process.kill()
                self.process.wait()
                return -1
            time.sleep(0.05)
        return self.process.returncode


@pytest.mark.slow
@pytest.mark.parametrize("number", CODES)
def test_a_signal_of_the_first_six_seconds_stops_a_run(
    number: signal.Signals, tmp_path: Path, store_path: Path
) -> None:
    draw = random.Random(int(number))
    for i in range(10):
        (tmp_path / str(i)).mkdir()
        started = _Started(tmp_path / str(i), store_path)
        moment = draw.uniform(0, 6)
        time.sleep(moment)
        started.process.send_signal(number)
        code, said = started.code(), started.log.read_text()
        if "heard" not in said:  # Python itself was starting
            assert code in {CODES[number], -number}, (moment, said)
            continue
        assert code == CODES[number], (moment, said)
        assert "Traceback" not in said, moment
        assert "Exception ignored" not in said, moment
        left = list(started.run_dir.glob("*"))
        assert not left or started.run_dir / "config.yaml" in left, moment
        assert ("resume with" in said) == bool(left), (moment, said)
