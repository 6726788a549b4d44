"""Faces degraded and scored again: each degradation by hand, the numbers by hand, original files, what is refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fakegan.data.degrade import KINDS, Degrade
from fakegan.data.draws import Draws, face_keys
from fakegan.data.originals import Originals
from fakegan.data.pixels import to_uint8, to_unit
from fakegan.data.store import FaceStore
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.evaluation import plots
from fakegan.evaluation.robustness import robustness
from fakegan.evaluation.roc import auroc
from fakegan.reports.evaluating import compare, evaluate
from fakegan.reports.render import Gallery, Section
from fakegan.reports.robustness import chapter, pictures
from fakegan.reports.write import write_report
from fakegan.runs.began import same_faces_as_before
from fakegan.runs.ledger import read_ledger
from fakegan.runs.results import read_scores, write_metrics
from fakegan.runs.robustness import MEASURES, read_robustness
from fakegan.runs.settings import EvaluateSettings, FinalTest, RunSettings
from fakegan.stages import run as stages
from fakegan.stages.robustness import SETTINGS, curves, degraded, degraded_scores, subject
from tests.conftest import Compose, Finish
from tests.helpers import compose_run, csv_rows, encode, fill, picture, refusal, run_of, snapshot
from tests.pages import parse_html


def _faces(count: int, size: int = 64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8))


def _keys(count: int) -> torch.Tensor:
    return face_keys(np.arange(count), seed=0, epoch=0)


def _asked(settings: RunSettings, **changes: Any) -> EvaluateSettings:
    plain = EvaluateSettings(str(settings.paths.run_dir), (), None, (), "cpu", settings.paths.data_dir)
    return replace(plain, robustness=True, **changes)


@pytest.mark.parametrize("kind", ["jpeg", "resize", "blur", "brightness", "contrast"])
def test_a_fixed_strength_is_what_training_draws(kind: str) -> None:
    faces, strength = _faces(2), KINDS[kind].strengths[-1]
    drawn: Any = {kind: (strength, strength)}
    expected = to_uint8(Degrade(probability=1, **drawn)(to_unit(faces), Draws(_keys(2))))
    assert torch.equal(KINDS[kind](faces, strength, _keys(2)), expected)
    assert not torch.equal(expected, faces)


def test_crop_shift_and_mirror_by_hand() -> None:
    faces = _faces(20)
    line = torch.tensor([0, 40, 80, 120], dtype=torch.uint8).view(1, 1, 4, 1).expand(1, 4, 4, 3)
    assert KINDS["crop"](line, 0.5, _keys(1))[0, 0, :, 0].tolist() == [30, 50, 70, 90]
    assert torch.equal(KINDS["mirror"](faces, 1, _keys(20)), faces.flip(2))
    moved, ways = KINDS["shift"](faces, 0.06, _keys(20)), set()  # 3.84: 4 pixels
    for face, out in zip(faces, moved, strict=True):
        rolled = {(y, x): face.roll((y, x), (0, 1))[8:-8, 8:-8] for y in (-4, 4) for x in (-4, 4)}
        found = [way for way, inside in rolled.items() if torch.equal(out[8:-8, 8:-8], inside)]
        assert len(found) == 1
        ways.add(found[0])
    assert len(ways) == 4


def test_noise_is_a_function_of_the_face_and_grows_with_the_strength() -> None:
    grey = torch.full((3, 64, 64, 3), 128, dtype=torch.uint8)
    weak, strong = (KINDS["noise"](grey, strength, _keys(3)).float() - 128 for strength in (4, 16))
    assert strong.std(dim=(1, 2, 3)).tolist() == pytest.approx([16] * 3, rel=0.03)
    torch.testing.assert_close(strong, 4 * weak, atol=2.5, rtol=0)  # the same noise, rounded
    assert torch.equal(KINDS["noise"](grey[1:2], 4, _keys(3)[1:2]).float() - 128, weak[1:2])
    assert not torch.equal(weak[0], weak[1])


def test_aurocs_of_each_side_and_drops_by_hand() -> None:
    """Two reals below two fakes. Kind a lifts the reals: to the fakes' middle, then above all; b sinks one fake."""
    labels, groups = np.array([0, 0, 1, 1]), np.array(list("pqrs"))
    clean = np.array([0.1, 0.2, 0.6, 0.8])
    of_settings = np.array([[0.7, 0.2, 0.6, 0.8], [0.9, 0.85, 0.6, 0.8], [0.1, 0.2, 0.6, 0.15]])
    found = robustness(clean, of_settings, [("a", 1), ("a", 2), ("b", 1)], labels, groups, 0.5, resamples=50)
    rows = [found["clean"], *found["settings"]]
    assert [(row["kind"], row["strength"]) for row in rows] == [("none", 0), ("a", 1), ("a", 2), ("b", 1)]
    assert [[m["value"] for m in row["measures"].values()] for row in rows] == [
        [1, 1, 1, 1, 1],
        [0.75, 0.75, 1, 0.5, 1],
        [0, 0, 1, 0, 1],
        [0.75, 1, 0.75, 1, 0.5],
    ]
    drops = {side: m["value"] for side, m in found["mean_drop"].items()}
    assert drops == pytest.approx({"both": 0.4375, "reals": 0.3125, "fakes": 0.125})  # (.625 + .25) / 2, ...
    worst = found["worst"]
    assert (worst["kind"], worst["strength"], worst["side"], worst["drop"]["value"]) == ("a", 2, "both", 1)
    assert all(m["low"] <= m["value"] <= m["high"] for m in found["mean_drop"].values())


