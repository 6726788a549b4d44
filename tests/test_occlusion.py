"""Explanations: nets whose answer is known, and what removing the marked part does."""

import numpy as np
import pytest

from fakegan.data.sheets import font, over
from fakegan.data.verdict_sheet import badges, shortened
from fakegan.evaluation.occlusion import blurred, occlusion, patch_weights
from fakegan.evaluation.verdicts import Row
from tests.benchmarks.deletion import deletion


def corner(faces):
    """Log odds that are the mean of the first 8x8 pixels, whatever the rest is."""
    return faces[:, :8, :8].mean(axis=(1, 2, 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_of_one_corner_is_found_there_and_nowhere_else(sign):
    """4 patches of 16 pixels: the first covers 8 of them whole, then less by 1/16 a pixel, from the 25th on nothing."""
    face = np.full((64, 64, 3), 100, np.uint8)
    scored = []
    found = occlusion(
        lambda faces: scored.append(len(faces)) or sign * corner(faces), face, 4, lambda faces: np.zeros(faces.shape)
    )
    fall = np.concatenate([np.ones(8), (31 - 2 * np.arange(16)) / 32, np.zeros(40)])
    np.testing.assert_allclose(found, sign * 100 * np.outer(fall, fall), atol=1e-4)
    assert scored == [17]


def test_what_is_as_smooth_as_its_blur_explains_nothing():
    flat = np.full((64, 64, 3), 77, np.uint8)
    np.testing.assert_allclose(blurred(flat), 77)
    assert not occlusion(corner, flat).any()
    flat[:8, :8] = 200
    found = occlusion(corner, flat)
    assert found[0, 0] > 10
    assert not found[13:].any()  # two of the 12 patches touch the corner; they end at the third's centre, 13.3 pixels
    assert not found[:, 13:].any()


@pytest.mark.parametrize(("size", "patches"), [(64, 12), (256, 12), (64, 64)])
def test_patches_share_every_pixel_out(size, patches):
    weights = patch_weights(size, patches)
    assert weights.shape == (patches, size)
    np.testing.assert_allclose(weights.sum(axis=0), 1)
    assert weights.min() >= 0


def test_a_map_is_drawn_in_orange_for_fake_and_blue_for_real():
    """A grey of 100 is drawn as 120; full colour is 85% of its way to (213, 94, 0), half of it 42.5%, to blue."""
    found = np.zeros((64, 64))
    found[0, 0], found[0, 1] = 3, -1.5
    drawn = over(np.full((64, 64, 3), 100, np.uint8), found)
    assert drawn[0, 0].tolist() == [199, 98, 18]
    assert drawn[0, 1].tolist() == [69, 117, 145]
    assert (drawn[1:] == 120).all()


@pytest.mark.parametrize(
    ("name", "shown"),
    [("IMG 1.jpg", "IMG 1.jpg"), ("é\n张.png", "e??.png"), ("a" * 40 + ".jpg", "aaaaaa"), ("", ""), ("\udcff", "?")],
)
def test_a_name_fits_its_face(name, shown):
    text = shortened(name, 100)
    assert text.startswith(shown)
    assert font().getlength(text) <= 100
    assert text == shown or text.endswith(".jpg")


def test_badges_tell_training_from_other_warnings():
    known = "took part in training"
    warnings = ("", known, "128x64: crop", f"{known}; small; odd")
    assert [badges(Row("a.png", warning=warning)) for warning in warnings] == ["", "T", "!", "T!"]


def test_removing_what_the_map_marks_moves_the_score_more_than_chance():
    """A net that looks at the eyes' row alone."""
    face = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    face[24:28, :32] = 255
    moved, chance = deletion(lambda faces: faces[:, 24:28, :32].mean(axis=(1, 2, 3)), face, np.random.default_rng(1))
    assert moved > 60
    assert moved > 2 * chance
