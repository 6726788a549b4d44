"""The report's chapters from metrics and scores: configurations side by side, by source, seeds, curves, pairs, runs."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fakegan.config.building import TARGET
from fakegan.evaluation import plots
from fakegan.evaluation.compare import over_seeds, wins
from fakegan.evaluation.metrics import GUESSING_WORDS, complement
from fakegan.reports.groups import Group, called_fake, fingerprint, learnt_words, of_seeds, scores
from fakegan.reports.numbers import cell, counted, guessing, listed, mean_value, number, p_cell
from fakegan.reports.render import Block, Figure, Gallery, Section, Table, Text
from fakegan.runs.finished import Configuration, FinishedRun, shown_path
from fakegan.runs.ledger import read_ledger
from fakegan.system.places import install

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Plot

COLUMNS = {  # measures of metrics.json that the report's tables show, in this order
    "auroc": "AUROC",
    "accuracy": "accuracy",
    "real_accuracy": "real called real",
    "fake_accuracy": "fake called fake",
    "tpr_at_fpr_0.01": "fakes found at 1% FPR",
    "tpr_at_fpr_0.05": "fakes found at 5% FPR",
    "eer": "EER",
    "ece": "ECE",
}
FIRST = ("auroc", "accuracy", "real_accuracy", "fake_accuracy")  # of these; the others are in a fold-out
NO_PLOTS = f"Plots are left out: they need matplotlib, {install('plots')}."
# Test accuracies that the study published, by the classifier's input, the fakes it learnt from, its network and depth.
STUDY = {
    ("pixels", "generated", "SimpleCNN", None): "0.989",
    ("reconstruction", "generated", "SimpleCNN", 1): "0.642",
    ("reconstruction", "generated", "SimpleCNN", 4): "0.648",
    ("pixels", "reconstructed", "SimpleCNN", None): "0.453",
    ("pixels", "reconstructed", "DCGANDiscriminator", None): "0.572\n(0.428)",
}
STUDY_REMARK = (
    "The study's accuracies are one run each, without an interval, on other data (CelebA against StyleGAN, in other "
    "geometry and codec), so they stand beside ours for orientation only. Its 0.572 was scored with real and fake "
    "swapped, so by the labels used here it reads 0.428."
)


def side_by_side(group: Group) -> list[Block]:
    """Every configuration's measures, beside the study's, which were on generators that it had learnt from."""
    faces = group.faces
    unseen = bool(group.unseen & {*faces.sources[faces.labels == 1].tolist()})
    inputs = {(c.settings.pipeline.view, c.settings.pipeline.fakes) for c in group.configurations}
    first = {(view, "generated") for view in ("pixels", "reconstruction")} <= inputs  # the study's first experiment
    ours = [c for c in group.configurations if first or c.settings.pipeline.fakes == "reconstructed"]
    published = {c.name: _published(c, unseen) if c in ours else "" for c in group.configurations}
    rows, more = [], []
    for c in group.configurations:
        row, further = {"configuration": c.name, "seeds": str(len(c.runs))}, {"configuration": c.name}
        for name, column in COLUMNS.items():
            (row if name in FIRST else further)[column] = cell(of_seeds(c, name))
            if name == "accuracy" and any(published.values()):
                row["the study's accuracy"] = published[c.name]
        rows.append(row)
        more.append(further)
    counts = f"{(faces.labels == 0).sum()} real and {(faces.labels == 1).sum()} fake faces"
    words = (
        "One seed: the value and its 95% interval over faces. Several: mean ± sample standard deviation, and each "
        "seed's value. Real and fake accuracy stand apart, since one can be bought with the other."
    )
    blocks: list[Block] = [Text(words), Table(f"{counts}{group.where}: {group.scored}", rows)]
    blocks.append(
        Section("More measures", [Table(f"At strict thresholds, and calibration{group.where}", more)], folded=True)
    )
    if worse := [c.name for c in group.configurations if guessing(of_seeds(c, "auroc")) < 0]:
        blocks.append(Text(f"{listed(worse)}: {GUESSING_WORDS[-1]}.", warning=True))
    return [*blocks, Text(STUDY_REMARK)] if any(published.values()) else blocks


def _published(configuration: Configuration, unseen: bool) -> str:
    s = configuration.settings
    if not s.pipeline.trains_classifier or (unseen and s.pipeline.fakes == "generated"):
        return ""
    depth = s.model.depth if s.pipeline.view == "reconstruction" else None
    net = str(s.classifier.node["net"][TARGET]).rpartition(".")[2]
    return STUDY.get((s.pipeline.view or "", s.pipeline.fakes, net, depth), "")


def own_tasks(group: Group) -> list[Block]:
    """Real test faces against their own reconstructions, for configurations that learnt from these."""
    names, split = [(name, COLUMNS[name]) for name in FIRST], "test_reconstructed"
    rows = [
        {"configuration": c.name, **{column: cell(of_seeds(c, name, split)) for name, column in names}}
        for c in group.configurations
        if of_seeds(c, "auroc", split)
    ]
    return [Table("Own task: real test faces against their own reconstructions", rows)] if rows else []


def by_source(group: Group) -> list[Block]:
    """AUROC and accuracy of each source, with the worst generator beside every mean over generators."""
    fakes = {str(s) for s in group.faces.sources[group.faces.labels == 1]}
    sources = sorted({str(s) for s in group.faces.sources}, key=lambda s: (s not in fakes, s))
    words = (
        "A generator's AUROC is against all real faces, a real source's against all fakes. The mean gives each "
        "generator the same weight; the worst is the one of lowest AUROC or accuracy, over the mean of seeds."
    )
    blocks: list[Block] = [Text(words)]
    for name, title in (("auroc", "AUROC"), ("accuracy", "Share of right calls")):
        rows, means_of = [], []
        for c in group.configurations:
            tests = [run.metrics["test"] for run in c.runs]
            found = {s: [test["by_source"][s][name] for test in tests] for s in sources}
            means = {s: mean_value(found[s]) for s in sorted(fakes)}
            worst = min(means, key=means.__getitem__)
            over = cell([test["over_generators"][f"mean_{name}"] for test in tests])
            lowest = f"{worst}\n{cell(found[worst])}"
            means_of.append({"configuration": c.name, "mean over generators": over, "worst generator": lowest})
            row = {"configuration": c.name}
            for s in sources:
                kind = f"{'fake' if s in fakes else 'real'}{', unseen' if s in group.unseen else ''}"
                row[f"{s} ({kind})"] = cell(found[s])
            rows.append(row)
        table = Table(f"{title} by source", rows if len(rows) >= len(sources) else _turned(rows))
        blocks += [Table(f"{title} over generators", means_of)] if len(fakes) > 1 else []
        blocks.append(Section(f"{title} of each source", [table], folded=True))
    return blocks


def _turned(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Columns as rows: a page has more height than width."""
    named, *columns = rows[0]
    return [{"source": column, **{row[named]: row[column] for row in rows}} for column in columns]


