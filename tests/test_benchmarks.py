"""The benchmarks run, and the sides of a row do the same work; how fast they are decides no test."""

import math
import mmap
import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fakegan.data.duplicates import find_duplicates
from fakegan.data.store import FaceStore
from tests import light_sides
from tests.benchmarks import experiment, scaling, steps
from tests.benchmarks.__main__ import CASES, main
from tests.benchmarks.harness import Side, SideError, Turns, playing, take_turns
from tests.benchmarks.made_up import smooth_faces, write_photographs
from tests.benchmarks.page import page
from tests.benchmarks.results import Bound, NotMeasured, Point, Profile, Result, Row, Share

SLOW = ("onnx", "prepare", "startup", "profiles", "scaling")  # they start processes, or train four networks


@pytest.mark.parametrize("case", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in CASES])
def test_every_case_measures(case: str) -> None:
    results = list(CASES[case](True))
    assert results
    for result in results:
        if isinstance(result, Row):
            assert len(result.ours) == len(result.theirs) == 2
            assert all(math.isfinite(ratio) and ratio > 0 for ratio in result.ratios)
        elif isinstance(result, Profile):
            shares = [share for _, share, _ in result.operators]
            assert 0 < sum(shares) <= 1 + 1e-9
            assert shares == sorted(shares, reverse=True)
            assert any("conv" in name for name, _, _ in result.operators)
        elif isinstance(result, Point):
            assert result.seconds > 0
    assert page(results, "A machine.", "A load.").startswith("# Benchmarks")


def _noting(turns: Turns, name: str, calls: list[tuple[str, int]]) -> None:
    turns.serve(lambda units: calls.append((name, units)))


def test_rounds_take_turns_after_a_warm_up() -> None:
    calls: list[tuple[str, int]] = []
    sides = [Side(_noting, (name, calls)) for name in "abc"]
    times = take_turns(sides, 2, (5, 3, 4), warm_up=(1, 2, 1), apart=False)
    a_round = [("a", 5), ("b", 3), ("c", 4)]
    assert calls == [("a", 1), ("b", 2), ("c", 1), *a_round, *a_round]
    assert [len(side) for side in times] == [2, 2, 2]


@pytest.mark.parametrize("before", ["3", None])
def test_each_side_has_a_process_of_its_own_and_gpus_only_if_it_asks(
    monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    if before is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with playing(Side(light_sides.own)) as cpu, playing(Side(light_sides.own, sees_gpus=True)) as gpu:
        (cpu_process, hidden), (gpu_process, seen) = cpu(), gpu()
    assert len({cpu_process, gpu_process, os.getpid()}) == 3
    assert (hidden, seen, os.environ.get("CUDA_VISIBLE_DEVICES")) == ("", before, before)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize(("name", "why"), [("ends", "$"), ("is_full", ": OutOfMemoryError: tried to allocate 9 GiB")])
def test_a_side_that_ends_early_says_why(name: str, why: str, apart: bool) -> None:
    side = Side(getattr(light_sides, name))
    with (
        pytest.raises(SideError, match=rf"light_sides\.{name} ended early{why}") as caught,
        playing(side, apart) as turn,
    ):
        turn()
    assert caught.value.out_of_memory == (name == "is_full")


def test_a_gpu_too_small_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise SideError(Side(_noting), SimpleNamespace(kind="OutOfMemoryError", message="no"))  # type: ignore[arg-type]

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(steps, "take_turns", full)
    rows = list(steps.gpu_rows(False))
    assert [type(row) for row in rows] == [NotMeasured, NotMeasured]
    assert "too little free memory" in str(rows[0])


def test_the_gpus_bar_is_of_bf16_and_float32_is_trainer_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Sequence[Side]] = []

    def timed(sides: Sequence[Side], *_: Any, **__: Any) -> list[tuple[float, ...]]:
        taken.append(sides)
        return [(1.0,), (5.0,), (2.0,)]  # ours, the study's, ours in the study's float32

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(steps, "take_turns", timed)
    first, plain, *_ = steps.gpu_rows(False)
    assert isinstance(first, Row)
    assert isinstance(plain, Row)
    assert (first.ratio, first.bar, plain.ratio, plain.bar) == (5.0, 4.0, 2.5, None)
    assert "bf16" in first.what
    assert "float32" in plain.what
    ours, _, ours_plain = taken[0]
    assert ours.arguments[2:] == ("gpu", "bf16-mixed")
    assert ours_plain.arguments[2:] == ("gpu",)  # the trainer's own precision
    assert all(side.sees_gpus for side in taken[0])


def _one_row(quick: bool) -> Iterator[Result]:
    yield Row("a", "b", "step", (1.0,), (2.0,))


