"""Where a command is started does not matter: a notebook's variables, a terminal without all letters."""

import io
import os
import subprocess
import sys

import pytest

from fakegan.cli import commands, entry


def _notebook(monkeypatch: pytest.MonkeyPatch) -> io.BytesIO:
    """Whose terminal has ASCII only: what is printed there."""
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, encoding="ascii", write_through=True))
    monkeypatch.setenv("MPLBACKEND", "module://matplotlib_inline.backend_inline")
    return printed


def _told() -> None:
    print(os.environ["MPLBACKEND"], "classify · é \udcff")


def test_a_command_of_fakegan(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = _notebook(monkeypatch)
    commands.run("python -m fakegan.told", lambda words: _told() or 0, [], "nothing is left.")
    assert printed.getvalue() == b"agg classify \\xb7 \\xe9 \\udcff\n"


def test_a_command_of_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = _notebook(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    monkeypatch.setattr(entry, "_shown", lambda *_: "autoencoder · é")
    entry.entry_point("train")(lambda cfg: None)()
    assert printed.getvalue() == b"autoencoder \\xb7 \\xe9\n"
    assert os.environ["MPLBACKEND"] == "agg"


@pytest.mark.slow
def test_lightning_which_imports_matplotlib_is_loaded_in_a_notebooks_process() -> None:
    words = "from fakegan.cli.commands import begin; begin(); import pytorch_lightning"
    inherited = {**os.environ, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    subprocess.run([sys.executable, "-c", f"{words}; import matplotlib.pyplot"], env=inherited, check=True, timeout=300)
