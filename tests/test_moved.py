"""Runs whose store or autoencoder lies elsewhere by now."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from fakegan.data.store import FaceStore
from fakegan.errors import FakeganError, UsageError
from fakegan.runs.config_file import give_places, read_run, write_down
from fakegan.runs.folder import FACES_FILE
from fakegan.runs.settings import RunSettings
from fakegan.stages import run as stages
from fakegan.stages.examples import own_faces
from tests.conftest import Compose
from tests.helpers import write_store


@pytest.fixture
def begun(compose_settings: Compose, store: FaceStore, tmp_path: Path) -> RunSettings:
    """A run that has begun with the generated store, which was at tmp_path/gone then."""
    settings = compose_settings("pipeline=classify")
    settings = replace(settings, data=replace(settings.data, root=tmp_path / "gone"))
    write_down(settings, settings.paths.run_dir)
    (settings.paths.run_dir / FACES_FILE).write_text(f"{store.fingerprint}\n")
    return settings


def _small_store(path: Path) -> Path:
    return write_store(path, [(FaceStore.open(path.parent / "moved").images[0], "s/1", 0, "s")])


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
    with pytest.raises(UsageError, match=r"model\.checkpoint=.*gone does not exist"):
        stages.run(settings)
    own = settings.paths.run_dir / "autoencoder" / "autoencoder.pt"
    own.parent.mkdir()
    own.touch()
    with pytest.raises(pytest.fail.Exception, match="it began"):
        stages.run(settings, open_faces=lambda *_: pytest.fail("it began"))
