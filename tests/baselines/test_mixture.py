"""The mixture as its own separation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import context, mix, toy_task

from baselines.mixture import MixtureAsEstimate
from sepbench.operators import ChannelMean
from sepbench.protocols import Separator

SOURCES = torch.rand(6, 2, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
def test_every_estimate_is_the_mixture_unclipped(operator: str) -> None:
    mixtures = mix(SOURCES, operator)
    estimates = MixtureAsEstimate().separate(mixtures, context(toy_task((1, 4, 4), operator=operator)))
    for k in range(2):
        assert torch.equal(estimates[:, k], mixtures.values)
    if operator == "sum":
        assert estimates.max() > 1.0


def test_grey_stands_in_every_channel() -> None:
    colour = torch.rand(3, 1, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    mixtures = mix(colour, ChannelMean(3))
    estimates = MixtureAsEstimate().separate(mixtures, context(toy_task((3, 4, 4), ("any",), "channel-mean")))
    assert torch.equal(estimates, mixtures.values.unsqueeze(1).expand(-1, 1, 3, -1, -1))


def test_estimates_share_no_memory_with_the_mixture() -> None:
    mixtures = mix(SOURCES)
    before = mixtures.values.clone()
    MixtureAsEstimate().separate(mixtures, context(toy_task((1, 4, 4)))).zero_()
    assert torch.equal(mixtures.values, before)


def test_takes_every_task_and_is_a_lower_bound() -> None:
    method = MixtureAsEstimate()
    assert isinstance(method, Separator)
    assert (method.info.supervision, method.info.bound, method.info.deterministic) == ("blind", "lower", True)
    for task in (toy_task(), toy_task((1, 99), domain="audio", operator="gain"), toy_task((3, 4, 4), ("any",), "channel-mean")):
        assert method.supports(task).ok


@pytest.mark.parametrize("task", ["class-split", "class-agnostic"])
def test_keeps_the_contract(task: str, broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("mixture", task) == []
