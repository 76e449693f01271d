"""What score samplers count and tell, what they hand to priors and selection, and the small sums that all of them share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from method_toys import context, mix, toy_task
from setting_worlds import DIMENSION, mixture_priors, vectors

import baselines.priors.for_task
import baselines.sampling.separator
from baselines.projected import projected
from baselines.sampling.problem import Meter, Problem, RowLimit
from baselines.sampling.separator import ScoreSeparator, needs_weighted_sum, source_gram
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures, Support
from sepbench.registry import create_separator

TASK = vectors().task


def fitted(name: str, **settings: Any) -> ScoreSeparator:
    method = create_separator(name, settings, "vector")
    assert isinstance(method, ScoreSeparator)
    method.fit(vectors().view("prior"), context(TASK))
    return method


def batch(count: int) -> Mixtures:
    ids = torch.arange(count) % 12
    return mix(vectors().sources[ids], "sum") if count <= 12 else Mixtures(vectors().mixtures().values[ids], torch.arange(count), make_operator("sum", 2))


# ---- what is told ----------------------------------------------------------------------------------------------------------------------


def test_every_line_of_a_batch_after_the_first() -> None:
    """Two sources and three steps are six evaluations of a mixture, told after every call of a prior, with thousands apart."""
    lines: list[tuple[float, str]] = []
    method, ctx = fitted("dirac", steps=3, resamplings=1), context(TASK, progress=lambda done, text: lines.append((done, text)))
    method.separate(batch(1), ctx)
    assert lines == []
    method.separate(batch(2), ctx)
    assert lines == [(done / 12, f"{done} of 12 evaluations") for done in (2, 4, 6, 8, 10, 12)]
    lines.clear()
    method.separate(batch(400), ctx)
    assert [text for _, text in lines] == [f"{done} of 2,400 evaluations" for done in ("400", "800", "1,200", "1,600", "2,000", "2,400")]


def test_the_cost_of_several_draws_is_not_that_of_one() -> None:
    lines: list[str] = []
    method, ctx = fitted("dirac", steps=2, resamplings=1), context(TASK, progress=lambda done, text: lines.append(text))
    method.separate(batch(3), ctx)
    method.sample(batch(3), 4, ctx)
    assert lines == []
    method.sample(batch(2), 4, ctx)
    assert lines[-1] == "32 of 32 evaluations"
    lines.clear()
    method.separate(batch(2), ctx)
    assert lines[-1] == "8 of 8 evaluations"


def test_a_meter_says_nothing_of_what_it_does_not_know_and_never_more_than_all() -> None:
    lines: list[tuple[float, str]] = []
    blind, seeing = (Meter(lambda done, text: lines.append((done, text)), expected) for expected in (0.0, 4.0))
    blind.count(3)
    assert (lines, blind.seen) == ([], 3)
    seeing.count(3)
    seeing.count(2)
    assert lines == [(0.75, "3 of 4 evaluations"), (1.0, "5 of 4 evaluations")]


class Flow:
    """A prior whose density is an estimate by many passes that no count includes."""

    def __init__(self, number: int) -> None:
        self.exact = mixture_priors()[number]
        self.denoise, self.score = self.exact.denoise, self.exact.score

    def estimated_log_prob(self, x: torch.Tensor, example_ids: torch.Tensor, noise: NoiseSource, *, steps: int, spacing: int) -> torch.Tensor:
        return self.exact.log_prob(x)


@pytest.mark.parametrize(
    ("settings", "flows", "cost"),
    [
        ({}, True, 3),
        ({"criterion": "log-prior"}, True, 3),
        ({"best_of": 2, "criterion": "log-prior"}, False, 6),
        ({"best_of": 2, "criterion": "log-prior"}, True, None),
        ({"best_of": 2, "criterion": "mixture-error"}, True, 6),
        ({"best_of": 2, "criterion": "denoising-loss", "loss_sigmas": (0.2, 0.4)}, True, 2 * 3 + 2 * 2),
    ],
)
def test_evaluations_are_told_unless_a_flow_made_some(settings: dict[str, Any], flows: bool, cost: int | None) -> None:
    method = fitted("projected", steps=3, **settings)
    if flows:
        method._priors = [Flow(0), Flow(1)]  # type: ignore[list-item]
    method.separate(batch(2), context(TASK))
    told = method.network_evaluations()
    assert (None if told is None else told.tolist()) == (None if cost is None else [cost] * 2)


def test_draws_in_small_parts_are_the_same_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    method, mixtures, ctx = fitted("dirac", steps=3), batch(5), context(TASK)
    whole = method.problem(mixtures, ctx, 2)
    wanted = method.draws(whole, 2, ctx, method.estimate)
    calls: list[int] = []

    def counted(problem: Problem, ctx: Any) -> torch.Tensor:
        calls.append(len(problem.mixtures))
        return method.estimate(problem, ctx)

    monkeypatch.setattr(baselines.sampling.separator, "_ROWS_AT_ONCE", 5)
    parts = method.problem(mixtures, ctx, 2)
    assert torch.allclose(method.draws(parts, 2, ctx, counted), wanted, atol=1e-6)
    assert calls == [4, 4, 2]
    assert parts.evaluations == whole.evaluations == 2 * 3 * method.resamplings  # type: ignore[attr-defined]
    monkeypatch.setattr(baselines.sampling.separator, "_ROWS_AT_ONCE", 1)
    assert torch.allclose(method.draws(method.problem(mixtures, ctx, 2), 2, ctx, counted), wanted, atol=1e-6)
    assert calls[3:] == [2] * 5


# ---- what is handed on -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "per_class"), [("basis-ncsn", False), ("basis-ncsn-per-class", True), ("projected-4x-per-class", True)])
def test_a_fit_asks_for_the_priors_that_its_settings_name(monkeypatch: pytest.MonkeyPatch, name: str, per_class: bool) -> None:
    asked: list[Any] = []
    prior = mixture_priors()[0]

    def priors(task: Any, view: Any, weights: str, **told: Any) -> tuple[list[Any], str]:
        asked.append((task.name, view, weights, told))
        return [prior], "digest"

    monkeypatch.setattr(baselines.priors.for_task, "priors_for", priors)
    monkeypatch.setattr(baselines.priors.for_task, "digests", lambda weights: f"before {weights}")
    monkeypatch.setattr(baselines.priors.for_task, "run_by", lambda found, engine: [*found, engine])
    monkeypatch.setattr(baselines.priors.for_task, "prior_label", lambda found, digest: f"{len(found)} by {digest}")
    method: Any = create_separator(name, {"weights": "mine", "precision": "bfloat16", "engine": "graph"}, "image")
    assert method.weights_sha256 == "before mine"
    view = vectors().view("prior")
    method.fit(view, context(toy_task()))
    assert asked == [("task", view, "mine", {"per_class": per_class, "precision": "bfloat16", "device": "cpu"})]
    assert (method.weights_sha256, method.prior_label, method._priors) == ("digest", "1 by digest", [prior, "graph"])


@pytest.mark.parametrize("priors", [1, 2])
def test_modes_of_sources_under_one_prior_may_change_places(monkeypatch: pytest.MonkeyPatch, priors: int) -> None:
    told: list[Any] = []

    def mean(draws: torch.Tensor, criterion: torch.Tensor, temperature: float, *, exchangeable: bool) -> torch.Tensor:
        told.append((tuple(draws.shape), tuple(criterion.shape), temperature, exchangeable))
        return draws[:, 0]

    monkeypatch.setattr(baselines.sampling.separator, "weighted_mean", mean)
    method = fitted("projected", steps=2, best_of=3, combine="mean", temperature=7.0)
    method._priors = method._priors[:priors]
    method.separate(batch(2), context(TASK))
    assert told == [((2, 3, 2, DIMENSION), (2, 3), 7.0, priors == 1)]


def test_priors_of_sources_by_their_numbers() -> None:
    method = fitted("projected")
    first, second = method._priors
    assert (method.score_prior(0), method.score_prior(1)) == (first, second)
    method._priors = [second]
    assert (method.score_prior(0), method.score_prior(1)) == (second, second)


@pytest.mark.parametrize(
    ("settings", "device", "note"),
    [
        ({}, "cpu", ""),
        ({"precision": "bfloat16"}, "cpu", ""),
        ({"precision": "tf32", "engine": "graph"}, "cuda:1", ""),
        ({"precision": "tf32"}, "cpu", "precision tf32 is an arithmetic of CUDA GPUs, not of cpu; use --set dirac.precision=float32"),
        ({"engine": "graph"}, "cpu", "engine graph is for CUDA GPUs, not for cpu; use --set dirac.engine=eager"),
        ({"engine": "compile"}, "mps", "engine compile is for CUDA GPUs, not for mps; use --set dirac.engine=eager"),
    ],
)
def test_devices_that_settings_allow(settings: dict[str, Any], device: str, note: str) -> None:
    method: Any = create_separator("dirac", settings, "image")
    assert method.supports_device(device) == Support(not note, note)


# ---- small sums ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "sources", "shape", "gram"),
    [
        ("sum", 2, (1, 4, 4), 2.0),
        ("sum", 3, (3,), 3.0),
        ("mean", 4, (3,), 0.25),
        ("channel-mean", 1, (3, 4, 4), 1 / 3),
        ("channel-mean", 2, (5, 4, 4), 0.2),
        ("gain", 2, (3,), None),
    ],
)
def test_the_largest_curvature_of_the_likelihood(operator: str, sources: int, shape: tuple[int, ...], gram: float | None) -> None:
    assert source_gram(toy_task(shape, ("any",) * sources, operator)) == (None if gram is None else pytest.approx(gram))


def test_which_operators_can_be_solved_for_one_source() -> None:
    for operator in ("sum", "mean", "gain"):
        assert needs_weighted_sum(toy_task(operator=operator)) == Support(True)
    line = "solves the mixture for one source, which operator 'channel-mean' does not allow; basis-ncsn, gaussian and projected take any operator"
    assert needs_weighted_sum(toy_task((3, 4, 4), ("any",), "channel-mean")) == Support(False, line)


class Halved:
    """Denoises by a factor; ``called`` has the rows and levels."""

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.called: list[tuple[int, float]] = []

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        self.called.append((len(x), sigma))
        return self.factor * x


def problem(*factors: float, sources: int = 2, operator: str = "gain") -> Problem:
    gains = torch.tensor([[1.0, 3.0, 2.0], [-2.0, 4.0, 1.0]])[:, :sources]
    of = make_operator(operator, sources, gains=gains if operator == "gain" else None)
    return Problem(Mixtures(torch.tensor([[10.0], [6.0]]), torch.tensor([4, 9]), of), [Halved(f) for f in factors], NoiseSource(0), (1,))  # type: ignore[misc]


def test_priors_are_one_or_one_per_source() -> None:
    for factors in ((0.5,), (0.5, 0.5, 0.5)):
        assert problem(*factors, sources=3).n_sources == 3
    with pytest.raises(ValueError, match=r"^got 2 priors for 3 sources; give one, or one per source$"):
        problem(0.5, 0.5, sources=3)
    with pytest.raises(ValueError, match=r"^got 3 priors for 2 sources; give one, or one per source$"):
        problem(0.5, 0.5, 0.5)


def test_residual_score_and_rest_of_a_mixture_by_hand() -> None:
    one = problem(0.5, 0.25)
    x = torch.tensor([[[1.0], [2.0]], [[3.0], [1.0]]])
    assert one.residual(x).tolist() == [[10 - 1 - 6], [6 + 6 - 4]]
    assert one.constrained(x, 0).tolist() == [[[4.0], [2.0]], [[-1.0], [1.0]]]
    assert one.constrained(x, 1).tolist() == [[[1.0], [3.0]], [[3.0], [3.0]]]
    assert x.tolist() == [[[1.0], [2.0]], [[3.0], [1.0]]]
    assert one.denoise(x, 0.5).tolist() == [[[0.5], [0.5]], [[1.5], [0.25]]]
    assert one.score(x, 0.5).tolist() == [[[-2.0], [-6.0]], [[-6.0], [-3.0]]]
    assert one.denoise_one(x[:, 0], 0, 0.5).tolist() == [[0.5], [1.5]]
    assert one.denoise_one(x[:, 0], 1, 0.5).tolist() == [[0.25], [0.75]]
    assert one.evaluations == 2
    assert one.meter.by_mixture(torch.tensor([4, 9])).tolist() == [6.0, 6.0]
    assert [prior.called for prior in one.priors] == [[(2, 0.5)] * 3] * 2  # type: ignore[attr-defined]
    shared = problem(0.5)
    assert shared.denoise_one(x[:, 0], 1, 0.5).tolist() == [[0.5], [1.5]]


def test_draws_of_draws_are_numbered_through() -> None:
    one = problem(0.5)
    twice = one.repeat(2)
    assert twice.draws is not None
    assert twice.draws.tolist() == [0, 1, 0, 1]
    assert twice.mixtures.example_ids.tolist() == [4, 4, 9, 9]
    assert twice.mixtures.operator.matrix()[:, 0, 0].tolist() == [1.0, 1.0, -2.0, -2.0]
    again = twice.rows(torch.tensor([3, 0])).repeat(3)
    assert again.draws is not None
    assert again.draws.tolist() == [3, 4, 5, 0, 1, 2]
    assert again.mixtures.values.flatten().tolist() == [6.0] * 3 + [10.0] * 3
    assert again.evaluations == 0
    assert torch.equal(again.normals(1)[4], replace(one.rows(torch.tensor([0])), draws=torch.tensor([1])).normals(1)[0])
    assert torch.equal(again.normal(1, 1), again.normals(1)[:, 1])
    assert not torch.equal(again.uniforms(1), again.normals(1))


def test_limits_of_rows_and_of_numbers_fall_together() -> None:
    limit = RowLimit(8, 100)
    assert [limit.at_once(numbers) for numbers in (0, 1, 10, 13, 1_000)] == [100, 100, 10, 8, 8]
    with pytest.warns(RuntimeWarning, match=r"^out of memory with 1,001 rows in one call of the prior; 500 from here on$"):
        limit.halve(1_001, 3)
    assert (limit.rows, limit.elements) == (8, 100)
    with pytest.warns(RuntimeWarning):
        limit.halve(6, 10)
    assert (limit.rows, limit.elements) == (3, 30)
    with pytest.warns(RuntimeWarning):
        limit.halve(1, 10)
    assert (limit.rows, limit.elements) == (1, 10)


def test_candidates_that_are_dropped_cost_what_they_went_through_and_their_ranking_too() -> None:
    """Three start; after two of three steps one is dropped, by two levels; in the end two are ranked: 3 + 3 + 6 + 2 + 4 evaluations per source."""
    one = problem(0.5)
    projected(one, [1.0, 0.5, 0.1], candidates=3, keep={2: 2}, loss_sigmas=(0.1, 0.3))
    assert one.evaluations == 18
    assert one.meter.by_mixture(one.mixtures.example_ids).tolist() == [36.0] * len(one.mixtures)
    assert one.meter.seen == 36 * len(one.mixtures)
    alone = problem(0.5)
    projected(alone, [1.0, 0.5, 0.1])
    assert (alone.evaluations, alone.meter.seen) == (3, 6 * len(alone.mixtures))
