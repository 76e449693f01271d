"""Components active at the same places or times are grouped; no group is empty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import generator

from baselines.decomposition.component_groups import correlations, envelope_similarity, group_components


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


@pytest.mark.parametrize(("step", "places"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3])])
def test_envelopes_by_hand(step: int, places: list[int]) -> None:
    """Means of squares over the box, at the ends over what there is of it; their correlation as numpy has it."""
    activations = torch.tensor([[1.0, 2.0, 0.0, 1.0, 3.0], [0.0, 1.0, 1.0, 2.0, -1.0]], dtype=torch.float64)
    envelopes = np.array([[2.5, 5 / 3, 5 / 3, 10 / 3, 5.0], [0.5, 2 / 3, 2.0, 2.0, 2.5]])[:, places]
    for one, window, steps in ((activations[:, None], (1, 3), (1, step)), (activations[:, :, None], (3, 1), (step, 1))):
        found = envelope_similarity(one[None], window, steps)
        np.testing.assert_allclose(found[0].numpy(), np.corrcoef(envelopes), atol=1e-12)


def test_a_box_is_as_high_as_wide() -> None:
    activations = torch.zeros(1, 2, 3, 4, dtype=torch.float64)
    activations[0, 0, 0, 0] = activations[0, 1, 2, 3] = 2.0
    envelopes = np.zeros((2, 3, 4))
    envelopes[0, :2, :2] = 4 / np.array([[4, 6], [6, 9]])
    envelopes[1, 1:, 2:] = 4 / np.array([[9, 6], [6, 4]])
    np.testing.assert_allclose(envelope_similarity(activations, 3)[0].numpy(), np.corrcoef(envelopes.reshape(2, -1)), atol=1e-12)


def test_what_never_changes_is_like_nothing() -> None:
    found = correlations(torch.tensor([[[2.0, 2.0, 2.0], [0.0, 1.0, 5.0], [0.0, 0.0, 0.0]]], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[[0.0, 0, 0], [0, 1, 0], [0, 0, 0]]], dtype=torch.float64))


def test_rounds_bring_a_component_to_the_group_of_more_energy() -> None:
    """The last one is nearer to the second seed, but nearer to the mean of the first seed's group than to the second's."""
    angles = torch.tensor([0.0, 40.0, 100.0, 55.0], dtype=torch.float64).deg2rad()
    similarity = torch.cos(angles[:, None] - angles)[None]
    energy = torch.tensor([[5.0, 4.0, 4.5, 0.1]], dtype=torch.float64)
    assert group_components(similarity, energy, 2, iterations=0).tolist() == [[0, 0, 1, 1]]
    assert group_components(similarity, energy, 2).tolist() == [[0, 0, 1, 0]]
