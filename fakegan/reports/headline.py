"""The report's first words and its first picture: what was found, in plain words, and AUROC by generator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from fakegan.evaluation import plots
from fakegan.evaluation.intervals import Measure
from fakegan.evaluation.metrics import complement
from fakegan.reports.groups import Group, of_seeds, one_by_one, together
from fakegan.reports.held_out import Design, HeldOut
from fakegan.reports.numbers import guessing, listed, mean_value, measured, some
from fakegan.reports.render import Answer, Block, Section, Table, Text
from fakegan.reports.tables import NO_PLOTS, drawn
from fakegan.runs.finished import Configuration

FEW = 50  # faces of a source: of fewer, their counts are said in place of shares
WEAK = 0.7  # an AUROC below it is called little better than guessing
WELL = 0.8  # an AUROC above it is called ranking well
_LISTED = 3  # generators that have a share each in a sentence; of more, the least and the most
_SHOWN = 5  # configurations in a picture, the best first
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_INTERVALS = "Lines are 95% intervals; of several seeds, from the lowest bound of a seed to the highest."


@dataclass(frozen=True, eq=False)
class Standing:
    """A configuration on all its test faces, generators seen in training and others."""

    configuration: Configuration  # of whole runs
    parts: Sequence[Configuration] = ()  # the same runs on seen and unseen generators, each with reals that were seen

    @cached_property
    def sources(self) -> dict[str, list[dict[str, Any]]]:
        """What metrics.json says of each source, one a seed."""
        tests = [run.metrics["test"]["by_source"] for run in self.configuration.runs]
        return {name: [test[name] for test in tests] for name in tests[0]}

    def kind(self, label: str, seen: bool) -> list[str]:
        """Sources of a class that the classifier has learnt from, or has never seen."""
        learnt = self.configuration.runs[0].learnt_from
        return [name for name, (m, *_) in self.sources.items() if m["label"] == label and (name in learnt) == seen]

    @property
    def unseen(self) -> list[str]:
        """Generators never seen in training."""
        return self.kind("fake", seen=False)

    def auroc(self, generator: str) -> list[Measure]:
        """Against real faces, one a seed: of sources seen in training, where some were not."""
        for part in self.parts:
            tests = [run.metrics["test"]["by_source"] for run in part.runs]
            if generator in tests[0]:
                return [test[generator]["auroc"] for test in tests]
        return [m["auroc"] for m in self.sources[generator]]

    def outcome(self, generator: str) -> int | None:
        """As `guessing`; None where the interval holds both guessing and a good AUROC, as that of few faces may."""
        measures = self.auroc(generator)
        how = guessing(measures)
        return None if how == 0 and max(m["high"] or 0.0 for m in measures) > WEAK else how

    def right(self, name: str) -> list[Measure]:
        """The share of right calls, one a seed."""
        return [m["accuracy"] for m in self.sources[name]]

    def sentences(self, name: str = "It") -> str:
        """How many fakes of which generators it finds, how many real faces it calls fake, and where it fails."""
        seen, alarms = self.kind("fake", seen=True), self._alarms(self.kind("real", seen=True))
        said = [self._seen(name, seen, alarms)] if seen else [f"{name} has learnt from none of these generators."]
        said += [self._unseen(self.unseen)] if self.unseen else []
        if not seen and alarms:
            said.append(f"It calls {alarms} fake.")
        if strangers := self.kind("real", seen=False):
            said.append(
                f"Of real faces from elsewhere it calls {self._shares(strangers, of='of {}', wrong=True)} fake."
            )
        if unclear := [g for g in (*seen, *self.unseen) if self.outcome(g) is None]:
            said.append(f"The test faces are too few to show whether it tells {listed(unclear)} fakes from real faces.")
        few = [s for s, (m, *_) in self.sources.items() if m["n"] < FEW]
        if few:
            n, label = (self.sources[few[0]][0][key] for key in ("n", "label"))
            right = [self.right(few[0])[0][side] or 0.0 for side in ("low", "high")]
            low, high = right if label == "fake" else [1 - share for share in reversed(right)]
            said.append(
                f"There are few test faces: of another {n} of {few[0]} it could well call {low * n:.0f} to "
                f"{high * n:.0f} fake."
            )
        return " ".join(said)

    def _alarms(self, reals: Sequence[str]) -> str:
        return self._shares(reals, of="of real faces" if len(reals) == 1 else "of real faces of {}", wrong=True)

    def _seen(self, name: str, seen: Sequence[str], alarms: str) -> str:
        failed = [g for g in seen if self.outcome(g) in (0, -1)]
        found = f"{name} finds {self._shares(seen, of='of {} fakes')}"
        words = f"{found} and calls {alarms} fake." if alarms else f"{found}."
        if failed:
            words += f" It cannot tell {listed(failed)} fakes from real faces, though it has learnt from such fakes."
        return words

    def _unseen(self, unseen: Sequence[str]) -> str:
        where = {how: [g for g in unseen if self.outcome(g) == how] for how in (1, 0, -1)}
        lost = where[0] + where[-1]
        others = [g for g in unseen if g not in lost]
        words = []
        if lost:
            whole = not others
            which = f"the {_count(len(lost))}" if whole and len(lost) > 1 else "the" if whole else _count(len(lost))
            names = f"generator{'s' * (len(lost) > 1)} that it never saw ({', '.join(lost)})"
            tail = ": worse than guessing" if not where[0] else ": no better than guessing"
            if where[0] and where[-1]:
                tail += f", on {listed(where[-1])} even worse"
            words.append(f"It fails on {which} {names}{tail}.")
        if others:
            weak = [g for g in where[1] if mean_value(self.auroc(g)) < WEAK]
            shares = self._shares(others, of="of {} fakes")
            little = f", little better than guessing on {listed(weak)}" if weak else ""
            missed = [g for g in where[1] if mean_value(self.right(g)) < 0.5 and mean_value(self.auroc(g)) > WELL]
            another = f"; it ranks {listed(missed)} well, but its threshold misses most" if missed else ""
            of = "Of the others" if lost else "Of generators that it never saw,"
            words.append(f"{of} it finds {shares}{little}{another}.")
        return " ".join(words)

    def _shares(self, names: Sequence[str], of: str, wrong: bool = False) -> str:
        """75% of stylegan fakes; 9 of 12 gan_a fakes; 40% to 90% of the fakes of 7 generators."""
        parts = []
        for name in names:
            share, n = mean_value(self.right(name)), self.sources[name][0]["n"]
            share = 1 - share if wrong else share
            shown = f"{share:.0%} {of}" if n >= FEW else f"{round(share * n)} of {n}{of.removeprefix('of')}"
            parts.append((share, shown.format(name)))
        if len(parts) <= _LISTED:
            return listed([words for _, words in parts])
        (least, low), (most, high) = min(parts), max(parts)
        equal = f"{low} and the same share of {len(parts) - 1} other sources"
        return f"between {low} and {high} ({len(parts)} sources)" if least < most else equal


def _count(number: int) -> str:
    return _NUMBERS[number] if number < len(_NUMBERS) else str(number)


def headline(
    groups: Sequence[Group], found: Sequence[Design], against: Sequence[HeldOut], answered: Sequence[Answer]
) -> list[str]:
    """One paragraph for each set of faces: what its best configuration does; first, generators held out by design."""
    words = [_of_design(design, [h for h in against if h.design is design]) for design in found]
    designed = {run.folder for design in found for row in design.rows for run in row.runs}
    for alike in together(groups):
        if designed.isdisjoint(run.folder for run in alike[0].runs):
            which = alike[0].of_runs
            words.append((f"{which[0].upper()}{which[1:]}: " if which else "") + _of_faces(alike))
    asked = [f"{answer.question} {answer.verdict}." for answer in answered]
    return [*words, *([" ".join(asked)] if asked and words else [])]


def ranked(alike: Sequence[Group]) -> list[Standing]:
    """The highest AUROC comes first: on generators that were seen, where some were."""
    parts = zip(*(group.configurations for group in alike), strict=True)
    pairs = zip(parts, one_by_one(alike), strict=True)
    by_value = [(mean_value(of_seeds(own[0], "auroc")), Standing(whole, own)) for own, whole in pairs]
    return [standing for _, standing in sorted(by_value, key=lambda pair: -pair[0])]


def _of_faces(alike: Sequence[Group]) -> str:
    standings = ranked(alike)
    best, *others = standings
    if not others:
        return best.sentences(best.configuration.name)
    first = alike[0]
    own = next(c for c in first.configurations if c.name == best.configuration.name)
    equal = [c.name for c in first.configurations if c is not own and first.difference(own, c).outcome < 1]
    where = f" on {first.kind}" if first.kind else ""
    unsure = f", but is not shown to be better than {some(equal, len(others))}" if equal else ""
    place = "comes first" if equal else "is the best"
    return f"{best.configuration.name} {place} of {len(standings)} configurations{where}{unsure}. {best.sentences()}"


def _of_design(design: Design, against: Sequence[HeldOut]) -> str:
    seen, unseen = (_mean_of_cells(design, seen) for seen in (True, False))
    row, generator = design.worst
    outcomes = [h.comparison.outcome for h in against]
    harder = "That generators never seen are harder is shown in"
    shown = f" {harder} {outcomes.count(-1)} of {len(outcomes)} comparisons." if outcomes else ""
    low = mean_value(row.aurocs(generator))
    beside = "" if seen is None else f", of a generator that was seen in {seen:.0%}"
    how = guessing(row.aurocs(generator))
    tail = {0: ", not shown to be better than guessing", -1: ", worse than guessing"}.get(how, "")
    return (
        f"{design.name}: a fake of a generator never seen is ranked above a real face in {unseen:.0%} of cases"
        f"{beside}; guessing gives 50%.{shown} The hardest generator that was never seen is {generator}: "
        f"{low:.0%}{tail}."
    )


def _mean_of_cells(design: Design, seen: bool) -> float | None:
    """Also of cells that lack seeds of the others; None without cells: no run may have seen what was tested."""
    values = [mean_value(row.aurocs(generator)) for row, generator in design.cells(seen)]
    return sum(values) / len(values) if values else None


def overview(groups: Sequence[Group], found: Sequence[Design]) -> list[Block]:
    """Bars of AUROC by generator, seen and unseen apart, and the same as a table."""
    blocks: list[Block] = []
    designed = {run.folder for design in found for row in design.rows for run in row.runs}
    for i, design in enumerate(found):
        blocks += _pictured(f"overview_design_{i}", design.name, _bars_of_design(design))
    for i, alike in enumerate(together(groups)):
        if designed.isdisjoint(run.folder for run in alike[0].runs):
            standings = ranked(alike)
            title = f"the {_SHOWN} best of {len(standings)} configurations" if len(standings) > _SHOWN else ""
            blocks += _pictured(f"overview_{i}", title, _bars(standings[:_SHOWN]))
            blocks.append(Section("The same in numbers", [in_numbers(standings)], folded=True))
    return blocks


Bars = Mapping[str, Mapping[str, Mapping[str, Measure]]]  # seen or never seen -> generator -> configuration


def _bars(standings: Sequence[Standing]) -> Bars:
    bars: dict[str, dict[str, dict[str, Measure]]] = {}
    for seen, words in ((True, "seen in training"), (False, "never seen")):
        for standing in standings:
            for generator in standing.kind("fake", seen):
                own = bars.setdefault(words, {}).setdefault(generator, {})
                own[standing.configuration.name] = _of_seeds(standing.auroc(generator))
    return bars


def _bars_of_design(design: Design) -> Bars:
    """By generator, the mean over runs that have seen it, and over those that have not."""
    bars: dict[str, dict[str, dict[str, Measure]]] = {}
    for seen, words in ((True, "seen in training"), (False, "never seen")):
        for row, generator in design.cells(seen):
            bars.setdefault(words, {}).setdefault(generator, {})[row.words] = _of_seeds(row.aurocs(generator))
    return {
        words: {generator: {design.name: _of_seeds(list(by_row.values()))} for generator, by_row in own.items()}
        for words, own in bars.items()
    }


def _of_seeds(measures: Sequence[Mapping[str, float | None]]) -> Measure:
    """The mean, from the lowest bound to the highest."""
    lows, highs = ([bound for m in measures if (bound := m[side]) is not None] for side in ("low", "high"))
    return {"value": mean_value(measures), "low": min(lows, default=None), "high": max(highs, default=None)}


def _pictured(name: str, title: str, bars: Bars) -> list[Block]:
    if not plots.available():
        return [Text(NO_PLOTS)]
    caption = f"AUROC by generator{f', {title}' if title else ''}: the chance that a fake is ranked above a real face. "
    alt = "; ".join(
        f"{generator} ({words}): {', '.join(measured(m) for m in own.values())}"
        for words, generators in bars.items()
        for generator, own in generators.items()
    )
    return [drawn(plots.generator_bars(bars), name, f"AUROC by generator. {alt}", caption + _INTERVALS)]


def in_numbers(standings: Sequence[Standing]) -> Table:
    """A row for each source: AUROC of each configuration, and the share of its faces that are called fake."""
    rows = []
    for label, seen in (("fake", True), ("fake", False), ("real", True), ("real", False)):
        for source in dict.fromkeys(name for s in standings for name in s.kind(label, seen)):
            row = {"source": source, "is": f"{label}{'' if seen else ', never seen'}"}
            for s in standings:
                right, auroc = s.right(source), measured(_of_seeds(s.auroc(source))).replace(" [", "\n[")
                fakes = right if label == "fake" else [complement(m) for m in right]  # type: ignore[arg-type]
                share = f"called fake: {mean_value(fakes):.0%}"
                row[s.configuration.name] = share if label == "real" else f"{auroc}\n{share}"
            rows.append(row)
    return Table("AUROC with its 95% interval, and how many of the faces are called fake", rows, words=2)
