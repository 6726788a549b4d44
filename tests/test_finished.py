"""Finished runs brought together for a comparison, and the ledger of a run."""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fakegan.errors import FakeganError
from fakegan.evaluation.verdicts import calls
from fakegan.runs.finished import FinishedRun, configurations, same_faces
from fakegan.runs.folder import FACES_FILE
from fakegan.runs.ledger import read_ledger, record
from fakegan.runs.results import FaceScores, read_metrics, read_scores, write_metrics, write_scores
from fakegan.runs.settings import RunSettings
from tests.conftest import Compose
from tests.helpers import elsewhere


def _scores(files: tuple[str, ...] = ("a/1", "b/1"), labels: tuple[int, ...] = (0, 1)) -> FaceScores:
    n = len(files)
    scores = np.linspace(0.1, 0.9, n)
    sources = np.array([f.split("/")[0] for f in files])
    return FaceScores(
        np.array(files), sources, np.array(labels), np.array(files), scores, scores >= 0.5, calls(scores >= 0.5)
    )


def _run(settings: RunSettings, name: str, scored: FaceScores | None = None, store: str = "a store") -> FinishedRun:
    run = elsewhere(settings, name)
    folder = run.paths.run_dir
    folder.mkdir()
    write_metrics(folder / "metrics.json", {"test": {}, "data_fingerprint": store})
    write_scores(folder / "scores.csv", scored or _scores())
    return FinishedRun(run, folder)


def test_runs_that_differ_by_seed_are_one_configuration(compose_settings: Compose) -> None:
    runs = [
        _run(compose_settings("pipeline=classify", f"seed={seed}", f"classifier={net}"), f"{net}{seed}")
        for net in ("alexnet", "simple_cnn")
        for seed in (3, 1, 2)
    ]
    found = configurations(runs)
    assert [c.name for c in found] == ["classify · alexnet budget=debug", "classify · simple_cnn budget=debug"]
    assert [[r.settings.seed for r in c.runs] for c in found] == [[1, 2, 3]] * 2


def test_configurations_of_one_name_are_told_apart_by_their_differences(compose_settings: Compose) -> None:
    asked = ("model.net.code_channels=4", "model.net.code_channels=16", "model=autogan1")
    runs = [_run(compose_settings("pipeline=recon_error", word), word) for word in asked]
    assert [c.name for c in configurations(runs)] == [
        "recon_error · autogan4 budget=debug code_channels=4",
        "recon_error · autogan4 budget=debug code_channels=16",
        "recon_error · autogan1 budget=debug",
    ]


def test_a_store_that_was_moved_is_the_same_and_one_of_other_content_is_not(compose_settings: Compose) -> None:
    here = compose_settings("pipeline=classify", "seed=1")
    moved = compose_settings("pipeline=classify", "seed=2")
    moved = replace(moved, data=replace(moved.data, root=Path("elsewhere")))
    assert len(configurations([_run(here, "a"), _run(moved, "b")])) == 1
    assert len(configurations([_run(here, "c"), _run(moved, "d", store="another store")])) == 2


def test_keys_of_one_name_are_written_in_full_where_two_differ(compose_settings: Compose) -> None:
    words = ("pipeline=recon_classify", "budget.classifier.max_epochs=2", "budget.autoencoder.max_epochs=3")
    names = [c.name for c in configurations([_run(compose_settings(*w), w[-1]) for w in (words[:1], words)])]
    assert (
        names[1] == "recon_classify · autogan4 · simple_cnn budget=debug autoencoder.max_epochs=3 budget.max_epochs=2"
    )


def test_different_faces_are_refused(compose_settings: Compose) -> None:
    settings = compose_settings("pipeline=classify")
    whole, same = _run(settings, "a"), _run(settings, "b")
    assert same_faces([whole, same]).files.tolist() == ["a/1", "b/1"]
    with pytest.raises(FakeganError, match=r"different faces \(1 and 2 of their own\)"):
        same_faces([whole, _run(settings, "c", _scores(("a/1", "b/2", "b/3"), (0, 1, 1)))])
    with pytest.raises(FakeganError, match="stores of other content"):
        same_faces([whole, _run(settings, "e", store="another store")])
    with pytest.raises(FakeganError, match="stores of other content"):
        same_faces([whole, _run(settings, "d", _scores(labels=(1, 0)))])
    larger = _run(settings, "f", store="another store")
    (larger.folder / FACES_FILE).write_text("c0de\n128\n")
    with pytest.raises(FakeganError, match=r"faces of 64x64 pixels, .*f of 128x128: compare runs of one size"):
        same_faces([whole, larger])


def test_scores_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = np.array([f's/{i}, "x"' for i in range(20)])
    scores = rng.random(20)
    said = scores >= 0.3, np.resize(["real", "unsure", "fake", "unknown"], 20)
    written = FaceScores(names, np.full(20, "s"), np.arange(20) % 2, np.arange(20).astype(str), scores, *said)
    write_scores(tmp_path / "scores.csv", written)
    read = read_scores(tmp_path / "scores.csv")
    for column in ("files", "sources", "labels", "groups", "scores", "called_fake", "verdicts"):
        assert np.array_equal(getattr(read, column), getattr(written, column)), column


def test_scores_of_before_there_were_calls_hold_them_as_verdicts(tmp_path: Path) -> None:
    write_scores(tmp_path / "scores.csv", _scores())
    (tmp_path / "scores.csv").write_text("file,source,label,score,verdict\na/1,a,0,0.9,fake\nb/1,b,1,0.2,real\n")
    assert read_scores(tmp_path / "scores.csv").called_fake.tolist() == [True, False]
    (tmp_path / "scores.csv").write_text("file,source,label,score,verdict\na/1,a,0,0.9,unsure\n")
    with pytest.raises(FakeganError, match="damaged"):
        read_scores(tmp_path / "scores.csv")


@pytest.mark.parametrize("content", ["file,source\n", "file,source,label,score,verdict\na,b,c,d,e\n"])
def test_damaged_scores_are_one_sentence(tmp_path: Path, content: str) -> None:
    write_scores(tmp_path / "scores.csv", _scores())
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(FakeganError, match="damaged"):
        read_scores(tmp_path / "scores.csv")
    with pytest.raises(FakeganError, match="has not finished"):
        read_scores(tmp_path / "nothing" / "scores.csv")


def test_a_run_that_has_not_finished_is_refused_with_the_command_that_resumes_it(tmp_path: Path) -> None:
    with pytest.raises(FakeganError, match=r"a run has not finished: resume it with .*train\.py 'resume=.*a run.*'"):
        read_metrics(tmp_path / "a run" / "metrics.json")


def test_the_ledger_says_how_often_and_by_what(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_ledger(tmp_path) == []
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "seed=2", "data.root=my faces"])
    record(tmp_path, 335, "abc")
    monkeypatch.setattr(sys, "argv", ["evaluate.py", "run=x"])
    record(tmp_path, 300, "abc")
    first, second = read_ledger(tmp_path)
    assert first.command == f"train.py seed=2 'data.root=\"{Path.cwd()}/my faces\"'"
    assert (first.faces, first.fingerprint) == ("335", "abc")
    assert (second.command, second.faces) == (f"evaluate.py run={Path.cwd()}/x", "300")
    assert first.time <= second.time
