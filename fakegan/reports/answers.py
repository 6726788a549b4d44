"""The project's questions, answered from the runs at hand: each with numbers, intervals and paired tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product
from typing import Any, Literal

from fakegan.evaluation.compare import ALPHA, Comparison, holm
from fakegan.evaluation.metrics import GUESSING_WORDS, judged
from fakegan.reports.groups import Group, fingerprint, of_seeds
from fakegan.reports.numbers import guessing, listed, mean_value, measured, number, over, p_words, some
from fakegan.reports.reconstruction import L1, Autoencoder
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
    """A question about two configurations that differ in one thing alone."""

    text: str
    subject: str  # what the first of the two has, in a sentence
    verbs: dict[int, str]  # by outcome: its AUROC is higher (1), lower (-1), not shown to differ (0)
    verdicts: dict[int, str]  # where all comparisons are higher (1), or all lower (-1)
    kinds: Callable[[Configuration, Configuration], bool]  # whether the two are of the kinds that it is about
    free: tuple[str, ...]  # keys of a configuration that may differ
    words: Callable[[Configuration, Configuration], str]  # which two, in short
    missing: str  # which runs to add where no two runs ask it

    def asked(self, a: Configuration, b: Configuration) -> bool:
        """Whether the two, in one order or the other, ask this question."""
        return (self.kinds(a, b) or self.kinds(b, a)) and self.rest(a) == self.rest(b)

    def rest(self, configuration: Configuration) -> dict[str, Any]:
        """All settings that two configurations must agree in, by key."""
        found = flat(configuration.settings.configuration())
        return {
            key: value
            for key, value in found.items()
            if not any(f"{key}.".startswith(f"{free}.") for free in self.free)
        }


@dataclass(frozen=True)
class _Pair:
    words: str
    first: Configuration
    second: Configuration
    comparison: Comparison

    @property
    def guessing(self) -> int:
        """1 where one of the two beats guessing, -1 where both are worse than guessing, else 0."""
        return guessing(of_seeds(self.first, "auroc") + of_seeds(self.second, "auroc"))

    def outcome_words(self, verbs: dict[int, str]) -> str:
        """The question's verb for the outcome; where McNemar's test sees more than the bootstrap, that too."""
        outcome = self.comparison.outcome
        calls_differ = outcome == 0 and self.comparison.p_mcnemar_holm < ALPHA
        return f"{verbs[outcome]} by AUROC, though the calls differ" if calls_differ else verbs[outcome]

    def numbers(self) -> str:
        """Both measures with their difference, its interval and its p-value."""
        c = self.comparison
        auroc, accuracy = (
            " against ".join(number(mean_value(of_seeds(each, name))) for each in (self.first, self.second))
            for name in ("auroc", "accuracy")
        )
        return (
            f"AUROC {auroc}, {measured(c.auroc_difference, signed=True)}, {p_words(c.p_auroc_holm)}; "
            f"accuracy {accuracy}, {measured(c.accuracy_difference, signed=True)}, McNemar {p_words(c.p_mcnemar_holm)}"
        )


def answers(groups: Sequence[Group], autoencoders: Sequence[Autoencoder]) -> list[Answer]:
    """The answers to the four questions, in the project's own order, and to which is better, if that is asked."""
    helps, depth, generalises = (_answer(question, groups) for question in QUESTIONS)
    return [helps, depth, _reconstructed_differently(autoencoders), generalises, *_which(groups)]


def _which(groups: Sequence[Group]) -> list[Answer]:
    """Which of the configurations is better; nothing where each pair of them asks one of the other questions."""
    pairs = [
        (group, _Pair(f"{a.name} against {b.name}{group.where}", a, b, group.difference(a, b)))
        for group in groups
        for a, b in combinations(sorted(group.configurations, key=_mean_auroc, reverse=True), 2)
    ]
    if all(any(question.asked(pair.first, pair.second) for question in QUESTIONS) for _, pair in pairs):
        return []
    said, firsts, moot = [], set(), _moot([pair for _, pair in pairs])
    for group in (group for group in groups if len(group.configurations) > 1):
        own = [pair for of, pair in pairs if of is group]
        best, others = own[0].first.name, own[: len(group.configurations) - 1]  # those with the best come first
        worse = [pair.second.name for pair in others if pair.comparison.outcome > 0]
        equal = [pair.second.name for pair in others if pair.comparison.outcome < 1]
        firsts.add(best if not equal else "")
        words = [f"shown to be better than {some(worse, len(others))}"] if worse else []
        words += [f"not shown to differ from {some(equal, len(others))}"] if equal else []
        lost = not moot and all(pair.guessing < 1 for pair in own)  # of other faces one of them may beat guessing
        guess = " None of them is shown to be better than guessing there." if lost else ""
        said.append(f"{best} has the highest AUROC{group.where}, {' and '.join(words)}.{guess}")
    (verdict,) = firsts if len(firsts) == 1 else ("It depends",)
    details = [f"{pair.words}: {pair.numbers()}." for _, pair in pairs]
    sentence = f"{' '.join(said)} The p-values are after Holm's correction."
    tone: Literal["yes", "open"] = "yes" if len(firsts) == 1 and verdict and not moot else "open"
    question = _which_words(pairs[0][0].configurations)
    return [Answer(question, moot or verdict or "Not shown", tone, sentence, details, " ".join(said))]


