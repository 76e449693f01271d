"""What ideal masks share: masks that may look at the references, for bounds only."""

from __future__ import annotations

from collections.abc import Callable

import torch

from baselines.decomposition.masks import CHUNK_BINS, estimates_from_masks, mixture_spectra, select_rows
from sepbench.protocols import Mixtures, RunContext

IdealMasks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Spectra of the weighted sources ``(B, K, C, F, N)`` and of the mixtures ``(B, C, F, N)`` to masks ``(B, K, C, F, N)``."""


def winner_takes_all(shares: torch.Tensor) -> torch.Tensor:
    """1 for the largest share, 0 for the others, ties shared evenly; ``(B, K, ...)``, adding up to 1 over the sources."""
    largest = (shares == shares.amax(1, keepdim=True)).to(shares.dtype)
    return largest / largest.sum(1, keepdim=True)


def separate_ideally(mixtures: Mixtures, ctx: RunContext, masks_of: IdealMasks) -> torch.Tensor:
    """Estimates ``(B, K, C, T)`` of mixtures ``(B, C, T)`` by masks that may look at the references, a few mixtures at a time.

    Raises:
        SupervisionError: the context hands out no references.
        ValueError: the task has no sample rate.
    """
    batch = len(mixtures)
    estimates = torch.empty(batch, ctx.task.n_sources, *mixtures.values.shape[1:], device=ctx.device)
    # A hop is a quarter of a window: a bin and its phase take four times the samples.
    size = max(1, CHUNK_BINS // (4 * (ctx.task.n_sources + 1) * mixtures.values[:1].numel()))
    for rows in torch.arange(batch).split(size):
        chunk = select_rows(mixtures, rows)
        stft, spectra = mixture_spectra(chunk, ctx)
        references = ctx.references(chunk.example_ids).to(device=spectra.device, dtype=torch.float32)
        # adjoint(1) holds each source's weight wherever it acts: w_k x_k without knowing the operator's form.
        weights = chunk.operator.adjoint(torch.ones_like(references[:, 0]))
        masks = masks_of(stft.forward(weights * references), spectra)
        estimates[rows.to(estimates.device)] = estimates_from_masks(masks, spectra, chunk, stft)
    return estimates
