"""Runs whose store or autoencoder lies elsewhere by now, and runs that cannot be written."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fakegan.data.images import Geometry, face_from_pixels
from fakegan.data.store import FaceStore
from fakegan.data.store_writer import Row, StoreWriter
from fakegan.detector import Detector
from fakegan.errors import FakeganError, UsageError
from fakegan.reports import evaluating
from fakegan.reports.evaluating import compare, evaluate
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.folder import FACES_FILE
from fakegan.runs.ledger import read_ledger
from fakegan.runs.settings import EvaluateSettings, RunSettings
from fakegan.stages import run as stages
from fakegan.stages.examples import own_faces
from tests.conftest import Compose


@pytest.fixture
def begun(compose_settings: Compose, store: FaceStore, tmp_path: Path) -> RunSettings:
    """A run that has begun with the generated store, which was at tmp_path/gone then."""
    settings = compose_settings("pipeline=classify")
    settings = replace(settings, data=replace(settings.data, root=tmp_path / "gone"))
    write_down(settings, settings.paths.run_dir)
    (settings.paths.run_dir / FACES_FILE).write_text(f"{store.fingerprint}\n")
    return settings


def _small_store(path: Path) -> Path:
    with StoreWriter(path, Geometry()) as writer:
        face = face_from_pixels(FaceStore.open(path.parent / "moved").images[0])
        writer.append(face.pixels, Row.of(face, file="s/1", label=0, source="s"))
    return path


def test_a_run_is_given_the_new_place_of_its_store_and_no_other_faces(
    begun: RunSettings, store_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = begun.paths.run_dir
    with pytest.raises(UsageError, match=r"gone, which is not there any more: .*resume=RUN data\.root=DIR"):
        own_faces(begun, {})
    moved = Path(shutil.copytree(store_path, tmp_path / "moved"))
    before = (run_dir / "config.yaml").read_bytes()
    for place, told in ((_small_store(tmp_path / "small"), "other faces"), (tmp_path, "no face store")):
        with pytest.raises(FakeganError, match=told):
            give_places(str(run_dir), {"data.root": str(place)})
    with pytest.raises(UsageError, match="does not exist"):
        give_places(str(run_dir), {"model.checkpoint": str(tmp_path / "nowhere")})
    assert (run_dir / "config.yaml").read_bytes() == before
    assert capsys.readouterr().out == ""

    given = give_places(str(run_dir), {"data.root": str(moved)})
    assert given == read_run(str(run_dir)) == replace(begun, data=replace(begun.data, root=moved))
    assert capsys.readouterr().out == f"{run_dir}: data.root is {moved} from now on; it was {tmp_path / 'gone'}\n"
    assert len(own_faces(given, {}).store) == 320
    assert give_places(str(run_dir), {"data.root": str(moved)}) == given
    assert capsys.readouterr().out == ""  # there is nothing new to say


def test_a_job_of_a_sweep_is_known_by_its_faces_wherever_they_lie(
    begun: RunSettings, compose_settings: Compose, store_path: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(store_path, tmp_path / "moved"))
    asked = compose_settings("pipeline=classify", f"data.root={moved}", f"paths.run_dir={tmp_path / 'new'}")
    assert asked.repeats(begun)
    small = replace(asked, data=replace(asked.data, root=_small_store(tmp_path / "small")))
    assert not small.repeats(begun)


def test_an_autoencoder_that_the_run_has_copied_may_be_gone(compose_settings: Compose, tmp_path: Path) -> None:
    settings = compose_settings("pipeline=recon_classify", f"model.checkpoint={tmp_path / 'gone'}")
    settings = replace(settings, data=replace(settings.data, root=tmp_path / "no_store"))
    with pytest.raises(UsageError, match=r"model\.checkpoint=.*gone does not exist"):
        stages.run(settings)
    own = settings.paths.run_dir / "autoencoder" / "autoencoder.pt"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(UsageError, match="no face store at"):  # the next thing that is wrong
        stages.run(settings)


def test_a_run_that_cannot_be_written_is_evaluated_elsewhere(
    compose_settings: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = compose_settings("pipeline=classify")
    stages.run(settings)
    run_dir, out = settings.paths.run_dir, tmp_path / "out"
    read_only = {run_dir: "Read-only file system"}
    monkeypatch.setattr(evaluating, "why_not_writable", read_only.get)
    before = {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()}
    asked = EvaluateSettings(str(run_dir), (), None, (), "cpu", settings.paths.data_dir)
    with monkeypatch.context() as patch:
        patch.setattr(Detector, "load", lambda *_: pytest.fail("it is said before anything is scored"))
        with pytest.raises(UsageError, match=r"cannot be written \(Read-only .*out=DIR"):
            evaluate(asked, settings)

    evaluate(replace(asked, out=out), settings)
    assert (out / "scores.csv").read_bytes() == (run_dir / "scores.csv").read_bytes()
    told = f"{run_dir} cannot be written: add the lines of {out / 'test_ledger.csv'} to its test_ledger.csv"
    assert told in capsys.readouterr().out
    assert len(read_ledger(out)) == 1
    several = replace(asked, run=None, runs=(str(run_dir),), sources=("camera", "gan_b"), out=tmp_path / "report")
    compare(several, [settings])
    assert "cannot be written: add the lines" in capsys.readouterr().out
    assert len(read_ledger(tmp_path / "report" / "evaluations" / run_dir.name)) == 1
    assert {path: path.read_bytes() for path in run_dir.rglob("*") if path.is_file()} == before

    read_only.clear()
    evaluate(replace(asked, out=tmp_path / "other"), settings)
    assert (tmp_path / "other" / "scores.csv").is_file()
    assert not (tmp_path / "other" / "test_ledger.csv").exists()
    assert len(read_ledger(run_dir)) == 2
