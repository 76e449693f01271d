"""Edges that metrics share: nothing warns of what is defined as NaN, what a metric lacks is told in one whole line, and frozen numbers stay frozen."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from audio_cases import audio_task
from metric_cases import image_task

from sepbench.errors import MetricError
from sepbench.metrics import assignment, draws, scoring
from sepbench.metrics.assignment import best_assignment, exhaustive_assignment, hungarian_assignment
from sepbench.metrics.bss_eval_v3 import filtered_ratios
from sepbench.metrics.catalogue import cap_of, checked_metric, defined_for, get_metric, metric_names
from sepbench.metrics.energy_ratio import check_audio
from sepbench.metrics.kinds import MetricInfo, PooledMetric
from sepbench.metrics.psnr import PSNR_PAD32
from sepbench.metrics.psnr_pooled import PSNR_POOLED32
from sepbench.metrics.scoring import _Block, score_batch
from sepbench.metrics.sdr_corpus import median_and_influence, sparsity
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures

SLOW = ("isr", "sir", "sar", "sdr_v3")
NUMBERS = {"NaN": float("nan"), "infinity": float("inf"), "beyond squares": 1e200, "nothing": 0.0}


@pytest.mark.parametrize("value", NUMBERS.values(), ids=NUMBERS.keys())
@pytest.mark.parametrize("side", ["estimates", "references", "both"])
def test_what_has_no_value_is_no_warning(side: str, value: float) -> None:
    """A run of thousands of mixtures must not print thousands of lines for one silent or broken estimate."""
    for domain, shape in (("image", (1, 8, 8)), ("audio", (1, 250))):
        signals = {one: torch.full((2, 2, *shape), 0.5, dtype=torch.float64) for one in ("estimates", "references")}
        for one in signals:
            signals[one][0] = torch.linspace(0.1, 0.9, 2 * np.prod(shape)).reshape(2, *shape)
            if side in (one, "both"):
                signals[one][1] = value
        names = [name for name in metric_names(domain) if get_metric(name).info.per not in ("set", "posterior") and name not in SLOW]  # type: ignore[arg-type]
        operator = make_operator("mean", 2)
        spec = replace(image_task(2) if domain == "image" else audio_task(2), assignment="ordered")
        mixtures = Mixtures(operator.forward(signals["references"]), torch.arange(2), operator)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            table = score_batch(names, signals["estimates"], signals["references"], mixtures, spec)
        assert np.isfinite(table.value[table.example == 0]).all()


def test_sounds_need_sources_channels_and_samples_and_no_examples() -> None:
    check_audio(torch.zeros(0, 2, 1, 5), torch.zeros(0, 2, 1, 5))
    for shape in ((1, 0, 1, 5), (1, 2, 0, 5), (1, 2, 1, 0)):
        with pytest.raises(ValueError) as refused:
            check_audio(torch.zeros(shape), torch.zeros(shape))
        assert str(refused.value) == f"audio metrics need at least one source, channel and sample, got (B, K, channels, T) = {shape}"
    for estimates, references in ((torch.zeros(1, 1, 1, 3), torch.zeros(1, 1, 1, 3).long()), (torch.zeros(1, 1, 1, 3).int(), torch.zeros(1, 1, 1, 3))):
        with pytest.raises(ValueError) as refused:
            check_audio(estimates, references)
        assert str(refused.value) == (
            "audio metrics need estimates and references as two float tensors of one shape (B, K, channels, T), "
            f"got {estimates.dtype} (1, 1, 1, 3) and {references.dtype} (1, 1, 1, 3)"
        )


def test_an_image_beyond_the_canvas_has_no_value_whichever_side_is_the_longer() -> None:
    for height, width in ((33, 2), (2, 33)):
        with pytest.raises(ValueError) as refused:
            PSNR_PAD32.from_mse(np.ones(1), (height, width))
        assert str(refused.value) == f"psnr_pad32 is defined for images up to 32x32, got {height}x{width}"
        for metric in (PSNR_PAD32, get_metric("psnr_pooled32_pad")):
            support = defined_for(metric, image_task(2, (3, height, width)))
            assert (support.ok, support.note) == (False, f"is defined for images up to 32x32, the task has {height}x{width}")
    for metric in (PSNR_PAD32, get_metric("psnr_pooled32_pad")):
        assert defined_for(metric, image_task(2, (40, 32, 32))).ok
    assert PSNR_PAD32.from_mse(np.array([0.1]), (32, 16)).tolist() == [pytest.approx(-10 * np.log10(0.05))]


def test_how_the_values_of_single_examples_are_made_is_said_in_leaderboards() -> None:
    said = {name: metric.spread for name in metric_names() if isinstance(metric := get_metric(name), PooledMetric)}
    said = {name: word for name, word in said.items() if "_inception" not in name and "net" not in name}
    assert said == {"psnr_pooled32": "jackknife", "psnr_pooled32_pad": "jackknife", "sdr_corpus_median": "influence"}


# --- frozen numbers


def test_the_draws_that_posterior_metrics_compare_with_are_those_of_every_earlier_run() -> None:
    assert draws._REFERENCE_NOISE.seed == 7422132920276864609
    assert draws._REFERENCE_NOISE.stream == 0


def test_up_to_four_sources_all_orders_are_tried_and_beyond_that_none_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of equal totals the first order counts up to four sources; scipy has its own choice beyond."""
    tried: list[tuple[str, int]] = []
    for name, real in (("exhaustive", exhaustive_assignment), ("hungarian", hungarian_assignment)):
        monkeypatch.setattr(
            assignment, f"{name}_assignment", lambda scores, maximise, name=name, real=real: (tried.append((name, scores.shape[1])), real(scores, maximise))[1]
        )
    for k in (1, 4, 5, 8):
        best_assignment(torch.zeros(2, k, k))
    assert tried == [("exhaustive", 1), ("exhaustive", 4), ("hungarian", 5), ("hungarian", 8)]


