"""The mixture error: RMS of m - g(x)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from metric_cases import random_batch

from sepbench.metrics.consistency import MIXTURE_ERROR
from sepbench.metrics.kinds import PairMetric
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures


def score(estimates: torch.Tensor, mixtures: Mixtures, references: torch.Tensor | None = None) -> torch.Tensor:
    scores = MIXTURE_ERROR.mixture_scores(estimates, torch.zeros_like(estimates) if references is None else references, mixtures)
    assert list(scores) == ["mixture_error"]
    return scores["mixture_error"]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["sum", "mean", "gain", "channel-mean"]), st.integers(1, 5), st.integers(0, 40), st.floats(-2.0, 2.0), st.integers(0, 2**31))
def test_an_offset_of_the_mixture_is_the_error(name: str, k: int, batch: int, offset: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    k = 1 if name == "channel-mean" else k
    sources = torch.rand(batch, k, 3, 20, 20, generator=generator)
    operator = make_operator(name, k, gains=torch.rand(batch, k, generator=generator) if name == "gain" else None)
    mixtures = Mixtures(operator.forward(sources) + offset, torch.arange(batch), operator)
    got = score(sources, mixtures)
    assert got.dtype == torch.float64
    torch.testing.assert_close(got, torch.full((batch,), abs(offset), dtype=torch.float64), rtol=1e-5, atol=2e-6)


def test_root_mean_square_not_mean_absolute() -> None:
    operator = make_operator("sum", 2)
    mixture = torch.tensor([[[[0.0, 2.0], [0.0, 0.0]]]])
    estimates = torch.zeros(1, 2, 1, 2, 2)
    assert float(score(estimates, Mixtures(mixture, torch.arange(1), operator))) == 1.0


def test_nothing_is_clamped_and_the_order_of_estimates_does_not_matter() -> None:
    estimates, _, mixtures = random_batch(30, 3)
    got = score(estimates, mixtures)
    residual = (mixtures.values.double() - estimates.double().sum(1)).flatten(1)
    torch.testing.assert_close(got, residual.square().mean(1).sqrt(), rtol=1e-12, atol=0)
    torch.testing.assert_close(score(estimates.flip(1), mixtures), got, rtol=1e-12, atol=0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_one_bad_pixel_makes_that_example_undefined(bad: float) -> None:
    estimates, _, mixtures = random_batch(3, 2)
    estimates[1, 0, 0, 0, 0] = bad
    assert score(estimates, mixtures).isnan().tolist() == [False, True, False]


def test_per_example_gains_follow_their_examples() -> None:
    # Large enough to be scored in several passes.
    generator = torch.Generator().manual_seed(0)
    sources = torch.rand(30, 2, 1, 64, 64, generator=generator)
    operator = make_operator("gain", 2, gains=torch.rand(30, 2, generator=generator))
    mixtures = Mixtures(operator.forward(sources), torch.arange(30), operator)
    assert float(score(sources, mixtures).max()) < 1e-6


def test_it_needs_no_references() -> None:
    estimates, references, mixtures = random_batch(1, 2)
    assert not isinstance(MIXTURE_ERROR, PairMetric)
    assert torch.equal(score(estimates, mixtures, references), score(estimates, mixtures, torch.full_like(references, torch.nan)))
