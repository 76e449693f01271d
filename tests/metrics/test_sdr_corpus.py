"""SDR over windows of a whole set laid end to end: against museval on the concatenated waveform, and its rules."""

from __future__ import annotations

import dataclasses
from dataclasses import replace

import numpy as np
import pytest
import torch
from audio_cases import RATE, audio_task, random_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.compat import import_museval
from sepbench.errors import SuiteError
from sepbench.metrics.catalogue import check_metrics
from sepbench.metrics.energy_ratio import supports_rate
from sepbench.metrics.scoring import score_batch
from sepbench.metrics.sdr_corpus import SDR_CORPUS_MEDIAN, CorpusSdr, corpus_windows, n_pieces, pieces, sparsity
from sepbench.metrics.squared_error import Array

METRIC = dataclasses.replace(SDR_CORPUS_MEDIAN, sample_rate=RATE)


def parts_of(estimates: torch.Tensor, references: torch.Tensor, source: int = 0, metric: CorpusSdr = METRIC) -> dict[str, Array]:
    found = metric.parts(estimates, references, torch.arange(len(estimates)))
    return {name: values.numpy()[:, source].copy() for name, values in found.items()}


def value(parts: dict[str, Array]) -> float:
    return float(np.nanmean(METRIC.pool(parts, np.arange(len(parts["samples"])))))


def by_museval(estimates: torch.Tensor, references: torch.Tensor, source: int = 0) -> Array:
    """SDR per window of one source laid end to end, NaN of silent windows replaced by 0 as NES' code does."""
    waves = (signals[:, source, 0].double().reshape(1, -1, 1).numpy() for signals in (references, estimates))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(import_museval().metrics.bss_eval(*waves, window=RATE, hop=RATE)[0].ravel())


@pytest.mark.parametrize("samples", [37, 64, 100, 205, 250])
@pytest.mark.parametrize("source", [0, 1])
def test_windows_are_those_of_museval_on_the_whole_waveform(samples: int, source: int) -> None:
    estimates, references, _ = random_audio(13, 2, (1, samples), seed=samples)
    windows = corpus_windows(parts_of(estimates, references, source), np.arange(13))
    expected = by_museval(estimates, references, source)
    assert windows is not None
    assert len(windows.decibels) == 13 * samples // RATE
    np.testing.assert_allclose(windows.decibels, expected, atol=1e-9)
    assert value(parts_of(estimates, references, source)) == pytest.approx(float(np.median(expected)), abs=1e-9)


@pytest.mark.parametrize("silent", ["reference", "estimate", "both"])
def test_silent_windows_are_zero_as_in_the_released_code(silent: str) -> None:
    estimates, references, _ = random_audio(6, 2, (1, 250), seed=4)
    estimates[:, 0] += 2 * references[:, 0]  # no window of its own near 0 dB
    for side, name in ((references, "reference"), (estimates, "estimate")):
        if silent in (name, "both"):
            side[1, 0, 0, 130:] = 0
            side[2, 0, 0, :90] = 0
    windows = corpus_windows(parts_of(estimates, references), np.arange(6))
    assert windows is not None
    np.testing.assert_allclose(windows.decibels, by_museval(estimates, references), atol=1e-9)
    assert (windows.decibels == 0.0).sum() >= 1


def test_a_silent_example_of_another_source_changes_nothing() -> None:
    """Each source is scored alone, unlike ``sdr``, where one silent source silences all."""
    estimates, references, _ = random_audio(5, 2, (1, 250), seed=5)
    before = value(parts_of(estimates, references))
    references[2, 1] = 0
    assert value(parts_of(estimates, references)) == before


def test_no_error_is_200_db() -> None:
    _, references, _ = random_audio(3, 1)
    assert value(parts_of(references.clone(), references)) == 200.0


