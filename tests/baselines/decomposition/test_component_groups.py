"""Components active at the same places or times are grouped; no group is empty."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import generator

from baselines.decomposition.component_groups import envelope_similarity, group_components


def test_components_active_in_the_same_places_are_grouped() -> None:
    """Noise that lives on the left or on the right half: correlation of envelopes tells which, the strong side is group 0."""
    g = generator(9)
    sides = torch.tensor([0, 1, 1, 0, 1, 0])
    left = (torch.arange(20) < 10).double()
    masks = torch.where(sides[:, None] == 0, left, 1 - left)[:, None, :]
    activations = torch.randn(4, 6, 20, 20, generator=g, dtype=torch.float64) * masks
    similarity = envelope_similarity(activations, 5)
    energy = torch.where(sides == 0, 1.0, 3.0).double().expand(4, 6)
    labels = group_components(similarity, energy, 2)
    assert labels.tolist() == [(1 - sides).tolist()] * 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 8), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_no_group_is_empty_and_energies_fall(batch: int, size: int, groups: int, seed: int, silent: bool) -> None:
    groups = min(groups, size)
    g = generator(seed)
    vectors = torch.nn.functional.normalize(torch.randn(batch, size, 3, generator=g, dtype=torch.float64), dim=-1)
    energy = torch.rand(batch, size, generator=g, dtype=torch.float64) * (0.0 if silent else 1.0)
    labels = group_components(vectors @ vectors.mT, energy, groups)
    for b in range(batch):
        assert sorted(set(labels[b].tolist())) == list(range(groups))
        totals = [float(energy[b][labels[b] == k].sum()) for k in range(groups)]
        assert totals == sorted(totals, reverse=True)


def test_one_component_per_group_when_there_are_as_many() -> None:
    labels = group_components(torch.ones(1, 3, 3, dtype=torch.float64), torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64), 3)
    assert labels.tolist() == [[2, 0, 1]]


def test_envelopes_may_be_read_in_steps() -> None:
    """Components that are loud together are alike, also when their envelopes are read every 50 samples."""
    g = torch.Generator().manual_seed(0)
    gate = (torch.arange(4_000) // 500 % 2).double()
    activations = torch.randn(1, 3, 1, 4_000, generator=g, dtype=torch.float64) * torch.stack([gate, gate, 1 - gate]).reshape(1, 3, 1, -1)
    similarity = envelope_similarity(activations, (1, 101), (1, 50))[0]
    assert similarity[0, 1] > 0.8
    assert similarity[0, 2] < -0.8


def test_a_faint_stranger_begins_no_group() -> None:
    """Seeds are far from the others in proportion to their energy: the second component, half like the first, comes before the third, unlike but faint."""
    similarity = torch.tensor([[[1.0, 0.5, 0.0], [0.5, 1.0, 0.3], [0.0, 0.3, 1.0]]], dtype=torch.float64)
    energy = torch.tensor([[10.0, 5.0, 0.1]], dtype=torch.float64)
    assert group_components(similarity, energy, 2).tolist() == [[0, 1, 1]]