def _mean_auroc(configuration: Configuration) -> float:
    return mean_value(of_seeds(configuration, "auroc"))


def _which_words(found: Sequence[Configuration]) -> str:
    """Which classifier is better? Where they differ in more than one choice or key: which configuration."""
    alike: dict[str, list[dict[str, Any]]] = {}
    for c in found:
        alike.setdefault(c.settings.label(), []).append(flat(c.settings.configuration()))
    keys = {key for tables in alike.values() for table in tables for key in table if _differs(key, tables)}
    differing = [
        choice
        for choice in ("pipeline", "model", "classifier", "augment", "budget")
        if len({getattr(c.settings, choice).name for c in found}) > 1
    ]
    differing += sorted({key.rsplit(".", 1)[-1] for key in keys})
    return f"Which {differing[0] if len(differing) == 1 else 'configuration'} is better?"


def _differs(key: str, tables: Sequence[dict[str, Any]]) -> bool:
    return any(table.get(key) != tables[0].get(key) for table in tables)


def _answer(question: Question, groups: Sequence[Group]) -> Answer:
    """The answer of all pairs that ask the question, of any group."""
    pairs = [
        _Pair(question.words(a, b) + group.where, a, b, group.difference(a, b))
        for group in groups
        for a, b in permutations(group.configurations, 2)
        if question.kinds(a, b) and question.rest(a) == question.rest(b)
    ]
    own_task = _own_task(groups) if question is GENERALISES else []
    if not pairs:
        why = _why_no_pair(question, groups)
        missing = f"{question.missing}." if why is None else why
        return Answer(question.text, NOT_ASKED if why is None else NOT_COMPARABLE, "open", missing, own_task)
    verdict, tone = _verdict(question, pairs)
    standing = [pair.guessing for pair in pairs]
    warning = "".join(
        f" In {standing.count(how)} of {len(pairs)} {words}." for how, words in _NEITHER.items() if how in standing
    )
    counts = [str(len(group.comparisons)) for group in groups if len(group.configurations) > 1]
    corrected = f"p-values after Holm's correction for {' and '.join(counts)} {'pair' if counts == ['1'] else 'pairs'}"
    if len(pairs) == 1:
        (pair,) = pairs
        said = f"{question.subject} {pair.outcome_words(question.verbs)} ({pair.words})"
        sentence = f"{said}: {pair.numbers()} ({corrected}).{warning}"
        return Answer(question.text, verdict, tone, sentence, own_task, f"{said}.{warning}")
    outcomes = [pair.comparison.outcome for pair in pairs]
    counted = listed([f"{verb} in {outcomes.count(o)}" for o, verb in question.verbs.items() if o in outcomes])
    differences = [pair.comparison.auroc_difference["value"] + 0.0 for pair in pairs]  # + 0.0: no -0.000
    plain = f"{question.subject} {counted} of {len(pairs)} comparisons"
    sentence = (
        f"{plain}; differences of AUROC from "
        f"{number(min(differences), signed=True)} to {number(max(differences), signed=True)}, "
        f"{p_words(min(pair.comparison.p_auroc_holm for pair in pairs))} at the least ({corrected}).{warning}"
    )
    details = [f"{pair.words}: {pair.outcome_words(question.verbs)}; {pair.numbers()}." for pair in pairs]
    return Answer(question.text, verdict, tone, sentence, [*details, *own_task], f"{plain}.{warning}")


def _verdict(question: Question, pairs: Sequence[_Pair]) -> tuple[str, Literal["yes", "no", "open"]]:
    if moot := _moot(pairs):
        return moot, "open"
    outcomes = {pair.comparison.outcome for pair in pairs}
    if {1, -1} <= outcomes:
        return "It depends", "open"
    if outcomes == {0}:
        return "Not shown", "open"
    (shown,) = outcomes - {0}
    verdict = f"In part: {question.verbs[shown]}" if 0 in outcomes else question.verdicts[shown]
    return verdict, "yes" if shown > 0 else "no"