def test_the_density_at_a_median_by_hand() -> None:
    """Five values: the quartiles are wider than Bofinger's bandwidth, whose distance of quantiles is divided by its own width."""
    values = np.array([0.0, 1.0, 2.0, 10.0, 11.0])
    narrow = 0.648 * 5**-0.2  # 0.4697: cut to 0.25
    assert narrow > 0.25
    assert sparsity(values) == pytest.approx((10.0 - 1.0) / 0.5)
    many = np.arange(10_000.0) ** 3
    width = 0.648 * 10_000**-0.2
    assert width < 0.25
    by_bofinger = (np.quantile(many, 0.5 + width) - np.quantile(many, 0.5 - width)) / (2 * width)
    by_quartiles = (np.quantile(many, 0.75) - np.quantile(many, 0.25)) / 0.5
    assert by_bofinger < by_quartiles == pytest.approx(sparsity(many))
    peaked = np.sign(np.linspace(-1, 1, 10_000)) * np.abs(np.linspace(-1, 1, 10_000)) ** 0.3
    expected = (np.quantile(peaked, 0.5 + width) - np.quantile(peaked, 0.5 - width)) / (2 * width)
    assert sparsity(peaked) == pytest.approx(expected)
    value, influence = median_and_influence(values)
    assert value == 2.0
    np.testing.assert_allclose(influence, np.array([-9.0, -9.0, 0.0, 9.0, 9.0]))
    uneven = np.array([0.0, 0.0, 0.0, 1.0, 5.0])  # half the sparsity for each above the median, less their mean
    assert sparsity(uneven) == 2.0
    np.testing.assert_allclose(median_and_influence(uneven)[1], np.array([-0.4, -0.4, -0.4, 0.6, 0.6]))


