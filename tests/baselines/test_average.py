"""Average: the pseudo-inverse of every operator."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import context, mix, toy_task

from baselines.average import Average
from sepbench.operators import ChannelMean
from sepbench.protocols import Separator

SOURCES = torch.rand(6, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def test_half_of_a_sum_and_the_whole_of_a_mean() -> None:
    """Flag 15: where the mixture is an average already, the estimate is the mixture, not half of it."""
    for operator, share in (("sum", 0.5), ("mean", 1.0)):
        mixtures = mix(SOURCES, operator)
        estimates = Average().separate(mixtures, context(toy_task((1, 4, 4), operator=operator)))
        torch.testing.assert_close(estimates, (share * mixtures.values).unsqueeze(1).expand(-1, 2, -1, -1, -1))


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
def test_estimates_mix_to_the_mixture_and_have_least_norm(operator: str) -> None:
    mixtures = mix(SOURCES, operator)
    estimates = Average().separate(mixtures, context(toy_task((1, 4, 4), operator=operator)))
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values)
    assert (estimates.flatten(1).norm(dim=1) <= SOURCES.flatten(1).norm(dim=1) + 1e-5).all()


def test_colour_becomes_grey() -> None:
    colour = torch.rand(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    mixtures = mix(colour, ChannelMean(3))
    estimates = Average().separate(mixtures, context(toy_task((3, 4, 4), ("any",), "channel-mean")))
    assert estimates.shape == (3, 1, 3, 4, 4)
    torch.testing.assert_close(estimates[:, 0], colour[:, 0].mean(1, keepdim=True).expand(-1, 3, -1, -1))


def test_takes_every_task_and_is_a_lower_bound() -> None:
    method = Average()
    assert isinstance(method, Separator)
    assert (method.info.supervision, method.info.bound, method.info.deterministic) == ("blind", "lower", True)
    for task in (toy_task(), toy_task((1, 99), domain="audio", operator="gain"), toy_task((3, 4, 4), ("any",), "channel-mean")):
        assert method.supports(task).ok


@pytest.mark.parametrize("task", ["class-split", "class-agnostic"])
def test_keeps_the_contract(task: str, broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("average", task) == []