def false_alarms(runs: Sequence[FinishedRun], called: Mapping[Path, str]) -> list[Block]:
    """How often each run calls the real faces of a source fake that it has never seen."""
    rows = [
        {
            "configuration": called[run.folder],
            "learnt from": learnt_words(run.learnt_from, [s for s, fake in by.items() if fake["label"] == "fake"]),
            "source": source,
            "seed": str(run.settings.seed),
            "faces": str(m["n"]),
            "false alarms": cell([complement(m["accuracy"])]),
        }
        for run in runs
        if run.classifies
        for by in [run.metrics["test"]["by_source"]]
        for source, m in by.items()
        if m["label"] == "real" and not m.get("seen", True)
    ]
    return [Table("The share of real faces that is called fake, of sources never seen", rows, words=3)] if rows else []


def seeds(group: Group) -> list[Block]:
    """Each seed's own numbers; nothing where every configuration has one seed."""
    rows = [
        {
            "configuration": c.name,
            "seed": str(run.settings.seed),
            **{COLUMNS[name]: cell([run.metrics["test"][name]]) for name in FIRST},
        }
        for c in group.configurations
        if len(c.runs) > 1
        for run in c.runs
    ]
    table = Table("Each seed, with its 95% interval over faces", rows)
    return [Section("Each seed", [table], folded=True)] if rows else []


