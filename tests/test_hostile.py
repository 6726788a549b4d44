"""Files from elsewhere that mean harm: none of their code runs, they take no memory, the answer is one sentence."""

import csv
import io
import json
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from fakegan.data import sources
from fakegan.data import store as store_module
from fakegan.data.batches import flips
from fakegan.data.familiarity import Familiarity
from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.sheets import png
from fakegan.data.sources import open_container
from fakegan.data.store import COLUMNS, FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.detector import Detector, NetSpec
from fakegan.errors import FakeganError, UsageError
from fakegan.labels import FAKE, REAL
from fakegan.nets.autogan import AutoGAN
from fakegan.nets.simple_cnn import SimpleCNN
from fakegan.reports import reconstruction as report_reconstruction
from fakegan.runs import checkpoints, ledger, results
from fakegan.runs import compose as composing
from fakegan.runs import config_file as runs
from fakegan.runs.artifacts import Reconstructions
from fakegan.runs.checkpoints import load_checkpoint, save_checkpoint
from fakegan.runs.folder import BEST_FILE, DETECTOR_FILE, STATUS_FILE
from fakegan.runs.results import FaceScores, read_metrics, read_scores, write_scores
from fakegan.runs.settings import RunSettings
from fakegan.runs.status import Status, read_status, write_status
from fakegan.stages.reconstruct import load_autoencoder
from fakegan.sweep import command as words
from fakegan.sweep import table
from fakegan.sweep.search import closing_words
from fakegan.system.places import PROJECT
from tests.conftest import Compose
from tests.helpers import smooth_faces

pytestmark = pytest.mark.timeout(900)  # a guard that is missing shows as a test that never ends
LONGEST_SENTENCE = 800  # characters, the test's own long paths among them


class Call:
    """Unpickled freely, it is a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A folder that hostile content tries to make; none has, when the test is over."""
    path = tmp_path / "owned"
    yield path
    assert not path.exists()


def refused(load: Callable[[], Any], file: str, why: str) -> None:
    """Loading is refused for this reason, in a sentence that names the file and is safe to print."""
    with pytest.raises(FakeganError, match=why) as caught:
        load()
    sentence = str(caught.value)
    assert sentence.isprintable()
    assert file in sentence
    assert len(sentence) < LONGEST_SENTENCE


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "x.ckpt"
    save_checkpoint({"weights": {"w": torch.arange(3.0)}, "n": 2}, path)
    return path


def packed(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these members, written to `path`."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path.read_bytes()


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {member.filename: archive.read(member) for member in archive.infolist()}


def refuse_checkpoint(path: Path, why: str) -> None:
    refused(lambda: load_checkpoint(path), path.name, why)


def test_a_plain_pickle_runs_nothing(tmp_path: Path, marker: Path) -> None:
    path = tmp_path / "x.ckpt"
    path.write_bytes(pickle.dumps(Call(os.mkdir, str(marker))))
    refuse_checkpoint(path, "no archive of torch.save")


def test_torchs_old_format_is_refused_too(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    content = {"weights": torch.arange(3.0), "fakegan": checkpoints.stamp()}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    refuse_checkpoint(path, "no archive of torch.save")


@pytest.mark.parametrize("names_are_checked", [True, False])
def test_an_archive_whose_pickle_calls_runs_nothing(
    tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, names_are_checked: bool
) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"x": Call(os.mkdir, str(marker)), "fakegan": checkpoints.stamp()}, path)
    if not names_are_checked:
        monkeypatch.setattr(checkpoints, "_PICKLED_NAMES", re.compile(".*"))
    refuse_checkpoint(path, "posix mkdir" if names_are_checked else "damaged or not a FakeGAN checkpoint: name")


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_few_bytes_that_ask_for_a_million_million_are_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"x": Call(bytearray, 10**12), "fakegan": checkpoints.stamp()}, path, pickle_protocol=protocol)
    refuse_checkpoint(path, "which is no data")


def test_a_compressed_archive_is_refused(checkpoint: Path) -> None:
    content = members(checkpoint)
    packed(checkpoint, content)
    assert load_checkpoint(checkpoint)["n"] == 2  # it is the compression that counts
    packed(checkpoint, content, zipfile.ZIP_DEFLATED)
    refuse_checkpoint(checkpoint, "it is compressed")


def test_a_bomb_is_refused_before_it_is_unpacked(checkpoint: Path) -> None:
    save_checkpoint({"weights": torch.zeros(10_000_000)}, checkpoint)
    packed(checkpoint, members(checkpoint), zipfile.ZIP_DEFLATED)
    assert checkpoint.stat().st_size < 100_000
    refuse_checkpoint(checkpoint, "unpack to more than the file holds")