def _fails_after_a_row(error: BaseException, quick: bool) -> Iterator[Result]:
    yield from _one_row(quick)
    raise error


@pytest.mark.parametrize(
    ("error", "code", "reason", "measured"),
    [
        (ValueError("a hole\nin the disk"), 1, "it failed with ValueError: a hole in the disk", 3),
        (KeyboardInterrupt(), 130, "interrupted", 2),
    ],
)
def test_a_case_that_fails_costs_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, reason: str, measured: int
) -> None:
    monkeypatch.setitem(CASES, "feed", _one_row)
    monkeypatch.setitem(CASES, "prepare", partial(_fails_after_a_row, error))
    monkeypatch.setitem(CASES, "dcgan", _one_row)
    out = tmp_path / "page.md"
    assert main(["--only", "feed", "prepare", "dcgan", "--out", str(out)]) == code
    text = out.read_text()
    assert text.count(" / step |") == 2 * measured
    assert f"- case prepare, or the rest of it: not measured: {reason}" in text
    assert ("case dcgan" in text) == (code == 130)


def test_a_page_is_written_only_where_asked_and_something_was_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(quick: bool) -> Iterator[Result]:
        raise ValueError
        yield

    out = tmp_path / "page.md"
    monkeypatch.setitem(CASES, "feed", fails)
    monkeypatch.setitem(CASES, "dcgan", _one_row)
    assert main(["--only", "feed", "--out", str(out)]) == 1
    assert main(["--quick", "--only", "dcgan"]) == 0
    assert "written" not in capsys.readouterr().out
    assert not out.exists()


WHY, NAN = "It rains.", math.nan
TABLES: list[tuple[Result, str]] = [
    (
        Row("a", "b", "step", (1.0, 2.0, 4.0), (3.0, 4.0, 40.0), 1.5, WHY),  # the median of the rounds' ratios 3, 2, 10
        "| a | b | 1.5x | **3.00x** | 2.00x - 10.00x | 2.00 s / step | 4.00 s / step | yes |",
    ),
    (  # below 1 three digits: a bar of 1 / 1.15 and what misses it by little differ in print
        Row("a", "b", "step", (1.0, 1.0, 1.0), (0.8664, 0.8664, 1.25), 1 / 1.15, WHY),
        f"| a | b | 0.870x | **0.866x** | 0.866x - 1.25x | 1.00 s / step | 866 ms / step | **no**: {WHY} |",
    ),
    (
        Row("a", "b", "step", (1.0,), (60.0,), if_missed=WHY),
        "| a | b | - | **60x** | 60x - 60x | 1.00 s / step | 60.00 s / step | - |",
    ),
    (
        Share("a", "copies", "batch", (0.002,), (0.001,), 0.7),
        "| a | copies | 70% | **50%** | 50% - 50% | 2 ms / batch | 1 ms / batch | **no** |",
    ),
    (Bound("start", "s", (8.5, 7.0, 9.0), 8.0, "a note"), "| start | 8 s | **8.5 s** | 7 - 9 | **no** | a note |"),
    (Bound("growth", "", (1.05,), 1.1), "| growth | 1.1 | **1.05** | - | yes |  |"),
    (Profile("a step", "CPU", 2.0, (("aten::tanh", 0.75, 2.5),)), "| `tanh` | 75.0% | 2.5 |"),
    (NotMeasured("a step on a GPU", "no GPU"), "- a step on a GPU: not measured: no GPU"),
    (Point("p", 1000, 9.0, NAN, 2.0, NAN), "| p | 1,000 | 9.00 s | 9.00 s | - | - | 2 MB | - |"),
]


@pytest.mark.parametrize(("result", "line"), TABLES)
def test_a_line_of_the_page(result: Result, line: str) -> None:
    assert page([result], "m", "l").splitlines()[-1] == line
    if isinstance(result, Row | Bound):
        assert ("NOT reached" in str(result)) == ("**no**" in line)


def test_growth_is_the_exponent_between_two_points() -> None:
    points = [Point("split", faces, seconds, 300.0, 200.0, NAN) for faces, seconds in ((2000, 0.5), (20000, 50.0))]
    *_, first, second, other = page([*points, Point("feed", 9, 1.0, NAN, NAN, NAN)], "m", "l").splitlines()
    bound = scaling.growth(points)
    assert bound.value == pytest.approx(2)
    assert not bound.reached
    assert first == "| split | 2,000 | 500 ms | 250 ms | - | 300 MB | 200 MB | - |"
    assert second == "| split | 20,000 | 50.00 s | 2.50 s | 2.00 | 300 MB | 200 MB | - |"
    assert " | - | - | - | - |" in other


