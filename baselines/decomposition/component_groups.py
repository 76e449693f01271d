"""Groups of independent components, one for each source; for ``ica`` on images and on audio.

Components that are active at the same places belong to one source. The envelope of a component is its squared
activation, smoothed by a box. Envelopes are compared by correlation. Energy-weighted spherical k-means from
farthest-first seeds puts them into K groups, the most energetic group first.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from baselines.decomposition.patches import Size, sides


def envelope_similarity(activations: torch.Tensor, window: Size, step: Size = 1) -> torch.Tensor:
    """Correlation between the energy envelopes of components: ``(B, d, h, w)`` activations to ``(B, d, d)``.

    The envelope is the squared activation, averaged over a ``window x window`` box (odd), every ``step`` places.
    """
    high, wide = sides(window)
    margins = (high // 2, wide // 2)
    return correlations(functional.avg_pool2d(activations.square(), (high, wide), stride=sides(step), padding=margins, count_include_pad=False).flatten(2))


def correlations(envelopes: torch.Tensor) -> torch.Tensor:
    """Correlation of each pair of rows: ``(B, d, n)`` to ``(B, d, d)``; 0 for rows without variance."""
    envelopes = envelopes - envelopes.mean(-1, keepdim=True)
    norms = torch.linalg.vector_norm(envelopes, dim=-1, keepdim=True)
    envelopes = envelopes / norms.clamp(min=torch.finfo(envelopes.dtype).tiny)
    similarity: torch.Tensor = envelopes @ envelopes.mT
    return similarity


def group_components(similarity: torch.Tensor, energy: torch.Tensor, groups: int, iterations: int = 20) -> torch.Tensor:
    """Spherical k-means on a correlation matrix, weighted by energy: the group of each component.

    Seeds are chosen farthest-first: the component of most energy, and then always the one with the largest energy
    times (1 - largest correlation with a seed). A seed stays in its group, so no group is ever empty. Each other
    component goes to the group whose energy-weighted mean envelope it correlates with most, for a fixed number of
    rounds. Groups are numbered by falling energy.

    Args:
        similarity: ``(B, d, d)`` correlations.
        energy: ``(B, d)``, not negative.
        groups: K <= d.
        iterations: how many rounds.

    Returns:
        ``(B, d)`` int64 in [0, K).
    """
    batch = energy.shape[0]
    rows = torch.arange(batch, device=energy.device)
    weights = energy + torch.finfo(energy.dtype).eps * energy.amax(-1, keepdim=True) + torch.finfo(energy.dtype).tiny
    seeds = [energy.argmax(-1)]
    for _ in range(1, groups):
        nearest = torch.stack([similarity[rows, seed] for seed in seeds]).amax(0)
        value = weights * (1.0 - nearest).clamp(min=0.0)
        value[rows.unsqueeze(-1), torch.stack(seeds, -1)] = -1.0
        seeds.append(value.argmax(-1))
    chosen = torch.stack(seeds, -1)
    numbers = torch.arange(groups, device=energy.device).expand(batch, groups)
    labels = similarity[rows.unsqueeze(-1), chosen].argmax(1).scatter(1, chosen, numbers)
    for _ in range(iterations):
        members = functional.one_hot(labels, groups).to(similarity.dtype).mT * weights.unsqueeze(1)  # (B, K, d)
        projections = members @ similarity
        lengths = (projections * members).sum(-1, keepdim=True).clamp(min=torch.finfo(similarity.dtype).tiny).sqrt()
        labels = (projections / lengths).argmax(1).scatter(1, chosen, numbers)
    totals = torch.zeros(batch, groups, dtype=energy.dtype, device=energy.device).scatter_add_(1, labels, energy)
    return totals.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1).gather(1, labels)
