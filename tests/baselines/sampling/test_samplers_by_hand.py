"""Every sampler against its algorithm written out for one mixture and two numbers, under unequal weights and settings that are nobody's default.

The prior of source k is ``N(mean_k, spread_k^2)``, so that ``D(x, s) = (s^2 mean + spread^2 x) / (s^2 + spread^2)``. The loops below are the papers' algorithms
in plain floats; only the random numbers are the project's, by (example, step, source).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from method_toys import context, toy_task

from baselines.alpha_rgs import AlphaRGS, alpha_rgs
from baselines.basis import Basis, basis
from baselines.diffusion_gibbs import DiffusionGibbs, diffusion_gibbs
from baselines.dirac import Dirac, dirac
from baselines.gaussian import Gaussian, gaussian
from baselines.projected import Projected, projected
from baselines.sampling.noise_levels import karras_levels, ncsn_levels
from baselines.sampling.problem import Problem, RowLimit
from baselines.sampling.separator import ScoreSeparator, exchangeable, source_gram
from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.operators import WeightedSum, make_operator
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.registry import create_separator
from sepbench.selection import weighted_mean

MEANS, SPREADS = (0.3, 0.7), (0.25, 0.4)
SHARED = torch.tensor([0.7, 1.6])
OWN = torch.tensor([[0.7, 1.6], [1.3, -0.4], [2.0, 0.5]])
"""Weights of three examples."""
SIGMAS = [1.0, 0.45, 0.2, 0.07]
IDS = [11, 4, 9]


def prior(k: int) -> GaussianMixture:
    one = torch.ones(1, dtype=torch.float64)
    return GaussianMixture(one, one[:, None] * MEANS[k], one[:, None, None] * SPREADS[k] ** 2)


def problem(weights: torch.Tensor) -> Problem:
    """Mixtures of one number."""
    values = torch.tensor([[1.1], [-0.2], [1.9]])
    mixtures = Mixtures(values, torch.tensor(IDS), WeightedSum("gain", weights))
    return Problem(mixtures, [prior(0), prior(1)], NoiseSource(5), (1,), RowLimit(1000))


@dataclass(frozen=True)
class Scalar:
    """One mixture of a problem, in floats."""

    m: float
    w: tuple[float, float]
    example: int

    def noise(self, step: int, k: int, *, normal: bool = True) -> float:
        draw = NoiseSource(5).normal if normal else NoiseSource(5).uniform
        return float(draw(torch.tensor([self.example]), step, k, (1,)))

    def denoise(self, k: int, x: float, s: float) -> float:
        return (s**2 * MEANS[k] + SPREADS[k] ** 2 * x) / (s**2 + SPREADS[k] ** 2)

    def residual(self, x: Sequence[float]) -> float:
        return self.m - self.w[0] * x[0] - self.w[1] * x[1]


def held(found: torch.Tensor, weights: torch.Tensor, by_hand: Callable[[Scalar], Sequence[float]]) -> None:
    values = problem(weights).mixtures.values
    rows = weights.expand(3, 2)
    wanted = [by_hand(Scalar(float(values[b]), (float(rows[b, 0]), float(rows[b, 1])), IDS[b])) for b in range(3)]
    torch.testing.assert_close(found[..., 0], torch.tensor(wanted), atol=3e-5, rtol=3e-5)


WEIGHTS = pytest.mark.parametrize("weights", [SHARED, OWN], ids=["shared", "of each example"])


@WEIGHTS
@pytest.mark.parametrize(("start", "noise", "final"), [("uniform", True, True), ("normal", False, False)])
def test_basis(weights: torch.Tensor, start: str, noise: bool, final: bool) -> None:
    delta, counts, c = 1e-4, [3, 1, 2, 4], 0.6

    def by_hand(one: Scalar) -> list[float]:
        x, step = [one.noise(0, k, normal=start == "normal") for k in range(2)], 0
        for sigma, count in zip(SIGMAS, counts, strict=True):
            eta = delta * sigma**2 / SIGMAS[-1] ** 2
            for _ in range(count):
                step, left = step + 1, one.residual(x)
                x = [
                    x[k]
                    + eta * (one.denoise(k, x[k], sigma) - x[k]) / sigma**2
                    + c * eta / sigma**2 * one.w[k] * left
                    + (math.sqrt(2 * eta) * one.noise(step, k) if noise else 0.0)
                    for k in range(2)
                ]
        return [one.denoise(k, x[k], SIGMAS[-1]) for k in range(2)] if final else x

    given = {"delta": delta, "steps_per_level": counts, "factor": c, "start": start, "noise": noise, "final_denoise": final}
    held(basis(problem(weights), SIGMAS, **given), weights, by_hand)  # type: ignore[arg-type]


@WEIGHTS
@pytest.mark.parametrize("churn", [0.0, 0.8, 4.0])
def test_gaussian(weights: torch.Tensor, churn: float) -> None:
    """At a churn of 4 in 4 steps gamma is cut to sqrt(2) - 1."""
    ratio, resamplings = 1.7, 2
    gamma = min(churn / 4, math.sqrt(2) - 1)

    def by_hand(one: Scalar) -> list[float]:
        x, step = [SIGMAS[0] * one.noise(0, k) for k in range(2)], 0
        for sigma, after in zip(SIGMAS, [*SIGMAS[1:], 0.0], strict=True):
            for again in range(resamplings):
                step += 1
                level = sigma + gamma * sigma
                if gamma:
                    x = [x[k] + math.sqrt(level**2 - sigma**2) * one.noise(2 * step, k) for k in range(2)]
                left = one.residual(x)
                slope = [(x[k] - one.denoise(k, x[k], level)) / level - level / (ratio * level) ** 2 * one.w[k] * left for k in range(2)]
                x = [x[k] + (after - level) * slope[k] for k in range(2)]
                if again == 0:
                    x = [x[k] + math.sqrt(sigma**2 - after**2) * one.noise(2 * step + 1, k) for k in range(2)]
        return x

    held(gaussian(problem(weights), SIGMAS, gamma_ratio=ratio, churn=churn, resamplings=resamplings), weights, by_hand)


@WEIGHTS
@pytest.mark.parametrize(("churn", "slot"), [(0.0, 1), (0.8, 0), (4.0, 1)])
def test_dirac(weights: torch.Tensor, churn: float, slot: int) -> None:
    gamma, free = min(churn / 4, math.sqrt(2) - 1), 1 - slot

    def by_hand(one: Scalar) -> list[float]:
        def both(value: float) -> list[float]:
            rest = (one.m - one.w[free] * value) / one.w[slot]
            return [value, rest] if free == 0 else [rest, value]

        x, step = [SIGMAS[0] * one.noise(0, k) for k in range(2)], 0
        for sigma, after in zip(SIGMAS, [*SIGMAS[1:], 0.0], strict=True):
            for again in range(2):
                step += 1
                level = sigma + gamma * sigma
                value = x[free] + (math.sqrt(level**2 - sigma**2) * one.noise(2 * step, free) if gamma else 0.0)
                x = both(value)
                slopes = [(x[k] - one.denoise(k, x[k], level)) / level for k in range(2)]
                value += (after - level) * (slopes[free] - one.w[free] / one.w[slot] * slopes[slot])
                if again == 0:
                    value += math.sqrt(sigma**2 - after**2) * one.noise(2 * step + 1, free)
                x = both(value)
        return x

    held(dirac(problem(weights), SIGMAS, slot=slot, churn=churn, resamplings=2), weights, by_hand)


def test_diffusion_gibbs() -> None:
    inner, sweeps, lowest = 3, 2, 0.03

    def by_hand(one: Scalar) -> list[float]:
        square = one.w[0] ** 2 + one.w[1] ** 2
        x, step = [one.w[k] * one.m / square for k in range(2)], 0
        for sigma in SIGMAS:
            for _ in range(sweeps):
                for k in range(2):
                    other = 1 - k
                    y = (one.m - one.w[other] * x[other]) / one.w[k]
                    levels = [*karras_levels(inner, sigma / abs(one.w[k]), min(lowest, sigma / abs(one.w[k])), 3.0), 0.0]
                    for i in range(inner):
                        clean = one.denoise(k, y, levels[i])
                        shrink = levels[i + 1] ** 2 / levels[i] ** 2
                        y = clean + shrink * (y - clean)
                        if levels[i + 1]:
                            y += levels[i + 1] * math.sqrt(1 - shrink) * one.noise(step + i, k)
                    x[k] = y
                step += inner
        return x

    for weights in (SHARED, torch.tensor([1.2, -0.5])):
        held(diffusion_gibbs(problem(weights), SIGMAS, inner_steps=inner, sweeps_per_level=sweeps, lowest=lowest), weights, by_hand)
    with pytest.raises(ValueError, match="one weight per source for the whole batch"):
        diffusion_gibbs(problem(OWN), SIGMAS)
    alike = SHARED.expand(3, 2)
    torch.testing.assert_close(diffusion_gibbs(problem(alike), SIGMAS), diffusion_gibbs(problem(SHARED), SIGMAS))


@WEIGHTS
def test_alpha_rgs(weights: torch.Tensor) -> None:
    iterations, highest, lowest, omega, rate, final = 7, 0.9, 0.05, 0.4, 0.3, 0.05
    corput = [0.5, 0.25, 0.75, 0.125, 0.625, 0.375, 0.875]

    def by_hand(one: Scalar) -> list[float]:
        s = one.noise(0, 0, normal=False)
        for i in range(iterations):
            sigma = highest * (lowest / highest) ** corput[i]
            b = (one.m - one.w[0] * s) / one.w[1]
            pull = [one.denoise(k, x + sigma * one.noise(i + 1, k), sigma) - x for k, x in ((0, s), (1, b))]
            step = final + 0.5 * (rate - final) * (1 + math.cos(math.pi * i / iterations))
            s += step * (pull[0] - omega * one.w[0] / one.w[1] * pull[1]) / (1 + omega)
        return [s, (one.m - one.w[0] * s) / one.w[1]]

    given = {"iterations": iterations, "highest": highest, "lowest": lowest, "omega": omega, "rate": rate, "final_rate": final}
    held(alpha_rgs(problem(weights), **given), weights, by_hand)  # type: ignore[arg-type]


@WEIGHTS
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("stochasticity", [0.0, 0.6, 1.0])
def test_projected(weights: torch.Tensor, bounded: bool, stochasticity: float) -> None:
    def by_hand(one: Scalar) -> list[float]:
        x = [SIGMAS[0] * one.noise(0, k) for k in range(2)]
        for i, sigma in enumerate(SIGMAS):
            clean = [one.denoise(k, x[k], sigma) for k in range(2)]
            if bounded:
                clean = [min(1.0, max(0.0, value)) for value in clean]
            v = [max(1e-3, value * (1 - value)) if bounded else 1.0 for value in clean]
            left, total = one.residual(clean), one.w[0] ** 2 * v[0] + one.w[1] ** 2 * v[1]
            clean = [clean[k] + one.w[k] * v[k] / total * left for k in range(2)]
            if i + 1 == len(SIGMAS):
                return clean
            kept = [(x[k] - clean[k]) / sigma for k in range(2)]
            x = [clean[k] + SIGMAS[i + 1] * (math.sqrt(1 - stochasticity**2) * kept[k] + stochasticity * one.noise(i + 1, k)) for k in range(2)]
        raise AssertionError

    held(projected(problem(weights), SIGMAS, stochasticity=stochasticity, bounded=bounded), weights, by_hand)


TASK = replace(toy_task((1,), domain="vector"), analytic_prior=True)
QUICK, PAPER = context(TASK, budget="quick"), context(TASK)
TUNED = [0.7, 1.7, 2.1, 1.7, 1.0, 0.9, 0.9, 0.9, 0.8, 0.7, 0.3, 0.3]


def of(method: ScoreSeparator) -> Callable[[bool], torch.Tensor]:
    return lambda quick: method.draw(problem(SHARED), QUICK if quick else PAPER)


def registered(name: str, **settings: object) -> ScoreSeparator:
    found = create_separator(name, settings)
    assert isinstance(found, ScoreSeparator)
    return found


HANDED: list[tuple[ScoreSeparator, Callable[[Problem, bool], torch.Tensor]]] = [
    (registered("basis-ncsn", steps_per_level=12), lambda p, quick: basis(p, ncsn_levels(10, 1.0, 0.01), delta=2e-5, steps_per_level=10 if quick else 12)),
    (
        Basis(delta=1e-4, factor=0.5, steps_per_level=11, levels=4, highest=0.8, lowest=0.05, start="normal", noise=False, final_denoise=True),
        lambda p, quick: basis(
            p,
            ncsn_levels(4, 0.8, 0.05),
            delta=1e-4,
            factor=0.5,
            steps_per_level=10 if quick else 11,
            start="normal",
            noise=False,
            final_denoise=True,
        ),
    ),
    (
        registered("basis-ncsn-code", steps_per_level=12),
        lambda p, quick: basis(p, ncsn_levels(10), delta=3e-5, factor=2.0, steps_per_level=10 if quick else 12),
    ),
    (
        registered("basis-ncsn-tuned", steps_per_level=12),
        lambda p, quick: basis(
            p, ncsn_levels(12, 1.0, 0.005), delta=7.5e-6, factor=2.0, steps_per_level=[round((10 if quick else 12) * share) for share in TUNED]
        ),
    ),
    (
        registered("basis-ncsn-denoised", steps_per_level=12),
        lambda p, quick: basis(p, ncsn_levels(10), steps_per_level=10 if quick else 12, final_denoise=True),
    ),
    (registered("basis-ncsn-no-noise", steps_per_level=12), lambda p, quick: basis(p, ncsn_levels(10), steps_per_level=10 if quick else 12, noise=False)),
    (registered("basis-ncsn-no-annealing", steps_per_level=12), lambda p, quick: basis(p, [0.01] * 10, steps_per_level=10 if quick else 12)),
    (
        registered("basis-ncsn-no-noise-no-annealing", steps_per_level=12),
        lambda p, quick: basis(p, [0.01] * 10, steps_per_level=10 if quick else 12, noise=False),
    ),
    (
        Dirac(steps=25, slot=1, churn=3.0, resamplings=3),
        lambda p, quick: dirac(p, karras_levels(20 if quick else 25, 1.0, 0.005), slot=1, churn=3.0, resamplings=3),
    ),
    (
        Gaussian(),
        lambda p, quick: gaussian(p, karras_levels(20 if quick else 150, 1.0, 0.005), gamma_ratio=0.75 * math.sqrt(2), churn=40.0, resamplings=2),
    ),
    (
        DiffusionGibbs(levels=12, sweeps_per_level=2, inner_steps=3, lowest=0.1),
        lambda p, quick: diffusion_gibbs(p, ncsn_levels(10 if quick else 12, 1.0, 0.1), inner_steps=3, sweeps_per_level=2, lowest=0.05),
    ),
    (AlphaRGS(iterations=50, omega=0.3, rate=0.4), lambda p, quick: alpha_rgs(p, iterations=40 if quick else 50, omega=0.3, rate=0.4)),
    (
        Projected(rho=5.0, stochasticity=0.4, bounded=True),
        lambda p, quick: projected(p, karras_levels(15 if quick else 100, 1.0, 0.02, 5.0), stochasticity=0.4, bounded=True),
    ),
    (Projected(), lambda p, quick: projected(p, karras_levels(15 if quick else 100, 1.0, 0.02, 3.0), bounded=False)),  # vectors have no bounds
]


@pytest.mark.parametrize("quick", [True, False], ids=["quick", "paper"])
@pytest.mark.parametrize("number", range(len(HANDED)), ids=[f"{method.info.name}-{n}" for n, (method, _) in enumerate(HANDED)])
def test_what_a_registered_method_hands_to_its_sampler(number: int, quick: bool) -> None:
    method, by_hand = HANDED[number]
    own, other = problem(SHARED), problem(SHARED)
    torch.testing.assert_close(method.draw(own, QUICK if quick else PAPER), by_hand(other, quick), atol=0, rtol=0)
    assert own.evaluations == other.evaluations


@pytest.mark.parametrize(("shared", "weight"), [(False, 1.6), (True, 1.6), (True, 0.7)], ids=["own priors", "own weights", "one prior and weight"])
def test_the_mean_of_draws_reorders_sources_of_one_prior_and_weight_only(shared: bool, weight: float) -> None:
    """Sources of different priors are told apart by them, and those of different weights by the mixture: none may stand for another."""
    weights = torch.tensor([0.7, weight])
    both = [replace(problem(weights), priors=[prior(0)] if shared else [prior(0), prior(1)]) for _ in range(2)]
    method = Projected(steps=4, best_of=8, combine="mean", temperature=1e3)
    draws, criterion = method.ranked(both[0], 8, PAPER)
    found = method.estimate(both[1], PAPER)
    straight, reordered = (weighted_mean(draws, criterion, 1e3, exchangeable=which) for which in (False, True))
    assert not torch.equal(straight, reordered)
    torch.testing.assert_close(found, reordered if shared and weight == 0.7 else straight)


def spec(operator: str, sources: int = 2, shape: tuple[int, ...] = (3, 4, 4)) -> TaskSpec:
    return replace(toy_task(shape, classes=("a",) * sources, operator=operator), analytic_prior=True)


def test_what_a_gradient_step_on_the_likelihood_does_to_the_residual() -> None:
    """``A A^T`` of K ones, of K times 1/K, of C channels times 1/C."""
    assert source_gram(spec("sum", 3)) == 3.0
    assert source_gram(spec("mean", 4)) == 0.25
    assert source_gram(spec("channel-mean", 1)) == pytest.approx(1 / 3)
    assert source_gram(spec("gain")) is None


@pytest.mark.parametrize(("ratio", "ok"), [(0.99, False), (1.01, True)])
def test_gaussian_is_refused_where_the_residual_would_not_shrink(ratio: float, ok: bool) -> None:
    """Two levels, so one largest step: 1 - below / (above (1 + gamma)). The prior's pull is at most the step, too.

    So the factor is 1 - step - 2 step / ratio^2. It is -1 where ratio^2 is 2 step / (2 - step).
    """
    gamma = math.sqrt(2) - 1
    step, least = 1 - 0.1 / (1 + gamma), 1 - 0.1 / (1 + 0.1 / 2)  # churn of 0.1 is shared by two steps
    support = Gaussian(steps=2, highest=1.0, lowest=0.1, churn=40.0, gamma_ratio=ratio * math.sqrt(2 * step / (2 - step))).supports(spec("sum"))
    assert support.ok is ok
    assert ok or "multiplies the residual by -1.0" in support.note
    support = Gaussian(steps=2, highest=1.0, lowest=0.1, churn=0.1, gamma_ratio=ratio * math.sqrt(2 * least / (2 - least))).supports(spec("sum"))
    assert support.ok is ok


def test_the_mean_exchanges_no_sources_of_unequal_gains() -> None:
    """Each mixture has its own gains. Two modes with their sources exchanged explain the mixture only where the gains are equal."""
    one, other = torch.tensor([1.0, 0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])

    class TwoImages:
        def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
            first = torch.sigmoid((((x - other) ** 2).sum(1) - ((x - one) ** 2).sum(1)) / (2 * sigma**2))[:, None]
            return first * one + (1 - first) * other

    mixing = make_operator("gain", 2, gains=[[1.0, 0.8], [1.0, 1.0]] * 4)
    mixtures = Mixtures(mixing.forward(torch.stack([one, other]).expand(8, 2, 4)), torch.arange(8), mixing)
    task = replace(toy_task((4,), ("a", "a"), "gain", domain="vector"), analytic_prior=True)
    separator = create_separator("projected", {"steps": 20, "best_of": 8, "combine": "mean", "bounded": True})
    separator._priors = [TwoImages()]  # type: ignore[attr-defined]
    assert torch.equal(exchangeable(separator.problem(mixtures, context(task))), torch.tensor([False, True] * 4))  # type: ignore[attr-defined, arg-type]
    estimates = separator.separate(mixtures, context(task))
    torch.testing.assert_close(mixing.forward(estimates), mixtures.values, atol=1e-5, rtol=0)