def test_an_archive_of_two_contents_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    """Python reads the directory before the end record, torch the one that the record names."""
    content = members(checkpoint)
    root = next(iter(content)).split("/")[0]
    other = packed(tmp_path / "other", {**content, f"{root}/data.pkl": pickle.dumps({"other": 1}, 2)})
    harmless = packed(tmp_path / "harmless", content)
    *_, size, offset, _ = struct.unpack("<4s4H2LH", harmless[-22:])
    ends = harmless[offset : offset + size], harmless[-22:]
    checkpoint.write_bytes(other[:offset] + harmless[:offset] + b"".join(ends))
    with zipfile.ZipFile(checkpoint) as archive:
        assert archive.start_dir != offset
    refuse_checkpoint(checkpoint, "its end is not an archive's")


@pytest.mark.parametrize("names", [(), ("data.pkl", "DATA.PKL")])
def test_an_archive_holds_one_pickle(checkpoint: Path, names: tuple[str, ...]) -> None:
    content = members(checkpoint)
    root = next(iter(content)).split("/")[0]
    pickled = content.pop(f"{root}/data.pkl")
    packed(checkpoint, content | {f"{root}/{name}": pickled for name in names})
    refuse_checkpoint(checkpoint, "one pickle")


@pytest.mark.parametrize(
    ("limit", "why"),
    [("_MAX_BYTES", "larger than"), ("_MAX_MEMBERS", "unpack to more"), ("_MAX_PICKLE_BYTES", "of usual size")],
)
def test_what_no_network_needs_is_too_large(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, limit: str, why: str
) -> None:
    monkeypatch.setattr(checkpoints, limit, 3)
    refuse_checkpoint(checkpoint, why)


def test_a_number_repeated_without_end_is_refused(checkpoint: Path) -> None:
    save_checkpoint({"weights": {"w": [torch.zeros(1).expand(10**12)]}}, checkpoint)
    assert checkpoint.stat().st_size < 10_000
    refuse_checkpoint(checkpoint, "a tensor is larger than what the file holds")


def test_tensors_hold_no_more_than_the_file() -> None:
    tensor = torch.zeros(100)
    checkpoints._refuse_large_tensors({"a": tensor, "b": [tensor[:50], tensor.view(10, 10)]}, 400)  # shared
    with pytest.raises(Exception, match="larger than the file"):
        checkpoints._refuse_large_tensors({"a": tensor, "b": torch.zeros(1)}, 400)


def test_a_list_in_itself_does_not_hang(checkpoint: Path) -> None:
    endless: list[Any] = [1]
    endless.append(endless)
    save_checkpoint({"endless": endless}, checkpoint)
    found = load_checkpoint(checkpoint)["endless"]
    assert found[1] is found


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device"])
def test_what_is_no_file_is_no_checkpoint_and_nothing_waits(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.ckpt"
    make: dict[str, Callable[[], Any]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "loop": lambda: path.symlink_to(path),
        "device": lambda: path.symlink_to("/dev/zero"),
    }
    make[kind]()
    refuse_checkpoint(path, "there is no checkpoint at")


def test_a_stamp_from_elsewhere_cannot_write_to_the_terminal(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "stamp", lambda: {"format": "\x1b]0;owned\x07" * 1000})
    save_checkpoint({"n": 1}, checkpoint)
    refuse_checkpoint(checkpoint, "has checkpoint format")


# Stores


@pytest.fixture
def small_store(tmp_path: Path) -> Path:
    path = tmp_path / "faces"
    with StoreWriter(path, Geometry()) as writer:
        for i, pixels in enumerate(smooth_faces(4, np.random.default_rng(1))):
            name, label = (("camera", REAL), ("gan", FAKE))[i % 2]
            writer.append(pixels, Row.of(face_from_pixels(pixels), file=f"{name}/{i}", label=label, source=name))
    FaceStore.open(path).verify()
    return path


def header(store: Path, shape: tuple[int, ...], kind: str = "|u1") -> None:
    """Give images.npy another header, and the manifest the number of images that it claims."""
    written = io.BytesIO()
    np.lib.format.write_array_header_1_0(written, {"descr": kind, "fortran_order": False, "shape": shape})
    images = (store / "images.npy").read_bytes()
    (store / "images.npy").write_bytes(written.getvalue() + images[128:])
    manifest(store, count=shape[0])


def manifest(store: Path, **values: Any) -> None:
    content = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps(content | values))


