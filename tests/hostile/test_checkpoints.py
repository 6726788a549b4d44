"""Checkpoints from elsewhere: pickles, archives, tensors, stamps."""

import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fakegan.runs import checkpoints, stamp
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from tests.hostile.conftest import Call, refused


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "x.ckpt"
    save_checkpoint({"weights": {"w": torch.arange(3.0)}, "n": 2}, path)
    return path


def refuse_checkpoint(path: Path, why: str) -> None:
    refused(lambda: load_checkpoint(path), path.name, why)


def members(path: Path) -> tuple[str, dict[str, bytes]]:
    """The folder within an archive, and its members."""
    with zipfile.ZipFile(path) as archive:
        content = {member.filename: archive.read(member) for member in archive.infolist()}
    return next(iter(content)).split("/")[0], content


def pack(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, member in content.items():
            archive.writestr(name, member)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("save", "why"),
    [
        (lambda call, path: path.write_bytes(pickle.dumps(call)), "no archive of torch.save"),
        (lambda call, path: torch.save(call, path, _use_new_zipfile_serialization=False), "no archive of torch.save"),
        (lambda call, path: torch.save({"x": call, "fakegan": stamp.stamp()}, path), "posix mkdir"),
    ],
)
def test_a_pickle_that_calls_runs_nothing(
    tmp_path: Path, marker: Path, save: Callable[[Any, Path], None], why: str
) -> None:
    save(Call(os.mkdir, str(marker)), tmp_path / "x.ckpt")
    refuse_checkpoint(tmp_path / "x.ckpt", why)


def test_torch_would_refuse_a_call_that_the_check_of_names_missed(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save({"x": Call(os.mkdir, str(marker)), "fakegan": stamp.stamp()}, tmp_path / "x.ckpt")
    monkeypatch.setattr(checkpoints, "_refuse_archive", lambda file: None)
    refuse_checkpoint(tmp_path / "x.ckpt", "damaged or not a FakeGAN checkpoint: name")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_few_bytes_that_ask_for_a_million_million_are_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"x": Call(bytearray, 10**12), "fakegan": stamp.stamp()}, path, pickle_protocol=protocol)
    refuse_checkpoint(path, "which is no data")


def test_a_compressed_archive_is_refused_and_a_bomb_is_not_unpacked(checkpoint: Path) -> None:
    _, content = members(checkpoint)
    pack(checkpoint, content)
    assert load_checkpoint(checkpoint)["n"] == 2  # it is the compression that counts
    pack(checkpoint, content, zipfile.ZIP_DEFLATED)
    refuse_checkpoint(checkpoint, "it is compressed")
    save_checkpoint({"weights": torch.zeros(10_000_000)}, checkpoint)
    pack(checkpoint, members(checkpoint)[1], zipfile.ZIP_DEFLATED)
    assert checkpoint.stat().st_size < 100_000
    refuse_checkpoint(checkpoint, "unpack to more than the file holds")


def test_an_archive_of_two_contents_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Python reads the directory before the end record, torch the directory that the record names."""
    root, content = members(checkpoint)
    other = pack(tmp_path / "other", {**content, f"{root}/data.pkl": pickle.dumps({"other": 1}, 2)})
    harmless = pack(tmp_path / "harmless", content)
    *_, size, offset, _ = struct.unpack("<4s4H2LH", harmless[-22:])
    ends = harmless[offset : offset + size], harmless[-22:]
    checkpoint.write_bytes(other[:offset] + harmless[:offset] + b"".join(ends))
    with zipfile.ZipFile(checkpoint) as archive:
        assert archive.start_dir != offset
    refuse_checkpoint(checkpoint, "its end is not an archive's")


@pytest.mark.parametrize("names", [(), ("data.pkl", "DATA.PKL")])
def test_an_archive_holds_one_pickle(checkpoint: Path, names: tuple[str, ...]) -> None:
    root, content = members(checkpoint)
    pickled = content.pop(f"{root}/data.pkl")
    pack(checkpoint, content | {f"{root}/{name}": pickled for name in names})
    refuse_checkpoint(checkpoint, "one pickle")


@pytest.mark.parametrize(
    ("limit", "why"),
    [("_MAX_BYTES", "larger than"), ("_MAX_MEMBERS", "unpack to more"), ("_MAX_PICKLE_BYTES", "of usual size")],
)
def test_sizes_that_no_network_needs_are_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, limit: str, why: str
) -> None:
    monkeypatch.setattr(checkpoints, limit, 3)
    refuse_checkpoint(checkpoint, why)


def test_tensors_hold_no_more_than_the_file(checkpoint: Path) -> None:
    """Neither a number repeated without end, nor more numbers than there are bytes; shared numbers count once."""
    save_checkpoint({"weights": {"w": [torch.zeros(1).expand(10**12)]}}, checkpoint)
    assert checkpoint.stat().st_size < 10_000
    refuse_checkpoint(checkpoint, "a tensor is larger than what the file holds")
    tensor = torch.zeros(100)
    checkpoints._refuse_large_tensors({"a": tensor, "b": [tensor[:50], tensor.view(10, 10)]}, 400)
    with pytest.raises(Exception, match="larger than the file"):
        checkpoints._refuse_large_tensors({"a": tensor, "b": torch.zeros(1)}, 400)


def test_a_list_in_itself_does_not_hang(checkpoint: Path) -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    save_checkpoint({"endless": endless}, checkpoint)
    found = load_checkpoint(checkpoint)["endless"]
    assert found[1] is found


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path), lambda path: path.symlink_to("/dev/zero")]
)
def test_a_path_that_is_no_file_is_no_checkpoint_and_nothing_waits(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "x.ckpt")
    refuse_checkpoint(tmp_path / "x.ckpt", "there is no checkpoint at")


def test_a_stamp_from_elsewhere_cannot_write_to_the_terminal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "stamp", lambda: {"format": "\x1b]0;owned\x07" * 1000})
    save_checkpoint({"n": 1}, checkpoint)
    refuse_checkpoint(checkpoint, "has checkpoint format")
