"""Batches of epochs, budgets, and the mean loss of the log."""

from __future__ import annotations

import math

import pytest
import torch

from baselines.training.epochs import MeanLoss, cut_epochs, epoch_rows, full_batches
from sepbench.errors import SepbenchError


def test_an_epoch_sees_every_row_once_and_names_have_orders_of_their_own() -> None:
    epochs = {(name, epoch): torch.cat([epoch_rows(3, name, epoch, batch, 4, 12) for batch in range(3)]) for name in "BX" for epoch in range(2)}
    assert all(torch.equal(order.sort().values, torch.arange(12)) for order in epochs.values())
    assert len({tuple(order.tolist()) for order in epochs.values()}) == 4
    assert torch.equal(epoch_rows(3, "B", 1, 2, 4, 12), epochs["B", 1][8:])
    assert not torch.equal(epoch_rows(4, "B", 1, 2, 4, 12), epochs["B", 1][8:])


def test_full_batches_drop_the_last_and_want_one() -> None:
    assert full_batches(32, 12_000, 100) == 3
    with pytest.raises(SepbenchError, match="batch of 32 cannot be filled from 31"):
        full_batches(32, 12_000, 31)


def test_quick_is_a_tenth_rounded_up() -> None:
    assert [cut_epochs(epochs, "quick") for epochs in (1, 10, 25, 50)] == [1, 1, 3, 5]
    assert cut_epochs(25, "paper") == 25


def test_the_mean_loss_since_the_last_row_survives_a_checkpoint() -> None:
    losses, resumed = MeanLoss(torch.device("cpu")), MeanLoss(torch.device("cpu"))
    assert losses.take(0) == {}
    losses.add(torch.tensor(1.0))
    resumed.restore({key: value.clone() if isinstance(value, torch.Tensor) else value for key, value in losses.state().items()})
    for one in (losses, resumed):
        one.add(torch.tensor(2.0))
        assert one.take(2) == {"loss": 1.5}
        assert one.take(2) == {}
    losses.add(torch.tensor(math.inf))
    with pytest.raises(SepbenchError, match=r"step 3.*lower lr"):
        losses.take(3)


def test_a_set_of_one_batch_is_enough_and_the_smallest_one_is_named() -> None:
    assert full_batches(32, 32) == 1
    with pytest.raises(SepbenchError) as refused:
        full_batches(8, 7, 100, 5)
    assert str(refused.value) == "a batch of 8 cannot be filled from 5 training samples; choose a smaller batch"


def test_losses_are_rounded_to_six_digits_and_those_that_are_not_finite_are_told_whole() -> None:
    losses = MeanLoss(torch.device("cpu"))
    for value in (1.0, 0.0, 0.0):
        losses.add(torch.tensor(value, requires_grad=True))
    assert losses.take(3) == {"loss": 0.333333}
    losses.add(torch.tensor(math.nan))
    with pytest.raises(SepbenchError) as refused:
        losses.take(7)
    assert str(refused.value) == "training diverged before step 7: the loss is not finite; choose a lower lr"
