"""Patches lose nothing; a rectangle one row high is a delay embedding."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import generator

from baselines.decomposition.patches import fold_patches, positions, unfold_patches


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_folding_undoes_unfolding(batch: int, channels: int, height: int, width: int, size: int, seed: int) -> None:
    size = min(size, height, width)
    images = torch.rand(batch, channels, height, width, generator=generator(seed), dtype=torch.float64)
    patches = unfold_patches(images, size)
    assert tuple(patches.shape) == (batch, channels * size**2, math.prod(positions(height, width, size)))
    torch.testing.assert_close(fold_patches(patches, (height, width), size), images)


def test_patches_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        unfold_patches(torch.zeros(1, 1, 4, 9), 5)


def test_a_rectangle_is_a_delay_embedding() -> None:
    signal = torch.arange(1.0, 7.0).reshape(1, 1, 1, 6)
    windows = unfold_patches(signal, (1, 3))
    assert positions(1, 6, (1, 3)) == (1, 8)
    assert windows.shape == (1, 3, 8)
    assert windows[0, :, 2].tolist() == [1.0, 2.0, 3.0]
    assert windows[0, :, 0].tolist() == [3.0, 2.0, 1.0]  # mirrored at the start
    torch.testing.assert_close(fold_patches(windows, (1, 6), (1, 3)), signal)
    with pytest.raises(ValueError, match="do not fit"):
        unfold_patches(signal, (2, 3))


def test_a_pixel_is_the_mean_of_all_patches_that_cover_it() -> None:
    """Patches that say different things of a pixel: ``(3, 8)`` of a row of six; number n begins at pixel n - 2."""
    patches = torch.rand(3, 8, generator=generator(1), dtype=torch.float64)
    wanted = [sum(float(patches[place, pixel - place + 2]) for place in range(3)) / 3 for pixel in range(6)]
    assert fold_patches(patches[None], (1, 6), (1, 3))[0, 0, 0].tolist() == pytest.approx(wanted)
