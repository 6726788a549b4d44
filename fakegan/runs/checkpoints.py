"""Checkpoint files: written so that a kill loses nothing, read so that no file can run code.

Every file carries a stamp (format, label convention), and a mismatch is an error before any number is made.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import re
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any

import torch

from fakegan.errors import FakeganError
from fakegan.runs.stamp import STAMP, refuse_other_stamp, stamp
from fakegan.system.files import replacing

_ARCHIVE = b"PK\x03\x04"  # the first bytes of what torch.save writes
# What the limits below leave room for: the largest checkpoint of the shipped settings has some 100 MB in 150 members,
# 21 kB of them pickled. A wider or deeper net may have a hundred times as much.
_MAX_BYTES = 16 * 2**30
_MAX_MEMBERS = 20_000
_MAX_PICKLE_BYTES = 4 * 2**20
# All that a pickle of tensors, numbers, texts, lists and dicts names. torch's restricted unpickler knows more, some of
# which takes any amount of memory in a few bytes: `bytearray`, `torch.Tensor`.
_PICKLED_NAMES = re.compile(r"collections OrderedDict|torch \w+Storage|torch\._utils _rebuild_tensor_v2")
_BY_NAME = {"GLOBAL", "INST", "STACK_GLOBAL"}  # the last takes the name from elsewhere, and is refused for that


def save_checkpoint(content: dict[str, Any], path: Path) -> None:
    """Write `content`, stamped; it takes the file's place when it is on the disk.

    Its tensors are written in planes, whatever their memory layout on the device that trains.

    Raises:
        FakeganError: the disk is full or the folder cannot be written; an earlier file is left as it was.
    """
    with _building(path) as building, building.open("wb") as file:
        torch.save({**content, STAMP: stamp()}, file, _PICKLES)


def name_checkpoint(written: Path, path: Path) -> None:
    """Give a checkpoint that is on the disk a second name beside its own, in the place of the file that has it.

    On a file system without hard links it is a copy.

    Raises:
        FakeganError: as in `save_checkpoint`.
    """
    with _building(path) as building:
        try:
            os.link(written, building)
        except OSError:
            shutil.copyfile(written, building)


@contextmanager
def _building(path: Path) -> Iterator[Path]:
    """Yield where a checkpoint is built; the disk's errors become a sentence."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, durable=True) as building:
            yield building
    except (OSError, RuntimeError) as error:  # torch's zip writer turns a full disk into a RuntimeError
        raise FakeganError(
            f"{path} could not be written ({error}); free some space or choose another folder"
        ) from error


class _InPlanes(pickle.Pickler):
    """Writes tensors whose channels lie last in planes: the file is the same whatever device has trained."""

    def reducer_override(self, obj: Any) -> Any:
        """How to write an object; NotImplemented: as ever."""
        lies_last = type(obj) is torch.Tensor and obj.dim() == 4 and not obj.is_contiguous()
        if lies_last and obj.is_contiguous(memory_format=torch.channels_last):
            return obj.contiguous().__reduce_ex__(2)
        return NotImplemented


_PICKLES: Any = SimpleNamespace(__name__=__name__, Pickler=_InPlanes)  # for torch.save, in place of a module


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. No file can run code, or take more memory than it is large.

    Raises:
        FakeganError: no such file, a URL, damaged, not FakeGAN's, of another format or label convention.
    """
    if re.match(r"[\w+.-]{2,}:/", str(path)):  # Path folds "//" into "/"
        raise FakeganError(f"{path} is a URL: download the checkpoint first and name the file")
    if not path.is_file():  # a folder, a pipe, a device or a link to itself is none
        raise FakeganError(f"there is no checkpoint at {path}")
    try:
        with path.open("rb") as file:
            _refuse_archive(file)
            file.seek(0)
            content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            _refuse_large_tensors(content, os.fstat(file.fileno()).st_size)
    except PermissionError as error:
        raise FakeganError(f"{path} cannot be read ({error.strerror}): change its permissions") from error
    except Exception as error:  # damage surfaces as anything, IndexError in the unpickler among it
        why = f" ({error})" if isinstance(error, _Refused) else ""
        raise FakeganError(
            f"{path} is damaged or not a FakeGAN checkpoint{why}: name another, or train again"
        ) from error
    refuse_other_stamp(content.get(STAMP) if isinstance(content, dict) else None, path)
    return content


def load_weights(path: Path) -> dict[str, torch.Tensor]:
    """A state dict as torch.save or torchvision wrote it, on the CPU; the file can run no code.

    Files of torch before 1.6, some of torchvision's among them, are no archives: these are unpickled by torch alone.

    Raises:
        FakeganError: damaged, no state dict, or weights that are infinite or no numbers.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_ARCHIVE)) == _ARCHIVE:
                _refuse_archive(file)
            file.seek(0)
            found = torch.load(file, map_location="cpu", weights_only=True)
            _refuse_large_tensors(found, os.fstat(file.fileno()).st_size)
    except Exception as error:  # damage surfaces as anything
        raise FakeganError(f"{path} is damaged or holds more than weights: save a state dict by torch.save") from error
    pairs = list(found.items()) if isinstance(found, dict) else []
    if not pairs or not all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in pairs):
        raise FakeganError(f"{path} is no state dict: save NET.state_dict() by torch.save")
    for name, value in pairs:
        if not value.isfinite().all():
            raise FakeganError(f"{path} holds values that are no numbers, in {name}: name another file")
    return dict(pairs)


