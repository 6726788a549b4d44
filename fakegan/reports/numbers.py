"""How a report writes numbers: a value with its interval, several seeds with mean, spread and each, a p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fakegan.evaluation.compare import over_seeds
from fakegan.evaluation.metrics import judged

Value = Mapping[str, float | None]  # {"value", "low", "high"}: the bounds are a 95% interval's


def number(value: float | None, signed: bool = False, digits: int = 3) -> str:
    """The value with so many decimals; a hyphen where there is none."""
    return "-" if value is None else f"{value:{'+' if signed else ''}.{digits}f}"


def measured(measure: Value, signed: bool = False) -> str:
    """Value and 95% interval."""
    value, low, high = (number(measure[key], signed) for key in ("value", "low", "high"))
    return value if "-" in (low, high) else f"{value} [{low}, {high}]"


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


def cell(measures: Sequence[Value], signed: bool = False, intervals: bool = False) -> str:
    """`over` for a narrow cell: the interval or the single values below, each interval with its value."""
    text = over(measures, signed, intervals)
    return text.replace(" (", "\n(").replace("], ", "],\n") if " (" in text else text.replace(" [", "\n[")


def mean_value(measures: Sequence[Value]) -> float:
    """The mean over seeds; NaN where no seed has a value."""
    values = [m["value"] for m in measures if m["value"] is not None]
    return float(over_seeds(values)["mean"]) if values else float("nan")


def guessing(measures: Sequence[Value]) -> int:
    """Where AUROCs lie: 1 where an interval is above guessing, -1 where each is below, else 0."""
    judgements = [judged(m) for m in measures]
    return 1 if 1 in judgements else max(judgements, default=0)


def p_cell(p: float | None) -> str:
    """A p-value for a table."""
    if p is None:
        return "-"
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def p_words(p: float | None) -> str:
    """A p-value for a sentence."""
    if p is None:
        return "p not defined"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def counted(count: int, thing: str) -> str:
    """1 pair; 3 pairs."""
    return f"{count} {thing}{'' if count == 1 else 's'}"


def some(names: Sequence[str], among: int) -> str:
    """Up to three names; of more, how many of so many others they are."""
    if len(names) <= 3:
        return listed(names)
    return f"any of the {among} others" if len(names) == among else f"{len(names)} of the {among} others"


def listed(parts: Sequence[str]) -> str:
    """a; a and b; a, b and c."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
