"""The page: what was measured as Markdown tables, and a line of each as it comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from statistics import median
from typing import TypeVar

from tests.benchmarks.profiles import SENTENCES
from tests.benchmarks.results import Bound, NotMeasured, Point, Profile, Result, Row, Share

Kind = TypeVar("Kind")

_HEAD = """# Benchmarks

Written by `make bench`: FakeGAN beside plain code that does the same work (`tests/benchmarks/study.py` and
`baselines.py`), measured in one run on one machine. The sides of a line take turns, each in a process of its own, so
that what one sets (allocator, threads) neither helps nor hurts the other. A ratio is the median of the rounds; above 1
FakeGAN is the faster. Ratios carry over to other machines better than times.

Threads of both sides sleep while they wait for each other (`OMP_WAIT_POLICY=passive`, unless set). FakeGAN's commands
leave that to OpenMP, whose threads spin: alone on two cores this makes a small step about a tenth quicker; beside
another busy process a batch can take many times as long.

Bars: two CPU cores; those of GPU rows: one H200.

FakeGAN's steps run through Lightning: `Trainer.fit` with its loops and hooks, the module's running means and schedules,
a batch in memory from a DataLoader, and FakeGAN's callback that seeds every step (`StepSeed`). Without logger,
checkpoints, validation and progress bar. The other side is a bare loop: where both compute the same, a step can at best
equal it, and 0.870x is 15% on top.
"""
_LIMITS = """## Beside what the machine allows

The time of the arithmetic, the copies or the decoding alone, measured in the same rounds, as a share of FakeGAN's time.
FLOPs are counted for direct convolution, what the maths of the study's layers needs: one forward pass of each network
for each use, and no gradient that nobody takes. Winograd's algorithm and upsampling folded into a convolution need
fewer, so a share may pass 100%. The rate is that of `torch.mm` on float32 matrices of 2048x2048.
"""
_BOUNDS = """## Start-up, memory, growth, whole runs
"""
_PROFILES = """## Where a step's time goes

By torch's profiler, operators by their own time (without those they call), the largest first; steps run as above,
through Lightning's Trainer.
"""
_SCALING = """## Cost against the number of faces

