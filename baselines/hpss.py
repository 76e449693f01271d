"""Harmonic/percussive separation by median filters. FitzGerald, "Harmonic/percussive separation using median filtering", DAFx 2010.

Supervision: ``blind``.

In a spectrogram a steady tone is a horizontal line and a drum hit a vertical one. A median along time keeps lines that last and drops hits; a
median along frequency keeps hits and drops lines (equations 2 and 3). With H and P the two filtered magnitudes, each bin is shared by Wiener's rule
(equations 8 and 9 with p = 2)::

    M_H = H^2 / (H^2 + P^2),   M_P = P^2 / (H^2 + P^2)

Defaults are those of nussl 1.1.9 and librosa: 31 frames and 31 bins, mirrored ends, and half each if both are zero.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.masks import mask_support, separate_by_masks
from baselines.decomposition.median import sliding_median
from baselines.decomposition.roles import role_support, slot_of_role
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_PERCUSSIVE = 1
"""Our order of parts, as nussl's: harmonic, percussive."""

_EPSILON = 1e-30
"""Below every magnitude that matters, and a normal float32."""


def harmonic_share(magnitudes: torch.Tensor, frames: int, bins: int) -> torch.Tensor:
    """M_H in [0, 1] of magnitudes ``(..., F, N)``; one half where both medians are zero.

    Args:
        magnitudes: not negative.
        frames, bins: odd widths of the medians along time and along frequency.
    """
    harmonic = sliding_median(magnitudes, frames, -1)
    percussive = sliding_median(magnitudes, bins, -2)
    # Divided first, so that squares of quiet bins do not vanish.
    larger = torch.maximum(harmonic, percussive).add_(_EPSILON)
    harmonic = harmonic.div_(larger).square_().add_(_EPSILON)
    return harmonic / percussive.div_(larger).square_().add_(_EPSILON).add_(harmonic)


@dataclass(config=STRICT)
class HPSS:
    """Parts are (harmonic, percussive); drums are the percussive one, whatever they are mixed with."""

    frames: int = Field(31, ge=1, description="width of the median along time, odd")
    bins: int = Field(31, ge=1, description="width of the median along frequency, odd")
    mask: Literal["soft", "binary"] = Field("soft", description="soft shares each bin, binary gives it to the larger share (harmonic if equal)")
    percussive_class: str = Field("drums", description="class of the percussive part; roles are known if exactly one of a task's slots has it")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="hpss",
        title="HPSS",
        version="1",
        domains=frozenset({"audio"}),
        supervision="blind",
        paper="FitzGerald 2010, equations 2, 3, 8 and 9",
        deterministic=True,
        max_batch=64,
    )

    def __post_init__(self) -> None:
        if self.frames % 2 == 0 or self.bins % 2 == 0:
            raise ValueError(f"both median filters must have an odd width, got {self.frames} frames and {self.bins} bins")

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "HPSS", parts=2)
        return role_support(task, (self.percussive_class,), "HPSS", "percussive part") if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, channels, T)`` to estimates ``(B, 2, channels, T)``; channels by themselves."""
        slot = slot_of_role(ctx.task, (self.percussive_class,))
        return separate_by_masks(mixtures, ctx, self._masks, _PERCUSSIVE, slot)

    def _masks(self, magnitudes: torch.Tensor, sample_rate: int) -> torch.Tensor:
        """The harmonic part's; the percussive part is the rest."""
        share = harmonic_share(magnitudes, self.frames, self.bins)
        return (share if self.mask == "soft" else (share >= 0.5).to(share.dtype)).unsqueeze(1)
