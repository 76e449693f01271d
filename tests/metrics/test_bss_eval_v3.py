"""SDR of BSS Eval v3: museval's numbers to 1e-6 dB, rank-deficient sources included; what a 512-tap filter forgives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.signal
import torch
from audio_cases import audio_task, random_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.compat import import_museval
from sepbench.metrics.bss_eval_v3 import SDR_V3, TAPS, filtered_ratios
from sepbench.metrics.catalogue import defined_for
from sepbench.metrics.energy_ratio import RATIO_CAP_DB
from sepbench.metrics.kinds import MixtureMetric


def by_museval(estimates: np.ndarray, references: np.ndarray) -> np.ndarray:
    """``(K, channels, T)`` twice -> ``(K,)``, in the order given."""
    return import_museval().metrics.bss_eval_sources(references.swapaxes(1, 2), estimates.swapaxes(1, 2), compute_permutation=False)[0][:, 0]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(seed)).standard_normal(shape)


def _low_pass(x: np.ndarray) -> np.ndarray:
    return scipy.signal.sosfilt(scipy.signal.butter(8, 0.03, output="sos"), x)


TIME = np.arange(3000) / 8000
REFERENCES = {
    "noise": noise(2, 1, 3000),
    "autoregressive": scipy.signal.lfilter([1.0], [1.0, -0.99], noise(2, 1, 3000)),
    "low-pass": _low_pass(noise(2, 1, 3000)),
    "sines": np.stack([np.sin(2 * np.pi * 100 * TIME), np.sin(2 * np.pi * 333.3 * TIME + 1)])[:, None],
    "shorter than the filter": noise(2, 1, 300),
    "one click": np.eye(2, 900)[:, None],
}


@pytest.mark.parametrize("kind", REFERENCES)
def test_equals_museval(kind: str) -> None:
    references = REFERENCES[kind].astype(np.float32).astype(np.float64)
    estimates = references + 0.2 * references[::-1] + 0.05 * noise(*references.shape, seed=1)
    got = filtered_ratios(estimates[:, None], references)[:, 0]
    np.testing.assert_allclose(got, by_museval(estimates, references), rtol=0, atol=1e-6)


def test_equals_museval_where_nothing_lies_outside_the_few_frequencies_of_the_source() -> None:
    references = REFERENCES["low-pass"]
    estimates = references + 0.2 * references[::-1]
    np.testing.assert_allclose(filtered_ratios(estimates[:, None], references)[:, 0], by_museval(estimates, references), rtol=0, atol=1e-6)


@pytest.mark.parametrize("equal_channels", [False, True])
def test_equals_museval_in_stereo_and_with_equal_channels(equal_channels: bool) -> None:
    references = noise(1, 1, 1200).repeat(2, axis=1) if equal_channels else noise(1, 2, 1200)
    estimates = references + 0.2 * noise(1, 2, 1200, seed=1)
    np.testing.assert_allclose(filtered_ratios(estimates[:, None], references)[:, 0], by_museval(estimates, references), rtol=0, atol=1e-6)


def test_least_squares_give_what_equal_channels_have_as_one() -> None:
    # Exactly singular: the span of two equal channels is that of one.
    mono = noise(1, 1, 900)
    estimate = mono + 0.3 * noise(1, 1, 900, seed=1)
    twice = filtered_ratios(estimate.repeat(2, axis=1)[:, None], mono.repeat(2, axis=1))
    np.testing.assert_allclose(twice, filtered_ratios(estimate[:, None], mono), rtol=0, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, TAPS), st.integers(600, 1500))
def test_a_short_filter_of_the_source_is_no_error(seed: int, taps: int, length: int) -> None:
    # The filtered source fades before the end of the signal, so that nothing of its tail is cut off.
    source = noise(1, 1, length, seed=seed)
    source[..., length - TAPS :] = 0.0
    estimate = scipy.signal.lfilter(noise(taps, seed=seed + 1), [1.0], source)
    assert float(filtered_ratios(estimate[:, None], source)[0, 0]) > 150


def test_noise_that_is_orthogonal_to_the_source_counts_in_full() -> None:
    # A click 1,000 samples away from the source's is out of reach of its filters: 10 log10(1 / 0.01) = 20 dB.
    source = np.zeros((1, 1, 2000))
    source[..., 10] = 1.0
    estimate = source.copy()
    estimate[..., 1010] = 0.1
    assert float(filtered_ratios(estimate[:, None], source)[0, 0]) == pytest.approx(20.0, abs=1e-9)
    estimate[..., 1010], estimate[..., 10 + TAPS] = 0.0, 0.1  # the first delay too far
    assert float(filtered_ratios(estimate[:, None], source)[0, 0]) == pytest.approx(20.0, abs=1e-9)
    estimate[..., 10 + TAPS], estimate[..., 9 + TAPS] = 0.0, 0.1  # the last within reach
    assert float(filtered_ratios(estimate[:, None], source)[0, 0]) == RATIO_CAP_DB


def test_pairwise_has_estimates_in_rows_and_references_in_columns() -> None:
    estimates, references, _ = random_audio(2, 3, (1, 600))
    table = SDR_V3.pairwise(estimates, references)
    assert table.shape == (2, 3, 3)
    assert table.dtype == torch.float64
    for i, j in ((2, 0), (1, 1)):
        alone = SDR_V3.pairwise(estimates[:, i : i + 1], references[:, j : j + 1]).flatten()
        torch.testing.assert_close(table[:, i, j], alone, rtol=0, atol=1e-9)


def test_bits_do_not_depend_on_the_batch() -> None:
    estimates, references, _ = random_audio(7, 2, (1, 700))
    whole = SDR_V3.pairwise(estimates, references)
    order = torch.tensor([3, 0, 6, 1, 5, 2, 4])
    assert torch.equal(SDR_V3.pairwise(estimates[order], references[order]), whole[order])
    for b in (0, 6):
        assert torch.equal(SDR_V3.pairwise(estimates[b : b + 1], references[b : b + 1]), whole[b : b + 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0])
def test_undefined_pairs_are_nan_and_spoil_no_others(bad: float) -> None:
    """Zero stands for silence, where museval raises."""
    estimates, references, _ = random_audio(3, 2, (1, 600))
    kept = SDR_V3.pairwise(estimates, references)
    estimates[1, 0, 0, ... if bad == 0.0 else 5] = bad
    references[2, 1, 0, ... if bad == 0.0 else 5] = bad
    hit = torch.zeros(3, 2, 2, dtype=torch.bool)
    hit[1, 0, :] = True
    hit[2, :, 1] = True
    got = SDR_V3.pairwise(estimates, references)
    assert torch.equal(got.isnan(), hit)
    torch.testing.assert_close(got[~hit], kept[~hit], rtol=0, atol=1e-9)


def test_misuse_is_refused() -> None:
    x, y, _ = random_audio(1, 2, (1, 600))
    for bad, other in ((x[..., :-1], y), (x[:, :, 0], y[:, :, 0]), (x[:, :1], y)):
        with pytest.raises(ValueError, match="one shape"):
            SDR_V3.pairwise(bad, other)
    assert not isinstance(SDR_V3, MixtureMetric)
    assert defined_for(SDR_V3, audio_task(rate=None)).ok
    assert SDR_V3.pairwise(x[:0], y[:0]).shape == (0, 2, 2)
