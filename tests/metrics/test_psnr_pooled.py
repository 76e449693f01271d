"""PSNR pooled over batches of 32: the rule in plain words, its edges, and what single examples contribute."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from metric_cases import image_task, mixtures_of, random_batch

from sepbench.errors import SuiteError
from sepbench.metrics import psnr_pooled
from sepbench.metrics.catalogue import check_metrics
from sepbench.metrics.psnr_pooled import BATCH, PSNR_POOLED32, PSNR_POOLED32_PAD
from sepbench.metrics.scoring import score_batch
from sepbench.metrics.squared_error import Array, as_float64, decibels

ERRORS = st.lists(st.floats(0.0, 4.0) | st.just(float("nan")), min_size=1, max_size=3 * BATCH)


def plain(mse: Array, numbers: Array) -> float:
    """The rule, batch by batch; NaN are examples that failed."""
    batches = [mse[numbers // BATCH == b] for b in np.unique(numbers // BATCH)]
    full = [batch for batch in batches if len(batch) == BATCH] or [mse]
    ratios = [float(decibels(np.array(batch[~np.isnan(batch)].mean()))) for batch in full if not np.isnan(batch).all()]
    return float(np.mean(ratios)) if ratios else float("nan")


def pooled(mse: Array, first: int = 0) -> Array:
    return PSNR_POOLED32.pool({"mse": mse}, np.arange(first, first + len(mse)))


@given(ERRORS, st.integers(0, 40))
def test_the_mean_of_the_values_is_the_pooled_value_and_failures_have_none(errors: list[float], first: int) -> None:
    mse, numbers = np.array(errors), np.arange(first, first + len(errors))
    values, expected = pooled(mse, first), plain(mse, numbers)
    if np.isnan(expected):
        assert np.isnan(values).all()
        return
    assert (np.isnan(values) == np.isnan(mse)).all()
    assert np.nanmean(values) == pytest.approx(expected, rel=1e-12, abs=1e-10)


def test_what_lies_outside_full_batches_has_no_influence() -> None:
    mse = np.random.Generator(np.random.Philox(1)).uniform(0.01, 0.1, 2 * BATCH + 7)
    other = mse.copy()
    other[2 * BATCH :] = 0.9
    assert pooled(mse).mean() == pooled(other).mean()
    assert pooled(mse)[2 * BATCH :] == pytest.approx(pooled(mse).mean())
    assert pooled(mse[:5]).mean() == pytest.approx(float(decibels(mse[:5].mean())))


def test_equal_errors_have_equal_values_and_none_has_100_db() -> None:
    np.testing.assert_allclose(pooled(np.full(BATCH, 0.01)), 20.0, rtol=1e-12)
    np.testing.assert_allclose(pooled(np.zeros(BATCH)), 100.0, rtol=1e-12)
    assert np.isfinite(pooled(np.r_[np.zeros(BATCH - 1), 0.5])).all()


@given(st.lists(st.floats(1e-6, 1.0), min_size=BATCH, max_size=2 * BATCH))
def test_a_pooled_value_is_never_above_the_mean_over_images(errors: list[float]) -> None:
    whole = np.array(errors[: len(errors) // BATCH * BATCH])
    assert pooled(whole).mean() <= decibels(whole).mean() + 1e-9


def test_one_failure_in_seven_costs_more_than_it_does_per_image() -> None:
    mse = np.where(np.arange(BATCH * 20) % 7 == 0, 0.1, 0.001)
    assert decibels(mse).mean() - pooled(mse).mean() == pytest.approx(8.9, abs=0.1)


@pytest.mark.parametrize("spread", [0.1, 0.5])
def test_the_spread_of_the_values_is_that_of_the_pooled_value_over_worlds(spread: float) -> None:
    worlds = 10.0 ** (-2.0 + spread * np.random.Generator(np.random.Philox(2)).standard_normal((2000, 4 * BATCH)))
    found = np.stack([pooled(mse) for mse in worlds])
    errors = found.std(axis=1, ddof=1) / np.sqrt(found.shape[1])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(found.mean(axis=1).std(), rel=0.1)


def test_scores_are_mean_squared_errors_per_source_whatever_the_batch() -> None:
    estimates, references, mixtures = random_batch(70, 2)
    task = dataclasses.replace(image_task(2), assignment="ordered")
    table = score_batch(["psnr_pooled32", "psnr_unclamped"], estimates, references, mixtures, task)
    assert set(table.metric) == {"psnr_pooled32/mse", "psnr_unclamped"}
    expected = ((as_float64(estimates) - as_float64(references)) ** 2).mean((2, 3, 4))
    values = table.value[table.metric == "psnr_pooled32/mse"].reshape(70, 2)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(decibels(values).ravel(), table.value[table.metric == "psnr_unclamped"], rtol=1e-12)
    alone = [score_batch(["psnr_pooled32"], estimates[i : i + 1], references[i : i + 1], mixtures_of(references[i : i + 1]), task).value for i in range(70)]
    assert (np.concatenate(alone).reshape(70, 2) == values).all()


def test_on_permutation_tasks_the_pair_metric_puts_the_estimates_in_order() -> None:
    estimates, references, mixtures = random_batch(9, 3)
    table = score_batch(["psnr_pooled32", "psnr_unclamped"], estimates, references, mixtures, image_task(3))
    pair, parts = (table.value[table.metric == name] for name in ("psnr_unclamped", "psnr_pooled32/mse"))
    np.testing.assert_allclose(decibels(parts), pair, rtol=1e-12)
    estimates[4, 1, 0, 0, 0] = torch.inf
    table = score_batch(["psnr_pooled32"], estimates, references, mixtures, image_task(3))
    assert np.isnan(table.value[table.example == 104]).all()


def test_padding_adds_the_border_and_refuses_larger_images() -> None:
    estimates, references, _ = random_batch(4, 1, (1, 28, 28))
    examples = torch.arange(4)
    padded = torch.nn.functional.pad
    bare = PSNR_POOLED32.parts(padded(estimates, (2, 2, 2, 2)), padded(references, (2, 2, 2, 2)), examples)["mse"]
    with_border = PSNR_POOLED32_PAD.parts(estimates, references, examples)["mse"]
    np.testing.assert_allclose(with_border, bare, rtol=1e-12)
    gain = decibels(with_border.numpy()) - decibels(PSNR_POOLED32.parts(estimates, references, examples)["mse"].numpy())
    np.testing.assert_allclose(gain, 10 * np.log10(1024 / 784), rtol=1e-9)
    with pytest.raises(SuiteError, match="'psnr_pooled32_pad' is defined for images up to 32x32, the task has 64x64; remove it"):
        check_metrics(["psnr_pooled32_pad"], image_task(2, (3, 64, 64)))


def test_sums_without_one_error_keep_small_errors_beside_a_large_one() -> None:
    """The sum less the large one would leave nothing of the small ones."""
    found = psnr_pooled._sums_without(np.array([[1.0, 1e-20, 2e-20], [0.0, 3.0, 4.0]]))
    np.testing.assert_allclose(found, [[3e-20, 1.0, 1.0], [7.0, 4.0, 3.0]], rtol=1e-12)
    assert psnr_pooled._sums_without(np.array([[5.0]])).tolist() == [[0.0]]
