"""`python -m tests.benchmarks`: every case, a line each as it is measured, then one Markdown table."""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from tests.benchmarks import autoencoder, classifier, feed, reconstruct
from tests.benchmarks.harness import Row

CASES: dict[str, Callable[[bool], Iterator[Row]]] = {
    "feed": feed.rows,
    "autoencoder": autoencoder.rows,
    "classifier": classifier.epoch_rows,
    "reconstruct": reconstruct.rows,
    "lightning": classifier.lightning_rows,
}
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the cases asked for and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure FakeGAN side by side.")
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? The ratios mean nothing")
    parser.add_argument("--out", type=Path, help=f"the page to write; the default, of a whole run: docs/{PAGE.name}")
    asked = parser.parse_args(arguments)
    whole = not asked.quick and set(asked.only) == set(CASES)
    out: Path | None = asked.out or (PAGE if whole else None)

    started, load_before = time.monotonic(), os.getloadavg()[0]
    machine = describe_machine()
    print(machine, flush=True)
    rows = []
    for name in asked.only:
        for row in CASES[name](asked.quick):
            rows.append(row)
            print(f"{row.what}: {row.ratio:.2f}x ({_range(row)})", flush=True)
    table = markdown_table(rows)
    minutes = (time.monotonic() - started) / 60
    load = f"Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; {minutes:.1f} minutes."
    print(f"\n{table}\n{load}")
    if out is not None:
        out.write_text(page(table, machine, load), encoding="utf-8")
        print(f"written: {out}")


def describe_machine() -> str:
    """Processor, threads and versions, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "pytorch-lightning", "pillow"))
    waiting = os.environ.get("OMP_WAIT_POLICY", "as OpenMP likes")
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads (waiting: {waiting})"
    return f"{_processor()}, {cores}; {platform.system()}, Python {platform.python_version()}, {packages}."


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.is_file():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def markdown_table(rows: Sequence[Row]) -> str:
    """The bars beside what was measured."""
    lines = [
        "| what | against | at least | aim | measured | rounds from - to | FakeGAN | the other |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        bar, aim = ("-" if x is None else f"{x:.3g}x" for x in (row.bar, row.aim))
        ours, theirs = (f"{_time(median(side))} / {row.unit}" for side in (row.ours, row.theirs))
        cells = [row.what, row.against, bar, aim, f"**{_ratio(row.ratio)}**", _range(row), ours, theirs]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def page(table: str, machine: str, load: str) -> str:
    """The Markdown page."""
    return f"""# Benchmarks

Written by `make bench`. FakeGAN beside plain code that does the same work (`tests/benchmarks/baselines.py`), measured
in one run on one machine, in turns. A ratio is the median of the rounds; above 1 FakeGAN is the faster. Ratios carry
over to other machines better than times. A step through Lightning can at best equal the bare loop: 0.87x is 15% on top.

{machine} {load}

{table}"""


def _ratio(ratio: float) -> str:
    return f"{ratio:.0f}x" if ratio >= 20 else f"{ratio:.2f}x"


def _range(row: Row) -> str:
    return f"{_ratio(min(row.ratios))} - {_ratio(max(row.ratios))}"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


if __name__ == "__main__":
    main()
