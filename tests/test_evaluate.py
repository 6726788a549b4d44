"""Finished runs that are scored again, on other faces too, and compared."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fakegan import predict, prepare
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.reports import evaluating
from fakegan.reports.evaluating import compare, evaluate
from fakegan.runs.ledger import read_ledger
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages import run as stages
from tests.conftest import Compose, Finish
from tests.helpers import csv_rows, elsewhere, run_of, smooth_faces, snapshot, write_store


def _asked(settings: RunSettings, **changes: Any) -> EvaluateSettings:
    plain = EvaluateSettings(str(settings.paths.run_dir), (), None, (), "cpu", settings.paths.data_dir)
    if "data" in changes:
        changes["data"] = replace(changes["data"], limit=None)  # which +debug=fast sets for training alone
    return replace(plain, **changes)


def _evaluate(settings: RunSettings, **changes: Any) -> str:
    return evaluate(_asked(settings, **changes), settings)


def test_evaluating_gives_the_runs_own_scores_and_overwrites_nothing(
    finished: RunSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = finished.paths.run_dir
    before = snapshot(run_dir)
    assert "gan_a (fake)" in _evaluate(finished)
    assert "device: cpu, 1 thread, channels last, folded upsampling\n" in capsys.readouterr().out
    _evaluate(finished)
    folders = sorted((run_dir / "evaluations").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert (folder / "scores.csv").read_bytes() == (run_dir / "scores.csv").read_bytes()
        ours, own = (json.loads((place / "metrics.json").read_text()) for place in (folder, run_dir))
        for key in ("test", "objective", "autoencoder"):  # the last two are of validation faces
            assert ours[key] == own[key]
    after = snapshot(run_dir)
    assert {path for path, content in before.items() if after[path] != content} == {"test_ledger.csv"}
    entries = read_ledger(run_dir)  # each time that test faces are scored
    assert len(entries) == 3
    assert {entry.faces for entry in entries} == {str(len(csv_rows(run_dir / "scores.csv")))}


def test_evaluating_at_another_threshold(
    finished: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = finished.paths.run_dir
    own = json.loads((run_dir / "metrics.json").read_text())
    assert "called fake from 0, not from" in _evaluate(finished, threshold=0.0)
    (folder,) = (run_dir / "evaluations").iterdir()
    rows, again = csv_rows(folder / "scores.csv"), json.loads((folder / "metrics.json").read_text())
    assert {row["call"] for row in rows} == {"fake"}
    assert "real" not in {row["verdict"] for row in rows}
    assert (again["threshold"], again["band"][0]) == (0.0, 0.0)
    assert again["test"]["auroc"] == own["test"]["auroc"]
    monkeypatch.setattr(evaluating, "write_report", lambda results, _: str(results[0].metrics["threshold"]))
    settings = replace(_asked(finished, threshold=0.25, out=tmp_path / "report"), run=None)
    assert compare(settings, [finished]) == "0.25"  # not as the run was scored
    refused: tuple[tuple[dict[str, Any], str], ...]
    refused = (({"max_false_alarms": 1e-6}, "takes 999,999 "), ({"threshold": 2.0}, "from 0 to 1"))
    for changes, words in refused:
        with pytest.raises(UsageError, match=f"^{run_dir}: .*{words}"):  # which of several runs
            _evaluate(finished, **changes, out=tmp_path / "new" / "out")
    with pytest.raises(UsageError, match="no 'gan_c'"):
        _evaluate(finished, sources=("gan_c",), out=tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_predict_gives_the_scores_of_evaluate(
    finished: RunSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the files, which evaluate has through a store: cropped, made smaller and stored by prepare."""
    folders = [str(tmp_path / name) for name in ("camera", "gan")]
    for folder, board in zip(folders, (0.0, 12.0), strict=True):
        Path(folder).mkdir()
        for i, pixels in enumerate(smooth_faces(5, np.random.default_rng(3), board)):
            Image.fromarray(pixels).resize((90, 110)).save(f"{folder}/{i}.jpg")
    sources = (f"--real=camera={folders[0]}", f"--fake=gan={folders[1]}")
    assert prepare.main([*sources, f"--out={tmp_path / 'store'}", "--workers=1"]) == 0
    _evaluate(finished, data=replace(finished.data, root=tmp_path / "store"))
    run_dir = finished.paths.run_dir
    theirs = {row["file"]: float(row["score"]) for row in csv_rows(run_dir / "evaluations" / "store" / "scores.csv")}
    capsys.readouterr()
    assert predict.main([f"--run={run_dir}", "--device=cpu", "--workers=1", "--format=json", *folders]) == 0
    ours = {row["file"].removeprefix(f"{tmp_path}/"): row["score"] for row in json.loads(capsys.readouterr().out)}
    assert len(theirs) == 10
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_evaluating_chosen_sources_and_the_same_store_as_a_foreign_one(finished: RunSettings) -> None:
    run_dir, store = finished.paths.run_dir, run_of(finished).faces.store
    _evaluate(finished, sources=("camera", "gan_b"))
    assert {r["source"] for r in csv_rows(run_dir / "evaluations" / "faces" / "scores.csv")} == {"camera", "gan_b"}
    with pytest.raises(UsageError, match=r"no 'gan_c'.*gan_a"):
        _evaluate(finished, sources=("gan_c",))
    with pytest.raises(FakeganError, match="no fake faces"):
        _evaluate(finished, sources=("camera",))
    other_split = replace(finished.data, split=replace(finished.data.split, seed=9))
    _evaluate(finished, data=other_split)  # the store again, but named: still the run's own test split
    assert csv_rows(run_dir / "evaluations" / "faces-2" / "scores.csv") == csv_rows(run_dir / "scores.csv")
    (run_dir / "faces.sha256").write_text("as if the store were another\n")
    assert "took part in training and are left out" in _evaluate(finished, data=finished.data)
    left = {r["file"] for r in csv_rows(run_dir / "evaluations" / "faces-3" / "scores.csv")}
    assert left >= {r["file"] for r in csv_rows(run_dir / "scores.csv")}
    assert not left & set(store.files[Detector.load(run_dir).knows(store.sha256)])


