"""The project's questions, answered from the runs at hand: each with numbers, intervals and paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from fakegan.evaluation.compare import Comparison, holm
from fakegan.evaluation.metrics import judged
from fakegan.reports.groups import Group, fingerprint, of_seeds
from fakegan.reports.numbers import ALPHA, GUESSING_WORDS, guessing, mean_value, measured, number, over, p_words
from fakegan.reports.reconstruction import Autoencoder
from fakegan.reports.render import Answer
from fakegan.runs.finished import Configuration, differences_of, flat, shown_path

NOT_ASKED = "Not asked by these runs"
NOT_COMPARABLE = "Not answered: these runs cannot be compared"
_LISTED = 6  # differing keys that are named
_NEITHER = {
    0: "neither is shown to be better than guessing (AUROC 0.5)",
    -1: "both are worse than guessing (AUROC below 0.5)",
}


@dataclass(frozen=True)
class Question:
    """Asked of two configurations that differ in one thing alone."""

    text: str
    subject: str  # what the first of the two has, in a sentence
    verbs: tuple[str, str, str]  # its AUROC is higher, lower, not shown to differ
    kinds: Callable[[Configuration, Configuration], bool]  # whether the two are of the kinds that it is about
    free: tuple[str, ...]  # keys of a configuration that may differ
    words: Callable[[Configuration, Configuration], str]  # which two, in short
    missing: str  # what to add where no two runs ask it
    verdicts: tuple[str, str] = ("Yes", "No")  # where all comparisons are higher, or all lower


@dataclass(frozen=True)
class _Pair:
    words: str
    first: Configuration
    second: Configuration
    comparison: Comparison

    @property
    def outcome(self) -> int:
        """1 where the first's AUROC is significantly higher, -1 where lower, else 0."""
        if self.comparison.p_auroc_holm >= ALPHA:
            return 0
        return 1 if (self.comparison.auroc_difference["value"] or 0) > 0 else -1

    @property
    def guessing(self) -> int:
        """How both stand to guessing: where no interval lies above it, which one is worse then says little."""
        return guessing([m for c in (self.first, self.second) for m in of_seeds(c, "auroc")])

    def said(self, verbs: tuple[str, str, str]) -> str:
        """The question's verb for the outcome; where McNemar's test sees more than the bootstrap, that too."""
        verb = dict(zip((1, -1, 0), verbs, strict=True))[self.outcome]
        verdicts_differ = self.outcome == 0 and self.comparison.p_mcnemar_holm < ALPHA
        return f"{verb} by AUROC, though the verdicts differ" if verdicts_differ else verb

    def numbers(self) -> str:
        """Both measures with their difference, its interval and its p-value."""
        c = self.comparison
        against = {
            name: f"{number(mean_value(of_seeds(self.first, name)))} against "
            f"{number(mean_value(of_seeds(self.second, name)))}"
            for name in ("auroc", "accuracy")
        }
        return (
            f"AUROC {against['auroc']}, {measured(c.auroc_difference, signed=True)}, {p_words(c.p_auroc_holm)}; "
            f"accuracy {against['accuracy']}, {measured(c.accuracy_difference, signed=True)}, "
            f"McNemar {p_words(c.p_mcnemar_holm)}"
        )


def answers(groups: Sequence[Group], autoencoders: Sequence[Autoencoder]) -> list[Answer]:
    """All four, in the order of the project's own."""
    helps, depth, generalises = (_answer(question, groups) for question in QUESTIONS)
    return [helps, depth, _reconstructed_differently(autoencoders), generalises]


