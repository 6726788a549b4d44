"""What a classifier learns from, by pipeline."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fakegan.data.faces import Faces, open_faces
from fakegan.labels import FAKE, REAL
from fakegan.stages.examples import make_examples
from fakegan.stages.run import faces_by_stage
from fakegan.stages.stage import Examples
from tests.conftest import Compose
from tests.helpers import run_of, save_autoencoder, smooth_faces, write_store

Make = Callable[..., tuple[Faces, Examples]]


@pytest.fixture
def make(compose_settings: Compose) -> Make:
    """Faces and examples of a pipeline, with an autoencoder that has learnt nothing."""

    def of(*words: str) -> tuple[Faces, Examples]:
        run = run_of(compose_settings(*words))
        if run.settings.pipeline.needs_autoencoder:
            save_autoencoder(run.autoencoder)
        make_examples(run)
        return run.faces, run.examples

    return of


def test_experiment_2_learns_from_real_faces_and_their_reconstructions_each_pair_on_one_side(make: Make) -> None:
    faces, shown = make("pipeline=recon_fakes")
    size = len(faces.store)
    for rows, split in ((shown.train, faces.splits.train), (shown.val, faces.splits.val)):
        real = split[faces.store.labels[split] == REAL]
        assert np.array_equal(rows, np.concatenate([real, real + size]))  # each real face and its reconstruction
    assert not set(shown.train % size) & set(shown.val % size)
    assert not set(shown.groups[shown.train]) & set(shown.groups[shown.val])
    test = set(faces.store.groups[faces.splits.test])
    assert not test & set(shown.groups[shown.train]) | test & set(shown.groups[shown.val])
    learnt = np.concatenate([shown.train, shown.val])
    assert (shown.labels[learnt] == (learnt >= size)).all()
    assert set(shown.sources[learnt[learnt >= size]]) == {"reconstructed"}


def test_reconstructions_are_the_pictures_of_the_fakes(make: Make) -> None:
    faces, shown = make("pipeline=recon_fakes")
    _, plain = make("pipeline=recon_classify")
    rows = shown.train[:2]
    images, recons = faces.store.images[rows], plain.arrays["recon"][rows]
    mixed = shown.arrays["image"][np.array([rows[1] + shown.faces, *rows, rows[0] + shown.faces])]
    assert np.array_equal(mixed, [recons[1], *images, recons[0]])


def test_the_view_of_a_reconstructed_fake_is_of_its_own_reconstruction(make: Make) -> None:
    _, shown = make("pipeline=recon_fakes", "pipeline.view=residual")
    row = shown.train[:1]
    once = shown.arrays["image"][row + shown.faces]
    assert np.array_equal(shown.arrays["recon"][row], once)
    twice = shown.arrays["recon"][row + shown.faces]
    assert not np.array_equal(once, twice)


def test_generated_fakes_are_those_of_the_split(make: Make) -> None:
    faces, shown = make("pipeline=classify")
    assert set(shown.arrays) == {"image"}
    assert np.array_equal(shown.train, faces.splits.train)
    assert np.array_equal(shown.labels, faces.store.labels)


def test_what_each_pipeline_needs_of_the_splits(compose_settings: Compose) -> None:
    wanted = compose_settings("pipeline=recon_fakes").pipeline.needs
    assert wanted["train"] == (REAL,)
    assert wanted["test"] == (REAL, FAKE)
    assert "autoencoder_train" in wanted
    assert "autoencoder_train" not in compose_settings("pipeline=classify").pipeline.needs
    assert set(compose_settings("pipeline=autoencoder").pipeline.needs) == {"autoencoder_train", "autoencoder_val"}


@pytest.fixture
def two_real_sources(tmp_path: Path) -> Path:
    """A store of 60 camera faces and 40 of celeba, against 100 of a generator with a long name."""
    rng = np.random.default_rng(0)
    parts = [("camera", REAL, 60), ("celeba", REAL, 40), ("a_generator_with_a_very_long_name", FAKE, 100)]
    named = [(f"{source}/{i}", label, source) for source, label, count in parts for i in range(count)]
    faces = zip(smooth_faces(len(named), rng), named, strict=True)
    return write_store(tmp_path / "two", [(pixels, *told) for pixels, told in faces])


CELEBA = "data.split.autoencoder_sources=[celeba]"
BOTH = {"camera", "celeba"}


@pytest.mark.parametrize(
    ("words", "headings", "in_autoencoder", "said"),
    [
        ("", "autoencoder  its val    train      val     test", BOTH, ""),
        (CELEBA, "autoencoder  its val", {"celeba"}, ""),
        (f"{CELEBA} data.split.autoencoder_share=0.5", "autoencoder", BOTH, ""),
        ("data.split.autoencoder_share=0", "autoencoder", BOTH, "real faces of train and val, too"),
        ("pipeline=classify", "train      val     test", set(), "are kept for"),
        (f"pipeline=classify {CELEBA}", "train", set(), "40 real faces are kept for the autoencoder"),
        ("pipeline=autoencoder", "autoencoder  its val\n", BOTH, ""),
        ("pipeline=recon_fakes", "autoencoder", BOTH, "reconstructions of the real faces"),
    ],
)
def test_each_stages_faces_are_told_by_source(
    compose_settings: Compose, two_real_sources: Path, words: str, headings: str, in_autoencoder: set[str], said: str
) -> None:
    settings = compose_settings(f"data.root={two_real_sources}", *words.split())
    faces = open_faces(settings.data, settings.paths.data_dir, settings.pipeline.needs)
    told = faces_by_stage(settings, faces)
    head, *rows = told.splitlines()
    assert headings in f"{head}\n"
    assert max(map(len, told.splitlines())) <= 80
    assert said in told
    counts = {row.split()[0]: [int(cell) for cell in row.split()[2:]] for row in rows[:3]}
    assert list(counts) == ["a_generator_with_a_ve...", "camera", "celeba"]
    if "autoencoder" in head:
        assert {source for source, row in counts.items() if sum(row[:2])} == in_autoencoder
    if head.endswith("test"):
        shown = [row[2:] if "autoencoder" in head else row for row in counts.values()]
        assert np.array_equal(np.sum(shown, axis=0), [len(getattr(faces.splits, s)) for s in ("train", "val", "test")])


def test_no_faces_are_said_to_be_kept_for_an_autoencoder_that_shares_them(
    compose_settings: Compose, two_real_sources: Path
) -> None:
    settings = compose_settings(f"data.root={two_real_sources}", "pipeline=classify", "data.split.autoencoder_share=0")
    faces = open_faces(settings.data, settings.paths.data_dir, settings.pipeline.needs)
    assert len(faces.splits.autoencoder_train)
    assert "kept" not in faces_by_stage(settings, faces)
