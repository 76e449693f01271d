"""SDR of BSS Eval v4: museval's numbers to 1e-9 dB, its windows and its NaN; what is defined where museval raises."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from audio_cases import RATE, audio_task, mixtures_of, random_audio
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sepbench.compat import import_museval
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.energy_ratio import RATIO_CAP_DB
from sepbench.metrics.sdr import SDR, SDR_MEAN, WindowedSdr, in_windows, mean_of_windows, median_of_windows, window_ratios


def bound(name: str = "sdr") -> WindowedSdr:
    metric = get_metric(name, audio_task())
    assert isinstance(metric, WindowedSdr)
    return metric


def by_museval(estimates: torch.Tensor, references: torch.Tensor, window: int = RATE) -> np.ndarray:
    """``(K, channels, T)`` twice -> ``(K, windows)``. Filters of one tap, for speed: SDR does not depend on them, as the next test shows."""
    x, y = (side.double().numpy().swapaxes(1, 2) for side in (estimates, references))
    with np.errstate(all="ignore"):
        return import_museval().metrics.bss_eval(y, x, window=window, hop=window, compute_permutation=False, filters_len=1)[0]


@pytest.mark.parametrize(("k", "shape"), [(2, (1, 250)), (1, (2, 300))])
def test_equals_museval_with_its_own_settings(k: int, shape: tuple[int, int]) -> None:
    estimates, references, _ = random_audio(1, k, shape)
    x, y = (side[0].double().numpy().swapaxes(1, 2) for side in (estimates, references))
    expected = import_museval().evaluate(y, x, win=RATE, hop=RATE)[0]
    np.testing.assert_allclose(window_ratios(estimates, references, RATE, crossed=False)[0], expected, rtol=0, atol=1e-9)
    np.testing.assert_allclose(by_museval(estimates[0], references[0]), expected, rtol=0, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equals_museval_in_every_window_silence_included(data: st.DataObject) -> None:
    k, channels, length = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2)), data.draw(st.integers(1, 60))
    window = data.draw(st.integers(1, 70))
    estimates, references, _ = random_audio(1, k, (channels, length), seed=data.draw(st.integers(0, 2**31)))
    for side in (estimates, references):
        for slot in range(k):
            start = data.draw(st.integers(0, length))
            side[0, slot, :, start : start + data.draw(st.integers(0, length))] = 0.0
        assume(bool(side[0].any(-1).any(-1).all()))  # museval raises where a whole signal is silent
    got = window_ratios(estimates, references, window, crossed=False)[0]
    expected = by_museval(estimates[0], references[0], window)
    assert got.shape == expected.shape
    np.testing.assert_allclose(got, np.minimum(expected, RATIO_CAP_DB), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("length", "windows"), [(30, 1), (99, 1), (100, 1), (101, 1), (199, 1), (200, 2), (297, 2), (1, 1)], ids=lambda value: str(value))
def test_windows_are_those_of_museval(length: int, windows: int) -> None:
    framing = import_museval().metrics.Framing(RATE, RATE, length)
    slices = [np.arange(length)[window] for window in framing]
    assert len(slices) == windows
    np.testing.assert_array_equal(in_windows(np.arange(length, dtype=float), RATE), slices)


def test_by_hand() -> None:
    # Two windows with error energies of 1/100 and 1/10,000 of the signal's, and a remainder that is not looked at: 20, 40 dB.
    references = torch.ones(1, 1, 1, 250, dtype=torch.float64)
    estimates = references.clone()
    estimates[..., :100] -= 0.1
    estimates[..., 100:200] += 0.01
    estimates[..., 200:] = 77.0
    np.testing.assert_allclose(window_ratios(estimates, references, RATE, crossed=True), [[[[20.0, 40.0]]]], rtol=1e-12)
    for name in ("sdr", "sdr_mean"):
        assert float(bound(name).pairwise(estimates, references)) == pytest.approx(30.0)


def test_median_and_mean_over_windows() -> None:
    values = np.array([[1.0, 5.0, 3.0, np.nan], [np.nan, 2.0, 8.0, np.nan], [np.nan] * 4, [4.0, np.nan, np.nan, np.nan], [1.0, 2.0, 9.0, 4.0]])
    np.testing.assert_array_equal(median_of_windows(values), [3.0, 5.0, np.nan, 4.0, 3.0])
    np.testing.assert_array_equal(mean_of_windows(values), [3.0, 5.0, np.nan, 4.0, 4.0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**31))
def test_aggregates_are_numpys(windows: int, seed: int) -> None:
    rng = np.random.Generator(np.random.PCG64(seed))
    values = rng.standard_normal((2, 3, windows))
    values[rng.random(values.shape) < 0.3] = np.nan
    values[..., 0] = 1.0  # numpy warns of rows of NaN
    np.testing.assert_array_equal(median_of_windows(values), np.nanmedian(values, axis=-1))
    np.testing.assert_allclose(mean_of_windows(values), np.nanmean(values, axis=-1), rtol=1e-14)


@pytest.mark.parametrize("side", ["reference", "estimate"])
def test_a_silent_window_leaves_all_sources_without_that_window(side: str) -> None:
    estimates, references, mixtures = random_audio(2)
    (references if side == "reference" else estimates)[0, 1, :, :100] = 0.0
    windows = window_ratios(estimates, references, RATE, crossed=False)
    assert np.isnan(windows).tolist() == [[[True, False], [True, False]], [[False, False], [False, False]]]
    got = bound().mixture_scores(estimates, references, mixtures)
    np.testing.assert_array_equal(got["sdr"][0], windows[0, :, 1])
    np.testing.assert_array_equal(got["sdr_mean"][0], windows[0, :, 1])


@pytest.mark.parametrize("side", ["reference", "estimate"])
def test_a_signal_without_sound_leaves_nothing(side: str) -> None:
    estimates, references, mixtures = random_audio(2)
    (references if side == "reference" else estimates)[0, 1] = 0.0
    x, y = estimates[0].double().numpy().swapaxes(1, 2), references[0].double().numpy().swapaxes(1, 2)
    with pytest.raises(ValueError, match="non-silent"):
        import_museval().evaluate(y, x, win=RATE, hop=RATE)
    assert bound().pairwise(estimates, references).isnan().flatten(1).all(1).tolist() == [True, False]
    assert bound().mixture_scores(estimates, references, mixtures)["sdr"].isnan().all(1).tolist() == [True, False]


def test_silent_means_a_channel_sum_of_zero() -> None:
    estimates, references, _ = random_audio(1, 2, (2, 200))
    references[0, 0, 1, :100] = -references[0, 0, 0, :100]
    got = window_ratios(estimates, references, RATE, crossed=False)[0]
    assert np.isnan(got[:, 0]).all()
    np.testing.assert_allclose(got, by_museval(estimates[0], references[0]), rtol=0, atol=1e-9)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("sample", [0, 150, 249])
def test_one_bad_sample_makes_its_pairs_undefined_and_no_others(bad: float, sample: int) -> None:
    estimates, references, mixtures = random_audio(2, 3)
    kept_pairs, kept = bound().pairwise(estimates, references), bound().mixture_scores(estimates, references, mixtures)
    estimates[1, 2, 0, sample] = bad
    pairs, got = bound().pairwise(estimates, references), bound().mixture_scores(estimates, references, mixtures)
    hit = torch.zeros(2, 3, 3, dtype=torch.bool)
    hit[1, 2] = True
    assert torch.equal(pairs.isnan(), hit)
    assert torch.equal(pairs[~hit], kept_pairs[~hit])
    for name in ("sdr", "sdr_mean"):
        assert torch.equal(got[name].isnan(), hit.diagonal(dim1=1, dim2=2))
        assert torch.equal(got[name][~got[name].isnan()], kept[name][~got[name].isnan()])


def test_an_estimate_without_error_has_the_cap_and_loud_ones_the_floor() -> None:
    _, references, _ = random_audio(2)
    assert bound().pairwise(references, references).diagonal(dim1=1, dim2=2).flatten().tolist() == [RATIO_CAP_DB] * 4
    rounded = references.double() * (1 + 2.0**-26)  # below what float32 can tell apart
    assert float(bound().pairwise(rounded, references.double()).diagonal(dim1=1, dim2=2).max()) < 160
    assert bound().pairwise(torch.full_like(references, 1e30), references).flatten().tolist() == [-RATIO_CAP_DB] * 8


def test_the_diagonal_of_all_pairs_is_the_score_in_order() -> None:
    estimates, references, mixtures = random_audio(5, 3, (2, 450))
    for name in ("sdr", "sdr_mean"):
        pairs = bound(name).pairwise(estimates, references)
        assert pairs.shape == (5, 3, 3)
        assert pairs.dtype == torch.float64
        assert torch.equal(pairs.diagonal(dim1=1, dim2=2), bound(name).mixture_scores(estimates, references, mixtures)[name])
        swapped = bound(name).pairwise(estimates.flip(1), references)
        assert torch.equal(swapped, pairs.flip(1))


def test_one_window_is_median_and_mean_alike_and_three_are_not() -> None:
    for length, same in ((60, True), (250, True), (350, False)):
        estimates, references, mixtures = random_audio(3, 2, (1, length))
        got = bound().mixture_scores(estimates, references, mixtures)
        np.testing.assert_allclose(got["sdr"], bound().pairwise(estimates, references).diagonal(dim1=1, dim2=2))
        assert np.allclose(got["sdr"], got["sdr_mean"], rtol=1e-12) is same


def test_scale_of_both_does_not_matter() -> None:
    estimates, references, _ = random_audio(4)
    assert torch.equal(bound().pairwise(4 * estimates, 4 * references), bound().pairwise(estimates, references))


def test_inputs_that_do_not_fit_are_refused() -> None:
    x, y, _ = random_audio(2)
    for bad, other in ((x[..., :-1], y), (x[:, :, 0], y[:, :, 0]), (x[:1], y), (x.to(torch.int64), y), (x, y[:, :1])):
        for metric in (SDR, SDR_MEAN):
            with pytest.raises(ValueError, match="one shape"):
                metric.for_task(audio_task()).pairwise(bad, other)
    with pytest.raises(ValueError, match="at least one source, channel and sample"):
        bound().pairwise(x[..., :0], y[..., :0])
    with pytest.raises(ValueError, match="at least one sample"):
        window_ratios(x, y, 0, crossed=False)
    with pytest.raises(ValueError, match=r"sdr needs the sample rate .*; get the metric with get_metric\(name, task\)"):
        SDR.pairwise(x, y)


def test_no_sample_rate_no_windows() -> None:
    assert SDR.supports(audio_task()).ok
    assert "declares no sample_rate" in SDR.supports(audio_task(rate=None)).note


def test_empty_batch_and_untouched_inputs() -> None:
    x, y, _ = random_audio(3)
    assert bound().pairwise(x[:0], y[:0]).shape == (0, 2, 2)
    assert bound().mixture_scores(x[:0], y[:0], mixtures_of(y[:0]))["sdr"].shape == (0, 2)
    x, y = x.double(), y.double()
    kept = x.clone(), y.clone()
    bound().pairwise(x, y)
    assert torch.equal(x, kept[0])
    assert torch.equal(y, kept[1])
