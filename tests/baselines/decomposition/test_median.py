"""Medians by networks are the medians of numpy and scipy, exactly."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.decomposition.median import median_of_lists, sliding_median, sort_first_axis, sort_values


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    """Numbers in [0, 1) of which many are equal."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)).mul(50).floor() / 50


@settings(max_examples=50, deadline=None)
@given(half=st.integers(0, 40), outer=st.integers(1, 3), length=st.integers(1, 90), inner=st.integers(1, 5), seed=st.integers(0, 99))
def test_sliding_median_is_numpy_s_of_a_mirrored_signal(half: int, outer: int, length: int, inner: int, seed: int) -> None:
    """Also of signals much shorter than the width, where scipy (1.17) mirrors once and then goes wrong."""
    values, width = random(outer, length, inner, seed=seed), 2 * half + 1
    mirrored = np.pad(values.numpy(), ((0, 0), (half, half), (0, 0)), mode="symmetric")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(mirrored, width, axis=1), axis=-1)
    assert np.array_equal(sliding_median(values, width, 1).numpy(), expected)
    turned = sliding_median(values.mT.contiguous(), width, -1)
    assert np.array_equal(turned.mT.numpy(), expected)


def test_it_is_the_filter_that_librosa_calls() -> None:
    values = random(1, 90, 70)
    for dim, size in ((1, (1, 31, 1)), (2, (1, 1, 31))):
        assert np.array_equal(sliding_median(values, 31, dim).numpy(), scipy.ndimage.median_filter(values.numpy(), size=size, mode="reflect"))


@pytest.mark.parametrize("limits", [(1, 1), (64, 2), (1 << 18, 7)])
def test_chunks_do_not_matter(limits: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    values = random(2, 50, 8)
    whole = sliding_median(values, 31, 1), sliding_median(values, 31, 2)
    monkeypatch.setattr("baselines.decomposition.median._CHUNK_ELEMENTS", limits[0])
    monkeypatch.setattr("baselines.decomposition.median._CHUNK_COLUMNS", limits[1])
    assert torch.equal(sliding_median(values, 31, 1), whole[0])
    assert torch.equal(sliding_median(values, 31, 2), whole[1])


def test_values_are_left_alone_also_by_a_width_of_one() -> None:
    values = random(2, 9, 3)
    before = values.clone()
    assert torch.equal(sliding_median(values, 1, 1).add_(1.0), values + 1.0)
    sliding_median(values, 5, 1)
    assert torch.equal(values, before)
    assert sliding_median(values[:0], 5, 1).shape == (0, 9, 3)


@pytest.mark.parametrize("width", [0, 4, -3])
def test_widths_without_a_middle_are_refused(width: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        sliding_median(random(1, 9, 1), width, 1)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 13, 32, 100, 130])
def test_sorting(n: int) -> None:
    values = random(n, 4, 6)
    assert torch.equal(sort_values(values), values.sort(0).values)
    assert torch.equal(sort_first_axis(values, descending=True), values.sort(0, descending=True).values)


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 40), seed=st.integers(0, 99))
def test_medians_of_lists_of_unequal_length(n: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values, counts = random(n, 2, 6, seed=seed), torch.randint(1, n + 1, (6,), generator=generator)
    places = torch.rand(n, 6, generator=generator).argsort(0)  # which entries count, in any places
    lists = torch.where((places < counts).unsqueeze(1), values, math.inf)
    expected = torch.tensor([[np.median(row[np.isfinite(row)]) for row in block.T] for block in lists.transpose(0, 1).numpy()])
    torch.testing.assert_close(median_of_lists(lists, counts), expected.to(values.dtype), rtol=1e-6, atol=0)


def test_an_empty_list_has_an_infinite_median() -> None:
    assert median_of_lists(torch.full((3, 2), math.inf), torch.tensor([0, 0])).tolist() == [math.inf, math.inf]
