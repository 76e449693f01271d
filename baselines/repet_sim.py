"""REPET-SIM: what is similar elsewhere is the background. Rafii and Pardo, "Music/voice separation using the similarity matrix", ISMIR 2012.

Supervision: ``blind``.

1. The similarity of two frames (section 2.2, equation 1) is the cosine of their magnitude spectra.
2. The frames similar to a frame (2.3) are the highest peaks of its row of similarities. Each is at least so many
   seconds from all higher ones and from the frame itself, and above a threshold.
3. The repeating spectrum (2.4, equation 3) is the median of the similar frames in each bin. The background's mask
   (equations 4 and 5) is W / V with W = min(median, V).

Everything below 100 Hz is background. Defaults are those of nussl 1.1.9: peaks 1 s apart, at most 99 of them,
similarities scaled to [0, 1] in each row and the threshold 0. As in nussl, a frame does not count as similar to itself,
and a frame without any similar frame is background. nussl leaves out the highest peak of a row, which is the frame
itself unless there are exact repetitions. Here the peak that is left out is always the frame itself.

Rows are taken a few at a time: the similarity matrix of 10 minutes would be 10 GB.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.masks import background_mask, channel_mean, mask_support, separate_by_masks, share_of_mixture
from baselines.decomposition.median import median_of_lists
from baselines.decomposition.roles import VOICES, role_support, slot_of_role
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT
from sepbench.stft import Stft

_FOREGROUND = 1
"""Our order of parts, as nussl's: background, foreground."""

_CHUNK_ELEMENTS = 1 << 23
"""Similarities, or magnitudes of similar frames, held at a time: 32 MiB."""

_BLOCK = 64
"""Frames whose highest similarity is kept, so that a peak is found without looking at the whole row."""


def peaks(rows: torch.Tensor, own: torch.Tensor, distance: float, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest values of each row that lie apart from one another and from the row's own position.

    Args:
        rows: ``(R, N)`` values; those that are not positive are no peaks. Overwritten.
        own: ``(R,)`` int64 positions to keep away from.
        distance: positions n with ``floor(i - distance) <= n < floor(i + distance + 1)`` are too near to i.
        most: peaks to find, at least 1.

    Returns:
        positions ``(k, R)`` int64 from the highest peak down, of which the first ``counts`` ``(R,)`` count; k is the largest count, at least 1.
    """
    count, length = rows.shape
    blocks = torch.nn.functional.pad(rows, (0, -length % _BLOCK)).view(count, -1, _BLOCK)
    highest = blocks.amax(2)
    every = torch.arange(count, device=rows.device)
    within = torch.arange(_BLOCK, device=rows.device)
    reach = torch.arange(int(2 * distance + 1) // _BLOCK + 2, device=rows.device)
    found: list[torch.Tensor] = []
    counts = torch.zeros(count, dtype=torch.int64, device=rows.device)
    position = own
    while True:
        # Whatever lies too near to the position is no peak any more.
        first = (position - distance).floor().clamp(min=0).long().unsqueeze(1)
        last = (position + distance + 1).floor().long().unsqueeze(1)
        near = (first // _BLOCK + reach).clamp(max=blocks.shape[1] - 1)
        values, places = blocks[every.unsqueeze(1), near], near.unsqueeze(2) * _BLOCK + within
        values = values.masked_fill((places >= first.unsqueeze(2)) & (places < last.unsqueeze(2)), 0.0)
        blocks[every.unsqueeze(1), near] = values
        highest[every.unsqueeze(1), near] = values.amax(2)
        top, block = highest.max(1)
        if len(found) == most or not bool((top > 0).any()):
            break
        counts += top > 0
        position = block * _BLOCK + blocks[every, block].argmax(1)
        found.append(position)
    return torch.stack(found or [own]), counts


def similar_share(magnitudes: torch.Tensor, distance: float, most: int, threshold: float) -> torch.Tensor:
    """Masks W / V in [0, 1] of one mixture's magnitudes ``(C, F, N)``; all channels share the similarities of their mean.

    Args:
        magnitudes: not negative.
        distance: frames between peaks, see ``peaks``.
        most: most similar frames per frame.
        threshold: similarities, scaled to [0, 1] in their row, below it do not count.
    """
    frames = magnitudes.shape[-1]
    mean = channel_mean(magnitudes, 0)
    # A silent frame is similar to none.
    unit = mean / torch.linalg.vector_norm(mean, dim=0).clamp(min=torch.finfo(mean.dtype).tiny)
    share = torch.empty_like(magnitudes)
    for columns in torch.arange(frames, device=mean.device).split(max(1, _CHUNK_ELEMENTS // frames)):
        rows = unit[:, columns].T @ unit
        low, high = rows.aminmax(dim=1, keepdim=True)
        rows = (rows - low) / (high - low).clamp(min=torch.finfo(rows.dtype).tiny)
        positions, counts = peaks(rows.masked_fill_(rows < threshold, 0.0), columns, distance, most)
        size = max(1, _CHUNK_ELEMENTS // (len(positions) * magnitudes[..., 0].numel()))
        for part, places, number in zip(columns.split(size), positions.split(size, 1), counts.split(size), strict=True):
            lists = torch.where(torch.arange(len(places), device=mean.device).unsqueeze(1) < number, 0.0, math.inf)
            lists = magnitudes[..., places].movedim(-2, 0) + lists[:, None, None]
            share[..., part] = share_of_mixture(median_of_lists(lists, number), magnitudes[..., part])
    return share


@dataclass(config=STRICT)
class REPETSim:
    """Parts are (background, foreground); a voice is the foreground, whatever it is mixed with."""

    apart: float = Field(1.0, gt=0, description="seconds between similar frames, and between a frame and those similar to it")
    most: int = Field(99, ge=1, description="most similar frames per frame")
    threshold: float = Field(0.0, ge=0, lt=1, description="similarities below it, scaled to [0, 1] in their row, do not count")
    high_pass: float = Field(100.0, ge=0, description="Hz below which everything is background")
    mask: Literal["soft", "binary"] = Field("soft", description="soft shares each bin, binary gives it to the larger share (background if equal)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="repet-sim",
        title="REPET-SIM",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="Rafii and Pardo 2012, equations 1 to 5",
        deterministic=True,
        max_batch=64,
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "REPET-SIM", parts=2)
        if support.ok:
            support = role_support(task, VOICES, "REPET-SIM", "foreground")
        seconds = task.source_shape[-1] / task.sample_rate if task.sample_rate else 0.0
        if support.ok and seconds < self.apart:
            return Support(True, f"{support.note}; no two frames of {seconds:.2f} s are {self.apart} s apart: everything is background")
        return support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, channels, T)`` to estimates ``(B, 2, channels, T)``."""
        return separate_by_masks(mixtures, ctx, self._background, _FOREGROUND, slot_of_role(ctx.task, VOICES))

    def _background(self, magnitudes: torch.Tensor, sample_rate: int) -> torch.Tensor:
        distance = self.apart * sample_rate / Stft.at(sample_rate).hop
        # One matrix product per mixture, each of the same shape and at the start of its own memory: products of whole batches add in an order that
        # depends on the batch, and a last bit can decide between two peaks.
        share = torch.stack([similar_share(row.clone(), distance, self.most, self.threshold) for row in magnitudes])
        return background_mask(share, self.high_pass, sample_rate, self.mask)
