"""Muon with matrices of one shape together is torch's Muon."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from train_until_done import LAYOUT, tiny_images

from baselines.training import optimiser
from baselines.training.config import TrainConfig
from baselines.training.optimiser import BatchedMuon, Optimiser, orthogonalised
from baselines.training.score import build_model

SHAPES = [(12, 30), (30, 12), (12, 30), (8, 8), (12, 30), (1, 5)]


def matrices(seed: int) -> list[nn.Parameter]:
    random = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(*shape, generator=random)) for shape in SHAPES]


def set_gradients(parameters: list[nn.Parameter], seed: int) -> None:
    for parameter, gradient in zip(parameters, matrices(seed), strict=True):
        parameter.grad = gradient.detach().clone()


def test_it_is_torchs_muon_up_to_bfloat16() -> None:
    ours, theirs = matrices(0), matrices(0)
    batched = BatchedMuon(ours, lr=0.01, weight_decay=0.1, momentum=0.9)
    single = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.9, adjust_lr_fn="match_rms_adamw")
    start = [p.detach().clone() for p in ours]
    for step in range(4):
        for parameters, muon in ((ours, batched), (theirs, single)):
            set_gradients(parameters, step + 1)
            muon.step()
    for own, other, first in zip(ours, theirs, start, strict=True):
        own, other = own.detach(), other.detach()
        moved = (other - first).norm()
        assert float((own - other).norm() / moved) < 0.02
        assert float(moved) > 0.01
    for own, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(batched.state[own]["momentum_buffer"], single.state[other]["momentum_buffer"])


@pytest.mark.parametrize("shape", [(3, 6, 20), (2, 20, 6), (1, 7, 7)])
def test_singular_values_end_near_one_whatever_their_scale(shape: tuple[int, int, int]) -> None:
    random = torch.Generator().manual_seed(1)
    found = orthogonalised(1e-3 * torch.randn(*shape, generator=random)).float()
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.4
    assert not bool(orthogonalised(torch.zeros(1, 4, 4)).any())


def test_matrices_without_a_gradient_stay_and_a_state_is_taken_over() -> None:
    one, other = matrices(0), matrices(0)
    first, second = (BatchedMuon(p, lr=0.01, weight_decay=0.0, momentum=0.9) for p in (one, other))
    set_gradients(one, 1)
    one[0].grad = None
    before = one[0].detach().clone()
    first.step()
    assert torch.equal(one[0], before)
    with torch.no_grad():
        for a, b in zip(other, one, strict=True):
            a.copy_(b)
    second.load_state_dict(copy.deepcopy(first.state_dict()))  # torch takes over the tensors themselves
    for parameters, muon in ((one, first), (other, second)):
        set_gradients(parameters, 2)
        muon.step()
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("batched", [False, True])
def test_each_part_has_its_own_rate_at_every_step(batched: bool) -> None:
    """Matrices at ``matrix_lr``, all else at ``lr``, both times the share of the schedule."""
    network = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2))
    made = Optimiser(network, TrainConfig(steps=10, lr=0.25, matrix_lr=0.5), batched=batched)
    for share in (1.0, 0.5):
        made.step(share)
        rates = {id(p): group["lr"] for part in made.parts for group in part.param_groups for p in group["params"]}
        assert {rates[id(view)] for _, view in made.pairs} == {0.5 * share}
        assert {rates[id(p)] for p in network.parameters() if p.ndim == 1} == {0.25 * share}
        assert len(made.pairs) == 3


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("has", [True, False])
def test_a_processor_without_bfloat16_orthogonalises_in_float32(monkeypatch: pytest.MonkeyPatch, has: bool, workers: int) -> None:
    monkeypatch.setattr(optimiser, "computes_bfloat16", lambda device: has)
    assert orthogonalised(torch.ones(1, 2, 3)).dtype == (torch.bfloat16 if has else torch.float32)
    random = torch.Generator().manual_seed(3)
    network = nn.Sequential(*(nn.Linear(6, 6) for _ in range(4)))
    matrices_of = [weight for weight in network.parameters() if weight.ndim == 2]
    made = Optimiser(network, TrainConfig(steps=10, lr=0.0, matrix_lr=0.5, weight_decay=0.25, momentum=0.5, workers=workers))
    assert [type(part) for part in made.parts[1:]] == [torch.optim.Muon if has else BatchedMuon] * workers
    start = [weight.detach().clone() for weight in matrices_of]
    for weight in matrices_of:
        weight.grad = torch.eye(6) + 0.2 * torch.randn(6, 6, generator=random)
    made.step(1.0)
    for weight, first in zip(matrices_of, start, strict=True):
        assert weight.grad is not None
        left, _, right = torch.linalg.svd(weight.grad)  # of the first step, where momentum is the gradient's own direction
        step = (first * (1 - 0.5 * 0.25) - weight.detach()) / (0.5 * 0.2 * 6**0.5)
        values = torch.diagonal(left.mT @ step @ right.mT)
        assert float((left.mT @ step @ right.mT - torch.diag(values)).abs().max()) < (0.05 if has else 1e-4)
        assert 0.6 < float(values.min()) < float(values.max()) < 1.3


def test_muon_takes_the_inner_matrices_of_a_score_network() -> None:
    """Biases, norms, first and last layer, and the embedding of the noise level are AdamW's."""
    model = build_model(LAYOUT, tiny_images(), 0)
    made = Optimiser(model, TrainConfig(steps=10))
    inner = {id(weight) for weight, _ in made.pairs}
    named = dict(model.named_parameters())
    outer = {name for name, weight in named.items() if id(weight) not in inner and weight.ndim > 1}
    assert {name.split(".")[1] for name in outer} == {"stem", "head", "embedding"}
    assert all(name.split(".")[1] not in {"stem", "head", "embedding"} for name, weight in named.items() if id(weight) in inner)
    assert all(weight.ndim > 1 for name, weight in named.items() if id(weight) in inner)
    assert {id(p) for group in made.parts[0].param_groups for p in group["params"]} == {id(p) for p in named.values()} - inner
    assert Optimiser(model, TrainConfig(steps=10, matrix_lr=0.0)).pairs == []