class _Refused(Exception):
    """Why a file is no checkpoint of FakeGAN's."""


def _refuse_archive(file: IO[bytes]) -> None:
    """Refuse an archive that torch.save would not write, before anything of it is unpacked or unpickled.

    Raises:
        _Refused: no archive, an archive that unpacks to more than the file, or a pickle that names more than data.
        zipfile.BadZipFile, ValueError, ...: damaged.
    """
    size = file.seek(0, os.SEEK_END)
    if size > _MAX_BYTES:
        raise _Refused(f"it is larger than {_MAX_BYTES // 2**30} GiB")
    file.seek(0)
    if file.read(len(_ARCHIVE)) != _ARCHIVE:  # torch would take it for its old format, a plain pickle
        raise _Refused("it is no archive of torch.save")
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if _directory_offset(file, size) != archive.start_dir:
            raise _Refused("its end is not an archive's")
        if len(members) > _MAX_MEMBERS or sum(member.file_size for member in members) > size:
            raise _Refused("it would unpack to more than the file holds")
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise _Refused("it is compressed")
        pickles = [member for member in members if member.filename.lower().endswith("/data.pkl")]  # torch folds case
        if len(pickles) != 1 or pickles[0].file_size > _MAX_PICKLE_BYTES:
            raise _Refused("it does not hold one pickle of usual size")
        for operation, argument, _ in pickletools.genops(archive.read(pickles[0])):
            if operation.name in _BY_NAME and not _PICKLED_NAMES.fullmatch(str(argument)):
                raise _Refused(f"it names {str(argument)[:80]!r}, which is no data")


def _directory_offset(file: IO[bytes], size: int) -> int | None:
    """The offset of the archive's directory by its last records; None where they do not stand at the very end.

    Python looks for the directory before those records and torch where they say: of an archive in which the two
    differ, Python would check one content and torch load another.
    """
    end_bytes, locator_bytes, zip64_end_bytes = 22, 20, 56  # of the last record, and of the two of a zip64 before it
    file.seek(max(size - end_bytes - locator_bytes - zip64_end_bytes, 0))
    tail = file.read()
    end, locator = tail[-end_bytes:], tail[-end_bytes - locator_bytes : -end_bytes]
    if not end.startswith(b"PK\x05\x06"):
        return None
    if not locator.startswith(b"PK\x06\x07"):
        return int.from_bytes(end[16:20], "little")
    stands_before = int.from_bytes(locator[8:16], "little") == size - len(tail) and tail.startswith(b"PK\x06\x06")
    return int.from_bytes(tail[48:56], "little") if stands_before else None


def _refuse_large_tensors(content: Any, size: int) -> None:
    """Raise _Refused for a tensor that is larger than its part of the file, and for tensors larger than the file.

    A stride of 0 would make a million million numbers of one.
    """
    ahead, met = [content], set()
    stored: dict[int, int] = {}  # bytes, by where they lie
    while ahead:
        value = ahead.pop()
        if id(value) in met:  # the value is there twice, or holds itself
            continue
        met.add(id(value))
        if isinstance(value, torch.Tensor):
            storage = value.untyped_storage()
            stored[storage.data_ptr()] = storage.nbytes()
            if value.numel() * value.element_size() > storage.nbytes():
                raise _Refused("a tensor is larger than what the file holds of it")
        elif isinstance(value, dict):
            ahead += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            ahead += value
    if sum(stored.values()) > size:
        raise _Refused("its tensors are larger than the file")
