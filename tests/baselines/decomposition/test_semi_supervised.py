"""Two stages of semi-supervised NMF: the observed atoms come from clean signals alone, the other ones explain what these leave of the mixtures."""

from __future__ import annotations

import pytest
import torch
from method_toys import context, generator, toy_task

from baselines.decomposition.semi_supervised import learn_observed_and_other, semi_supervised_support

TASK = toy_task(observed=0)


def planted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean signals ``(count, 8)`` in the first half of the pixels, mixtures with others in the second half."""
    g = generator(seed)
    levels = 0.2 + torch.rand(3, count, 1, generator=g)
    known, other = torch.tensor([1.0, 3.0, 2.0, 1.0, 0, 0, 0, 0]), torch.tensor([0, 0, 0, 0, 2.0, 1.0, 1.0, 3.0])
    return levels[0] * known, levels[1] * known + levels[2] * other


def test_the_observed_atoms_do_not_depend_on_the_mixtures_and_the_other_ones_are_the_rest() -> None:
    clean, mixed = planted(60, 0)
    observed, other = learn_observed_and_other(clean, mixed, 1, 100, 0.01, context(TASK))
    again, _ = learn_observed_and_other(clean, planted(40, 1)[1], 1, 100, 0.01, context(TASK))
    assert torch.equal(observed, again)
    assert float(other[0, 4:].square().sum() / other.square().sum()) > 0.9
    torch.testing.assert_close(observed[0] / observed[0].norm(), clean[0] / clean[0].norm(), atol=1e-3, rtol=0)


def test_both_stages_are_told_and_few_signals_make_few_atoms() -> None:
    told: list[float] = []
    clean, mixed = planted(3, 0)
    observed, other = learn_observed_and_other(clean, mixed[:2], 9, 4, 1.0, context(TASK, progress=lambda done, text: told.append(done)))
    assert (len(observed), len(other)) == (3, 2)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_one_observed_and_one_other_source_are_wanted() -> None:
    assert semi_supervised_support(TASK).ok
    assert "no observed source" in semi_supervised_support(toy_task()).note
    assert "3" in semi_supervised_support(toy_task(classes=("a", "b", "c"), observed=0)).note


def test_the_first_stage_is_a_third_of_the_work() -> None:
    told: list[tuple[float, str]] = []
    learn_observed_and_other(*planted(4, 0), 1, 4, 1.0, context(TASK, progress=lambda done, text: told.append((done, text))))
    assert [text for _, text in told] == ["stage 1: the observed source"] * 4 + ["stage 2: the other source"] * 4
    assert [done for done, _ in told] == pytest.approx([1 / 12, 2 / 12, 3 / 12, 4 / 12, 3 / 6, 4 / 6, 5 / 6, 6 / 6])