def test_examples_beside_full_batches_share_the_value_and_have_no_influence() -> None:
    """32 errors of one full batch, three before it in a batch that is not full, one failure in the full one."""
    errors = np.r_[0.5, 0.5, 0.5, np.linspace(0.01, 0.05, 32)]
    errors[10] = np.nan
    found = PSNR_POOLED32.pool({"mse": errors}, np.arange(29, 64))
    full = np.delete(errors[3:], 7)
    value = -10 * np.log10(full.mean())
    assert np.flatnonzero(np.isnan(found)).tolist() == [10]
    np.testing.assert_allclose(found[:3], found[:3].mean())
    assert np.nanmean(found) == pytest.approx(value)
    jackknife = np.array([30 * (value + 10 * np.log10(np.delete(full, i).mean())) for i in range(31)])
    own = np.delete(found[3:], 7) - found[0]
    np.testing.assert_allclose(own, (jackknife - jackknife.mean()) * 34 / 31, rtol=1e-9)
    assert np.isnan(PSNR_POOLED32.pool({"mse": np.full(3, np.nan)}, np.arange(3))).all()
    lonely = PSNR_POOLED32.pool({"mse": np.array([np.nan, 0.1])}, np.arange(2))
    assert lonely[1] == pytest.approx(10.0)


def test_one_unusable_estimate_leaves_the_filters_of_the_others() -> None:
    """Of two estimates of one source, one silent; of two sources, one silent."""
    draw = np.random.default_rng(0)
    references = draw.normal(size=(2, 1, 700))
    estimates = references[:, None] + 0.1 * draw.normal(size=(2, 2, 1, 700))
    whole = filtered_ratios(estimates, references)
    estimates[0, 1] = 0.0
    references[1] = 0.0
    found = filtered_ratios(estimates, references)
    assert np.isnan(found).tolist() == [[False, True], [True, True]]
    assert found[0, 0] == pytest.approx(whole[0, 0], abs=1e-9)


# --- what is no metric


@dataclass
class _Pair:
    info: Any

    def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass
class _Pooled:
    info: Any
    spread: str = "x"

    def parts(self, estimates: torch.Tensor, references: torch.Tensor, examples: torch.Tensor) -> dict[str, torch.Tensor]:
        raise NotImplementedError

    def pool(self, parts: Any, examples: Any) -> Any:
        raise NotImplementedError


INFO = MetricInfo("toy", "1", False, frozenset({"image"}), "source", "toy", "toy")
FAULTS: list[tuple[Any, str]] = [
    (_Pair, "metric 'toy' is the class _Pair; its entry point must name an object of it"),
    (3, "metric 'toy' cannot say its info: AttributeError: 'int' object has no attribute 'info'"),
    (_Pair({}), "metric 'toy' (of type _Pair): info must be a MetricInfo, got dict"),
    (_Pair(replace(INFO, name="other")), "metric 'toy' calls itself 'other'; its entry point must have that name"),
    (SimpleNamespace(info=INFO), "metric 'toy' (SimpleNamespace) has none of pairwise, mixture_scores, pool and posterior_score"),
    (_Pair(replace(INFO, per="mixture")), "metric 'toy' says per='mixture', which its methods do not give"),
    (_Pair(replace(INFO, per="set")), "metric 'toy' says per='set', which its methods do not give"),
    (_Pair(replace(INFO, domains=frozenset({"smell"}))), "metric 'toy' says domains=frozenset({'smell'}); give a frozenset of image, audio, vector"),
    (_Pair(replace(INFO, assigned_by="")), "metric 'toy' does not say assigned_by; give the name of the metric of pairs whose assignment counts, its own if"),
    (_Pooled(replace(INFO, per="group", assigned_by="")), "metric 'toy' does not say assigned_by; give the name of the metric of pairs whose assignment"),
]


@pytest.mark.parametrize(("metric", "told"), FAULTS)
def test_the_whole_line_about_what_is_no_metric(metric: Any, told: str) -> None:
    with pytest.raises(MetricError) as caught:
        checked_metric("toy", metric)
    assert str(caught.value).startswith(told)
    assert str(caught.value).endswith("; see sepbench.metrics.kinds")
    assert str(caught.value).endswith("the metric of pairs whose assignment counts, its own if that is it; see sepbench.metrics.kinds") == (
        "assigned_by" in told
    )
    assert checked_metric("toy", _Pooled(replace(INFO, per="group"))).info.per == "group"


