"""Atoms that work together become groups: co-activation by hand, shares that add up, blocks found whatever the order."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import toy_task

from baselines.decomposition.atom_groups import _cluster_directions, co_activation, dictionary_support, group_atoms


def test_co_activation_by_hand() -> None:
    """Atoms 0 and 1 work together, 2 alone, 3 never: log 2 for the pair in half of the signals, a hundredth of chance for those that exclude each other."""
    codes = torch.tensor([[1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]], dtype=torch.float64)
    affinity = co_activation(codes)
    assert affinity[0, 1].item() == pytest.approx(torch.tensor(2.01).log().item(), abs=1e-6)
    assert affinity[0, 2].item() == pytest.approx(torch.tensor(0.01).log().item(), abs=1e-6)
    assert torch.equal(affinity, affinity.T)
    assert torch.equal(affinity.diagonal(), torch.zeros(4, dtype=torch.float64))
    assert torch.equal(affinity[3], torch.zeros(4, dtype=torch.float64))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 6), st.integers(5, 12), st.integers(2, 4), st.floats(0.0, 20.0), st.integers(0, 99))
def test_groups_share_every_atom_out(batch: int, size: int, groups: int, sharpness: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    codes = torch.rand(batch, size, generator=g, dtype=torch.float64)
    affinity = torch.randn(size, size, generator=g, dtype=torch.float64)
    shares = group_atoms(codes, affinity + affinity.T, groups, sharpness)
    torch.testing.assert_close(shares.sum(1), torch.ones(batch, size, dtype=torch.float64))
    assert (shares >= 0).all()
    if sharpness == 0.0:
        torch.testing.assert_close(shares, torch.full_like(shares, 1.0 / groups))


@pytest.mark.parametrize("between", [-1.0, 0.5])
@pytest.mark.parametrize("groups", [2, 3, 4])
def test_blocks_of_atoms_become_groups(groups: int, between: float) -> None:
    """Each block is one group, whatever the order of the atoms, also where all atoms attract each other and one group for all would fit best."""
    labels = torch.arange(groups).repeat_interleave(3)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))
    labels = labels[order]
    affinity = torch.where(labels.unsqueeze(0) == labels.unsqueeze(1), 1.0, between).double().fill_diagonal_(0.0)
    codes = 0.7 + 0.6 * torch.rand(10, len(labels), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = group_atoms(codes, affinity, groups, 50.0).argmax(1)
    together = found.unsqueeze(1) == found.unsqueeze(2)
    assert torch.equal(together, (labels.unsqueeze(0) == labels.unsqueeze(1)).expand(10, -1, -1))


def test_classes_of_a_task_want_one_dictionary_each_or_one_for_all() -> None:
    assert dictionary_support(toy_task(classes=("a", "b", "c")), 1).ok
    assert dictionary_support(toy_task(classes=("any",) * 3), 3).ok
    few = dictionary_support(toy_task(classes=("any",) * 3), 2)
    assert not few.ok
    assert "2 shared_atoms cannot make 3 groups" in few.note
    assert "share a class" in dictionary_support(toy_task(classes=("a", "a", "b")), 9).note


def test_two_groups_by_hand() -> None:
    """The leading eigenvector of ``P diag(h) A diag(h) P`` says how far an atom lies on either side."""
    g = torch.Generator().manual_seed(2)
    codes = torch.rand(1, 6, generator=g).double() + 0.05
    affinity = torch.randn(6, 6, generator=g).double()
    affinity = affinity + affinity.T
    h = codes[0] / codes[0].norm()
    projector = torch.eye(6).double() - torch.outer(h, h)
    leading = torch.linalg.eigh(projector @ torch.diag(h) @ affinity @ torch.diag(h) @ projector).eigenvectors[:, -1] * 6**0.5
    leading = leading * leading[leading.abs().argmax()].sign()  # the first group is that of the longest
    shares = group_atoms(codes, affinity, 2, 0.7)[0]
    torch.testing.assert_close(shares[0], torch.sigmoid(2 * 0.7 * leading))
    torch.testing.assert_close(shares.sum(0), torch.ones(6).double())


def test_a_group_of_none_keeps_its_direction() -> None:
    """All atoms lie in one direction: the others of three groups stay empty, and no share is lost in a division by nothing."""
    embedding = torch.tensor([[[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]], dtype=torch.float64)
    torch.testing.assert_close(_cluster_directions(embedding, 3), torch.tensor([[[1.0, 0.0]] * 3], dtype=torch.float64))


def test_directions_of_two_clusters_are_weighted_by_length() -> None:
    embedding = torch.tensor([[[0.0, 3.0], [1.0, 2.0], [4.0, 0.0], [0.0, 0.0]]], dtype=torch.float64)
    found = _cluster_directions(embedding, 2)
    torch.testing.assert_close(found[0], torch.tensor([[1.0, 0.0], [1.0 / 26**0.5, 5.0 / 26**0.5]], dtype=torch.float64))