def cell(store: Path, column: str, value: str) -> None:
    """Another value in the first row of faces.csv."""
    with (store / "faces.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    rows[1][COLUMNS.index(column)] = value
    with (store / "faces.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def archive_of_arrays(store: Path) -> None:
    with (store / "images.npy").open("wb") as file:
        np.savez(file, images=np.zeros((4, 64, 64, 3), dtype=np.uint8))


def pipe(store: Path) -> None:
    (store / "images.npy").unlink()
    os.mkfifo(store / "images.npy")


@pytest.mark.parametrize("in_an_array", [True, False])
def test_a_store_with_a_pickle_for_images_runs_nothing(small_store: Path, marker: Path, in_an_array: bool) -> None:
    call = Call(os.mkdir, str(marker))
    with (small_store / "images.npy").open("wb") as file:
        if in_an_array:
            np.save(file, np.array([call], dtype=object), allow_pickle=True)
        else:
            pickle.dump(call, file)
    refused(lambda: FaceStore.open(small_store), "images.npy", "not a whole array")


@pytest.mark.parametrize(
    ("harm", "file", "why"),
    [
        (archive_of_arrays, "images.npy", "not a whole array"),
        (lambda store: header(store, (2**62, 64, 64, 3)), "images.npy", "not a whole array"),
        (lambda store: header(store, (2**80, 64, 64, 3)), "images.npy", "not a whole array"),
        (lambda store: header(store, (-1, 64, 64, 3)), "images.npy", "not a whole array"),
        (lambda store: header(store, (10**9, 64, 64, 3)), "images.npy", "not a whole array"),
        (lambda store: header(store, (4, 64, 64, 3), kind="|O"), "images.npy", "not a whole array"),
        (pipe, "images.npy", "missing"),
        (lambda store: (store / "manifest.json").write_text("[" * 200_000), "manifest.json", "not a store's manifest"),
        (lambda store: manifest(store, padding="x" * 2**24), "manifest.json", "too large"),
        (lambda store: manifest(store, format_version="\x1b[2J" * 999), "manifest.json", "is of format version"),
        (lambda store: manifest(store, label_convention="\x1b[2J" * 999), "manifest.json", "says labels mean"),
        (lambda store: manifest(store, count="\x1b[2J" * 999), "images.npy", "the manifest says"),
        (lambda store: manifest(store, fingerprint="\x1b[2J"), "manifest.json", "no fingerprint"),
        (lambda store: manifest(store, geometry={"size": "64"}), "manifest.json", "geometry"),
        (
            lambda store: manifest(store, geometry={"size": 64, "crop": True, "max_megapixels": "\x1b[2J"}),
            "manifest.json",
            "geometry",
        ),
        (lambda store: manifest(store, sources=["camera"]), "manifest.json", "sources are no table"),
        (lambda store: manifest(store, warnings=[{}]), "manifest.json", "no list of sentences"),
        (lambda store: cell(store, "file", "x" * 2**17), "faces.csv", "too large a table for 4 images"),
        (lambda store: cell(store, "sha256", "\x1b[2J" * 99), "faces.csv", "a sha256 is"),
        (lambda store: cell(store, "label", "\x1b[2J" * 99), "faces.csv", "a label is"),
        (lambda store: cell(store, "split", "\x1b[2J" * 99), "faces.csv", "a split is"),
        (lambda store: cell(store, "width", "9" * 40), "faces.csv", "a width is"),
        (lambda store: cell(store, "height", "0"), "faces.csv", "a height is"),
    ],
)
def test_a_store_that_lies_is_one_sentence(small_store: Path, harm: Callable[[Path], Any], file: str, why: str) -> None:
    harm(small_store)
    refused(lambda: FaceStore.open(small_store), file, why)


def test_one_long_name_does_not_take_memory_for_every_row(small_store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "_MAX_COLUMN_BYTES", 4 * 4 * 99)
    cell(small_store, "file", "x" * 99)
    assert len(FaceStore.open(small_store)) == 4
    cell(small_store, "file", "x" * 100)
    refused(lambda: FaceStore.open(small_store), "faces.csv", "a cell has 100 characters")


# Configs


@pytest.fixture
def run_dir(tmp_path: Path, store_path: Path) -> Path:
    """A run as train.py begins it, but for its numbers."""
    composing.register_resolvers()
    path = tmp_path / "run"
    words = ["data=faces", f"data.root={store_path}", f"paths.run_dir={path}"]
    with initialize_config_dir(str(composing.CONF), version_base="1.3"):
        runs.write_down(composing.settings_of(RunSettings, compose("train", words)), path)
    assert read(path).paths.run_dir == path
    return path


def read(run_dir: Path) -> RunSettings:
    return runs.read_run(str(run_dir))


def with_text(run_dir: Path, text: str, instead_of: str = "") -> None:
    """Add to the config, or replace a part of it."""
    file = run_dir / "config.yaml"
    content = file.read_text()
    assert instead_of in content
    file.write_text(content.replace(instead_of, text, 1) if instead_of else f"{content}{text}\n")


@pytest.mark.parametrize(
    ("text", "instead_of", "why"),
    [
        ("hostile: {{_target_: os.mkdir, path: {marker}}}", "", r"hostile\._target_ is not a config key"),
        ("paths:\n  _target_: os.mkdir", "paths:", "paths._target_ is not a config key"),
        ("hostile: !!python/object/apply:os.mkdir [{marker}]", "", "has a tag in line"),
        ("hostile: !!python/name:os.mkdir", "", "has a tag in line"),
    ],
)
def test_a_config_that_names_code_runs_nothing(
    run_dir: Path, marker: Path, text: str, instead_of: str, why: str
) -> None:
    with_text(run_dir, text.format(marker=marker), instead_of)
    refused(lambda: read(run_dir), "config.yaml", why)


@pytest.mark.parametrize("text", ["${CALL}", r'"\x24{CALL}"', "a${CALL}"])
@pytest.mark.parametrize("call", ["touch:", "oc.env:FAKEGAN_SECRET", "oc.decode:${oc.env:FAKEGAN_SECRET}", "seed"])
def test_a_config_resolves_nothing(
    run_dir: Path, marker: Path, monkeypatch: pytest.MonkeyPatch, text: str, call: str
) -> None:
    monkeypatch.setenv("FAKEGAN_SECRET", "autogan4")
    OmegaConf.register_new_resolver("touch", lambda: marker.mkdir() or "autogan4", replace=True)
    with_text(run_dir, f"name: {text.replace('CALL', call)}", "name: autogan4")
    refused(lambda: read(run_dir), "config.yaml", "has an interpolation in line")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\nd: [*c, *c]", "has an alias in line"),
        ("a: &a [*a]", "has an alias in line"),
        (f"# {'x' * 100_000}", "has more than 100 kB"),
        (f"a: {'[' * 50_000}", "has too many brackets in line"),
        ("? " * 40_000, "has too many brackets in line"),
        ('"\\e]0;owned\\a": 1', "has a control character in line"),
        (f"a: {'9' * 5000}", "damaged: Exceeds the limit"),
        (f"? {'x' * 50_000}\n: 1", "xxx; it may be of another version"),
        ("\x1b[2J: 1", "special characters are not allowed"),
    ],
)
def test_a_config_that_would_take_memory_or_the_terminal_is_one_sentence(run_dir: Path, text: str, why: str) -> None:
    with_text(run_dir, text)
    refused(lambda: read(run_dir), "config.yaml", why)


