"""What the audio methods share: spectra of mixtures, and estimates by masks of them.

A mask method reads the short-time Fourier transform of a mixture (``Stft.at`` of the task's sample rate, nussl 1.1.9's
sizes). It gives each of its K parts a share of every bin. If the shares add up to 1, the parts add up to the mixture.
``baselines.decomposition.parts`` divides the parts by the operator's weights. A few mixtures are handled at a time, so
memory does not grow with the batch.

Every method that uses ``separate_by_masks`` behaves like this. An all-zero mixture gives all-zero estimates. A mixture
with a NaN or infinite sample gives NaN estimates in its own row, and does not affect the others. The transform pads a
signal shorter than a window with zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from baselines.decomposition.parts import WEIGHTED_SUMS, estimates_from_parts
from baselines.decomposition.roles import in_slots
from sepbench.protocols import Mixtures, RunContext, Support, TaskSpec
from sepbench.stft import Stft

CHUNK_BINS = 1 << 19
"""Bins (over channels and mixtures) handled at a time on the CPU.

They make arrays of 2 MiB, four mixtures of 3 s at 22,050 Hz.
"""

_DEVICE_CHUNKS = 64
"""How many times ``CHUNK_BINS`` a GPU handles at a time, because it needs much work at once."""

_EPSILON = 1e-30
"""A normal float32 that is less than every magnitude that matters."""

MasksOf = Callable[[torch.Tensor, int], torch.Tensor]
"""A function from magnitudes ``(B, C, F, N)`` and the sample rate to masks ``(B, K or K - 1, C, F, N)``.

The magnitudes are float32 and contiguous. Row b of the masks depends only on row b of the magnitudes.
"""


def mask_support(task: TaskSpec, method: str, parts: int | None = None) -> Support:
    """Whether a method that masks spectrograms takes a task.

    The task must be audio, mixed by weighted addition, with ``parts`` sources (at least two if None).
    """
    if task.domain != "audio" or task.sample_rate is None:
        return Support(False, f"{method} masks spectrograms of audio; the task is of domain {task.domain!r}")
    if task.operator not in WEIGHTED_SUMS:
        return Support(False, f"{method} cuts a mixture into parts that add up to it; operator {task.operator!r} does not add sources")
    if task.n_sources < 2 or task.n_sources != (parts or task.n_sources):
        return Support(False, f"{method} gives {parts or 'at least two'} parts, the task has {task.n_sources} sources")
    return Support(True)


def mixture_spectra(mixtures: Mixtures, ctx: RunContext, stft: Stft | None = None) -> tuple[Stft, torch.Tensor]:
    """The transform, and the spectra ``(B, C, F, N)`` of mixtures ``(B, C, T)``.

    The spectra are complex64 on the context's device. The transform is ``stft``, or the task's if it is None. A
    mixture with a sample that is not finite counts as silence here. ``estimates_from_masks`` gives it NaN.

    Raises:
        ValueError: the task has no sample rate.
    """
    if ctx.task.sample_rate is None:
        raise ValueError(f"task {ctx.task.name!r} of domain {ctx.task.domain!r} has no sample rate, hence no spectrogram")
    stft = stft or Stft.at(ctx.task.sample_rate)
    values = mixtures.values.to(ctx.device)
    return stft, stft.forward(torch.where(_finite(values), values, 0.0))


def estimates_from_masks(masks: torch.Tensor, spectra: torch.Tensor, mixtures: Mixtures, stft: Stft, part: int = 0, slot: int | None = None) -> torch.Tensor:
    """Estimates of the sources from shares of the mixture's spectra.

    Args:
        masks: ``(B, K, C, F, N)`` real, which add up to 1 over K. If they do not, ``estimates_from_parts`` spreads the
            rest over the sources. Or ``(B, K - 1, C, F, N)``: then the last part is the rest of the mixture, which
            saves one inverse transform.
        spectra: ``(B, C, F, N)`` of ``mixture_spectra``.
        mixtures: of values ``(B, C, T)``.
        stft: the transform of the spectra.
        part, slot: as in ``separate_by_masks``.

    Returns:
        ``(B, K, C, T)`` float32. Their mixture is the given one to rounding. A mixture that is not finite gets NaN.
    """
    values = mixtures.values.to(spectra.device)
    finite = _finite(values)
    heard = torch.where(finite, values, 0.0)
    # The transform stores the bins of a frame next to each other, and its inverse needs them so.
    parts = stft.inverse((spectra.unsqueeze(1).mT * masks.mT.contiguous()).mT, values.shape[-1])
    if parts.shape[1] == mixtures.n_sources - 1:
        rest = heard
        for one in parts.unbind(1):  # torch needs 50 times as long to sum over an axis of length one
            rest = rest - one
        parts = torch.cat([parts, rest.unsqueeze(1)], 1)
    estimates = estimates_from_parts(in_slots(parts, part, slot), heard, mixtures.operator)
    return torch.where(finite.unsqueeze(1), estimates, torch.nan).float()


def chunk_rows(bins: int, device: torch.device | str, chunk_bins: int | None = None) -> int:
    """How many mixtures of ``bins`` bins (over channels) to handle at a time, at least 1.

    On the CPU, ``chunk_bins`` replaces ``CHUNK_BINS``.
    """
    on_cpu = CHUNK_BINS if chunk_bins is None else chunk_bins
    return max(1, (on_cpu if torch.device(device).type == "cpu" else _DEVICE_CHUNKS * CHUNK_BINS) // bins)


def separate_by_masks(
    mixtures: Mixtures,
    ctx: RunContext,
    masks_of: MasksOf,
    part: int = 0,
    slot: int | None = None,
    chunk_bins: int | None = None,
    stft: Stft | None = None,
) -> torch.Tensor:
    """Estimates ``(B, K, C, T)`` of mixtures ``(B, C, T)`` by masks of their magnitudes, a chunk at a time. B may be 0.

    Args:
        mixtures: the batch.
        ctx: of the run.
        masks_of: the parts' masks, in the method's own order.
        part, slot: of two parts, this one goes to that slot (``roles.in_slots``), before parts are divided by the
            weights of their slots.
        chunk_bins: bins of a chunk on the CPU, instead of ``CHUNK_BINS``.
        stft: instead of ``Stft.at`` of the task's sample rate.

    Raises:
        ValueError: the task has no sample rate, and there is a mixture.
    """
    batch, channels, length = mixtures.values.shape
    rate = ctx.task.sample_rate or 1
    transform = stft or Stft.at(rate)
    bins = channels * transform.bins * transform.frames(length)
    estimates = torch.empty(batch, ctx.task.n_sources, channels, length, device=ctx.device)
    if batch == 0:  # MKL transforms no empty batch
        return estimates
    for rows in torch.arange(batch).split(chunk_rows(bins, ctx.device, chunk_bins)):
        chunk = select_rows(mixtures, rows)
        _, spectra = mixture_spectra(chunk, ctx, stft)
        masks = masks_of(magnitudes_of(spectra).contiguous(), rate)
        estimates[rows.to(estimates.device)] = estimates_from_masks(masks, spectra, chunk, transform, part, slot)
        ctx.progress((int(rows[-1:].sum()) + 1) / max(1, batch), "spectra")
    return estimates


def magnitudes_of(spectra: torch.Tensor) -> torch.Tensor:
    """Absolute values of complex numbers, three times as fast as ``abs``.

    Squares must be within the range of floats (values in 1e-19 to 1e19), which ``abs`` does not need.
    """
    return spectra.real.square().addcmul_(spectra.imag, spectra.imag).sqrt_()


def channel_mean(values: torch.Tensor, dim: int) -> torch.Tensor:
    """The mean over channels. For a single channel it is a view, because torch's mean takes 50 times as long there."""
    return values.squeeze(dim) if values.shape[dim] == 1 else values.mean(dim)