def curves(group: Group, name: str) -> list[Block]:
    """ROC curves and seeds in common pictures, and a score histogram of each configuration with all its seeds."""
    if not plots.available():
        return [Text(NO_PLOTS)]
    labels = group.faces.labels
    pictures = []
    for i, alike in enumerate(_by_colour(group.configurations)):
        by_name = {c.name: [(s, labels) for s in scores(c)] for c in alike}
        alt = f"ROC curves{group.where}: {', '.join(by_name)}"
        caption = f"ROC{group.where}: bold the mean over seeds, thin each seed; in brackets the area under it."
        pictures.append(drawn(plots.roc_comparison(by_name), f"roc{name}_{i}", alt, caption))
    if any(len(c.runs) > 1 for c in group.configurations):
        values = {c.name: [float(m["value"] or 0) for m in of_seeds(c, "auroc")] for c in group.configurations}
        caption = f"Test AUROC of each seed{group.where}; the bar is the mean."
        alt = f"AUROC by seed{group.where}"
        pictures.append(drawn(plots.seeds_plot(values), f"seeds{name}", alt, caption))
    return [Gallery(pictures)]


def distributions(found: Sequence[Configuration], number: int, where: str) -> list[Block]:
    """Score histograms of whole configurations on common axes, and the ROC of each by generator."""
    if not plots.available():
        return []
    pictures, rocs = [], []
    step = len(plots.COLOURS)
    for start in range(0, len(found), step):
        alike = found[start : start + step]
        drawn_of = {c.name: _scored(c) for c in alike}
        kinds = dict.fromkeys(kind for _, kinds, _ in drawn_of.values() for kind in kinds)
        seeds = "; all seeds together" if any(len(c.runs) > 1 for c in alike) else ""
        plot = plots.score_histograms(drawn_of)
        caption = f"Scores{where} by kind of face: {listed(list(kinds))}{seeds}."
        alt = f"Histograms of scores{where}: {', '.join(drawn_of)}"
        pictures.append(drawn(plot, f"scores_{number}_{start}", alt, caption))
    for i, c in enumerate(found):
        run = c.runs[0]
        f, threshold = run.scores, float(run.metrics["threshold"])
        plot = plots.pictures(f.scores, f.labels, f.sources, threshold, learnt_from=run.learnt_from)["roc"]
        caption = f"{c.name}{where}: ROC by generator{f', seed {run.settings.seed}' if len(c.runs) > 1 else ''}."
        rocs.append(drawn(plot, f"roc_sources_{number}_{i}", caption, caption))
    return [Gallery(pictures), Section("ROC by generator", [Gallery(rocs)], folded=True)]


def _scored(c: Configuration) -> plots.Distribution:
    f, many = c.runs[0].scores, len(c.runs)
    fake, known = f.labels == 1, np.isin(f.sources, sorted(c.runs[0].learnt_from))
    kinds = {"real": ~fake, "fakes seen in training": fake & known, "fakes never seen": fake & ~known}
    threshold = float(np.mean([run.metrics["threshold"] for run in c.runs]))
    return scores(c).ravel(), {kind: np.tile(own, many) for kind, own in kinds.items() if own.any()}, threshold


def _by_colour(found: Sequence[Configuration]) -> list[list[Configuration]]:
    """Configurations in one picture while each has a colour of its own, else a picture for each classifier."""
    step = len(plots.COLOURS)
    if len(found) <= step:
        return [list(found)]
    by_classifier: dict[str, list[Configuration]] = {}
    for c in found:
        classifier = c.settings.classifier.name if c.settings.pipeline.trains_classifier else ""
        by_classifier.setdefault(classifier, []).append(c)
    return [alike[i : i + step] for alike in by_classifier.values() for i in range(0, len(alike), step)]


def drawn(plot: Plot, name: str, alt: str, caption: str) -> Figure:
    """A plot as a figure of the report."""
    out = io.BytesIO()
    plot.savefig(out, format="png")
    return Figure(name, out.getvalue(), alt, caption)