@pytest.mark.parametrize(
    ("name", "was", "why"),
    [
        ("view: __class__", "view: reconstruction", r"pipeline\.view='__class__' does not exist"),
        ("fakes: os.system", "fakes: generated", r"pipeline\.fakes='os\.system' must be generated or"),
        ("accelerator: tpu", "accelerator: auto", r"trainer\.accelerator='tpu' must be auto or"),
        ("autoencoder_share: 1" + "0" * 400, "autoencoder_share: null", "int too large"),
        ("name: ../../../.ssh/x", "name: autogan4", r"model\.name='\.\./.*must be a short name"),
        ("name: a\\b", "name: alexnet", r"classifier\.name=.*must be a short name"),
        ("name: <script>", "name: recon_classify", r"pipeline\.name='<script>' must be a short name"),
        ("name: " + "x" * 65, "name: quick", r"budget\.name='x*.? must be a short name"),
        ("name: -rf", "name: faces", r"data\.name='-rf' must be a short name"),
        ("name: a\u202eb", "name: faces", r"data\.name=.*must be a short name"),
    ],
)
def test_names_in_a_config_choose_what_is_here_or_are_harmless(run_dir: Path, name: str, was: str, why: str) -> None:
    with_text(run_dir, name, was)
    refused(lambda: read(run_dir), "config.yaml", why)


