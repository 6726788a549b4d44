"""How a report writes numbers: a value with its interval, several seeds with mean, spread and each, a p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fakegan.evaluation.compare import over_seeds
from fakegan.evaluation.metrics import judged

Value = Mapping[str, float | None]  # {"value", "low", "high"}: the bounds are a 95% interval's
GUESSING_WORDS = {0: "not shown to be better than guessing", -1: "worse than guessing (AUROC below 0.5)"}
ALPHA = 0.05  # a p-value below it, after Holm's correction, is called a difference


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """A hyphen where there is none."""
    if value is None:
        return "-"
    return f"{value:{'+' if signed else ''}.{digits}f}"


def measured(measure: Value, signed: bool = False) -> str:
    """Value and 95% interval."""
    value = number(measure["value"], signed)
    if measure["low"] is None or measure["high"] is None:
        return value
    return f"{value} [{number(measure['low'], signed)}, {number(measure['high'], signed)}]"


def over(
    measures: Sequence[Value],
    signed: bool = False,
    intervals: bool = False,  # of each seed, too
) -> str:
    """One seed: value and interval. Several: mean, spread (sample standard deviation) and each value."""
    values = [m["value"] for m in measures if m["value"] is not None]
    if len(measures) == 1 or not values:
        return measured(measures[0], signed) if measures else "-"
    seeds = over_seeds(values)
    spread = "" if seeds["spread"] is None else f" ± {number(seeds['spread'])}"
    each = [measured(m, signed) if intervals else number(m["value"], signed) for m in measures]
    return f"{number(seeds['mean'], signed)}{spread} ({', '.join(each)})"


def in_lines(cell: str) -> str:
    """The same for a narrow cell: the interval or the single values below, each interval with its value."""
    if " (" in cell:
        return cell.replace(" (", "\n(").replace("], ", "],\n")
    return cell.replace(" [", "\n[")


def mean_value(measures: Sequence[Value]) -> float:
    """Over seeds; NaN where no seed has one."""
    values = [m["value"] for m in measures if m["value"] is not None]
    return float(over_seeds(values)["mean"]) if values else float("nan")


def guessing(measures: Sequence[Value]) -> int:
    """How AUROCs, one a seed, stand to guessing: 1 where an interval lies above, -1 where each lies below, else 0."""
    judgements = [judged({**m}) for m in measures]
    if 1 in judgements:
        return 1
    return -1 if judgements and all(j < 0 for j in judgements) else 0


def p_cell(p: float | None) -> str:
    """For a table."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float | None) -> str:
    """For a sentence."""
    if p is None:
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