def test_evaluating_scores_each_degraded_face_and_overwrites_nothing(finished: RunSettings) -> None:
    """Approach 2, with its autoencoder; the numbers of mirror images are worked out from the pixels."""
    run_dir, before = finished.paths.run_dir, snapshot(finished.paths.run_dir)
    printed = evaluate(_asked(finished), finished)
    (first,) = (run_dir / "evaluations").iterdir()
    assert {p for p, content in snapshot(run_dir).items() if before.get(p, content) != content} == {"test_ledger.csv"}
    assert len(read_ledger(run_dir)) == 2  # once, however many degradations
    found = read_robustness(first)
    assert found is not None
    part = found.parts["all"]
    assert [(s.kind, s.strength) for s in part.settings] == SETTINGS
    assert len(SETTINGS) == 41
    store, rows = run_of(finished).faces.store, run_of(finished).faces.splits.test
    scores, clean = Detector.load(run_dir).scores(store.images[rows][:, :, ::-1]), read_scores(run_dir / "scores.csv")
    mirror, labels = part.kinds()["mirror"][1], store.labels[rows]
    assert mirror.measures["both"].value == pytest.approx(auroc(scores, labels))
    assert mirror.measures["fakes"].value == pytest.approx(auroc(np.where(labels == 1, scores, clean.scores), labels))
    assert part.clean.measures["both"].value == pytest.approx(auroc(clean.scores, labels))
    assert f"worst               {part.worst}" in printed