@pytest.mark.parametrize("has", [True, False])
@pytest.mark.parametrize(("workers", "batched", "shares"), [(1, False, [5]), (2, False, [3, 2]), (7, False, [1] * 5), (3, True, [5])])
def test_workers_share_the_matrices_and_all_have_the_settings(
    has: bool, workers: int, batched: bool, shares: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimiser, "computes_bfloat16", lambda device: has)
    network = nn.Sequential(*(nn.Linear(3, 3) for _ in range(5)))
    config = TrainConfig(steps=10, batch=8, workers=workers, lr=0.25, matrix_lr=0.5, betas=(0.3, 0.6), momentum=0.7, weight_decay=0.2)
    made = Optimiser(network, config, batched=batched)
    assert [len(part.param_groups[0]["params"]) for part in made.parts[1:]] == shares
    assert made.peaks == [0.25] + [0.5] * len(shares)
    adamw = made.parts[0].param_groups[0]
    assert (adamw["lr"], adamw["betas"], adamw["weight_decay"]) == (0.25, (0.3, 0.6), 0.2)
    for part in made.parts[1:]:
        (group,) = part.param_groups
        assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.5, 0.7, 0.2)
        assert isinstance(part, BatchedMuon if batched or not has else torch.optim.Muon)
        assert group.get("adjust_lr_fn", "match_rms_adamw") == "match_rms_adamw"


def test_convolutions_are_matrices_of_outputs_and_their_steps_reach_the_weights() -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1))
    made = Optimiser(network, TrainConfig(steps=10, workers=1, batch=1))
    assert [tuple(view.shape) for _, view in made.pairs] == [(3, 18), (2, 3)]
    before = [weight.detach().clone() for weight, _ in made.pairs]
    network[0].weight.grad = torch.ones(3, 2, 3, 3)
    done: list[object] = []

    def mapper(function: Any, items: Any) -> list[Any]:
        done.extend(items)
        return [function(item) for item in items]

    made.step(0.5, mapper)
    assert done == made.parts
    assert not torch.equal(network[0].weight, before[0])
    assert torch.equal(network[1].weight, before[1])
    network[0].weight.grad = None
    before[0] = network[0].weight.detach().clone()
    made.step(0.5)
    assert torch.equal(network[0].weight, before[0])