def _answer(question: Question, groups: Sequence[Group]) -> Answer:
    pairs = [pair for group in groups for pair in _pairs(question, group)]
    own_task = _own_task(groups) if question is GENERALISES else []
    if not pairs:
        missing = _not_asked(question, groups)
        verdict = NOT_ASKED if missing.startswith("Add ") else NOT_COMPARABLE
        return Answer(question.text, verdict, "open", missing, tuple(own_task))
    outcomes = [pair.outcome for pair in pairs]
    verbs = dict(zip((1, -1, 0), question.verbs, strict=True))
    counts = [str(len(group.comparisons)) for group in groups if len(group.configurations) > 1]
    corrected = f"p-values after Holm's correction for {' and '.join(counts)} {'pair' if counts == ['1'] else 'pairs'}"
    verdict, tone = _verdict(question, outcomes)
    standing = [pair.guessing for pair in pairs]
    if max(standing) < 1:
        verdict, tone = f"Moot: {GUESSING_WORDS[max(standing)]}", "open"
    warning = "".join(
        f" In {standing.count(how)} of {len(pairs)} {words}." for how, words in _NEITHER.items() if how in standing
    )
    if len(pairs) == 1:
        said = f"{question.subject} {pairs[0].said(question.verbs)} ({pairs[0].words})"
        sentence = f"{said}: {pairs[0].numbers()} ({corrected}).{warning}"
        return Answer(question.text, verdict, tone, sentence, tuple(own_task))
    counted = [f"{verbs[o]} in {outcomes.count(o)}" for o in (1, -1, 0) if o in outcomes]
    differences = [pair.comparison.auroc_difference["value"] or 0.0 for pair in pairs]
    sentence = (
        f"{question.subject} {_listed(counted)} of {len(pairs)} comparisons; differences of AUROC from "
        f"{number(min(differences), signed=True)} to {number(max(differences), signed=True)}, "
        f"{p_words(min(pair.comparison.p_auroc_holm for pair in pairs))} at the least ({corrected}).{warning}"
    )
    details = [f"{pair.words}: {pair.said(question.verbs)}; {pair.numbers()}." for pair in pairs]
    return Answer(question.text, verdict, tone, sentence, (*details, *own_task))


def _pairs(question: Question, group: Group) -> list[_Pair]:
    return [
        _Pair(question.words(a, b) + group.where, a, b, group.difference(a, b))
        for a in group.configurations
        for b in group.configurations
        if a is not b and _asks(question, a, b)
    ]


def _verdict(question: Question, outcomes: Sequence[int]) -> tuple[str, Literal["yes", "no", "open"]]:
    higher, lower = 1 in outcomes, -1 in outcomes
    if higher and lower:
        return "It depends", "open"
    if not higher and not lower:
        return "Not shown", "open"
    which = 0 if higher else 1
    verdict = f"In part: {question.verbs[which]}" if 0 in outcomes else question.verdicts[which]
    return verdict, "yes" if higher else "no"


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _own_task(groups: Sequence[Group]) -> list[str]:
    found = []
    for group in groups:
        for c in group.configurations:
            aurocs, accuracies = (of_seeds(c, name, "test_reconstructed") for name in ("auroc", "accuracy"))
            if aurocs:
                words = GUESSING_WORDS.get(guessing(aurocs))
                found.append(
                    f"{c.name} on its own task, real faces against their reconstructions: AUROC {over(aurocs)}, "
                    f"accuracy {over(accuracies)}{f', {words}' if words else ''}."
                )
    return list(dict.fromkeys(found))  # seen and unseen generators share it


# Two configurations ask a question if they are of its kinds and agree in everything else.


def _rest(question: Question, configuration: Configuration) -> dict[str, Any]:
    """All that two configurations must agree in, by key."""
    return {
        key: value
        for key, value in flat(configuration.settings.configuration()).items()
        if not any(key == free or key.startswith(f"{free}.") for free in question.free)
    }


def _asks(question: Question, a: Configuration, b: Configuration) -> bool:
    return question.kinds(a, b) and _rest(question, a) == _rest(question, b)


def _not_asked(question: Question, groups: Sequence[Group]) -> str:
    """Which runs to add; or, where there are runs of both kinds, why the two that are most alike are no pair."""
    places = [(group, c) for group in groups for c in group.configurations]
    reasons = [
        (a, b, _differing(question, a, b, elsewhere=one is not other))
        for one, a in places
        for other, b in places
        if question.kinds(a, b)
    ]
    reasons = [reason for reason in reasons if reason[2]]
    if not reasons:
        return f"{question.missing}."
    a, b, why = min(reasons, key=lambda reason: len(reason[2]))
    listed = "; ".join([*why[:_LISTED], *([f"{len(why) - _LISTED} keys more"] if len(why) > _LISTED else [])])
    paths = [shown_path(c.runs[0].path) for c in (a, b)]
    return f"{paths[0]} and {paths[1]} cannot be compared, because they differ in more than what is asked: {listed}."


