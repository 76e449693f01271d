"""What ideal masks share. Ideal masks may read the references, so they are only for bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch

from baselines.decomposition.masks import CHUNK_BINS, estimates_from_masks, mixture_spectra, select_rows
from sepbench.protocols import Mixtures, RunContext

IdealMasks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function to masks ``(B, K, C, F, N)``.

It takes spectra of the weighted sources ``(B, K, C, F, N)`` and of the mixtures ``(B, C, F, N)``.
"""


def winner_takes_all(shares: torch.Tensor) -> torch.Tensor:
    """Masks ``(B, K, ...)``: 1 for the largest share, 0 for the others. Equal shares split the 1 evenly."""
    largest = (shares == shares.amax(1, keepdim=True)).to(shares.dtype)
    return largest / largest.sum(1, keepdim=True)


def separate_ideally(mixtures: Mixtures, ctx: RunContext, masks_of: IdealMasks) -> torch.Tensor:
    """Estimates ``(B, K, C, T)`` of mixtures ``(B, C, T)`` by masks that may read the references.

    A few mixtures are handled at a time.

    Raises:
        SupervisionError: the context gives no references, and there is a mixture.
        ValueError: the task has no sample rate, and there is a mixture.
    """
    batch = len(mixtures)
    estimates = torch.empty(batch, ctx.task.n_sources, *mixtures.values.shape[1:], device=ctx.device)
    if batch == 0:  # MKL transforms no empty batch
        return estimates
    # A hop is a quarter of a window, so bins and their phases need four times as many numbers as samples.
    size = max(1, CHUNK_BINS // (4 * (ctx.task.n_sources + 1) * mixtures.values[:1].numel()))
    for rows in torch.arange(batch).split(size):
        chunk = select_rows(mixtures, rows)
        stft, spectra = mixture_spectra(chunk, ctx)
        references = ctx.references(chunk.example_ids).to(device=spectra.device, dtype=torch.float32)
        # adjoint(1) is each source's weight wherever it acts, so w_k x_k needs no knowledge of the operator's form.
        weights = chunk.operator.adjoint(torch.ones_like(references[:, 0]))
        masks = masks_of(stft.forward(weights * references), spectra)
        estimates[rows.to(estimates.device)] = estimates_from_masks(masks, spectra, chunk, stft)
    return estimates
