"""``original``: the true sources, and nobody but a bound gets them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import context, mix, toy_task

from baselines.original import Original
from sepbench.errors import SupervisionError


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def test_the_estimates_are_the_sources() -> None:
    sources = images(3, 2, 2, 4, 4)
    handed = context(toy_task((2, 4, 4)), references=lambda ids: sources[ids])
    assert torch.equal(Original().separate(mix(sources), handed), sources)


def test_without_references_it_cannot_work() -> None:
    assert (Original.info.supervision, Original.info.bound) == ("bound", "upper")
    with pytest.raises(SupervisionError):
        Original().separate(mix(images(2, 2, 2, 4, 4)), context(toy_task((2, 4, 4))))


@pytest.mark.parametrize("task", ["class-split", "class-agnostic"])
def test_keeps_the_contract(task: str, broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("original", task) == []
