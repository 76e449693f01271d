"""Groups of atoms of one dictionary, if there are no classes; for ``nmf`` on images and on audio.

Some atoms work together in single clean signals (``co_activation``). For each mixture such atoms go into one group
(``group_atoms``), softly. Hard groups fall below the average, because co-activation does not tell enough about which
atoms belong together. ``dictionary_support`` checks that a task has one class per source, or one for all.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from baselines.decomposition.nonnegative import FLOOR
from sepbench.protocols import Support, TaskSpec

_KMEANS_ROUNDS = 10
_LIFT_FLOOR = 1e-2
"""Pairs of atoms that never work together count as if they did so a hundredth as often as by chance."""


def dictionary_support(task: TaskSpec, shared_atoms: int) -> Support:
    """Whether NMF takes a task: with one dictionary per class, or with one for all.

    The one for all has ``shared_atoms`` atoms, which are grouped for each mixture.
    """
    if task.class_agnostic:
        if shared_atoms < task.n_sources:
            return Support(False, f"{shared_atoms} shared_atoms cannot make {task.n_sources} groups; choose more")
        return Support(True, "one dictionary, its atoms grouped for each mixture")
    if len(set(task.source_classes)) < task.n_sources:
        return Support(False, "some sources share a class and some do not; NMF takes tasks with one class per source or one for all")
    return Support(True)


def co_activation(codes: torch.Tensor) -> torch.Tensor:
    """How much more often than by chance two atoms work together in one signal: ``(N, R)`` codes to ``(R, R)``.

    It is the logarithm of the lift, ``log(E[h_i h_j] / (E[h_i] E[h_j]))``: positive for atoms of one kind of signal,
    and negative for atoms that exclude each other. The diagonal is zero, and so are atoms that are never used.
    """
    means = codes.mean(0)
    chance = means.unsqueeze(1) * means
    lift = codes.T @ codes / codes.shape[0] / chance.clamp(min=FLOOR)
    logs = torch.where(chance > FLOOR, (lift + _LIFT_FLOOR).log(), 0.0)
    return logs.fill_diagonal_(0.0)


def group_atoms(codes: torch.Tensor, affinity: torch.Tensor, groups: int, sharpness: float) -> torch.Tensor:
    """Shares ``(B, K, R)`` of each atom in K groups, for each mixture. They add up to 1 over the groups.

    This is spectral clustering of the atoms that a mixture uses. For K = 2 it relaxes this problem: choose signs s
    that maximise ``sum_ij h_i h_j A_ij s_i s_j``, with both groups equally active. The K - 1 leading eigenvectors of
    ``P diag(h) A diag(h) P`` embed the atoms, where P projects out h. Spherical k-means from farthest-first seeds
    finds the directions of K clusters. The shares are the softmax of the projections on them. Atoms that the mixture
    hardly uses are near 0 and are shared evenly.

    Args:
        codes: ``(B, R)`` float64 codes of the mixtures.
        affinity: ``(R, R)`` symmetric, see ``co_activation``.
        groups: K <= R.
        sharpness: 0 shares every atom evenly, large values give each atom to one group.
    """
    size = codes.shape[1]
    unit = functional.normalize(codes, dim=1, eps=FLOOR)
    weighted = unit.unsqueeze(2) * affinity * unit.unsqueeze(1)
    projector = torch.eye(size, dtype=codes.dtype, device=codes.device) - unit.unsqueeze(2) * unit.unsqueeze(1)
    vectors = torch.linalg.eigh(projector @ weighted @ projector).eigenvectors
    embedding = vectors[:, :, size - (groups - 1) :] * size**0.5
    directions = _cluster_directions(embedding, groups)
    return torch.softmax(sharpness * directions @ embedding.mT, dim=1)


def _cluster_directions(embedding: torch.Tensor, groups: int) -> torch.Tensor:
    """Unit directions ``(B, K, d)`` of K clusters of the rows of ``(B, R, d)``, weighted by length.

    The first seed is the longest row.
    """
    lengths = torch.linalg.vector_norm(embedding, dim=2)
    rays = embedding / lengths.clamp(min=FLOOR).unsqueeze(2)
    rows = torch.arange(len(embedding), device=embedding.device)
    seeds = [rays[rows, lengths.argmax(1)]]
    for _ in range(1, groups):
        nearest = (rays @ torch.stack(seeds, 2)).amax(2)
        seeds.append(rays[rows, (lengths * (1.0 - nearest)).argmax(1)])
    directions = torch.stack(seeds, 1)
    for _ in range(_KMEANS_ROUNDS):
        members = functional.one_hot((rays @ directions.mT).argmax(2), groups).to(embedding.dtype)
        sums = members.mT @ embedding
        norms = torch.linalg.vector_norm(sums, dim=2, keepdim=True)
        directions = torch.where(norms > FLOOR, sums / norms.clamp(min=FLOOR), directions)
    return directions