def test_a_run_is_tested_degraded_at_its_end(compose_settings: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    """Seen and unseen generators apart; nothing else of the run changes; the loggers have the curves."""
    words = ("pipeline=classify", "data.split.unseen=[gan_b]", "logger=csv", "test.robustness=true")
    settings = compose_settings(*words)
    stages.run(settings)
    found = read_robustness(settings.paths.run_dir)
    assert found is not None
    assert {name: part.generators for name, part in found.parts.items()} == {"seen": ("gan_a",), "unseen": ("gan_b",)}
    assert "\n unseen generators:\n  both classes, mean  " in capsys.readouterr().out
    metrics = json.loads((settings.paths.run_dir / "metrics.json").read_text())["test"]
    assert metrics["seen"]["auroc"]["value"] == found.parts["seen"].clean.measures["both"].value
    logged = csv_rows(settings.paths.run_dir / "test" / "metrics.csv")
    blur = {row["step"]: row["test/unseen/robustness/blur/reals"] for row in logged}
    for step, setting in enumerate(found.parts["unseen"].kinds()["blur"]):
        assert float(blur[str(step)]) == pytest.approx(setting.measures["reals"].value)
    assert any(row.get("test/seen/robustness/mean_drop") for row in logged)
    assert settings.repeats(compose_settings(*words[:3]))


@pytest.fixture
def pictured(tmp_path: Path, prepared: Callable[..., FaceStore]) -> FaceStore:
    """A store of eight pictures of 90x110, half of them in an archive's stead below a folder."""
    for name, first in (("camera", 0), ("gan", 50)):
        fill(tmp_path / name / "below", 4, first)
        for i, file in enumerate(sorted((tmp_path / name / "below").iterdir())):
            file.write_bytes(encode(picture(first + i).resize((90, 110))))
    return prepared("--real", f"camera={tmp_path / 'camera'}", "--fake", f"gan={tmp_path / 'gan'}")


def test_originals_are_degraded_before_the_resize(pictured: FaceStore, finished_once: RunSettings) -> None:
    """A picture as it was becomes the store's face; blurred by a pixel of its own it is sharper than a blurred face."""
    detector, rows = Detector.load(finished_once.paths.run_dir), np.arange(8)
    unchanged, by = replace(KINDS["mirror"], change=lambda faces, *_: faces), (_keys(8), pictured.geometry)
    originals = Originals(pictured, rows)
    assert [p.shape for p in originals[rows]] == [(90, 90, 3)] * 8
    assert np.array_equal(degraded(unchanged, 1, originals[rows], *by), pictured.images)
    of_files, of_faces = (degraded(KINDS["blur"], 2, p[rows], *by) for p in (originals, pictured.images))
    away = [np.abs(out.astype(float) - pictured.images).mean() for out in (of_files, of_faces)]
    assert 0 < away[0] < 0.9 * away[1]
    scores = [degraded_scores(detector, [subject(pictured, rows, o)]) for o in (True, False)]
    assert scores[0].shape == scores[1].shape == (41, 8)
    assert not np.allclose(*scores)
    again = degraded_scores(detector, [subject(pictured, rows[order], True) for order in (slice(5, 8), slice(5))])
    np.testing.assert_allclose(again, np.roll(scores[0], 3, axis=1), atol=1e-6)  # a face by itself decides


def test_originals_of_an_equalised_store_are_equalised_after_they_are_degraded(
    tmp_path: Path, prepared: Callable[..., FaceStore]
) -> None:
    """In their own size up to that of equalising, though it is above MOST."""
    for name, first in (("camera", 0), ("gan", 50)):
        fill(tmp_path / name, 2, first)
        for i, file in enumerate(sorted((tmp_path / name).iterdir())):
            file.write_bytes(encode(picture(first + i).resize((620, 600))))
    given = ("--real", f"camera={tmp_path / 'camera'}", "--fake", f"gan={tmp_path / 'gan'}")
    store, rows = prepared(*given, "--equalise", "600,60"), np.arange(4)
    originals = Originals(store, rows)[rows]
    assert [p.shape for p in originals] == [(600, 600, 3)] * 4
    unchanged = replace(KINDS["mirror"], change=lambda faces, *_: faces)
    assert np.array_equal(degraded(unchanged, 1, originals, _keys(4), store.geometry), store.images)


def test_originals_that_are_not_what_they_were(pictured: FaceStore, tmp_path: Path) -> None:
    rows, file = np.arange(8), tmp_path / "gan" / "below" / "001.png"
    content = file.read_bytes()
    file.write_bytes(encode(picture(99)))
    with pytest.raises(FakeganError, match=r"original below/001\.png in .*gan has changed since the store was made"):
        Originals(pictured, rows)[rows]
    file.unlink()
    with pytest.raises(UsageError, match=r"below/001\.png is no longer in .*gan; put the original pictures back"):
        Originals(pictured, rows)
    assert len(Originals(pictured, rows[:5])[rows[:5]]) == 5
    file.write_bytes(content)
    (tmp_path / "camera").rename(tmp_path / "moved")
    with pytest.raises(UsageError, match=r"camera is no longer there"):
        Originals(pictured, rows)
    long = {"gan": {"path": "x" * 5000, "inside": ""}}
    with pytest.raises(UsageError, match=r"xxx is no longer there"):
        Originals(replace(pictured, manifest={"originals": long}), rows[4:])
    older = replace(pictured, manifest={})
    with pytest.raises(UsageError, match="where its original pictures are: prepare the store again, or leave"):
        Originals(older, rows)
    with pytest.raises(FakeganError, match="places of its originals are damaged"):
        Originals(replace(pictured, manifest={"originals": {"gan": {"path": 3}}}), rows)


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("evaluate", "run=x originals=true", "originals=true is for robustness=true"),
        ("evaluate", "run=x robustness=yes", "robustness='yes' must be true or false"),
        ("train", "test.originals=true", "originals=true is for robustness=true"),
        (
            "train",
            "pipeline=autoencoder test.robustness=true",
            "test.robustness=true needs scores: pipeline=autoencoder",
        ),
        ("train", "test.robust=true", "did you mean test.robustness?"),
    ],
)
def test_what_cannot_be_is_refused(name: str, words: str, sentence: str) -> None:
    place = ["paths.run_dir=x"] if name == "train" else []
    assert sentence in refusal(*words.split(), *place, name=name)


