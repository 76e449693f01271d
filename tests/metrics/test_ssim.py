"""SSIM: scikit-image's number, to rounding."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import image_task, random_batch
from skimage.metrics import structural_similarity as skimage_ssim

from sepbench.metrics.ssim import BATCH, SSIM, structural_similarity

GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "metrics" / "image_metrics.json"


def by_skimage(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.tensor([skimage_ssim(a, b, data_range=1.0, channel_axis=0) for a, b in zip(x.numpy(), y.numpy(), strict=True)], dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 3), st.integers(1, 4), st.integers(7, 20), st.integers(7, 20), st.sampled_from(["noise", "near", "flat", "outside"]), st.integers(0, 2**31)
)
def test_equals_scikit_image_in_float64(n: int, channels: int, height: int, width: int, kind: str, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    y = torch.rand(n, channels, height, width, generator=generator, dtype=torch.float64)
    noise = torch.randn(y.shape, generator=generator, dtype=torch.float64)
    x = {"noise": noise, "near": y + 1e-3 * noise, "flat": torch.zeros_like(y), "outside": 2 * y - 1 + noise}[kind]
    torch.testing.assert_close(structural_similarity(x, y), by_skimage(x, y), rtol=0, atol=1e-12)


def test_equals_scikit_image_in_float32() -> None:
    estimates, references, _ = random_batch(200, 1, (3, 28, 28))
    got = structural_similarity(estimates[:, 0], references[:, 0])
    torch.testing.assert_close(got, by_skimage(estimates[:, 0], references[:, 0]), rtol=0, atol=2e-6)
    assert got.dtype == torch.float64


def test_single_window_by_hand() -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))["ssim_single_window"]["expected"]
    x = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    y = x.clone()
    y[0, 0, 2, 4] = 1.0
    assert float(structural_similarity(x, y)) == pytest.approx(expected, abs=1e-14)


@settings(max_examples=30, deadline=None)
@given(st.integers(7, 16), st.integers(7, 16), st.integers(0, 2**31))
def test_symmetric_bounded_and_one_for_equal_images(height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.rand(2, 4, 2, height, width, generator=generator, dtype=torch.float64)
    forward = structural_similarity(x, y)
    torch.testing.assert_close(forward, structural_similarity(y, x), rtol=0, atol=1e-13)
    assert float(forward.abs().max()) <= 1.0
    torch.testing.assert_close(structural_similarity(x, x), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-13)
    # Turning an image over and transposing it moves the windows but changes none.
    torch.testing.assert_close(structural_similarity(x.flip(-1).mT, y.flip(-1).mT), forward, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bits_do_not_depend_on_the_batch(dtype: torch.dtype) -> None:
    estimates, references, _ = random_batch(2 * BATCH + 3, 1, (1, 13, 11))
    x, y = estimates[:, 0].to(dtype), references[:, 0].to(dtype)
    whole = structural_similarity(x, y)
    for rows in (slice(0, 1), slice(BATCH - 1, BATCH + 2), slice(5, 2 * BATCH), slice(2 * BATCH + 2, None)):
        assert torch.equal(structural_similarity(x[rows], y[rows]), whole[rows])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    assert torch.equal(structural_similarity(x[order], y[order]), whole[order])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("pixel", [(0, 0), (0, 8), (8, 8), (4, 4)])
def test_one_bad_pixel_makes_that_image_undefined(bad: float, pixel: tuple[int, int]) -> None:
    estimates, references, _ = random_batch(3, 1, (2, 9, 9))
    expected = structural_similarity(estimates[:, 0], references[:, 0])
    estimates[1, 0, 1, pixel[0], pixel[1]] = bad
    got = structural_similarity(estimates[:, 0], references[:, 0])
    assert bool(got[1].isnan())
    assert torch.equal(got[[0, 2]], expected[[0, 2]])


def test_pairwise_has_estimates_in_rows_and_references_in_columns() -> None:
    estimates, references, _ = random_batch(5, 3)
    table = SSIM.pairwise(estimates, references)
    assert table.shape == (5, 3, 3)
    assert torch.equal(table[:, 2, 0], structural_similarity(estimates[:, 2].double(), references[:, 0].double()))


def test_images_below_the_window_are_refused() -> None:
    assert SSIM.supports(image_task(2, (1, 7, 7))).ok
    assert "7x7 window" in SSIM.supports(image_task(2, (1, 6, 9))).note
    with pytest.raises(ValueError, match="7x7 window, the images are 6x9"):
        structural_similarity(torch.zeros(1, 1, 6, 9), torch.zeros(1, 1, 6, 9))


@pytest.mark.parametrize("other", [torch.zeros(1, 1, 8, 9), torch.zeros(1, 1, 8, 8, dtype=torch.float64), torch.zeros(1, 8, 8)])
def test_sides_that_do_not_fit_are_refused(other: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="SSIM needs"):
        structural_similarity(torch.zeros(1, 1, 8, 8), other)


def test_empty_batch_and_untouched_inputs() -> None:
    assert structural_similarity(torch.zeros(0, 3, 8, 8), torch.zeros(0, 3, 8, 8)).shape == (0,)
    x = torch.rand(3, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    structural_similarity(x, x)
    np.testing.assert_array_equal(x.numpy(), before.numpy())
