"""Descent on codes: Adam's own steps, the best codes, searches that end and leave, and that none sees another."""

from __future__ import annotations

import pytest
import torch

from baselines.training.search import CHECK_EVERY, descend

LOOKS = 6


class Bowl:
    """Errors ``scale_n |code_n - centre_n|^2``, and how many codes were asked for at every step."""

    def __init__(self, count: int, scale: torch.Tensor | None = None) -> None:
        random = torch.Generator().manual_seed(0)
        self.centres = torch.randn(count, 2, 3, generator=random)
        self.scale = torch.ones(count) if scale is None else scale
        self.asked: list[int] = []

    def __call__(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        self.asked.append(len(codes))
        return self.scale[rows] * (codes - self.centres[rows]).square().flatten(1).sum(1)


def test_the_steps_are_those_of_adam() -> None:
    bowl, start = Bowl(4), torch.zeros(4, 2, 3)
    codes = start.clone().requires_grad_(True)
    adam = torch.optim.Adam([codes], lr=0.05)
    for _ in range(9):
        adam.zero_grad()
        bowl(codes, torch.arange(4)).sum().backward()
        adam.step()
    found = descend(start, bowl, 10, 0.05)  # the best of ten codes is the last of them, the one after nine steps
    torch.testing.assert_close(found, codes.detach(), atol=1e-6, rtol=0)
    assert torch.equal(start, torch.zeros(4, 2, 3))


def test_the_best_codes_are_kept_though_the_search_goes_on() -> None:
    """Steps of 1 cannot settle at a centre that is 0.3 away: the start is as near as it gets."""
    centre = 0.3
    found = descend(torch.zeros(1, 1), lambda codes, rows: (codes - centre).square().sum(1), 1, 1.0)
    assert float(found) == 0.0
    errors = [(float(descend(torch.zeros(1, 1), lambda codes, rows: (codes - centre).square().sum(1), steps, 1.0)) - centre) ** 2 for steps in range(1, 30)]
    assert errors == sorted(errors, reverse=True)


def test_codes_stay_where_they_may_be() -> None:
    found = descend(torch.zeros(1, 1), lambda codes, rows: (codes - 3.0).square().sum(1), 100, 0.1, nearest=lambda codes: codes.clamp(max=1.0))
    assert float(found) == 1.0


def test_a_search_that_finds_no_more_leaves_and_the_others_go_on() -> None:
    """The second error is flat: it ends at the second look, since the first one compares with nothing."""
    bowl = Bowl(3, torch.tensor([1.0, 0.0, 1.0]))
    told: list[float] = []
    found = descend(torch.zeros(3, 2, 3), bowl, LOOKS * CHECK_EVERY, 1e-3, tolerance=0.01, progress=told.append)
    assert bowl.asked == [3] * (2 * CHECK_EVERY) + [2] * ((LOOKS - 2) * CHECK_EVERY)
    assert torch.equal(found[1], torch.zeros(2, 3))
    assert told == pytest.approx([look / LOOKS for look in range(1, LOOKS + 1)])


def test_it_ends_when_all_have_left() -> None:
    bowl = Bowl(2, torch.zeros(2))
    descend(torch.zeros(2, 2, 3), bowl, 1000 * CHECK_EVERY, 0.1, tolerance=0.5)
    assert len(bowl.asked) == 2 * CHECK_EVERY
    bowl.asked.clear()
    descend(torch.zeros(2, 2, 3), bowl, 3 * CHECK_EVERY, 0.1)
    assert bowl.asked == [2] * (3 * CHECK_EVERY)


def test_no_search_sees_another() -> None:
    """Together and one by one, with ends at different steps: centres at growing distances, and an error of 0.1 that stays."""
    centres = torch.tensor([0.0, 0.3, 0.8, 1.3, 9.0]).unsqueeze(1)
    asked: list[int] = []

    def errors(codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        asked.append(len(codes))
        return (codes - centres[rows]).square().sum(1) + 0.1

    steps, lr, tolerance = LOOKS * CHECK_EVERY, 0.01, 0.1
    together = descend(torch.zeros(5, 1), errors, steps, lr, tolerance=tolerance)
    assert len(set(asked)) >= 4
    for row in range(5):
        number = torch.tensor([row])
        alone = descend(torch.zeros(1, 1), lambda codes, rows, number=number: errors(codes, number[rows]), steps, lr, tolerance=tolerance)
        assert torch.equal(alone[0], together[row])


def test_an_error_that_is_not_finite_gives_the_start_back() -> None:
    found = descend(torch.ones(1, 2), lambda codes, rows: codes.sum(1) * torch.nan, 3 * CHECK_EVERY, 0.1, tolerance=0.1)
    assert torch.equal(found, torch.ones(1, 2))


def test_no_steps_leave_the_codes_alone() -> None:
    start = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(descend(start, lambda codes, rows: codes.sum(1), 0, 0.1), start)
