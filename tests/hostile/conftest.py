"""Files from elsewhere that mean harm: none of their code runs, they take no memory, the answer is one sentence."""

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.runs import config_file
from tests.helpers import compose_run

DAMAGED = "is damaged or of another version: "
LONGEST_SENTENCE = 800  # characters, the test's own long paths among them


class Call:
    """Unpickled freely, it is a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture
def run_dir(tmp_path: Path, store_path: Path) -> Path:
    """A run as train.py begins it, without its results."""
    path = tmp_path / "run"
    config_file.write_down(compose_run("data=faces", f"data.root={store_path}", f"paths.run_dir={path}"), path)
    assert config_file.read_run(str(path)).paths.run_dir == path
    return path


def refused(load: Callable[[], Any], file: str, why: str = DAMAGED) -> None:
    """Loading is refused for this reason, in a sentence that names the file and is safe to print."""
    with pytest.raises(FakeganError, match=why) as caught:
        load()
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert file in sentence
    assert len(sentence) < LONGEST_SENTENCE


def put_text(run_dir: Path, text: str, instead_of: str = "") -> None:
    """Add to the config, or replace a part of it."""
    file = run_dir / "config.yaml"
    content = file.read_text()
    assert instead_of in content
    file.write_text(content.replace(instead_of, text, 1) if instead_of else f"{content}{text}\n")


def put_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def put_archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros((3, 64, 64, 3), dtype=np.uint8))


def _header(shape: str, kind: str = "|u1") -> Callable[[Path], Any]:
    """Writes a .npy file whose header says this, and some bytes."""
    line = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(100)
    return lambda path: path.write_bytes(content)


BAD_ARRAYS: dict[str, Callable[[Path], Any]] = {
    "an archive": put_archive,
    "too many": _header("(1000000000, 64, 64, 3)"),
    "more than numbers can say": _header(f"({2**80}, 64, 64, 3)"),
    "of a size that is 0 in 64 bits": _header(f"({2**62}, 64, 64, 3)"),
    "true": _header("(True, 64, 64, 3)"),
    "endless": _header("{("),
    "in itself": _header(f"({'1+' * 4900}1,)"),
    "below nothing": _header(f"({'-' * 9000}1,)"),
    "negative": _header("(-1, 64, 64, 3)"),
    "objects": _header("(1,)", "|O"),
    "a pipe": put_pipe,
}
