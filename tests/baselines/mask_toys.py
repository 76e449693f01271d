"""A world of two orthogonal patterns whose sources are known, for methods that learn masks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from method_toys import ToyView, mix, toy_task

from sepbench.protocols import Mixtures, Supervision, TaskSpec


@dataclass(frozen=True)
class Stripes:
    """B is made of some of the even rows of an 8x8 image, X of some of the odd ones; every row has a brightness of its own.

    Attributes:
        task: slot ``observed`` is B.
        clean: ``(N, 1, 8, 8)`` samples of B.
        hidden: ``(N, 2, 1, 8, 8)`` sources of the training mixtures, in slots.
        test: ``(M, 2, 1, 8, 8)`` sources of the test mixtures.
    """

    task: TaskSpec
    clean: torch.Tensor
    hidden: torch.Tensor
    test: torch.Tensor

    @classmethod
    def make(cls, observed: int = 1, operator: str = "sum", count: int = 128, agnostic: bool = False) -> Stripes:
        g = torch.Generator().manual_seed(0)

        def rows(number: int, first: int) -> torch.Tensor:
            images = torch.zeros(number, 1, 8, 8)
            used = torch.rand(number, 1, 4, 1, generator=g) < 0.6
            images[:, :, first::2] = used * (0.4 + 0.6 * torch.rand(number, 1, 4, 1, generator=g))
            return images

        def pairs(number: int) -> torch.Tensor:
            both = [rows(number, 0), rows(number, 1)]
            return torch.stack(both if observed == 0 else both[::-1], 1)

        classes = ("any", "any") if agnostic else ("a", "b")
        return cls(toy_task(classes=classes, operator=operator, observed=None if agnostic else observed), rows(count, 0), pairs(count), pairs(40))

    def view(self, supervision: Supervision) -> ToyView:
        mixed = mix(self.hidden, self.task.operator).values
        return ToyView(self.task, supervision, (self.hidden[:, 0], self.hidden[:, 1]), mixed=mixed, one=self.clean)

    def mixtures(self) -> Mixtures:
        return mix(self.test, self.task.operator)


def error(estimates: torch.Tensor, sources: torch.Tensor) -> float:
    """Mean squared error."""
    return float((estimates - sources).square().mean())