@pytest.mark.parametrize("name", ["marked_classify", "mine + 4", "gän-1.5", "x" * 64])
def test_peoples_own_names_go_on_working(compose_settings: Compose, name: str) -> None:
    assert compose_settings(f"pipeline.name='{name}'").pipeline.name == name


@pytest.mark.slow
@pytest.mark.parametrize("command", ["evaluate.py run={run}", "train.py resume={run}", "evaluate.py runs=[{run}]"])
def test_a_command_on_a_hostile_run_says_so_and_does_nothing(run_dir: Path, marker: Path, command: str) -> None:
    with_text(run_dir, f"hostile: !!python/object/apply:os.mkdir [{marker}]")
    script, word = command.format(run=run_dir).split()
    words = [sys.executable, str(PROJECT / script), word]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"error: {run_dir / 'config.yaml'} has a tag in line")
    assert [path.name for path in run_dir.iterdir()] == ["config.yaml"]


# What a checkpoint holds, once it is read


NET: dict[str, Any] = {"_target_": "fakegan.nets.simple_cnn.SimpleCNN", "in_channels": 3, "dropout": 0.5}
AUTOGAN: dict[str, Any] = {"_target_": "fakegan.nets.autogan.AutoGAN", "depth": 1, "width": 4, "norm": "none"}


@pytest.fixture
def detector_file(tmp_path: Path) -> Path:
    """A detector of reconstructions, whole."""
    classifier = NetSpec(NET, SimpleCNN(3, 0.5).state_dict())
    sides, rows = np.full(40, 64), np.arange(40)
    familiarity = Familiarity.learn(smooth_faces(40, np.random.default_rng(1)), sides, sides, rows[:20], rows[20:])
    autoencoder = NetSpec(AUTOGAN, AutoGAN(1, 4).state_dict())
    detector = Detector(Geometry(), "reconstruction", classifier, autoencoder, familiarity=familiarity)
    detector.save(tmp_path / DETECTOR_FILE)
    assert Detector.load(tmp_path).view_name == "reconstruction"
    return tmp_path / DETECTOR_FILE


def of_another_version(load: Callable[[], Any], file: str) -> None:
    refused(load, file, "is damaged or of another version: ")


@pytest.mark.parametrize(
    ("keys", "value"),
    [
        (("geometry",), None),
        (("geometry", "size"), 128),
        (("geometry", "crop"), "yes"),
        (("geometry", "path"), "/"),
        (("view",), ["pixels"]),
        (("view",), "stack"),  # nine channels, and the net takes three
        (("classifier",), []),
        (("classifier", "more"), 1),
        (("classifier", "net", "hidden"), 5),
        (("classifier", "net", "in_channels"), -1),
        (("classifier", "net", "in_channels"), 10**12),
        (("classifier", "net", "_partial_"), True),
        (("classifier", "net", "_args_"), 3),
        (("classifier", "net", "_recursive_"), "yes"),
        (("classifier", "weights"), {}),
        (("classifier", "weights"), 5),
        (("classifier", "weights", "head.2.bias"), torch.zeros(3)),
        (("classifier", "weights", "head.2.bias"), "zero"),
        (("classifier", "weights", "head.2.bias"), torch.full((2,), torch.nan)),
        (("autoencoder",), None),
        (("autoencoder", "net", "depth"), 0),
        (("autoencoder", "net", "width"), "4"),
        (("autoencoder", "net", "width"), 10**12),
        (("autoencoder", "weights", "decoder.to_rgb.bias"), torch.full((3,), torch.nan)),
        (("temperature",), "hot"),
        (("temperature",), 0.0),
        (("temperature",), 10**400),
        (("threshold",), float("nan")),
        (("band",), [0.5]),
        (("band",), [0.6, 0.4]),
        (("seen",), [1]),
        (("seen",), torch.zeros(5, 32, dtype=torch.uint8)),  # and no labels
        (("seen",), torch.zeros(0, 31, dtype=torch.uint8)),
        (("seen_labels",), torch.zeros(0)),
        (("familiarity",), {}),
        (("familiarity", "aspects"), 1.0),
        (("familiarity", "colours.mean"), torch.zeros(5)),
        (("familiarity", "edges.whitening"), torch.zeros(3, 3)),
    ],
)
def test_a_detector_whose_parts_do_not_fit_is_one_sentence(
    detector_file: Path, keys: tuple[str, ...], value: Any
) -> None:
    content = load_checkpoint(detector_file)
    of_content = content
    for key in keys[:-1]:
        of_content = of_content[key]
    of_content[keys[-1]] = value
    save_checkpoint(content, detector_file)
    of_another_version(lambda: Detector.load(detector_file.parent), DETECTOR_FILE)