def test_a_window_counts_only_with_all_its_mixtures() -> None:
    estimates, references, _ = random_audio(8, 1, (1, 250), seed=6)
    parts = parts_of(estimates, references)
    whole = corpus_windows(parts, np.arange(8))
    failed = {name: np.where(np.arange(8) == 3, np.nan, values) for name, values in parts.items()}
    rest = corpus_windows(failed, np.arange(8))
    assert whole is not None
    assert rest is not None
    touched = np.arange(750 // RATE, -(-1000 // RATE))  # the windows that mixture 3 reaches into
    np.testing.assert_array_equal(rest.decibels, np.delete(whole.decibels, touched))
    found = METRIC.pool(failed, np.arange(8))
    assert np.flatnonzero(np.isnan(found)).tolist() == [3]
    assert np.nanmean(found) == pytest.approx(float(np.median(rest.decibels)), abs=1e-12)


def test_less_than_a_window_is_one_window_and_nothing_is_no_value() -> None:
    estimates, references, _ = random_audio(2, 1, (1, 30), seed=7)
    ratio = (references.double().square().sum() / (references.double() - estimates.double()).square().sum()).log10() * 10
    assert value(parts_of(estimates, references)) == pytest.approx(float(ratio), abs=1e-9)
    nothing = {name: np.full(2, np.nan) for name in parts_of(estimates, references)}
    assert np.isnan(METRIC.pool(nothing, np.arange(2))).all()


@given(st.integers(0, 500), st.integers(1, 300), st.integers(1, 120))
def test_pieces_lie_side_by_side_and_are_never_more_than_said(example: int, samples: int, window: int) -> None:
    found = list(pieces(example, samples, window))
    assert [start for _, start, _ in found] == [0, *(stop for _, _, stop in found[:-1])]
    assert found[-1][2] == samples
    assert len(found) <= n_pieces(samples, window)
    for number, start, stop in found:
        assert {(example * samples + t) // window for t in (start, stop - 1)} == {number}


@settings(max_examples=30)
@given(st.integers(3, 30), st.integers(20, 260), st.integers(0, 1000), st.sets(st.integers(0, 29), max_size=3))
def test_the_mean_of_the_values_is_the_median_over_windows(n: int, samples: int, seed: int, failed: set[int]) -> None:
    estimates, references, _ = random_audio(n, 1, (1, samples), seed=seed)
    parts = parts_of(estimates, references)
    gone = np.isin(np.arange(n), list(failed))
    parts = {name: np.where(gone, np.nan, values) for name, values in parts.items()}
    windows, found = corpus_windows(parts, np.arange(n)), METRIC.pool(parts, np.arange(n))
    assert (np.isnan(found) == gone).all()
    if windows is not None:
        assert np.nanmean(found) == pytest.approx(float(np.median(windows.decibels)), abs=1e-9)


def test_parts_do_not_depend_on_the_batch() -> None:
    estimates, references, mixtures = random_audio(7, 2, (1, 250), shuffle=True)
    whole = METRIC.parts(estimates, references, mixtures.example_ids)
    for row in range(7):
        alone = METRIC.parts(estimates[row : row + 1], references[row : row + 1], mixtures.example_ids[row : row + 1])
        assert all((alone[name][0] == whole[name][row]).all() for name in whole)


def test_scores_hold_the_parts_in_the_order_of_sdr() -> None:
    estimates, references, mixtures = random_audio(4, 2, (1, 250), shuffle=True)
    table = score_batch(["sdr", "sdr_corpus_median"], estimates, references, mixtures, audio_task(2))
    assert {name for name in table.metric if name.startswith("sdr_corpus")} == {
        *(f"sdr_corpus_median/{kind}_{place}" for kind in ("signal", "error") for place in range(n_pieces(250, RATE))),
        "sdr_corpus_median/samples",
        "sdr_corpus_median/rate",
    }
    errors = sum(table.value[table.metric == f"sdr_corpus_median/error_{place}"] for place in range(n_pieces(250, RATE)))
    signals = sum(table.value[table.metric == f"sdr_corpus_median/signal_{place}"] for place in range(n_pieces(250, RATE)))
    assert (10 * np.log10(signals / errors) > 5).all()  # in the shuffled order they would lie near 0 dB


def test_density_at_the_median_of_normal_values() -> None:
    values = np.random.Generator(np.random.Philox(3)).standard_normal(100_000)
    assert np.sqrt(2 * np.pi) <= sparsity(values) <= 1.1 * np.sqrt(2 * np.pi)
    assert sparsity(np.ones(10)) == 0.0


def test_signals_that_it_is_not_defined_for() -> None:
    with pytest.raises(SuiteError, match="'sdr_corpus_median' is defined for mono signals, the task has 2 channels; remove it"):
        check_metrics(["sdr_corpus_median"], audio_task(2, (2, 250)))
    with pytest.raises(SuiteError, match="declares no sample_rate"):
        check_metrics(["sdr_corpus_median"], audio_task(2, rate=None))
    estimates, references, _ = random_audio(2, 1)
    with pytest.raises(ValueError, match="needs the sample rate"):
        SDR_CORPUS_MEDIAN.parts(estimates, references, torch.arange(2))
    parts = parts_of(estimates, references)
    parts["samples"][1] = 200
    with pytest.raises(ValueError, match="must agree in samples"):
        METRIC.pool(parts, np.arange(2))


@pytest.mark.parametrize("side", [0, 1])
def test_one_sample_that_is_not_finite_takes_all_pieces_of_its_example_and_source(side: int) -> None:
    """Signal and error of them, so that no half of an example is laid end to end with the others."""
    signals = [part.clone() for part in random_audio(3, 2, (1, 250), seed=8)[:2]]
    whole = METRIC.parts(*signals, torch.arange(3))
    signals[side][1, 0, 0, 249] = (torch.nan, torch.inf)[side]
    broken = METRIC.parts(*signals, torch.arange(3))
    assert set(broken) == set(whole)
    energies = [name for name in whole if name.startswith(("signal", "error"))]
    assert len(energies) == 2 * n_pieces(250, RATE)
    for name in energies:
        assert broken[name].isnan().tolist() == [[False, False], [True, False], [False, False]]
        assert torch.equal(broken[name].nan_to_num(0.0), torch.where(broken[name].isnan(), 0.0, whole[name]))


# --- by hand: windows of four samples, mixtures of three

ENERGIES = {"signal_0": [4.0, 6.0, 40.0, 900.0], "signal_1": [0.0, 60.0, 100.0, 0.0], "error_0": [0.5] * 4, "error_1": [0.0, 0.5, 0.5, 0.0]}
BY_HAND = {name: np.array(values) for name, values in {"samples": [3.0] * 4, "rate": [4.0] * 4, **ENERGIES}.items()}


def test_the_influence_of_a_mixture_is_that_of_its_windows_by_the_root_of_its_share() -> None:
    """Three windows of 10, 20 and 30 dB. The quartiles 15 and 25 make a sparsity of 20: influences -10, 0 and 10, for 4 mixtures in 3 windows."""
    windows = corpus_windows(BY_HAND, np.arange(4))
    assert windows is not None
    assert windows.decibels.tolist() == pytest.approx([10.0, 20.0, 30.0])
    assert (windows.rows.tolist(), windows.numbers.tolist()) == ([0, 1, 1, 2, 2, 3], [0, 0, 1, 1, 2, 2])
    assert windows.shares.tolist() == [0.75, 0.25, 0.5, 0.5, 0.25, 0.75]
    far, near = 10 * np.sqrt(0.75) * 4 / 3, 10 * np.sqrt(0.25) * 4 / 3
    np.testing.assert_allclose(METRIC.pool(BY_HAND, np.arange(4)), [20 - far, 20 - near, 20 + near, 20 + far])


def test_a_set_that_fills_no_window_is_one_also_where_it_crosses_the_border_of_two() -> None:
    """Mixture 1 alone: one sample in the first window and two in the second."""
    alone = {name: values[1:2] for name, values in BY_HAND.items()}
    windows = corpus_windows(alone, np.array([1]))
    assert windows is not None
    assert windows.decibels.tolist() == pytest.approx([10 * np.log10(66.0)])
    assert (windows.rows.tolist(), windows.numbers.tolist(), windows.shares.tolist()) == ([0, 0], [0, 0], pytest.approx([1 / 3, 2 / 3]))
    assert METRIC.pool(alone, np.array([1])).tolist() == pytest.approx([10 * np.log10(66.0)])


@pytest.mark.parametrize(("rate", "ok"), [(8_000, True), (1, True), (0, False), (None, False)])
def test_windows_of_a_second_need_a_rate(rate: int | None, ok: bool) -> None:
    support = supports_rate(replace(audio_task(2), sample_rate=rate))
    assert (support.ok, support.note) == (ok, "" if ok else "has windows of one second, but the task declares no sample_rate")