def test_a_cut_is_that_of_decibels_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mean squared error is a function of the squared error too, and is cut off nowhere."""
    psnr: Any = get_metric("psnr")
    monkeypatch.setattr("sepbench.metrics.catalogue.get_metric", lambda name: replace(psnr, info=replace(psnr.info, unit="1" if name == "mse" else "dB")))
    assert (cap_of("mse"), cap_of("other")) == (float("inf"), 100.0)


def test_a_metric_that_cannot_be_loaded_is_no_reason_to_change_the_assignment(monkeypatch: pytest.MonkeyPatch) -> None:
    """``cannot be assigned by`` would say that another metric has to be named; here the named one has to be mended."""

    def broken(name: str, task: object = None) -> Any:
        raise MetricError(f"metric {name!r} cannot be loaded")

    monkeypatch.setattr("sepbench.metrics.catalogue.pair_metric", broken)
    with pytest.raises(MetricError, match=r"^metric 'toy' cannot be loaded$"):
        defined_for(_Pair(INFO), image_task(2))
    assert defined_for(_Pair(INFO), image_task(2, assignment="ordered")).ok
    assert defined_for(_Pair(replace(INFO, assigned_by="")), image_task(2)).ok


@pytest.mark.parametrize(
    ("by", "why"),
    [
        ("mixture_error", "metric 'mixture_error' has no value per pair of estimate and true source; choose one that has, such as psnr or sdr"),
        ("psnrr", "unknown metric 'psnrr'; did you mean psnr?"),
    ],
)
def test_a_metric_has_no_value_where_the_metric_that_assigns_it_assigns_nothing(by: str, why: str) -> None:
    support = defined_for(_Pair(replace(INFO, assigned_by=by)), image_task(2))
    assert (support.ok, support.note) == (False, f"cannot be assigned by {by!r} ({why})")


def test_metrics_of_others_follow_ours_by_their_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sepbench.metrics.catalogue.points", lambda group: dict.fromkeys(("zeta", "ssim", "alpha", "psnr"), None))
    assert metric_names() == ["psnr", "ssim", "alpha", "zeta"]


def test_what_gives_no_value_per_source_or_mixture_is_one_line() -> None:
    signals, mixtures = torch.zeros(1, 2, 1, 8, 8), Mixtures(torch.zeros(1, 1, 8, 8), torch.arange(1), make_operator("sum", 2))
    block = _Block(image_task(2), signals, signals, mixtures)
    for per in ("mixture", "posterior", "group"):
        with pytest.raises(MetricError) as caught:
            block.score(_Pair(replace(INFO, per=per)))
        assert str(caught.value) == "metric 'toy' gives no value per source or mixture"


# --- what metrics of one block share


def _block(task: Any, count: int = 1) -> _Block:
    signals = torch.zeros(count, task.n_sources, 1, 8, 8)
    return _Block(task, signals, signals, Mixtures(torch.zeros(count, 1, 8, 8), torch.arange(count), make_operator("sum", task.n_sources)))


def test_squared_errors_are_computed_once_and_where_the_order_is_known_of_the_scored_pairs_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(scoring, "pairwise_mse", lambda x, y, clamps, pairs: asked.append((clamps, pairs)) or f"errors {clamps}")
    block = _block(image_task(3, assignment="ordered", scored=(2, 0)))
    assert [block.squared_errors(clamps) for clamps in (True, False, True)] == ["errors True", "errors False", "errors True"]
    assert asked == [(True, [(2, 2), (0, 0)]), (False, [(2, 2), (0, 0)])]
    asked.clear()
    _block(image_task(3, scored=(2, 0))).squared_errors(True)
    assert asked == [(True, None)]  # any estimate may answer to any source


@pytest.mark.parametrize("lost", [np.nan, np.inf, -np.inf])
def test_an_example_with_one_pair_that_has_no_finite_value_has_no_assignment(monkeypatch: pytest.MonkeyPatch, lost: float) -> None:
    class Scores(_Pair):
        def pairwise(self, estimates: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[[1.0, 2.0], [3.0, 5.0]], [[1.0, lost], [3.0, 5.0]]], dtype=torch.float64)

    monkeypatch.setattr(scoring, "pair_metric", lambda name, task: Scores(INFO))
    order, defined = _block(image_task(2), 2).assignment("toy")  # of errors: 1 + 5 against 2 + 3
    assert (order.tolist(), defined.tolist()) == ([[1, 0], [0, 1]], [True, False])
