"""Metrics on tiny inputs by hand, and what is said where one cannot score."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from estimate_cases import DIGIT, SOUND

from sepbench.errors import MetricError, SuiteError
from sepbench.metrics import catalogue
from sepbench.metrics.catalogue import check_metrics, checked_metric, defined_for, get_metric, metric_names, pair_metric
from sepbench.metrics.draws import _posterior_metric, posterior_reference, score_draws
from sepbench.metrics.energy_ratio import check_audio, energy_ratio_db, finite, over_channels
from sepbench.metrics.kinds import PosteriorReference
from sepbench.metrics.posterior import distances, pit_values
from sepbench.metrics.scoring import _checked, score_batch
from sepbench.metrics.sets.features import order_of
from sepbench.metrics.sets.inception_score import SPLITS, inception_values, split_score
from sepbench.metrics.sets.kernel import BLOCK, block_distance, kernel_values, polynomial_kernel
from sepbench.metrics.sets.moments import Moments, moments_of, rebatched
from sepbench.metrics.squared_error import decibels, pairwise_mse
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures


def _values(name: str, draws: Any, reference: PosteriorReference) -> float:
    metric: Any = get_metric(name)
    return float(metric.posterior_score(torch.as_tensor(draws, dtype=torch.float64)[None], reference))


def _reference(draws: Any, mean: Any, covariance: Any) -> PosteriorReference:
    return PosteriorReference(*(torch.as_tensor(one, dtype=torch.float64)[None] for one in (mean, covariance, draws)))


# ---- posterior draws -------------------------------------------------------------------------------------------------------------------


def test_posterior_metrics_by_hand() -> None:
    draws = [[0.0, 0.0], [2.0, 0.0], [4.0, 3.0]]
    reference = _reference([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]], [2.0, -2.0], [[5.0, 0.0], [0.0, 4.0]])
    assert _values("posterior_mean_error", draws, reference) == pytest.approx(3.0 / 3.0)
    covariance = np.cov(np.array(draws).T)
    exact = np.diag([5.0, 4.0])
    assert _values("posterior_cov_error", draws, reference) == pytest.approx(np.linalg.norm(covariance - exact) / np.linalg.norm(exact))
    x, y = np.array(draws), np.array([[0.0, 0.0], [1.0, 0.0], [4.0, 0.0]])

    def mean(a: Any, b: Any) -> float:
        return float(np.mean([[np.linalg.norm(p - q) for q in b] for p in a]))

    assert _values("energy_distance", draws, reference) == pytest.approx((2 * mean(x, y) - mean(x, x) - mean(y, y)) / (2 * mean(x, y)))
    assert torch.allclose(distances(torch.tensor(x)[None], torch.tensor(y)[None])[0, 2], torch.tensor([5.0, math.sqrt(18), 3.0]).double())


def test_nearest_neighbours_by_hand() -> None:
    """Draws 0, 1, 10; exact 0.9, 11, 30. Nearest: 0 -> 0.9, 1 -> 0.9, 10 -> 11, 0.9 -> 1, 11 -> 10, 30 -> 11: only the last is of its kind."""
    reference = _reference([[0.9], [11.0], [30.0]], [0.0], [[1.0]])
    assert _values("c2st", [[0.0], [1.0], [10.0]], reference) == pytest.approx(1 / 6)
    assert _values("c2st", [[100.0], [101.0], [102.0]], reference) == 1.0


def test_pit_values_by_hand() -> None:
    values = pit_values(torch.tensor([[[1.0], [2.0], [2.0], [5.0]]]), torch.tensor([[[0.0], [2.0], [3.0], [9.0]]]))
    assert values.tolist() == [[[0.5 / 5, (1 + 1 + 0.5) / 5, 3.5 / 5, 4.5 / 5]]]
    assert _values("pit_error", [[1.0], [2.0], [2.0], [5.0]], _reference([[0.0], [2.0], [3.0], [9.0]], [0.0], [[1.0]])) == pytest.approx(0.25)


def test_only_metrics_of_draws_score_draws() -> None:
    with pytest.raises(SuiteError, match="'psnr' scores estimates, not posterior draws"):
        _posterior_metric("psnr")
    spec = replace(DIGIT, domain="vector", source_shape=(3,), posterior_draws=4, assignment="ordered")
    from sepbench.gmm import ExactPosterior, GaussianMixture

    prior = GaussianMixture(torch.ones(1).double(), torch.zeros(1, 3).double(), torch.eye(3).double()[None])
    exact = ExactPosterior((prior, prior), torch.ones(2).double(), 0.1)
    mixtures = Mixtures(torch.arange(6.0).reshape(2, 3), torch.tensor([7, 5]), make_operator("sum", 2))
    with pytest.raises(ValueError, match=r"task toy/digits must be \(2, 4, 2, 3\), got \(2, 5, 2, 3\)"):
        score_draws(["c2st"], torch.zeros(2, 5, 2, 3), mixtures, exact, spec)
    draws = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(0))
    table = score_draws(["posterior_mean_error", "c2st"], draws, mixtures, exact, spec)
    assert table.example.tolist() == [7, 5, 7, 5]
    assert table.source.tolist() == [-1] * 4
    assert table.metric.tolist() == ["posterior_mean_error"] * 2 + ["c2st"] * 2
    alone = score_draws(["posterior_mean_error"], draws[1:], Mixtures(mixtures.values[1:], mixtures.example_ids[1:], mixtures.operator), exact, spec)
    assert alone.value[0] == table.value[1]
    reference = posterior_reference(exact, mixtures, 4)
    expected = (draws.double().mean(1).flatten(1) - reference.mean).norm(dim=1) / reference.covariance.diagonal(dim1=1, dim2=2).sum(1).sqrt()
    assert np.allclose(table.value[:2], expected.numpy())


# ---- sound and image -------------------------------------------------------------------------------------------------------------------


def test_ratios_in_decibels() -> None:
    signal, error = np.array([1.0, 100.0, 0.0, 1.0, 0.0, np.inf, 1.0]), np.array([1.0, 1.0, 1.0, 0.0, 0.0, 1.0, np.nan])
    found = energy_ratio_db(signal, error)
    assert found[:4].tolist() == [0.0, 20.0, -200.0, 200.0]
    assert np.isnan(found[4:]).all()
    assert over_channels(np.arange(12.0).reshape(2, 3, 2)).tolist() == [[6.0, 9.0], [24.0, 27.0]]
    sounds = np.zeros((3, 2, 4))
    sounds[1, 1, 3], sounds[2, 0, 0] = np.inf, np.nan
    assert finite(sounds).tolist() == [True, False, False]


def test_sounds_of_other_shapes_are_refused_with_both() -> None:
    good = torch.zeros(2, 2, 1, 5)
    check_audio(good, good.double())
    for estimates in (torch.zeros(2, 2, 1, 4), good.long()):
        with pytest.raises(ValueError, match=f"got {estimates.dtype} .*{estimates.shape[-1]}\\) and torch.float32 \\(2, 2, 1, 5\\)"):
            check_audio(estimates, good)
    with pytest.raises(ValueError, match=r"\(2, 5\)"):
        check_audio(torch.zeros(2, 5), torch.zeros(2, 5))
    with pytest.raises(ValueError):
        check_audio(torch.zeros(2, 2, 1, 0), torch.zeros(2, 2, 1, 0))


def test_the_improvement_wants_mixtures_like_a_source() -> None:
    metric: Any = get_metric("si_sdr_improvement", SOUND)
    sounds = torch.randn(3, 2, 1, 6, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=r"^si_sdr_improvement .* got \(3, 2, 6\) for \(3, 2, 1, 6\)$"):
        metric.mixture_scores(sounds, sounds, Mixtures(torch.zeros(3, 2, 6), torch.arange(3), make_operator("mean", 2)))


def test_squared_errors_by_hand() -> None:
    estimates = np.array([[[2.0, -1.0], [0.5, 0.5]]])
    references = np.array([[[1.0, 0.0], [0.0, 0.5]]])
    assert pairwise_mse(estimates, references, False).tolist() == [[[1.0, (4 + 2.25) / 2], [0.25, 0.125]]]
    assert pairwise_mse(estimates, references, True).tolist() == [[[0.0, (1 + 0.25) / 2], [0.25, 0.125]]]
    some = pairwise_mse(estimates, references, False, [(1, 0)])
    assert some[0, 1, 0] == 0.25
    assert np.isnan(some).sum() == 3
    infinite = estimates.copy()
    infinite[0, 0, 0] = np.inf
    assert np.isnan(pairwise_mse(infinite, references, True)[0, 0]).all()
    assert np.isfinite(pairwise_mse(infinite, references, True)[0, 1]).all()
    assert decibels(np.array([1.0, 0.1, 1e-10, 0.0])).tolist() == [0.0, 10.0, 100.0, 100.0]


# ---- sets ------------------------------------------------------------------------------------------------------------------------------


def test_moments_are_those_of_all_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(9, 3))
    found = moments_of([rows[:4], rows[4:4], rows[4:]])
    assert found.count == 9
    assert np.allclose(found.mean, rows.mean(axis=0))
    assert np.allclose(found.covariance, np.cov(rows.T))
    nothing = Moments.of(rows[:0])
    assert (nothing + nothing).count == 0
    assert np.isnan(Moments.of(rows[:1]).covariance).all()
    with pytest.raises(ValueError, match="no features"):
        moments_of([])


@pytest.mark.parametrize("size", [1, 2, 3, 7, 20])
def test_rows_in_other_parts_are_the_same_rows(size: int) -> None:
    rows = np.arange(11.0)[:, None]
    parts = list(rebatched([rows[:2], rows[2:3], rows[3:9], rows[9:]], size))
    assert np.array_equal(np.concatenate(parts), rows)
    assert [len(part) for part in parts] == [size] * (11 // size) + [11 % size] * bool(11 % size)


def test_kernel_distance_by_hand() -> None:
    x, y = np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [0.0, 1.0], [2.0, 0.0]])

    def k(a: Any, b: Any) -> float:
        return float((a @ b / 2 + 1) ** 3)

    assert polynomial_kernel(x, y)[1, 2] == k(x[1], y[2])
    among_x = k(x[0], x[1])
    among_y = np.mean([k(y[i], y[j]) for i in range(3) for j in range(3) if i != j])
    across = np.mean([k(a, b) for a in x for b in y])
    distance, influence = block_distance(x, y)
    assert distance == pytest.approx(among_x + among_y - 2 * across)
    assert influence.mean() == pytest.approx(0.0, abs=1e-12)
    own = [2 * (among_x - np.mean([k(a, b) for b in y])) for a in x]
    assert influence == pytest.approx(np.array(own) - np.mean(own))
    assert math.isnan(block_distance(x[:1], y)[0])
    assert math.isnan(block_distance(x, y[:1])[0])
    assert len(block_distance(x[:1], y)[1]) == 1


def test_blocks_of_the_kernel_distance_go_round_the_reference() -> None:
    random = np.random.default_rng(0)
    x, y = random.normal(size=(2 * BLOCK + 5, 2)), random.normal(size=(BLOCK + 500, 2))
    found = kernel_values(lambda: iter([x[:300], x[300:]]), y)
    expected = [block_distance(x[:BLOCK], y[:BLOCK])[0], block_distance(x[BLOCK : 2 * BLOCK], y[:BLOCK])[0]]
    assert found.blocks == pytest.approx(np.array(expected))
    assert found.values.mean() == pytest.approx(np.mean(expected))
    assert len(found.values) == len(x)
    assert np.ptp(found.values[-5:]) == 0.0
    few = kernel_values(lambda: iter([x[:30]]), y)
    assert few.blocks[0] == pytest.approx(block_distance(x[:30], y[:30])[0])


def test_inception_scores_by_hand() -> None:
    sure = np.log(np.array([[0.9, 0.1], [0.1, 0.9]]))
    divergence = 0.9 * math.log(1.8) + 0.1 * math.log(0.2)
    assert split_score(sure)[0] == pytest.approx(math.exp(divergence))
    assert split_score(sure)[1] == pytest.approx(np.zeros(2), abs=1e-12)
    odd = np.array([[0.9, 0.1], [0.7, 0.3]])
    each = [sum(p * math.log(p / q) for p, q in zip(row, (0.8, 0.2), strict=True)) for row in odd]
    assert split_score(np.log(odd))[0] == pytest.approx(math.exp(sum(each) / 2))
    logits = np.random.default_rng(0).normal(size=(23, 3)).astype(np.float32)
    found = inception_values(lambda: iter([logits[:7], logits[7:]]))
    expected = [split_score(logits[s * 23 // SPLITS : (s + 1) * 23 // SPLITS])[0] for s in range(SPLITS)]
    assert found.splits == pytest.approx(np.array(expected))
    assert found.values.mean() == pytest.approx(np.mean(expected))
    assert np.isnan(inception_values(lambda: iter([logits[:9]])).values).all()
    assert np.isfinite(inception_values(lambda: iter([logits[:10]])).values).all()


def test_the_order_of_images_follows_from_their_numbers() -> None:
    found = order_of(np.arange(2_000))
    assert ((found >= 0) & (found < 1)).all()
    assert abs(found.mean() - 0.5) < 0.03
    assert len(np.unique(found)) == 2_000
    assert order_of(np.array([5]))[0] == found[5]
    assert int(order_of(np.array([0]))[0] * 2**53) == 0xE220A8397B1DCDAF >> 11  # the first output of SplitMix64 seeded with 0


# ---- refusals --------------------------------------------------------------------------------------------------------------------------


def test_what_a_metric_must_return_is_said_with_what_it_did() -> None:
    with pytest.raises(MetricError, match=r"'m' must return float64 values \(2, 3\), got list"):
        _checked("m", [1.0], (2, 3))  # type: ignore[arg-type]
    with pytest.raises(MetricError, match=r"values \(2, 3\) on the CPU, got torch.float64 \(3, 2\) on cpu"):
        _checked("m", torch.zeros(3, 2).double(), (2, 3))
    with pytest.raises(MetricError, match=r"got torch.float32 \(2, 3\)"):
        _checked("m", torch.zeros(2, 3), (2, 3))
    with pytest.raises(MetricError, match="on meta"):
        _checked("m", torch.zeros(2, 3, device="meta").double(), (2, 3))
    assert _checked("m", torch.zeros(2, 3).double(), (2, 3)).shape == (2, 3)


@pytest.mark.parametrize("what", ["estimates", "references"])
def test_shapes_that_do_not_fit_the_task(what: str) -> None:
    signals = {"estimates": torch.zeros(3, 2, 1, 8, 8), "references": torch.zeros(3, 2, 1, 8, 8)}
    mixtures = Mixtures(torch.zeros(3, 1, 8, 8), torch.arange(3), make_operator("sum", 2))
    assert len(score_batch(["psnr"], mixtures=mixtures, spec=DIGIT, **signals)) == 6
    signals[what] = torch.zeros(3, 2, 1, 8, 9)
    with pytest.raises(ValueError, match=rf"^{what} of task toy/digits must be \(3, 2, 1, 8, 8\), got \(3, 2, 1, 8, 9\)$"):
        score_batch(["psnr"], mixtures=mixtures, spec=DIGIT, **signals)


def test_metrics_that_a_task_cannot_have() -> None:
    for names, spec, told in (
        (["psnr", "ssim", "psnr"], DIGIT, "'psnr' is listed twice for task toy/digits"),
        (["sdr"], DIGIT, "'sdr' is not defined for image signals; remove it from task toy/digits"),
        (["psnr"], replace(DIGIT, n_sources=99), "toy/digits has 99 sources: the best assignment is found for at most"),
        (["psnr"], replace(DIGIT, posterior_draws=3), "'psnr' scores estimates, task toy/digits has posterior draws"),
        (
            ["psnr_pad32"],
            replace(DIGIT, source_shape=(1, 40, 33)),
            "'psnr_pad32' is defined for images up to 32x32, the task has 40x33; remove it from task toy/digits",
        ),
    ):
        with pytest.raises(SuiteError, match=told):
            check_metrics(names, spec)
    check_metrics(["psnr", "ssim"], replace(DIGIT, n_sources=99, assignment="ordered"))
    assert not defined_for(get_metric("c2st"), DIGIT).ok
    assert defined_for(get_metric("c2st"), replace(DIGIT, posterior_draws=2, assignment="ordered")).ok
    with pytest.raises(SuiteError, match="'mixture_error' has no value per pair"):
        pair_metric("mixture_error")


def test_metrics_in_the_order_of_lists() -> None:
    names = metric_names()
    known = [name for name in names if name in catalogue._FIRST]
    assert known == [name for name in catalogue._FIRST if name in names]
    assert names[: len(known)] == known
    assert names[len(known) :] == sorted(names[len(known) :])
    assert "psnr" in metric_names("image")
    assert "psnr" not in metric_names("audio")
    assert "mixture_error" in metric_names("audio")


def test_faults_of_a_metric_are_named() -> None:
    psnr: Any = get_metric("psnr")

    def changed(**facts: Any) -> Any:
        return replace(psnr, info=replace(psnr.info, **facts))

    assert checked_metric("psnr", psnr) is psnr
    for name, metric, told in (
        ("other", psnr, "'other' calls itself 'psnr'"),
        ("psnr", type(psnr), "is the class PeakSignalToNoise"),
        ("psnr", changed(per="group"), "says per='group'"),
        ("psnr", changed(per="x"), "says per='x'"),
        ("psnr", changed(domains=frozenset({"smell"})), "says domains="),
        ("psnr", changed(domains=frozenset()), "says domains="),
        ("psnr", changed(assigned_by=""), "does not say assigned_by"),
        ("psnr", object(), "cannot say its info: AttributeError"),
        ("psnr", type("X", (), {"info": 3})(), "of type X\\): info must be a MetricInfo, got int"),
        ("psnr", type("X", (), {"info": psnr.info})(), "\\(X\\) has none of pairwise"),
    ):
        with pytest.raises(MetricError, match=told):
            checked_metric(name, metric)
