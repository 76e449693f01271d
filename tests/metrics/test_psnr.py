"""The four PSNR conventions: hand-computed values, scikit-image's value, and the laws that tie them to each other."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import image_task, random_batch
from skimage.metrics import peak_signal_noise_ratio

from sepbench.metrics.kinds import Combines, MixtureMetric, PairMetric
from sepbench.metrics.psnr import PSNR, PSNR_PAD32, PSNR_SUM_MSE, PSNR_UNCLAMPED
from sepbench.metrics.squared_error import PSNR_CAP_DB


def test_equals_scikit_image() -> None:
    estimates, references, _ = random_batch(20, 2, (3, 9, 11))
    unclamped, clamped = PSNR_UNCLAMPED.pairwise(estimates, references), PSNR.pairwise(estimates, references)
    for b in range(20):
        for i in range(2):
            for j in range(2):
                x, y = estimates[b, i].double().numpy(), references[b, j].double().numpy()
                assert float(unclamped[b, i, j]) == pytest.approx(peak_signal_noise_ratio(y, x, data_range=1.0), abs=1e-12)
                assert float(clamped[b, i, j]) == pytest.approx(peak_signal_noise_ratio(y, x.clip(0, 1), data_range=1.0), abs=1e-12)


@given(st.floats(-9.5, 0.0))
def test_a_constant_error_has_the_textbook_value(exponent: float) -> None:
    error = 10.0 ** (exponent / 2)
    estimates = torch.full((1, 1, 1, 4, 4), error, dtype=torch.float64)
    assert float(PSNR.pairwise(estimates, torch.zeros_like(estimates))) == pytest.approx(-10.0 * exponent, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.integers(1, 33), st.integers(1, 33), st.integers(0, 2**31))
def test_laws_between_the_conventions(k: int, height: int, width: int, seed: int) -> None:
    estimates, references, _ = random_batch(3, k, (1, height, width), seed)
    clamped, unclamped = PSNR.pairwise(estimates, references), PSNR_UNCLAMPED.pairwise(estimates, references)
    # References lie in [0, 1], so cutting the estimate to it can only bring it closer.
    assert bool((clamped >= unclamped).all())
    assert bool((clamped <= PSNR_CAP_DB).all())
    if max(height, width) <= 32:
        gain = 10.0 * math.log10(1024 / (height * width))
        torch.testing.assert_close(PSNR_PAD32.pairwise(estimates, references), (unclamped + gain).clamp(max=PSNR_CAP_DB), rtol=0, atol=1e-9)
    errors = PSNR_SUM_MSE.pairwise(estimates, references).diagonal(dim1=1, dim2=2)
    means = unclamped.diagonal(dim1=1, dim2=2).mean(1)
    # Jensen: the dB of a mean error is at most the mean of the dB, and the sum is K times the mean.
    assert bool((PSNR_SUM_MSE.combine(errors) <= means - 10.0 * math.log10(k) + 1e-9).all())


def test_pad32_is_the_unclamped_psnr_of_padded_images() -> None:
    estimates, references, _ = random_batch(10, 2, (1, 28, 28))
    padded = [torch.nn.functional.pad(side, (2, 2, 2, 2)) for side in (estimates, references)]
    torch.testing.assert_close(PSNR_PAD32.pairwise(estimates, references), PSNR_UNCLAMPED.pairwise(*padded), rtol=0, atol=1e-12)
    # Images that are 32 x 32 already have no border to add.
    assert torch.equal(PSNR_PAD32.pairwise(*padded), PSNR_UNCLAMPED.pairwise(*padded))


def test_no_error_scores_the_cap() -> None:
    _, references, _ = random_batch(4, 1)
    for metric in (PSNR, PSNR_UNCLAMPED, PSNR_PAD32):
        assert metric.pairwise(references, references).flatten().tolist() == [PSNR_CAP_DB] * 4
        assert metric.pairwise(references + 1e-7, references).flatten().tolist() == [PSNR_CAP_DB] * 4
    assert PSNR_SUM_MSE.combine(PSNR_SUM_MSE.pairwise(references, references)[:, 0]).tolist() == [PSNR_CAP_DB] * 4


@pytest.mark.parametrize("metric", [PSNR, PSNR_UNCLAMPED, PSNR_PAD32, PSNR_SUM_MSE], ids=lambda m: m.info.name)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_pixel_makes_that_estimate_undefined(metric: object, bad: float) -> None:
    estimates, references, _ = random_batch(3, 2)
    expected = metric.pairwise(estimates, references)  # type: ignore[attr-defined]
    estimates[1, 0, 0, 3, 3] = bad
    got = metric.pairwise(estimates, references)  # type: ignore[attr-defined]
    assert bool(got[1, 0].isnan().all())
    got[1, 0] = expected[1, 0]
    assert torch.equal(got, expected)


def test_a_bad_reference_is_undefined_too() -> None:
    estimates, references, _ = random_batch(1, 2)
    references[0, 1, 0, 0, 0] = float("inf")
    assert PSNR.pairwise(estimates, references).isnan().tolist() == [[[False, True], [False, True]]]


def test_pad32_refuses_larger_images() -> None:
    estimates, references, _ = random_batch(1, 1, (1, 8, 33))
    assert not PSNR_PAD32.supports(image_task(1, (1, 8, 33))).ok
    assert PSNR_PAD32.supports(image_task(1, (1, 32, 32))).ok
    with pytest.raises(ValueError, match="up to 32x32, got 8x33"):
        PSNR_PAD32.pairwise(estimates, references)


def test_psnr_is_a_metric_of_pairs_and_of_nothing_else() -> None:
    for metric in (PSNR, PSNR_SUM_MSE):
        assert isinstance(metric, PairMetric)
        assert not isinstance(metric, MixtureMetric)
    assert isinstance(PSNR_SUM_MSE, Combines)
    assert not isinstance(PSNR, Combines)