def test_flatness_is_told_only_of_memory_that_was_seen() -> None:
    few, many = Point("p", 10, 1.0, 300.0, 200.0, 80.0), Point("p", 1000, 9.0, 310.0, 250.0, 190.0)
    prepare, feed = scaling.flatness([few, many], True), scaling.flatness([few, many], False)
    assert isinstance(prepare, Bound)
    assert isinstance(feed, Bound)
    assert (prepare.value, prepare.reached, feed.value, feed.reached) == (110.0, False, 50.0, True)
    assert "its process 10, its largest worker 110" in prepare.note
    assert feed.note.endswith(": 10")
    blind, no_workers = Point("p", 1000, 9.0, NAN, NAN, NAN), Point("p", 1000, 9.0, 310.0, 250.0, NAN)
    for points in ([few, blind], [blind, many], [few, no_workers]):
        assert isinstance(scaling.flatness(points, True), NotMeasured)
    assert isinstance(scaling.flatness([few, blind], False), NotMeasured)


def test_a_disk_too_full_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling.shutil, "disk_usage", lambda folder: SimpleNamespace(free=10**9))
    (result,) = scaling.rows(False)
    assert isinstance(result, NotMeasured)
    # bytes: 2 x 200,000 x 12,288, 222,000 x 4,096 and 2 x 20,000 x 196,608
    assert result.why.startswith("13.7 GB and a tenth")
    assert result.why.endswith("1.0 GB are free")


def test_frames_of_a_made_up_film_are_near_copies() -> None:
    rng = np.random.default_rng(0)
    hashes, thumbs = rng.integers(0, 2**63, 3, dtype=np.uint64), rng.integers(0, 256, (3, 64), dtype=np.uint8)
    count = 2 * scaling.FRAMES + 20  # the third film is short
    frames, thumbnails = scaling.film_frames(hashes, thumbs, count)
    keys = np.arange(count)
    found = find_duplicates(keys, keys, keys, frames, thumbnails, keys % 2)
    assert found.first.tolist() == [row // scaling.FRAMES * scaling.FRAMES for row in range(count)]
    assert found.near.sum() == count - 3


def test_made_up_pictures_differ(tmp_path: Path) -> None:
    (faces,) = smooth_faces(300)
    assert faces.shape == (300, 64, 64, 3)
    assert len({face.tobytes() for face in faces}) == 300
    grey = faces.mean(axis=3).reshape(300, 8, 8, 8, 8).mean(axis=(2, 4)).reshape(300, 64)
    resemblance = np.corrcoef(grey)[np.triu_indices(300, 1)]
    assert 0.1 < resemblance.mean() < 0.4  # 0.12 of aligned photographs (CelebA)
    assert resemblance.max() < 0.98  # no near copies
    write_photographs(tmp_path, 60, (96, 80))
    files = sorted(tmp_path.rglob("*.jpg"))
    assert len({file.read_bytes() for file in files}) == 60
    assert {Image.open(file).size for file in files} == {(96, 80)}


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from Linux's /proc")
def test_memory_sees_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    with scaling.Memory() as memory:
        time.sleep(0.1)
        before = memory.own
        block = mmap.mmap(-1, 100_000_000, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)  # not malloc's, which reuses
        for _ in range(100):
            block.write(b"1" * 1_000_000)
        time.sleep(0.1)
    assert 95 < memory.own - before < 130
    assert memory.peak > memory.own - 5  # the kernel counts in steps of some pages a thread
    block.close()
    monkeypatch.setattr(scaling, "_status", lambda process: {})  # another system
    with scaling.Memory() as memory:
        pass
    assert all(map(math.isnan, (memory.peak, memory.own, memory.child)))


def test_made_up_stores_are_stores(tmp_path: Path) -> None:
    experiment.write_store(tmp_path / "faces", 3, 3)
    store = FaceStore.open(tmp_path / "faces")
    assert list(store.labels) == [0, 0, 0, 1, 1, 1]
    assert len({face.tobytes() for face in store.images}) == 6
    assert [int(face.std()) > 5 for face in np.asarray(store.images)] == [True] * 6


@pytest.mark.slow
def test_the_clock_stops_at_the_first_step(tmp_path: Path) -> None:
    """A run of its own folder has begun to train and has not come further."""
    words = ["+debug=fast", "trainer=cpu", f"paths.data_dir={tmp_path}/data", f"paths.artifact_dir={tmp_path}/made"]
    assert experiment.first_step(words, str(tmp_path / "run")) > 0
    assert (tmp_path / "run" / "config.yaml").exists()
    assert not list(tmp_path.rglob("autoencoder.pt"))


def test_a_command_that_ends_otherwise_is_not_timed() -> None:
    with pytest.raises(RuntimeError, match="ended with 3"):
        experiment.run_python(["-S", "-c", "raise SystemExit(3)"], 7)
