"""Explanations: nets whose answer is known, and what removing the marked part does."""

import numpy as np
import pytest

from fakegan.evaluation.occlusion import blurred, occlusion, patch_weights


def corner(faces):
    """Log odds that are the mean of the first 8x8 pixels, whatever the rest is."""
    return faces[:, :8, :8].mean(axis=(1, 2, 3))


@pytest.mark.parametrize("sign", [1, -1])
def test_a_score_of_one_corner_is_found_there_and_nowhere_else(sign):
    """4 patches of 16 pixels: the first covers 8 of them whole, then less by 1/16 a pixel, from the 25th on nothing."""
    face = np.full((64, 64, 3), 100, np.uint8)
    scored = []
    found = occlusion(lambda faces: scored.append(len(faces)) or sign * corner(faces), face, 4, np.zeros_like)
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
