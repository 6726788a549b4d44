"""Generators held out by design: runs that differ in the generators they learnt from alone, in one matrix.

All numbers are on the test faces that all of these runs share, so that what differs is what the runs have learnt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from fakegan.evaluation import intervals, plots
from fakegan.evaluation.compare import Comparison, Scored, compare, holm
from fakegan.evaluation.intervals import Bounded, Resampled
from fakegan.evaluation.metrics import GUESSING_WORDS
from fakegan.evaluation.roc import Ranking
from fakegan.reports.groups import called_fake, fingerprint, learnt_words, scores
from fakegan.reports.numbers import cell, guessing, mean_value, number, over, p_cell
from fakegan.reports.render import Answer, Block, Table, Text
from fakegan.reports.tables import drawn
from fakegan.runs.finished import Configuration, FinishedRun, PartOfRun, names_of
from fakegan.runs.results import FaceScores
from fakegan.system.columns import in_columns

Family = Mapping[frozenset[str], Mapping[int, FinishedRun]]  # runs by the sources that they learnt from, and by seed
QUESTION = "Are generators that were held out found as well as generators that were seen?"
_WORDS = (
    "A row is what runs learnt from, a column the generator that they were tested on: AUROC against real faces of "
    "sources that all runs of the matrix learnt from (of all sources, where no such faces were tested). All numbers "
    "are on faces that all runs were tested on. A difference is that of a run that has never seen the generator less "
    "the run that has seen it and otherwise learnt from the most similar generators: the paired bootstrap, p corrected "
    "for all these differences by Holm's method."
)


@dataclass(frozen=True, eq=False)
class Row:
    """Runs that learnt from the same sources, by seed; their faces are those that the design shares."""

    words: str  # which generators these are: gan_a alone
    learnt: frozenset[str]  # sources, real ones too
    runs: tuple[FinishedRun, ...]

    @cached_property
    def tested(self) -> dict[str, list[Resampled]]:
        """By generator and seed, the AUROC against the real faces; its resamples are the same in every row."""
        f = self.runs[0].scores
        generators = np.unique(f.sources[f.labels == 1]).tolist()
        return {g: [_tested(run.scores, (f.labels == 0) | (f.sources == g)) for run in self.runs] for g in generators}

    def aurocs(self, generator: str) -> list[Bounded]:
        """By seed, with intervals over faces."""
        return [measure for measure, *_ in self.tested[generator]]


def _tested(f: FaceScores, among: npt.NDArray[np.bool_]) -> Resampled:
    """The AUROC of some of the faces, and its resamples: those of all faces, NaN where they lack a class."""
    ranking = Ranking(f.scores[among], f.labels[among])
    groups = min(len(np.unique(f.groups[among & (f.labels == label)])) for label in (0, 1))
    with np.errstate(invalid="ignore"):
        drawn = intervals.resampled(lambda weights: ranking.curves(weights[:, among]).auroc(), f.labels, f.groups)
    return intervals.bounded(float(ranking.curves().auroc()[0]), drawn, groups), drawn, groups


Cell = tuple[Row, str]  # with the generator that was tested


@dataclass(frozen=True, eq=False)
class Design:
    """Runs of one pipeline, autoencoder and classifier that learnt from different generators."""

    name: str
    rows: tuple[Row, ...]

    @property
    def faces(self) -> FaceScores:
        """The shared faces, with the first run's scores."""
        return self.rows[0].runs[0].scores

    @cached_property
    def generators(self) -> tuple[str, ...]:
        """Those that the shared faces hold."""
        return tuple(np.unique(self.faces.sources[self.faces.labels == 1]).tolist())

    def cells(self, seen: bool) -> list[Cell]:
        """The cells whose generator the row has learnt from, or has never seen; every design has some of these."""
        return [(row, g) for row in self.rows for g in self.generators if (g in row.learnt) == seen]

    @cached_property
    def worst(self) -> Cell:
        """The cell never seen with the lowest AUROC, over the mean of seeds."""
        return min(self.cells(seen=False), key=lambda at: mean_value(at[0].aurocs(at[1])))

    def mean(self, seen: bool) -> list[Bounded]:
        """The mean AUROC of the cells that were seen, or were not, for each seed that all of them have."""
        cells = self.cells(seen)
        by_seed: dict[int, list[Resampled]] = {}
        for row, generator in cells:
            for run, tested in zip(row.runs, row.tested[generator], strict=True):
                by_seed.setdefault(run.settings.seed, []).append(tested)
        return [intervals.mean(tested) for _, tested in sorted(by_seed.items()) if len(tested) == len(cells)]

    def in_words(self) -> str:
        """The means of the seen and of the unseen, and the worst of the unseen."""
        row, generator = self.worst
        unseen, seen, worst = (over(m) for m in (self.mean(seen=False), self.mean(seen=True), row.aurocs(generator)))
        means = f"mean AUROC on generators never seen {unseen}, on generators seen {seen}"
        return f"{self.name}: {means}; the worst never seen {worst} ({generator}, learnt from {row.words})"

    def as_text(self) -> list[str]:
        """The matrix for a terminal: means over seeds, with a star where the generator was never seen."""
        stars = {True: " ", False: "*"}
        rows = [
            (row.words, *(number(mean_value(row.aurocs(g))) + stars[g in row.learnt] for g in self.generators))
            for row in self.rows
        ]
        return in_columns([("learnt from", *self.generators), *rows])