def _differing(question: Question, a: Configuration, b: Configuration, elsewhere: bool) -> list[str]:
    """What keeps two configurations from being compared, each as a key with both values."""
    why = differences_of(_rest(question, a), _rest(question, b))
    names = [c.settings.budget.name for c in (a, b)]
    if why and names[0] != names[1]:
        why.insert(0, f"budget={names[0]} against {names[1]}")
    if elsewhere and fingerprint(a.runs[0]) != fingerprint(b.runs[0]):
        why.append("faces of stores of other content")
    elif elsewhere and not why:
        why.append("scored on different faces")
    return why


def _through_autogan(a: Configuration, b: Configuration) -> bool:
    seen = [(c.settings.pipeline.view, c.settings.pipeline.fakes) for c in (a, b)]
    return seen == [("reconstruction", "generated"), ("pixels", "generated")]


def _deeper(a: Configuration, b: Configuration) -> bool:
    both = a.settings.pipeline.needs_autoencoder and b.settings.pipeline.needs_autoencoder
    return both and a.settings.pipeline == b.settings.pipeline and a.settings.model.depth > b.settings.model.depth


def _adversarial(a: Configuration, b: Configuration) -> bool:
    return (
        a.settings.pipeline.fakes == b.settings.pipeline.fakes == "reconstructed"
        and a.settings.classifier.adversarial
        and not b.settings.classifier.adversarial
    )


HELPS = Question(
    "Does passing through the AutoGAN help?",
    "Passing through the AutoGAN",
    ("helps", "hurts", "is not shown to differ from classifying the images"),
    _through_autogan,
    ("pipeline", "model", "autoencoder"),
    lambda a, _: a.name.removeprefix(f"{a.settings.pipeline.name} · "),
    "Add pipeline=classify,recon_classify with one classifier",
    ("Yes", "No, it hurts"),
)
DEPTH = Question(
    "Does depth matter?",
    "The deeper autoencoder",
    ("is better", "is worse", "is not shown to differ"),
    _deeper,
    ("model.name", "model.net.depth", "model.checkpoint"),
    lambda a, b: f"{a.name} against depth {b.settings.model.depth}",
    "Add model=autogan1,autogan4 with pipeline=recon_classify",
    ("Yes, deeper is better", "Yes, deeper is worse"),
)
GENERALISES = Question(
    "Does the adversarially trained classifier generalise better?",
    "Trained on reconstructions and tested on generated faces, the DCGAN",
    ("generalises better", "generalises worse", "is not shown to generalise differently"),
    _adversarial,
    ("classifier", "budget", "callbacks.early_stopping"),
    lambda a, b: f"{a.name} against {b.settings.classifier.name}",
    "Add pipeline=recon_fakes classifier=dcgan,simple_cnn",
    ("Yes", "No, worse"),
)
QUESTIONS = (HELPS, DEPTH, GENERALISES)


# Whether reconstructions differ is asked of errors, not of verdicts.

DIFFERS = "Do real and fake faces differ in how they are reconstructed?"
_ERROR = ("errors", "l1", "real_vs_fake")


