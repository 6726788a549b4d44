"""docs/benchmarks.md: what was measured as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.benchmarks.results import Bound, NotMeasured, Point, Profile, Result, Row, Share, shown_time

_HEAD = """# Benchmarks

Written by `make bench`: FakeGAN beside plain code that does the same work (`tests/benchmarks/study.py` and
`feed.py`), measured in one run on one machine. The sides of a line take turns, each in a process of its own, so
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
_BOUNDS = "## Start-up, memory, growth, whole runs\n"
_SCALING = """## Cost against the number of faces

Each line is one fresh process, measured once. Peak: its high-water mark of resident memory (VmHWM), mapped files,
libraries and imports included; own: the most of it that belonged to no file; worker: the peak of its largest worker
process. "Grows as" is the exponent p of time ~ faces^p from the line above: 1 is linear.
"""
_PROFILES = """## Where a step's time goes

By torch's profiler, operators by their own time (without those they call), the largest first; steps run as above,
through Lightning's Trainer. `convolution_backward` computes gradients towards weights and input, twice the arithmetic
of the forward pass (`mkldnn_convolution`, `cudnn_convolution`; `_convolution` of transposed ones). `bmm` and `mm` are
Winograd's convolutions in the residual blocks; `mm` and `addmm` linear layers, too. `mean`, `sub`, `mul_` and `addcmul`
are InstanceNorm on the CPU.
"""
_ROW = ("what", "against", "at least", "measured", "rounds from - to", "FakeGAN", "the other", "reached?")
_SHARE = ("what", "limit", "at least", "share of it", "rounds from - to", "FakeGAN", "the limit", "reached?")
_BOUND = ("what", "at most", "measured", "rounds from - to", "reached?", "")
_POINT = ("what", "faces", "time", "for 1,000", "grows as", "peak", "own", "worker")
_OPERATOR = ("operator", "share of the time", "calls a step")


def page(results: Sequence[Result], machine: str, load: str) -> str:
    """The whole page; parts of which nothing was measured are left out."""
    points = [result for result in results if isinstance(result, Point)]
    before = [None, *points]
    parts = [
        _HEAD,
        f"{machine} {load}\n",
        *_part("", _ROW, (r.cells() for r in results if type(r) is Row)),
        *_part(_LIMITS, _SHARE, (r.cells() for r in results if isinstance(r, Share))),
        *_part(_BOUNDS, _BOUND, (r.cells() for r in results if isinstance(r, Bound))),
        *_part(
            _SCALING,
            _POINT,
            (p.cells(b if b is not None and b.what == p.what else None) for b, p in zip(before, points, strict=False)),
        ),
    ]
    profiles = [result for result in results if isinstance(result, Profile)]
    parts += [_PROFILES] if profiles else []
    for found in profiles:
        title = f"{found.what}, {found.device}: {shown_time(found.seconds)} of operators a step\n"
        cells = ((f"`{name.removeprefix('aten::')}`", f"{s:.1%}", f"{calls:g}") for name, s, calls in found.operators)
        parts += _part(title, _OPERATOR, cells)
    missing = [f"- {result}" for result in results if isinstance(result, NotMeasured)]
    parts += ["## Not measured\n", "\n".join(missing) + "\n"] if missing else []
    return "\n".join(part for part in parts if part)


def _part(text: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A text and the table below it; nothing where there are no rows."""
    body = list(rows)
    lines = [head, ["---"] * len(head), *body]
    return [text, "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"] if body else []