@dataclass(frozen=True)
class HeldOut:
    """A result on a generator that was held out, against that of runs that have seen it."""

    design: Design
    generator: str
    unseen: Row
    seen: Row
    comparison: Comparison  # unseen less seen, corrected for all of the report


def designs(runs: Sequence[FinishedRun]) -> list[Design]:
    """The designs among the runs on faces of each store: two or more runs that differ in their generators alone."""
    stores: dict[str, dict[str, dict[frozenset[str], dict[int, FinishedRun]]]] = {}
    for run in runs:
        if run.classifies:
            reals = {*run.scores.sources[run.scores.labels == 0].tolist()}
            settings = run.settings.configuration()
            del settings["data"]["split"]["unseen"], settings["data"]["split"]["learn_from"]
            key = json.dumps([settings, sorted(reals - run.learnt_from)], sort_keys=True)
            rows = stores.setdefault(fingerprint(run), {}).setdefault(key, {})
            rows.setdefault(run.learnt_from, {}).setdefault(run.settings.seed, run)
    families = [[rows for rows in store.values() if len(rows) > 1] for store in stores.values()]
    return [design for of_store in families if of_store for design in _of_store(of_store)]


def _of_store(families: Sequence[Family]) -> list[Design]:
    runs = [run for family in families for by_seed in family.values() for run in by_seed.values()]
    shared = sorted(set.intersection(*({*run.scores.files.tolist()} for run in runs)))
    rows = [_rows(family, shared) for family in families]
    names = names_of([of_family[0].runs[0].settings for of_family in rows])
    found = [Design(name, of_family) for name, of_family in zip(names, rows, strict=True)]
    return [design for design in found if (design.faces.labels == 0).any() and design.cells(seen=False)]


def _rows(family: Family, shared: Sequence[str]) -> tuple[Row, ...]:
    """A family on shared files; rows that learnt from more come first."""
    by_all, by_some = frozenset.intersection(*family), frozenset.union(*family)
    tested = {
        g for by_seed in family.values() for r in by_seed.values() for g in r.scores.sources[r.scores.labels == 1]
    }
    generators = tested | (by_some - by_all)  # also those that only other faces hold
    left_out = {own: generators - own for own in family}
    alone = {own: generators & own for own in family if len(generators & own) == 1}
    order = sorted(family, key=lambda own: (-len(own), sorted(alone.get(own, left_out[own]))))
    parts = [tuple(_part(run, shared, sorted(by_all)) for _, run in sorted(family[own].items())) for own in order]
    return tuple(Row(learnt_words(own, generators), own, runs) for own, runs in zip(order, parts, strict=True))


def _part(run: FinishedRun, shared: Sequence[str], learnt: Sequence[str]) -> PartOfRun:
    """A run on shared files: fakes, and real faces of sources that were learnt from, where there are such."""
    f = run.scores
    there, fake = np.isin(f.files, shared), f.labels == 1
    real = there & ~fake & np.isin(f.sources, learnt)
    return PartOfRun(run.settings, run.folder, run, (there & fake) | (real if real.any() else there & ~fake))