def _reconstructed_differently(autoencoders: Sequence[Autoencoder]) -> Answer:
    analysed = [a for a in autoencoders if a.analyses]
    if not analysed:
        if autoencoders:
            names = ", ".join(shown_path(run.path) for a in autoencoders for run in a.runs)
            return Answer(DIFFERS, NOT_COMPARABLE, "open", f"The autoencoder's errors were not analysed in {names}.")
        missing = "Add pipeline=recon_classify or recon_error, whose runs analyse reconstruction errors"
        return Answer(DIFFERS, NOT_ASKED, "open", f"{missing}.")
    shifts, shapes = (
        _corrected([a.worst_p(*_ERROR, test, "p") for a in analysed]) for test in ("mann_whitney", "kolmogorov_smirnov")
    )
    outcomes = [_direction(a, shift) for a, shift in zip(analysed, shifts, strict=True)]
    probed = [_told_by_spectrum(a) for a in analysed]
    said = [_error_words(*found) for found in zip(outcomes, shapes, probed, strict=True)]
    numbers = [_error_numbers(a, p, q) for a, p, q in zip(analysed, shifts, shapes, strict=True)]
    shown = [bool(outcome) or (q is not None and q < ALPHA) for outcome, q in zip(outcomes, shapes, strict=True)]
    verdict = "Yes" if all(shown) else "In part: yes" if any(shown) or any(probed) else "Not shown"
    tone: Literal["yes", "open"] = "yes" if any(shown) or any(probed) else "open"
    about = "".join(f" This is about {words}." for words in dict.fromkeys(a.about for a in analysed) if words)
    if len(analysed) == 1:
        sentence = f"With {analysed[0].name}, fake faces {said[0]}: {numbers[0]}.{about}"
        return Answer(DIFFERS, verdict, tone, sentence)
    counted = [f"{words} with {said.count(words)}" for words in dict.fromkeys(said)]
    sentence = f"Fake faces {_listed(counted)} of {len(analysed)} autoencoders; {_complexity(analysed)}.{about}"
    details = [f"{a.name}: fakes {words}; {text}." for a, words, text in zip(analysed, said, numbers, strict=True)]
    return Answer(DIFFERS, verdict, tone, sentence, tuple(details))


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the autoencoders; what is not defined stays so."""
    defined = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(defined) for p in p_values]


def _direction(autoencoder: Autoencoder, p: float | None) -> int:
    """1 where every seed's interval of Cohen's d lies above 0, -1 where below, else 0; 0 where p does not agree."""
    effects = autoencoder.measures(*_ERROR, "cohens_d")
    if p is None or p >= ALPHA:
        return 0
    if all(m["low"] is not None and m["low"] > 0 for m in effects):
        return 1
    return -1 if all(m["high"] is not None and m["high"] < 0 for m in effects) else 0


def _told_by_spectrum(autoencoder: Autoencoder) -> bool:
    """Whether a linear probe of the residual's spectrum beats guessing with every seed."""
    probes = autoencoder.measures("probes", "residual_spectrum", "auroc")
    return bool(probes) and all(judged(m) > 0 for m in probes)


def _error_words(outcome: int, p_shape: float | None, by_spectrum: bool) -> str:
    if outcome:
        return f"have the {'larger' if outcome > 0 else 'smaller'} error"
    if p_shape is not None and p_shape < ALPHA:
        return "have errors of another distribution, though not shown to be larger or smaller"
    if by_spectrum:
        return "are not shown to have another L1 error, but a linear probe tells them by the residual's spectrum"
    return "are not shown to differ"


def _error_numbers(a: Autoencoder, p_shift: float | None, p_shape: float | None) -> str:
    effect = over(a.measures(*_ERROR, "cohens_d"), signed=True, intervals=True)
    return (
        f"Cohen's d of L1 {effect}, Mann-Whitney {p_words(p_shift)}; "
        f"Kolmogorov-Smirnov D {over(a.measures(*_ERROR, 'kolmogorov_smirnov', 'd'))}, {p_words(p_shape)}; "
        f"linear probes have an AUROC of {over(a.measures('probes', 'code', 'auroc'))} on the code and "
        f"{over(a.measures('probes', 'residual_spectrum', 'auroc'))} on the residual's spectrum; "
        f"{_complexity([a])}"
    )


def _complexity(found: Sequence[Autoencoder]) -> str:
    """The caveat as numbers: how much of the error is the picture's complexity, and what is left without it."""
    related = [mean_value(a.measures("complexity", "spearman", "l1")) for a in found]
    left = [mean_value(a.measures("complexity", "l1_given_complexity", "cohens_d")) for a in found]
    bounds = [m for a in found for m in a.measures("complexity", "spearman", "l1")]
    shown = all(m["low"] is not None and m["low"] > 0 for m in bounds)
    goes = "but L1 goes with" if shown else "L1 is not shown to go with"
    if len(found) == 1:
        remaining = over(
            found[0].measures("complexity", "l1_given_complexity", "cohens_d"), signed=True, intervals=True
        )
        return f"{goes} complexity (Spearman {number(related[0])}), without which d is {remaining}"
    return (
        f"{goes} the picture's complexity (Spearman {number(min(related))} to {number(max(related))}), "
        f"without which Cohen's d runs from {number(min(left), signed=True)} to {number(max(left), signed=True)}"
    )