def pairs(group: Group, name: str) -> list[Block]:
    """Every pair of configurations with both tests, and which configuration beats which."""
    if len(group.configurations) < 2:
        return []
    words = (
        "Differences are the first less the second, with 95% intervals of the paired bootstrap over groups of "
        "faces. With several seeds, what they differ by is added to the faces' variance, and Student's t taken. "
        f"Both p-values are corrected for {counted(len(group.comparisons), 'pair')} by Holm's method. McNemar's test "
        "(by random sign flips where there are several seeds, or several faces in a group) is on the calls of these "
        "trained networks as they are: with few seeds it can be the surer of the two. A difference that is not "
        "significant is not shown; that is not to say that there is none."
    )
    blocks: list[Block] = [Text(words)]
    names = [c.name for c in group.configurations]
    if plots.available() and len(names) > 2:
        plot = plots.wins_matrix(wins(group.comparisons, names), names)
        caption = (
            f"Whether the row's AUROC is significantly higher than the column's{group.where}, after Holm's correction."
        )
        blocks.append(drawn(plot, f"wins{name}", "Matrix of wins", caption))
    rows = [
        {
            "first": c.a,
            "second": c.b,
            "AUROC": cell([c.auroc_difference], signed=True),
            "p, AUROC": p_cell(c.p_auroc_holm),
            "accuracy": cell([c.accuracy_difference], signed=True),
            "p, McNemar": p_cell(c.p_mcnemar_holm),
        }
        for c in sorted(group.comparisons, key=lambda c: (c.p_auroc_holm, -abs(c.auroc_difference["value"])))
    ]
    blocks.append(Table("Every pair, on exactly the same faces; the clearest differences first", rows, words=2))
    return [Section("Differences, intervals and p-values of every pair", blocks, folded=True)]


def provenance(runs: Sequence[FinishedRun], called: dict[Path, str]) -> list[Block]:
    """Each run's seed, command, versions, decisions and fingerprint, and how often its test faces were scored."""
    rows, used = [], []
    for run in runs:
        m = run.metrics
        rows.append(
            {
                "run": shown_path(run.folder),
                "configuration": called.get(run.folder, run.settings.label()),
                "command": str(m.get("command", "-")),
                "faces' fingerprint": fingerprint(run)[:12] or "-",
                "seed": str(run.settings.seed),
                "threshold": number(m.get("threshold")),
                "temperature": number(m.get("temperature"), digits=2),
                "unsure band": " to ".join(number(edge) for edge in m.get("band", ())) or "-",
                "flip average": "yes" if m.get("flip_average") else "no",
                "times scored": str(len(read_ledger(run.path))),
            }
        )
        used.append(", ".join(f"{name} {version}" for name, version in m.get("versions", {}).items()))
    versions = [Text(f"{used.count(v)} of {len(runs)} runs with {v}.") for v in dict.fromkeys(used) if v]
    return [Table("Runs", rows, words=4), *versions, *_ledger(runs)]


def _ledger(runs: Sequence[FinishedRun]) -> list[Block]:
    entries = {run.path: read_ledger(run.path) for run in runs if run.classifies}
    total = sum(len(lines) for lines in entries.values())
    often = {path: lines for path, lines in entries.items() if len(lines) > 1}
    if not often:
        return [Text(f"By the runs' ledgers test faces were scored {total} times, at most once for each run.")]
    words = (
        f"By the runs' ledgers test faces were scored {total} times in {len(entries)} runs, more than once in "
        f"{len(often)}: if anything was chosen in between by what they showed, they are no longer unseen."
    )
    rows = [
        {
            "run": shown_path(path),
            "time": line.time,
            "command": line.command,
            "faces": line.faces,
            "their fingerprint": line.fingerprint[:12],
        }
        for path, lines in often.items()
        for line in lines
    ]
    return [Text(words, warning=True), Table("Ledger of runs scored more than once", rows, words=3)]


def seed_rows(groups: Iterable[Group]) -> list[dict[str, Any]]:
    """Every run's measures as plain numbers, for seeds.csv."""
    return [
        {
            "configuration": c.name,
            "faces": group.called,
            "seed": run.settings.seed,
            "run": str(run.folder),
            **{key: m["value"] for key, m in run.metrics["test"].items() if isinstance(m, dict) and "value" in m},
        }
        for group in groups
        for c in group.configurations
        for run in c.runs
    ]


def plain_numbers(group: Group) -> dict[str, Any]:
    """The comparison of a group for comparison.json."""
    return {
        "faces": len(group.faces),
        "scored": group.scored,
        "called": group.called,
        "fingerprint": fingerprint(group.runs[0]),
        "configurations": [
            {
                "name": c.name,
                "runs": [str(run.folder) for run in c.runs],
                "seeds": [run.settings.seed for run in c.runs],
                **{name: over_seeds([float(m["value"] or 0) for m in of_seeds(c, name)]) for name in COLUMNS},
                "called_fake": float(called_fake(c).mean()),
            }
            for c in group.configurations
        ],
        "pairs": [asdict(comparison) for comparison in group.comparisons],
    }
