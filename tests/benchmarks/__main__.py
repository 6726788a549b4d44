"""`python -m tests.benchmarks`: every case, a line each as it is measured, then the page."""

from __future__ import annotations

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.benchmarks import deletion, experiment, exported, feed, layers, machine, profiles, scaling, steps
from tests.benchmarks.page import page
from tests.benchmarks.results import NotMeasured, Result

# The GPU's come last: what fails there costs the others nothing.
CASES: dict[str, Callable[[bool], Iterator[Result]]] = {
    "feed": feed.rows,
    "prepare": feed.prepare_rows,
    "layers": layers.rows,
    "autoencoder": steps.autoencoder_rows,
    "dcgan": steps.dcgan_rows,
    "classifier": steps.classifier_rows,
    "augment": steps.augment_rows,
    "epoch": steps.epoch_rows,
    "reconstruct": steps.reconstruct_rows,
    "startup": experiment.startup_rows,
    "scaling": scaling.rows,
    "profiles": profiles.rows,
    "explain": deletion.rows,
    "onnx": exported.rows,
    "gpu": steps.gpu_rows,
    "experiment": experiment.rows,
}
PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
FAILED, INTERRUPTED = 1, 130  # exit codes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cases asked for and write the page; the exit code."""
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
    results, code = measure(asked.only, asked.quick)
    minutes = (time.monotonic() - started) / 60
    load = f"Load average {load_before:.1f} before, {os.getloadavg()[0]:.1f} after; {minutes:.1f} minutes."
    print(load)
    if out is not None and not all(isinstance(result, NotMeasured) for result in results):
        out.write_text(page(results, description, load), encoding="utf-8")
        print(f"written: {out}")
    return code


def measure(names: Sequence[str], quick: bool) -> tuple[list[Result], int]:
    """What the cases yield, last which of them failed and why; the exit code. Ctrl-C ends it with what there is."""
    results: list[Result] = []
    failures: list[Result] = []
    code = 0
    for name in names:
        try:
            if code == INTERRUPTED:
                raise KeyboardInterrupt
            for result in CASES[name](quick):
                results.append(result)
                print(result, flush=True)
        except KeyboardInterrupt:
            code, why = INTERRUPTED, "interrupted"
        except Exception as error:  # whatever a case meets, the others are measured
            traceback.print_exc()
            code, why = FAILED, " ".join(f"it failed with {type(error).__name__}: {error}"[:500].split())
        else:
            continue
        failures.append(NotMeasured(f"case {name}, or the rest of it", why))
        print(failures[-1], flush=True)
    return [*results, *failures], code


if __name__ == "__main__":
    sys.exit(main())