def test_a_run_without_originals_says_so_before_it_is_scored(finished: RunSettings) -> None:
    with pytest.raises(UsageError, match="does not know where its original pictures are"):
        evaluate(_asked(finished, originals=True), finished)
    assert len(read_ledger(finished.paths.run_dir)) == 1
    assert not (finished.paths.run_dir / "evaluations").exists()
    with pytest.raises(UsageError, match="does not know where its original pictures are"):
        compare(replace(_asked(finished, originals=True), run=None, runs=("x",)), [finished])


def test_an_original_that_has_changed_leaves_no_half_evaluation(
    pictured: FaceStore, finished: RunSettings, tmp_path: Path
) -> None:
    (tmp_path / "gan" / "below" / "001.png").write_bytes(encode(picture(99)))
    data = replace(finished.data, root=pictured.path, limit=None)
    with pytest.raises(FakeganError, match="has changed since the store was made"):
        evaluate(_asked(finished, originals=True, data=data), finished)
    assert not (finished.paths.run_dir / "evaluations").exists()


def test_a_new_run_without_originals_is_refused_and_a_trained_run_ends_without_them(
    compose_settings: Compose, caplog: pytest.LogCaptureFixture
) -> None:
    settings = compose_settings("pipeline=recon_error", "logger=null", "test.robustness=true", "test.originals=true")
    with pytest.raises(UsageError, match="does not know where its original pictures are"):
        stages.run(settings)
    assert not (settings.paths.run_dir / "autoencoder").exists()
    faces = run_of(replace(settings, test=FinalTest())).faces
    same_faces_as_before(settings.paths.run_dir, faces.store)  # the run has begun
    stages.run(settings)
    assert (settings.paths.run_dir / "metrics.json").is_file()
    assert read_robustness(settings.paths.run_dir) is None
    assert "the faces are not scored degraded: " in caplog.text
    assert "robustness=true originals=true" in caplog.text


def _with_robustness(finish: Finish, *overrides: str) -> Any:
    """A simulated run, of which degraded faces are as hard as their strength says."""
    run = finish(*overrides)
    scores = run.scores
    noise = np.random.default_rng(1).uniform(size=(len(SETTINGS), len(scores)))
    found = robustness(scores.scores, noise, SETTINGS, scores.labels, scores.groups, 0.5, resamples=20)
    content = {"originals": False, "parts": {"all": {"generators": ["gan_a", "gan_b"], **found}}}
    write_metrics(run.folder / "robustness.json", content)
    return run


