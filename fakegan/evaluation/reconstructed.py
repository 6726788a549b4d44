"""How differently real and fake faces are reconstructed, from the numbers of each face: content of analysis.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fakegan.evaluation.error_plots import AXES
from fakegan.evaluation.intervals import Floats, Groups, Labels, Sources
from fakegan.evaluation.probe import separates
from fakegan.evaluation.statistics import UNKNOWN, by_source, correlation, standardised_difference

COMPLEXITY, BEYOND = "complexity", "l1_given_complexity"
PROBES = {"code": "probe_code", "residual_spectrum": "probe_residual_spectrum"}  # probe -> column of its P(fake)


def differences(
    columns: Mapping[str, Floats],  # by name: the errors, COMPLEXITY and, where they are known, BEYOND and the probes
    labels: Labels,
    sources: Sources,
    groups: Groups,
) -> dict[str, Any]:
    """Errors, probes and complexity of these faces, with 95% intervals; UNKNOWN where a column is missing."""
    real, complexity, beyond = labels == 0, columns[COMPLEXITY], columns.get(BEYOND)
    return {
        "errors": {name: by_source(columns[name], labels, sources, groups) for name in AXES},
        "probes": {name: separates(columns.get(column), labels, groups) for name, column in PROBES.items()},
        "complexity": {
            "spearman": {
                name: correlation(columns[name][real], complexity[real], labels[real], groups[real]) for name in AXES
            },
            "real_vs_fake": {"cohens_d": standardised_difference(complexity, labels, groups)},
            BEYOND: {"cohens_d": UNKNOWN if beyond is None else standardised_difference(beyond, labels, groups)},
        },
    }