def against_seen(found: Sequence[Design]) -> list[HeldOut]:
    """Each held-out result against the runs that saw the generator and learnt from the most similar others."""
    held = []
    for design in found:
        for row, generator in design.cells(seen=False):
            saw = {other: len(row.learnt ^ other.learnt) for other in design.rows if generator in other.learnt}
            nearest = [other for other, differing in saw.items() if differing == min(saw.values())]
            held += [HeldOut(design, generator, row, o, _compared(design, generator, row, o)) for o in nearest]
    corrected = holm([h.comparison.p_auroc for h in held])
    return [replace(h, comparison=replace(h.comparison, p_auroc_holm=p)) for h, p in zip(held, corrected, strict=True)]


def _compared(design: Design, generator: str, unseen: Row, seen: Row) -> Comparison:
    f = design.faces
    among = (f.labels == 0) | (f.sources == generator)
    rows = [(row.words, Configuration(row.words, row.runs)) for row in (unseen, seen)]
    entries = [Scored(words, scores(runs)[:, among], called_fake(runs)[:, among]) for words, runs in rows]
    return compare(entries, f.labels[among], f.groups[among])[0]


def answer(found: Sequence[Design], against: Sequence[HeldOut]) -> list[Answer]:
    """The answer to QUESTION; nothing where no generator was held out by design."""
    if not against:
        return []
    outcomes = [h.comparison.outcome for h in against]
    shown = [f"{word} in {outcomes.count(o)}" for o, word in ((-1, "worse"), (1, "better")) if o in outcomes]
    verdict = f"{' and '.join(shown)} of {len(outcomes)}" if shown else "not shown to differ"
    best = max(guessing(row.aurocs(generator)) for design in found for row, generator in design.cells(seen=True))
    if not shown and best < 1:
        verdict = f"Moot: even on generators that were seen, {GUESSING_WORDS[best]}"
    sentence = "By AUROC on the same faces, against runs that saw the generator, after Holm's correction."
    details = [design.in_words() for design in found]
    return [Answer(QUESTION, verdict[0].upper() + verdict[1:], "no" if -1 in outcomes else "open", sentence, details)]


def chapter(found: Sequence[Design], against: Sequence[HeldOut]) -> list[Block]:
    """The matrices with their heat maps, and the paired differences."""
    blocks: list[Block] = [Text(_WORDS)] if found else []
    for i, design in enumerate(found):
        if plots.available():
            values = np.array([[mean_value(row.aurocs(g)) for g in design.generators] for row in design.rows])
            unseen = np.array([[g not in row.learnt for g in design.generators] for row in design.rows])
            plot = plots.heat_map(values, unseen, [row.words for row in design.rows], design.generators)
            alt = f"AUROC by generators learnt from and generator tested: {design.name}"
            blocks.append(drawn(plot, f"held_out_{i}", alt, f"{design.name}: AUROC, the mean over seeds."))
        labels = design.faces.labels
        rows = [
            {"learnt from": row.words}
            | {g: f"{cell(row.aurocs(g))}{'' if g in row.learnt else ', unseen'}" for g in design.generators}
            for row in design.rows
        ]
        counts = f"{(labels == 0).sum()} real and {(labels == 1).sum()} fake faces"
        blocks.append(Table(f"{design.name}, {counts}: AUROC by what was learnt from", rows))
    if against:
        blocks.append(Table("Held out against seen; the clearest differences first", _differences(against), words=4))
    return blocks


def _differences(against: Sequence[HeldOut]) -> list[dict[str, str]]:
    ordered = sorted(against, key=lambda h: (h.comparison.p_auroc_holm, -abs(h.comparison.auroc_difference["value"])))
    return [
        {
            "configuration": h.design.name,
            "generator": h.generator,
            "never seen by": h.unseen.words,
            "seen by": h.seen.words,
            "AUROC, never seen": number(mean_value(h.unseen.aurocs(h.generator))),
            "AUROC, seen": number(mean_value(h.seen.aurocs(h.generator))),
            "difference": cell([h.comparison.auroc_difference], signed=True),
            "p": p_cell(h.comparison.p_auroc_holm),
        }
        for h in ordered
    ]


def cells(found: Sequence[Design]) -> list[dict[str, Any]]:
    """Each cell and seed of every matrix, for held_out.csv."""
    return [
        {
            "configuration": design.name,
            "learnt_from": row.words,
            "generator": generator,
            "unseen": "no" if generator in row.learnt else "yes",
            "seed": run.settings.seed,
            **{"auroc" if key == "value" else key: measure[key] for key in ("value", "low", "high")},
        }
        for design in found
        for row in design.rows
        for generator in design.generators
        for run, measure in zip(row.runs, row.aurocs(generator), strict=True)
    ]