def test_the_report_shows_runs_side_by_side(finish: Finish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = [_with_robustness(finish, "pipeline=classify", f"augment={name}") for name in ("none", "light")]
    parts = {f"run {i}": found.parts["all"] for i, run in enumerate(runs) if (found := read_robustness(run.folder))}
    few = {name: replace(part, settings=part.settings[:7]) for name, part in parts.items()}
    (gallery,) = pictures(few, "robustness_0")
    assert isinstance(gallery, Gallery)
    assert [figure.name for figure in gallery.figures] == [f"robustness_0_0_{of}" for of in MEASURES]
    assert gallery.figures[1].alt == "AUROC, reals only degraded: run 0, run 1"
    (alone,) = pictures({"run 0": few["run 0"]}, "robustness_0")
    assert isinstance(alone, Gallery)
    assert [figure.name for figure in alone.figures] == ["robustness_0_0_auroc", "robustness_0_0_right"]
    monkeypatch.setattr(plots, "available", lambda: False)
    write_report([*runs, finish("pipeline=recon_error")], tmp_path / "report")
    page = parse_html((tmp_path / "report" / "report.html").read_text())
    assert "test split: the store's pixels degraded" in page.text
    for part in parts.values():
        assert f"{part.worst.kind} {part.worst.strength:g}, " in page.text
    (runs[0].folder / "robustness.json").write_text('{"originals": false, "parts": {"all": {"n_real": 3}}}')
    with pytest.raises(FakeganError, match=r"robustness\.json is damaged .*: delete it; evaluate\.py run="):
        write_report(runs, tmp_path / "again")


def test_the_report_keeps_other_faces_generators_and_strengths_apart(
    finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two thresholds do not: runs of one line each would not be side by side."""
    monkeypatch.setattr(plots, "available", lambda: False)
    runs = [_with_robustness(finish, "pipeline=classify", f"augment={name}") for name in ("none", "light")]
    for run, scored in zip(runs, ("test split; called fake from 0.5", "test split"), strict=True):
        run.metrics["scored"] = scored
    of_faces = chapter(runs, {})[1:]
    assert [s.title for s in of_faces if isinstance(s, Section)] == [
        "test split; called fake from 0.5; test split: the store's pixels degraded"
    ]
    path = runs[1].folder / "robustness.json"
    content = json.loads(path.read_text())
    fewer = {**content["parts"]["all"], "settings": content["parts"]["all"]["settings"][:-1]}
    write_metrics(path, {**content, "parts": {"all": fewer}})
    assert len(chapter(runs, {})) == 3
    part = content["parts"]["all"]
    write_metrics(path, {**content, "parts": {"seen": {**part, "generators": ["gan_b"]}}})
    assert "seen generators (gan_b): " in getattr(chapter(runs, {})[2], "title", "")
    write_metrics(path, content)
    runs[1].scores.files[0] = "another"  # as many faces, and others
    assert len(chapter(runs, {})) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"mean_drop": {side: {"value": float("nan"), "low": 0, "high": 0} for side in ("both", "reals", "fakes")}},
        {"mean_drop": {side: {"value": 10**400, "low": 0, "high": 0} for side in ("both", "reals", "fakes")}},
        {"worst": {"kind": "jpeg", "strength": 30, "side": "\x1b[2J", "drop": {"value": 0, "low": 0, "high": 0}}},
        {"worst": {"kind": "<b>", "strength": 30, "side": "both", "drop": {"value": 0, "low": 0, "high": 0}}},
        {"settings": []},
        {"kind": "$\\frac{"},
        {"strength": float("inf")},
    ],
)
def test_a_file_from_elsewhere_is_held_against_its_ranges(finish: Finish, changes: dict[str, Any]) -> None:
    run = _with_robustness(finish, "pipeline=classify")
    path = run.folder / "robustness.json"
    content = json.loads(path.read_text())
    part = content["parts"]["all"]
    (part if changes.keys() <= part.keys() else part["settings"][0]).update(changes)
    path.write_text(json.dumps(content))
    with pytest.raises(FakeganError, match=r"robustness\.json is damaged or of another version"):
        read_robustness(run.folder)


def test_curves_begin_with_the_faces_as_they_are(finish: Finish) -> None:
    run = _with_robustness(finish, "pipeline=classify")
    found = read_robustness(run.folder)
    assert found is not None
    part = found.parts["all"]
    settings = tuple(setting for setting in part.settings if setting.kind in {"jpeg", "crop"})
    figure = curves({"$a_{": (replace(part, settings=settings), "both")}, "AUROC")
    assert figure.axes[0].lines[0].get_xdata().tolist() == [30, 50, 65, 80, 95, 100]
    line = figure.axes[1].lines[0]
    assert line.get_xdata().tolist() == [0.7, 0.8, 0.85, 0.9, 0.95, 1]
    assert line.get_ydata()[-1] == part.clean.measures["both"].value
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert figure.get_figwidth() == 4.8
    assert 0 <= box.x0 < box.x1 <= 4.8


@pytest.mark.slow
def test_larger_faces_and_a_score_without_a_classifier(tmp_path: Path) -> None:
    words = ("pipeline=recon_error", "data=demo", "data.demo_size=128", "test.robustness=true", "logger=null")
    places = (f"paths.{name}={tmp_path / name}" for name in ("run_dir", "artifact_dir", "data_dir"))
    settings = compose_run(*words, *places, "+debug=fast", "model=autogan1", "trainer=cpu")
    stages.run(settings)
    assert read_robustness(settings.paths.run_dir) is not None