def test_a_detector_without_one_of_its_keys_is_one_sentence(detector_file: Path) -> None:
    whole = load_checkpoint(detector_file)
    for key in set(whole) - {"fakegan"}:
        save_checkpoint({k: v for k, v in whole.items() if k != key}, detector_file)
        of_another_version(lambda: Detector.load(detector_file.parent), DETECTOR_FILE)


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"net": AUTOGAN},
        {"net": [], "weights": {}},
        {"net": {**AUTOGAN, "head": "os.system"}, "weights": {}},
        {"net": {**AUTOGAN, "norm": "os.system"}, "weights": {}},
        {"net": AUTOGAN, "weights": {"encoder": torch.zeros(1)}},
        {"net": AUTOGAN, "weights": {k: v * torch.nan for k, v in AutoGAN(1, 4).state_dict().items()}},
    ],
)
def test_an_autoencoder_whose_parts_do_not_fit_is_one_sentence(tmp_path: Path, content: dict[str, Any]) -> None:
    path = tmp_path / "autoencoder.pt"
    save_checkpoint({"net": AUTOGAN, "weights": AutoGAN(1, 4).state_dict()}, path)
    assert not load_autoencoder(path).training
    save_checkpoint(content, path)
    of_another_version(lambda: load_autoencoder(path), path.name)


# Arrays, tables and other small files of a run


def with_header(path: Path, written: str) -> None:
    """A .npy file of this header and some bytes."""
    line = written.encode() + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(line)) + line + bytes(100))


def shape(text: str) -> str:
    return f"{{'descr': '|u1', 'fortran_order': False, 'shape': {text}}}"


def archive(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, images=np.zeros((3, 64, 64, 3), dtype=np.uint8))


def pipe_at(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


HEADERS = {
    "an archive": archive,
    "too many": lambda path: with_header(path, shape("(1000000000, 64, 64, 3)")),
    "more than numbers can say": lambda path: with_header(path, shape(f"({2**80}, 64, 64, 3)")),
    "true": lambda path: with_header(path, shape("(True, 64, 64, 3)")),
    "endless": lambda path: with_header(path, "{("),
    "in itself": lambda path: with_header(path, shape(f"({'1+' * 4900}1,)")),
    "below nothing": lambda path: with_header(path, shape(f"({'-' * 9000}1,)")),
    "objects": lambda path: with_header(path, shape("(1,)").replace("|u1", "|O")),
    "a pipe": pipe_at,
}


@pytest.mark.parametrize("header_of", HEADERS)
@pytest.mark.parametrize("name", ["images.npy", "rows.npy"])
def test_reconstructions_with_a_header_that_lies_are_one_sentence(tmp_path: Path, name: str, header_of: str) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), dtype=np.uint8))
    np.save(tmp_path / "rows.npy", np.array([1, 4, 6]))
    assert len(Reconstructions(tmp_path)) == 3
    HEADERS[header_of](tmp_path / name)
    of_another_version(lambda: Reconstructions(tmp_path), str(tmp_path))


@pytest.mark.parametrize(
    "rows",
    [
        np.array([4, 1, 6]),
        np.array([1, 4, 4]),
        np.array([1.0, 4.0, 6.0]),
        np.array([1, 4, 6], dtype=np.int32),
        np.array([[1], [4], [6]]),
        np.array([1, 4]),
        np.array(1),
    ],
)
def test_the_rows_of_reconstructions_are_sorted_whole_numbers(tmp_path: Path, rows: Any) -> None:
    np.save(tmp_path / "images.npy", np.zeros((3, 64, 64, 3), dtype=np.uint8))
    np.save(tmp_path / "rows.npy", rows)
    of_another_version(lambda: Reconstructions(tmp_path), str(tmp_path))


@pytest.mark.parametrize("header_of", sorted(set(HEADERS) - {"a pipe"}))
def test_an_array_of_pictures_with_a_header_that_lies_is_one_sentence(tmp_path: Path, header_of: str) -> None:
    path = tmp_path / "faces.npy"
    np.save(path, np.zeros((3, 64, 64, 3), dtype=np.uint8))
    assert len(list(open_container(path).entries())) == 3
    HEADERS[header_of](path)
    sources._open_array.cache_clear()
    refused(lambda: open_container(path), path.name, "no readable .npy array")