Each line is one fresh process, measured once. Peak: its high-water mark of resident memory (VmHWM), mapped files,
libraries and imports included; own: the most of it that belonged to no file; worker: the peak of its largest worker
process. "Grows as" is the exponent p of time ~ faces^p from the line above: 1 is linear.
"""


def page(results: Sequence[Result], machine: str, load: str) -> str:
    """The whole page; parts of which nothing was measured are left out."""
    rows = [r for r in _of(Row, results) if not isinstance(r, Share)]
    parts = [_HEAD, f"{machine} {load}\n"]
    parts += [ratio_table(rows)] if rows else []
    for text, table in (
        (_LIMITS, limit_table(_of(Share, results))),
        (_BOUNDS, bound_table(_of(Bound, results))),
        (_SCALING, scaling_table(_of(Point, results))),
    ):
        parts += [text, table] if table else []
    profiles = _of(Profile, results)
    parts += [_PROFILES, *(profile_table(p) for p in profiles)] if profiles else []
    missing = [f"- {r.what}: not measured: {r.why}" for r in _of(NotMeasured, results)]
    parts += ["## Not measured\n", "\n".join(missing) + "\n"] if missing else []
    return "\n".join(parts)


def line(result: Result) -> str:
    """One line for the terminal."""
    match result:
        case Share() | Row():
            measured = f"{_value(result)} ({_range(result)}){_verdict(result.reached)}"
            return f"{result.what}, against {result.against}: {measured}"
        case Bound():
            value = _with_unit(f"{result.value:.2f}", result)
            return f"{result.what}: {value}, at most {result.at_most:g}{_verdict(result.reached)}"
        case Point():
            return f"{result.what}, {result.faces:,} faces: {_time(result.seconds)}, peak {_megabytes(result.peak)}"
        case Profile():
            top = ", ".join(f"{_short(o.name)} {o.share:.0%}" for o in result.operators[:3])
            return f"profile of {result.what}, {result.device}: {top}"
        case NotMeasured():
            return f"{result.what}: not measured: {result.why}"


def ratio_table(rows: Iterable[Row]) -> str:
    """FakeGAN beside others."""
    head = ("what", "against", "at least", "measured", "rounds from - to", "FakeGAN", "the other", "reached?")
    return _table(head, (_row_cells(row) for row in rows))


def limit_table(rows: Sequence[Share]) -> str:
    """FakeGAN beside limits; empty without any."""
    head = ("what", "limit", "at least", "share of it", "rounds from - to", "FakeGAN", "the limit", "reached?")
    return _table(head, (_row_cells(row) for row in rows)) if rows else ""


def bound_table(bounds: Sequence[Bound]) -> str:
    """Seconds, megabytes and exponents with the most they may be; empty without any."""
    head = ("what", "at most", "measured", "rounds from - to", "reached?", "")
    cells = (
        (
            b.what,
            _with_unit(f"{b.at_most:g}", b),
            f"**{_with_unit(f'{b.value:.3g}', b)}**",
            f"{min(b.values):.3g} - {max(b.values):.3g}" if len(b.values) > 1 else "-",
            _reached(b),
            b.note,
        )
        for b in bounds
    )
    return _table(head, cells) if bounds else ""


def scaling_table(points: Sequence[Point]) -> str:
    """Time and memory by number of faces; empty without any."""
    head = ("what", "faces", "time", "for 1,000", "grows as", "peak", "own", "worker")
    return _table(head, _scaling_cells(points)) if points else ""


def _scaling_cells(points: Sequence[Point]) -> Iterator[tuple[str, ...]]:
    for _, kind in groupby(points, key=lambda point: point.what):
        before: Point | None = None
        for p in kind:
            growth = "-" if before is None else f"{p.growth_from(before):.2f}"
            memory = (_megabytes(p.peak), _megabytes(p.own), _megabytes(p.child))
            yield p.what, f"{p.faces:,}", _time(p.seconds), _time(1000 * p.seconds / p.faces), growth, *memory
            before = p


def profile_table(found: Profile) -> str:
    """One module's operators, and what is known of them."""
    head = ("operator", "share of the time", "calls a step", "what it does here")
    cells = (
        (f"`{_short(o.name)}`", f"{o.share:.1%}", f"{o.calls:g}", SENTENCES.get(o.name, "")) for o in found.operators
    )
    title = f"{found.what}, {found.device}: {_time(found.seconds)} of operators a step"
    return f"{title}\n\n{_table(head, cells)}"


def _row_cells(row: Row) -> tuple[str, ...]:
    bar = "-" if row.bar is None else _bar(row, row.bar)
    ours, theirs = (f"{_time(median(side))} / {row.unit}" for side in (row.ours, row.theirs))
    return row.what, row.against, bar, f"**{_value(row)}**", _range(row), ours, theirs, _reached(row)


def _value(row: Row) -> str:
    return _ratio(row, row.ratio)


def _range(row: Row) -> str:
    return f"{_ratio(row, min(row.ratios))} - {_ratio(row, max(row.ratios))}"


def _ratio(row: Row, ratio: float) -> str:
    if isinstance(row, Share):
        return f"{ratio:.0%}"
    return f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.2f}x" if ratio >= 1 else f"{ratio:.3f}x"


def _bar(row: Row, bar: float) -> str:
    return _ratio(row, bar) if isinstance(row, Share) or bar < 1 else f"{bar:.3g}x"


def _with_unit(number: str, bound: Bound) -> str:
    return f"{number} {bound.unit}" if bound.unit else number


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} MB"


def _reached(result: Row | Bound) -> str:
    if result.reached is False:
        return f"**no**: {result.if_missed}" if result.if_missed else "**no**"
    return "yes" if result.reached else "-"


def _verdict(reached: bool | None) -> str:
    return "" if reached is not False else ": NOT reached"


def _time(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"
    return f"{1000 * seconds:.3g} ms"


def _short(operator: str) -> str:
    return operator.removeprefix("aten::")


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def _of(kind: type[Kind], results: Iterable[object]) -> list[Kind]:
    return [result for result in results if isinstance(result, kind)]