def _moot(pairs: Sequence[_Pair]) -> str:
    """The verdict where no configuration beats guessing, else empty."""
    best = max(pair.guessing for pair in pairs)
    return f"Moot: {GUESSING_WORDS[best]}" if best < 1 else ""


def _own_task(groups: Sequence[Group]) -> list[str]:
    found = []
    for configuration in (c for group in groups for c in group.configurations):
        aurocs, accuracies = (of_seeds(configuration, name, "test_reconstructed") for name in ("auroc", "accuracy"))
        if aurocs:
            words = GUESSING_WORDS.get(guessing(aurocs))
            found.append(
                f"{configuration.name} on its own task, real faces against their reconstructions: AUROC {over(aurocs)},"
                f" accuracy {over(accuracies)}{f', {words}' if words else ''}."
            )
    return list(dict.fromkeys(found))  # seen and unseen generators share it


def _why_no_pair(question: Question, groups: Sequence[Group]) -> str | None:
    """Why the two most similar configurations of the question's kinds are no pair; None without such kinds."""
    places = [(group, c) for group in groups for c in group.configurations]
    found = []
    for (one, a), (other, b) in product(places, repeat=2):
        if not question.kinds(a, b):
            continue
        why = differences_of(question.rest(a), question.rest(b))
        names = [c.settings.budget.name for c in (a, b)]
        if why and names[0] != names[1]:
            why.insert(0, f"budget={names[0]} against {names[1]}")
        if one is not other and fingerprint(a.runs[0]) != fingerprint(b.runs[0]):
            why.append("faces of stores of other content")
        elif one is not other and not why:
            why.append("scored on different faces")
        found += [(why, [shown_path(c.runs[0].path) for c in (a, b)])] if why else []
    if not found:
        return None
    why, paths = min(found, key=lambda reason: len(reason[0]))
    more = [f"{len(why) - _LISTED} keys more"] if len(why) > _LISTED else []
    differing = "; ".join([*why[:_LISTED], *more])
    return f"{listed(paths)} cannot be compared, because they differ in more than what is asked: {differing}."


def _through_autogan(a: Configuration, b: Configuration) -> bool:
    seen = [(c.settings.pipeline.view, c.settings.pipeline.fakes) for c in (a, b)]
    return seen == [("reconstruction", "generated"), ("pixels", "generated")]


def _deeper(a: Configuration, b: Configuration) -> bool:
    both = a.settings.pipeline.needs_autoencoder and b.settings.pipeline.needs_autoencoder
    return both and a.settings.pipeline == b.settings.pipeline and a.settings.model.depth > b.settings.model.depth


def _adversarial(a: Configuration, b: Configuration) -> bool:
    reconstructed = a.settings.pipeline.fakes == b.settings.pipeline.fakes == "reconstructed"
    return reconstructed and a.settings.classifier.adversarial and not b.settings.classifier.adversarial


HELPS = Question(
    text="Does passing through the AutoGAN help?",
    subject="Passing through the AutoGAN",
    verbs={1: "helps", -1: "hurts", 0: "is not shown to differ from classifying the images"},
    verdicts={1: "Yes", -1: "No, it hurts"},
    kinds=_through_autogan,
    free=("pipeline", "model", "autoencoder"),
    words=lambda a, _: a.name.removeprefix(f"{a.settings.pipeline.name} · "),
    missing="Add pipeline=classify,recon_classify with one classifier",
)
DEPTH = Question(
    text="Does depth matter?",
    subject="The deeper autoencoder",
    verbs={1: "is better", -1: "is worse", 0: "is not shown to differ"},
    verdicts={1: "Yes, deeper is better", -1: "Yes, deeper is worse"},
    kinds=_deeper,
    free=("model.name", "model.net.depth", "model.checkpoint"),
    words=lambda a, b: f"{a.name} against depth {b.settings.model.depth}",
    missing="Add model=autogan1,autogan4 with pipeline=recon_classify",
)
GENERALISES = Question(
    text="Does the adversarially trained classifier generalise better?",
    subject="Trained on reconstructions and tested on generated faces, the DCGAN",
    verbs={1: "generalises better", -1: "generalises worse", 0: "is not shown to generalise differently"},
    verdicts={1: "Yes", -1: "No, worse"},
    kinds=_adversarial,
    free=("classifier", "budget", "callbacks.early_stopping"),
    words=lambda a, b: f"{a.name} against {b.settings.classifier.name}",
    missing="Add pipeline=recon_fakes classifier=dcgan,simple_cnn",
)

QUESTIONS = (HELPS, DEPTH, GENERALISES)
DIFFERS = "Do real and fake faces differ in how they are reconstructed?"  # a question about errors, not calls


