"""The model card of a finished run: what its detector is, what it has learnt, what it can do and what it cannot."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fakegan.detector import Detector
from fakegan.reports import faces
from fakegan.reports.groups import grouped, together
from fakegan.reports.headline import headline, in_numbers, ranked
from fakegan.reports.render import Figure, Gallery, Items, Report, Section, Text, to_markdown
from fakegan.runs.config_file import read_run
from fakegan.runs.finished import FinishedRun, names_of
from fakegan.runs.robustness import read_robustness
from fakegan.system.shell import called


def model_card(folder: Path, detector: Detector) -> str:
    """Markdown, written from the files of the run alone.

    Raises:
        FakeganError: a file of the run is damaged.
    """
    run = FinishedRun(read_run(str(folder)), folder)
    groups = grouped([run])
    standings = [standing for alike in together(groups) for standing in ranked(alike)]
    of_data, shortcuts, not_audited = faces.data([run])
    sections = [
        Section("What it is", [Items(_is(run, detector))]),
        Section("How to use it", [Text(f"{called('predict')} --run FILE PICTURES"), Text(_verdict(detector))]),
        Section("How well it does on test faces", [in_numbers(standings), *_robustness(folder)]),
        Section("What it has learnt from", [Items(_learnt(run)), *(b for b in of_data if _is_text(b))]),
        Section("What it must not be used for", [Items(_limits(run, detector))]),
    ]
    (name,) = names_of([run.settings])
    lead = f"Made by FakeGAN {run.metrics['versions']['fakegan']} from the run {folder.name}."
    said = headline(groups, [], [], [])
    warnings = [*shortcuts, *not_audited]
    return to_markdown(Report(f"Model card: {name}", lead, [], sections, warnings, said))


def _is_text(block: object) -> bool:
    return not isinstance(block, Figure | Gallery)


def _is(run: FinishedRun, detector: Detector) -> list[str]:
    parts, size = detector.parts(), detector.geometry.size
    chosen = run.metrics["objective"]
    return [
        f"A detector of generated faces: P(fake) of pictures, prepared as {size}x{size} pixels.",
        f"Classifier: {parts['classifier']}, which sees the view {parts['view']!r}.",
        f"Autoencoder: {parts['autoencoder'] or 'none'}.",
        f"The epoch was chosen by AUROC on validation faces: {chosen:.3f}.",
    ]


def _verdict(detector: Detector) -> str:
    low, high = detector.band
    unsure = f", and unsure from {low:.3f} to {high:.3f}" if low < high else ""
    return (
        f"A picture is called fake from P(fake) {detector.threshold:.3f}{unsure}. Both come from validation faces: a "
        "verdict outside the band is wrong for at most one face in ten of each class, on faces like those."
    )


def _robustness(folder: Path) -> list[Text | Items]:
    found = read_robustness(folder)
    if found is None:
        return [Text("What JPEG, blur, noise and other changes do to its scores was not measured.")]
    return [Items(found.lines())]


def _learnt(run: FinishedRun) -> list[str]:
    metrics, versions = run.metrics, run.metrics["versions"]
    return [
        f"Sources that trained or validated the classifier: {', '.join(sorted(run.learnt_from))}.",
        f"Seed {run.settings.seed}; {', '.join(f'{name} {version}' for name, version in versions.items())}.",
        f"Fingerprint of the faces: {metrics['data_fingerprint']}.",
        f"Command: {metrics['command']}",
    ]


def _limits(run: FinishedRun, detector: Detector) -> list[str]:
    by_source = run.metrics["test"]["by_source"]
    tested = [name for name, source in by_source.items() if source["label"] == "fake"]
    reals = [name for name, source in by_source.items() if source["label"] == "real"]
    return [
        f"Fakes of generators other than {_listed(tested)}: how many it finds was never measured.",
        f"Real faces other than {_listed(reals)}: another camera, crop or compression may be called fake.",
        "Proof about a single person or picture: a score is evidence among other evidence.",
        "Pictures that are no faces, or whose faces are smaller than "
        f"{detector.geometry.size} pixels: enlarged faces have no detail to judge.",
        "Reading P(fake) as a probability where fakes are rarer or more frequent than among the validation faces.",
    ]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