@pytest.mark.parametrize("text", ["[" * 200_000, "[]", '"text"', "5", "null", "{", "9" * 5000, "\udcff"])
def test_metrics_and_analyses_that_are_no_table_are_one_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"objective": 1}')
    assert read_metrics(path) == {"objective": 1}
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    of_another_version(lambda: read_metrics(path), path.name)


def test_metrics_far_larger_than_any_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    path.write_text('{"n": 1}')
    monkeypatch.setattr(results, "_MAX_JSON_BYTES", 8)
    assert read_metrics(path) == {"n": 1}
    path.write_text('{"n": 12}')
    of_another_version(lambda: read_metrics(path), path.name)


@pytest.mark.parametrize("value", [str(10**30), '"' + "9" * 200_000 + '"', "9" * 5000])
@pytest.mark.parametrize("column", [0, 2, 3])
def test_scores_with_a_cell_that_is_too_large_are_one_sentence(tmp_path: Path, column: int, value: str) -> None:
    path = tmp_path / "scores.csv"
    names = np.array(["a", "b"])
    labels = np.array([0, 1])
    write_scores(path, FaceScores(names, names, labels, names, labels / 2, labels == 1))
    assert len(read_scores(path)) == 2
    cells = ["a", "a", "0", "0.5", "real"]
    cells[column] = value
    path.write_text("\n".join(["file,source,label,score,verdict", ",".join(cells), "b,b,1,0.5,fake"]) + "\n")
    of_another_version(lambda: read_scores(path), path.name)


def test_one_long_name_in_scores_does_not_take_memory_for_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "scores.csv"
    names, labels = np.array(["a" * 50, "b"]), np.array([0, 1])
    write_scores(path, FaceScores(names, names, labels, names, labels / 2, labels == 1))
    monkeypatch.setattr(results, "_MAX_COLUMN_CHARACTERS", 100)
    assert len(read_scores(path)) == 2
    monkeypatch.setattr(results, "_MAX_COLUMN_CHARACTERS", 99)
    of_another_version(lambda: read_scores(path), path.name)


def test_a_ledger_with_a_cell_that_is_too_large_is_one_sentence(tmp_path: Path) -> None:
    ledger.record(tmp_path, 5, "abc")
    assert len(ledger.read_ledger(tmp_path)) == 1
    with (tmp_path / ledger.LEDGER_FILE).open("a") as file:
        file.write(f"{'9' * 200_000},command,5,abc\n")
    of_another_version(lambda: ledger.read_ledger(tmp_path), ledger.LEDGER_FILE)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"stage": "x", "epoch": Infinity, "epochs": 1}'])
def test_a_status_that_is_not_ours_is_none(tmp_path: Path, text: str) -> None:
    write_status(tmp_path, Status("x", 1, 2))
    assert read_status(tmp_path) == Status("x", 1, 2)
    (tmp_path / STATUS_FILE).write_text(text)
    assert read_status(tmp_path) is None


# What a report and a command show of a run from elsewhere


@pytest.fixture
def analysis_picture(tmp_path: Path) -> Path:
    path = tmp_path / "analysis" / "spectra.png"
    path.parent.mkdir()
    path.write_bytes(png(np.zeros((6, 6, 3), dtype=np.uint8)))
    return path


def test_a_picture_of_an_analysis_is_taken_as_it_is(analysis_picture: Path) -> None:
    assert report_reconstruction._picture(analysis_picture) == analysis_picture.read_bytes()


def linked(path: Path) -> Path:
    """Another picture of the user's, by a link."""
    path.symlink_to(path.rename(path.parent.parent / "private.png"))
    return path


def in_a_linked_folder(path: Path) -> Path:
    path.parent.symlink_to(path.parent.rename(path.parent.parent / "private"))
    return path


@pytest.mark.parametrize("link", [linked, in_a_linked_folder])
def test_a_report_follows_no_link_to_a_picture(analysis_picture: Path, link: Callable[[Path], Path]) -> None:
    refused(lambda: report_reconstruction._picture(link(analysis_picture)), "spectra.png", "is a link")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(b"<svg onload='alert(1)'>"),
        lambda path: path.write_bytes(b""),
        pipe_at,
        lambda path: path.rename(path.with_name("a](x).png")),
    ],
)
def test_a_report_shows_pictures_of_an_analysis_only(analysis_picture: Path, change: Callable[[Path], Any]) -> None:
    change(analysis_picture)
    (found,) = analysis_picture.parent.glob("*.png")
    of_another_version(lambda: report_reconstruction._picture(found), found.name)