def _reconstructed_differently(autoencoders: Sequence[Autoencoder]) -> Answer:
    analysed = [a for a in autoencoders if a.analyses]
    if autoencoders and not analysed:
        names = ", ".join(shown_path(run.path) for a in autoencoders for run in a.runs)
        return Answer(DIFFERS, NOT_COMPARABLE, "open", f"The autoencoder's errors were not analysed in {names}.")
    if not analysed:
        missing = "Add pipeline=recon_classify or recon_error, whose runs analyse reconstruction errors."
        return Answer(DIFFERS, NOT_ASKED, "open", missing)
    shifts = _corrected([a.worst_p(*L1, "mann_whitney", "p") for a in analysed])
    shapes = _corrected([a.worst_p(*L1, "kolmogorov_smirnov", "p") for a in analysed])
    found = [_error_words(*each) for each in zip(analysed, shifts, shapes, strict=True)]
    said, shown = [words for words, _ in found], [differs for _, differs in found]
    numbers = [_error_numbers(*each) for each in zip(analysed, shifts, shapes, strict=True)]
    verdict = "Not shown"
    if any(shown):
        verdict = "Yes" if all(differs == "error" for differs in shown) else "In part: yes"
    tone: Literal["yes", "open"] = "yes" if any(shown) else "open"
    about = "".join(f" This is about {words}." for words in dict.fromkeys(a.about for a in analysed) if words)
    if len(analysed) == 1:
        plain = f"With {analysed[0].name}, fake faces {said[0]}"
        return Answer(DIFFERS, verdict, tone, f"{plain}: {numbers[0]}.{about}", plain=f"{plain}.{about}")
    counted = [f"with {said.count(w)} of {len(said)} autoencoders, fake faces {w}" for w in dict.fromkeys(said)]
    plain = f"W{'; '.join(counted)[1:]}"
    sentence = f"{plain}; {_complexity(analysed)}.{about}"
    details = [f"{a.name}: fakes {words}; {text}." for a, words, text in zip(analysed, said, numbers, strict=True)]
    return Answer(DIFFERS, verdict, tone, sentence, details, f"{plain}.{about}")


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's correction over the autoencoders; an undefined p-value stays undefined."""
    defined = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(defined) for p in p_values]


def _error_words(a: Autoencoder, p_shift: float | None, p_shape: float | None) -> tuple[str, str]:
    """How fakes' errors differ from reals', and in what: error, spectrum, or nothing."""
    effects, probes = a.measures(*L1, "cohens_d"), a.measures("probes", "residual_spectrum", "auroc")
    if p_shift is not None and p_shift < ALPHA:
        if all(m["low"] is not None and m["low"] > 0 for m in effects):
            return "have the larger error", "error"
        if all(m["high"] is not None and m["high"] < 0 for m in effects):
            return "have the smaller error", "error"
    if p_shape is not None and p_shape < ALPHA:
        return "have errors of another distribution, though not shown to be larger or smaller", "error"
    if probes and all(judged(m) > 0 for m in probes):
        words = "are not shown to have another L1 error, but a linear probe tells them by the residual's spectrum"
        return words, "spectrum"
    return "are not shown to differ", ""


def _error_numbers(a: Autoencoder, p_shift: float | None, p_shape: float | None) -> str:
    effect = over(a.measures(*L1, "cohens_d"), signed=True, intervals=True)
    return (
        f"Cohen's d of L1 {effect}, Mann-Whitney {p_words(p_shift)}; "
        f"Kolmogorov-Smirnov D {over(a.measures(*L1, 'kolmogorov_smirnov', 'd'))}, {p_words(p_shape)}; "
        f"linear probes have an AUROC of {over(a.measures('probes', 'code', 'auroc'))} on the code and "
        f"{over(a.measures('probes', 'residual_spectrum', 'auroc'))} on the residual's spectrum; "
        f"{_complexity([a])}"
    )


def _complexity(found: Sequence[Autoencoder]) -> str:
    """How the error goes with the picture's complexity, and the difference that remains without complexity."""
    related, left = (
        [a.measures("complexity", *keys) for a in found]
        for keys in (("spearman", "l1"), ("l1_given_complexity", "cohens_d"))
    )
    shown = all(m["low"] is not None and m["low"] > 0 for of_seeds in related for m in of_seeds)
    goes = "but L1 goes with" if shown else "L1 is not shown to go with"
    spearman, effects = ([mean_value(of_seeds) for of_seeds in each] for each in (related, left))
    if len(found) == 1:
        remaining = over(left[0], signed=True, intervals=True)
        return f"{goes} complexity (Spearman {number(spearman[0])}), without which d is {remaining}"
    return (
        f"{goes} the picture's complexity (Spearman {number(min(spearman))} to {number(max(spearman))}), "
        f"without which Cohen's d runs from {number(min(effects), signed=True)} to {number(max(effects), signed=True)}"
    )
