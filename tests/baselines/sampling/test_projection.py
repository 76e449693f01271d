"""Predictions moved onto the mixture, for every operator."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from baselines.projected import projected
from baselines.sampling.noise_levels import karras_levels
from baselines.sampling.problem import Problem
from baselines.sampling.projection import VARIANCE_FLOOR, condition
from baselines.training.config import generator
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures

SHAPE = (3, 2, 4)
OPERATORS = st.sampled_from([("sum", 1), ("sum", 2), ("mean", 3), ("gain", 2), ("channel-mean", 1)])
MEANS, SPREAD = torch.tensor([0.2, 0.5, 0.8]).view(3, 1, 1), 0.1


class Colours:
    """The denoiser of independent Gaussian pixels, whose mean depends on the channel alone."""

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        return (sigma**2 * MEANS + SPREAD**2 * x) / (sigma**2 + SPREAD**2)


def problem(truth: torch.Tensor, operator: str) -> Problem:
    count, sources = truth.shape[:2]
    gains = 0.5 + torch.rand(count, sources, generator=generator("gains")) if operator == "gain" else None
    mixing = make_operator(operator, sources, gains=gains)
    mixtures = Mixtures(mixing.forward(truth), torch.arange(count), mixing)
    return Problem(mixtures, [Colours()] * sources, NoiseSource(0), SHAPE)  # type: ignore[list-item]


@given(OPERATORS, st.booleans(), st.integers(0, 99))
def test_a_moved_prediction_is_the_conditional_mean_of_independent_errors(which: tuple[str, int], bounded: bool, seed: int) -> None:
    """``D + V A^T (A V A^T)^-1 (m - A D)`` pixel by pixel, with the matrix A written out."""
    operator, sources = which
    truth, predicted = torch.rand(2, 2, sources, *SHAPE, generator=generator("pixels", seed))
    one = problem(truth, operator)
    moved = condition(one, predicted, bounded)
    torch.testing.assert_close(one.operator.forward(moved), one.mixtures.values, atol=1e-5, rtol=1e-5)
    variance = (predicted * (1 - predicted)).clamp_min(VARIANCE_FLOOR) if bounded else torch.ones_like(predicted)
    across = 2 if operator == "channel-mean" else 1  # the axis that a row of A adds up
    row = one.operator.matrix().float().reshape(-1, predicted.shape[across])
    for example in range(2):
        a = row[example % len(row)]
        d, v = (value[example].movedim(across - 1, -1).flatten(0, -2) for value in (predicted, variance))
        m = one.mixtures.values[example].flatten()
        expected = d + v * a * ((m - d @ a) / (v * a.square()).sum(1))[:, None]
        torch.testing.assert_close(moved[example].movedim(across - 1, -1).flatten(0, -2), expected, atol=1e-5, rtol=1e-5)


def test_the_mean_of_many_colorizations_is_the_posterior_mean() -> None:
    """All channels have one spread, so each takes the whole residual of the grey value."""
    truth = MEANS + SPREAD * torch.randn(4, 1, *SHAPE, generator=generator("truth"))
    one = problem(truth, "channel-mean")
    draws = projected(one.repeat(400), karras_levels(30, 1.0, 0.01, 3.0), bounded=False).unflatten(0, (4, 400))
    exact = MEANS + (one.mixtures.values - 0.5).unsqueeze(1)
    torch.testing.assert_close(draws.mean(1), exact, atol=0.03, rtol=0)
