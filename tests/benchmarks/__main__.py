"""`python -m tests.benchmarks`: every case, a line each as it is measured, then the page."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks import (
    autoencoder,
    classifier,
    dcgan,
    experiment,
    feed,
    machine,
    prepare,
    profiles,
    reconstruct,
    scaling,
    startup,
)
from tests.benchmarks.page import line, page
from tests.benchmarks.results import Result

CASES: dict[str, Callable[[bool], Iterator[Result]]] = {
    "feed": feed.rows,
    "prepare": prepare.rows,
    "autoencoder": autoencoder.rows,
    "dcgan": dcgan.rows,
    "classifier": classifier.step_rows,
    "epoch": classifier.epoch_rows,
    "reconstruct": reconstruct.rows,
    "gpu": autoencoder.gpu_rows,
    "experiment": experiment.rows,
    "startup": startup.rows,
    "profiles": profiles.rows,
    "scaling": scaling.rows,
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
    description = machine.describe()
    print(description, flush=True)
    results = []
    for name in asked.only:
        for result in CASES[name](asked.quick):
            results.append(result)
            print(line(result), flush=True)
    minutes = (time.monotonic() - started) / 60
    load = f"Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; {minutes:.1f} minutes."
    print(load)
    if out is not None:
        out.write_text(page(results, description, load), encoding="utf-8")
        print(f"written: {out}")


if __name__ == "__main__":
    main()