def test_test_faces_in_another_store_are_in_the_ledger(finished: RunSettings, tmp_path: Path) -> None:
    faces = run_of(finished).faces
    rows = faces.splits.test
    some = [(faces.store.images[i], str(i), int(faces.store.labels[i]), str(i % 2)) for i in rows]
    new = (np.full((64, 64, 3), 7, dtype=np.uint8), "new", 0, "new")
    _evaluate(finished, data=replace(finished.data, root=write_store(tmp_path / "some", [*some, new])))
    assert [entry.faces for entry in read_ledger(finished.paths.run_dir)] == [str(len(rows))] * 2


def test_a_store_of_one_new_generator_is_tested_beside_the_runs_own_real_faces(
    finished: RunSettings, tmp_path: Path
) -> None:
    pictures = smooth_faces(9, np.random.default_rng(5), 12.0)
    path = write_store(tmp_path / "new", [(p, f"gan_new/{i}", 1, "gan_new") for i, p in enumerate(pictures)])
    printed = _evaluate(finished, data=replace(finished.data, root=path))
    faces = run_of(finished).faces
    real = int((faces.store.labels[faces.splits.test] == 0).sum())
    assert f"the run's own {real} real test faces stand in" in " ".join(printed.split())
    result = json.loads((finished.paths.run_dir / "evaluations" / "new" / "metrics.json").read_text())["test"]
    assert (result["n_real"], result["n_fake"]) == (real, 9)
    assert len(read_ledger(finished.paths.run_dir)) == 2