def select_rows(mixtures: Mixtures, rows: torch.Tensor) -> Mixtures:
    """Some mixtures of a batch. ``rows`` are int64 positions on the CPU."""
    return Mixtures(mixtures.values[rows.to(mixtures.values.device)], mixtures.example_ids[rows], mixtures.operator.select(rows))


def first_bin_from(cutoff: float, sample_rate: int, bins: int) -> int:
    """The bin nearest to ``cutoff`` Hz, of ``bins`` bins from 0 to half the sample rate.

    Of two equally near it is the lower.
    """
    return min(range(bins), key=lambda index: abs(index * (sample_rate / 2) / (bins - 1) - cutoff))


def share_of_mixture(part: torch.Tensor, mixture: torch.Tensor) -> torch.Tensor:
    """``min(W, V) / V`` in [0, 1] of magnitudes W of a part and V of the mixture, same shape; 1 if V is 0.

    W may be infinite.
    """
    return torch.minimum(part, mixture).add_(_EPSILON).div_(mixture + _EPSILON)  # a third of the time of a comparison with 0


def background_mask(share: torch.Tensor, cutoff: float, sample_rate: int, mask: str = "soft") -> torch.Tensor:
    """The mask ``(B, 1, C, F, N)`` of a background, from its share of each bin. The other part is the rest.

    Args:
        share: ``(B, C, F, N)`` in [0, 1].
        cutoff: bins below this many Hz belong to the background, whatever their share, because voices have nothing
            there.
        sample_rate: samples per second.
        mask: ``soft`` keeps the shares, ``binary`` gives each bin to the larger one (background if equal).
    """
    chosen = share.clone() if mask == "soft" else (share >= 0.5).to(share.dtype)
    chosen[..., : first_bin_from(cutoff, sample_rate, share.shape[-2]), :] = 1.0
    return chosen.unsqueeze(1)


def _finite(values: torch.Tensor) -> torch.Tensor:
    """Whether every sample of a mixture is finite: ``(B, C, T)`` to ``(B, 1, 1)``."""
    return values.abs().amax((1, 2), keepdim=True).isfinite()