def test_a_report_shows_no_picture_that_is_far_too_large(
    analysis_picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_reconstruction, "_MAX_PICTURE_BYTES", 10)
    of_another_version(lambda: report_reconstruction._picture(analysis_picture), analysis_picture.name)


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf ~",
        "train.py; rm -rf ~",
        "/tmp/train.py seed=1",
        "train.py 'seed=1",
        "train.py seed=1\nrm -rf ~",
        "train.py seed=\x1b]0;owned\x07",
        "train.py \u202eseed=1",
        "train.py " + "x" * 200_000,
        "",
    ],
)
def test_a_sweeps_command_from_elsewhere_is_not_shown(tmp_path: Path, text: str) -> None:
    (tmp_path / words.COMMAND_FILE).write_text(text)
    of_another_version(lambda: words.to_go_on(tmp_path), words.COMMAND_FILE)


def test_a_shell_would_run_nothing_of_a_sweeps_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / words.COMMAND_FILE).write_text("train.py -m seed=1,2 name=$(touch owned) `id` ; rm x\n")
    typed = "train.py -m seed=1,2 'name=$(touch' 'owned)' '`id`' ';' rm x resume=true hydra.sweep.dir=."
    assert words.to_go_on(tmp_path).endswith(typed)


# Seeds


@pytest.mark.parametrize("key", ["seed", "data.demo_seed", "data.split.seed"])
@pytest.mark.parametrize("value", [str(2**64), str(10**30), "-1", str(-(10**30))])
def test_a_seed_that_no_generator_takes_is_one_sentence(compose_settings: Compose, key: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{key}={value} must be 0 or more, and below 2"):
        compose_settings(f"{key}={value}")


def test_the_largest_seed_is_taken(compose_settings: Compose) -> None:
    settings = compose_settings(*(f"{key}={2**64 - 1}" for key in ("seed", "data.demo_seed", "data.split.seed")))
    torch.manual_seed(settings.seed)
    assert flips(np.arange(100), settings.seed, 0).any()
    assert settings.data.split.seed == settings.data.demo_seed == settings.seed


@pytest.mark.parametrize("sign", ["", "-"])
def test_a_seed_in_a_config_too_long_to_print_is_one_sentence(run_dir: Path, sign: str) -> None:
    with_text(run_dir, f"seed: {sign}0x{'f' * 20_000}", "seed: 1")
    refused(lambda: read(run_dir), "config.yaml", f"seed={sign}0xffff")


@pytest.mark.parametrize(
    "text",
    [
        "words: [x]\ntrials: 1\nfailed: 0\nobjective: 1.0\nrun: ${oc.env:HOME}\n",
        "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
        'words: ["\\e[2J"]\n',
        "words: [x\n",
        "words: 3\ntrials: 1\nfailed: 0\nobjective: 1.0\nrun: a\n",
        "words: [x]\n",
    ],
)
def test_a_searchs_best_trial_from_elsewhere_is_one_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / BEST_FILE).write_text(text)
    refused(lambda: closing_words(tmp_path), BEST_FILE, "damaged|which train.py never writes")


@pytest.mark.parametrize(
    ("words", "seconds"), [("'", "1.0"), ("seed=1", "inf"), ("x" * 200_000, "1.0")], ids=["quote", "inf", "long"]
)
def test_a_sweeps_table_from_elsewhere_is_none(tmp_path: Path, words: str, seconds: str) -> None:
    table.write_rows(tmp_path, [table.Row(0, words, "finished", 0.5, 1.0, "0_run")])
    path = tmp_path / table.JOBS_FILE
    path.write_text(path.read_text().replace(",1.0,", f",{seconds},"))
    assert table.read_rows(tmp_path) == []


def test_a_sweeps_table_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    table.write_rows(tmp_path, [table.Row(0, "seed=1", "failed", reason="\x1b]0;owned\x07the loss is no number")])
    (row,) = table.read_rows(tmp_path)
    assert row.reason == " ]0;owned the loss is no number"


def test_a_config_cannot_ask_for_more_processes_than_there_are_cores(compose_settings: Compose) -> None:
    with pytest.raises(UsageError, match=r"trainer\.devices=20000, but this machine has \d+ cores"):
        _ = compose_settings("trainer.devices=20000").trainer.processes
    assert compose_settings("trainer=ddp_cpu").trainer.processes == 2
    with pytest.raises(UsageError, match=r"data\.workers=50000 must be a number from 0 to 64"):
        compose_settings("data.workers=50000")