def test_swapped_labels_give_one_minus_every_score_and_are_refused_by_a_trained_run(
    compose_settings: Compose, tmp_path: Path
) -> None:
    """The same pictures with real and fake swapped: nothing in training may favour a class."""
    words = ("pipeline=classify", "data.split.autoencoder_share=0")
    as_is = compose_settings(*words)
    faces = run_of(as_is).faces
    store = faces.store
    swapped = [(store.images[i], str(store.files[i]), 1 - int(store.labels[i])) for i in range(len(store))]
    path = write_store(tmp_path / "swapped", [(*face, str(store.sources[i])) for i, face in enumerate(swapped)])
    other = elsewhere(compose_settings(*words, f"data.root={path}"), "swapped_run")
    scores = []
    for settings in (as_is, other):
        stages.run(settings)
        scores.append(np.array([float(row["score"]) for row in csv_rows(settings.paths.run_dir / "scores.csv")]))
    assert scores[0].std() > 0.01
    np.testing.assert_allclose(scores[1], 1 - scores[0], atol=5e-3)  # rounding differs, and Adam enlarges it
    with pytest.raises(FakeganError, match="real and fake are swapped"):
        _evaluate(as_is, data=other.data)
    # The same for a store of the run's test faces alone, which training never saw.
    tested = write_store(tmp_path / "tested", [(*swapped[i], str(swapped[i][2])) for i in faces.splits.test])
    with pytest.raises(FakeganError, match=r"45 faces .* real and fake are swapped"):
        _evaluate(as_is, data=replace(as_is.data, root=tested))


def test_runs_are_compared_side_by_side_on_the_same_faces(finish: Finish, tmp_path: Path) -> None:
    recon, direct = (finish(f"pipeline={name}").settings for name in ("recon_classify", "classify"))
    settings = _asked(recon, run=None, out=tmp_path / "report")
    assert "recon_classify" in compare(settings, [recon, direct])
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(read_ledger(direct.paths.run_dir)) == 1  # nothing was scored again
    other_split = finish("pipeline=classify", "data.split.seed=3").settings
    with pytest.raises(FakeganError, match="were scored on different faces"):
        compare(replace(settings, out=tmp_path / "other"), [direct, other_split])
    held_out = finish("pipeline=classify", "data.split.unseen=[gan_b]").settings  # as a sweep reports on, too
    assert "learnt from" in compare(replace(settings, out=tmp_path / "held_out"), [direct, held_out])
    with pytest.raises(UsageError, match="report is there already"):
        compare(settings, [recon, direct])


def test_a_run_that_cannot_be_written_is_evaluated_elsewhere(
    finished: RunSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir, out = finished.paths.run_dir, tmp_path / "out"
    read_only = {run_dir: "Read-only file system"}
    monkeypatch.setattr(evaluating, "why_not_writable", read_only.get)
    before = snapshot(run_dir)
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "load", lambda *_: pytest.fail("it is said before anything is scored"))
        with pytest.raises(UsageError, match=r"cannot be written \(Read-only .*out=DIR"):
            _evaluate(finished)

    _evaluate(finished, out=out)
    assert (out / "scores.csv").read_bytes() == (run_dir / "scores.csv").read_bytes()
    told = f"{run_dir} cannot be written: add the lines of {out / 'test_ledger.csv'} to its test_ledger.csv"
    assert told in capsys.readouterr().err
    assert len(read_ledger(out)) == 1
    some = _asked(finished, run=None, runs=(str(run_dir),), sources=("camera", "gan_b"), out=tmp_path / "report")
    compare(some, [finished])
    assert "cannot be written: add the lines" in capsys.readouterr().err
    assert len(read_ledger(tmp_path / "report" / "evaluations" / run_dir.name)) == 1
    assert snapshot(run_dir) == before

    read_only.clear()
    _evaluate(finished, out=tmp_path / "other")
    assert (tmp_path / "other" / "scores.csv").is_file()
    assert not (tmp_path / "other" / "test_ledger.csv").exists()
    assert len(read_ledger(run_dir)) == 2
