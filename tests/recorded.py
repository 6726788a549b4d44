"""`python -m tests.recorded RUN_DIR OUT`: go on with a run and write down what its networks did, step by step.

Started as several processes, the first writes: the means over all of them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from fakegan import config, processes, ranks
from fakegan.modules.means import EpochMeans
from fakegan.pipeline.settings import RunSettings
from fakegan.pipeline.stages import run

steps: list[dict[str, float]] = []  # of training and validation alike, in order


class Recorded(EpochMeans):
    """Remembers every update."""

    def update(self, values: dict[str, torch.Tensor], weight: int) -> None:
        super().update(values, weight)
        if torch.is_grad_enabled():  # a training step
            steps.append({name: float(ranks.mean(value.double())) for name, value in values.items()})


def main(run_dir: str, out: str) -> None:
    torch.set_num_threads(1)
    processes.end_with_parent()
    ranks.connect()
    EpochMeans.update = Recorded.update  # type: ignore[method-assign]
    run(config.read_run(RunSettings, run_dir))
    if ranks.is_first():
        Path(out).write_text(json.dumps(steps))


def read(out: Path) -> list[dict[str, Any]]:
    return json.loads(out.read_text())


if __name__ == "__main__":
    main(*sys.argv[1:])
