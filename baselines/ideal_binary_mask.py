"""Ideal binary mask of spectrograms. Wang, "On ideal binary mask as the computational goal of auditory scene analysis", 2005.

Supervision: ``bound``. This is an upper bound for methods that give every bin of the short-time Fourier transform
(``Stft.at``) to one source. It is never ranked.

A bin goes to the weighted source of largest magnitude, as in nussl 1.1.9. If several are equally large, they share it
evenly, so the estimates mix to the mixture. (nussl gives such a bin to none, and it is silent in its estimates.)
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic.dataclasses import dataclass

from baselines.decomposition.ideal import separate_ideally, winner_takes_all
from baselines.decomposition.masks import mask_support
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class IdealBinaryMask:
    """Mask times mixture, over the source's weight; the estimates mix to the mixture. No settings."""

    info: ClassVar[MethodInfo] = MethodInfo(
        name="ideal-binary-mask",
        title="Ideal binary mask (STFT)",
        version="1",
        domains=frozenset({"audio"}),
        supervision="bound",
        paper="Wang 2005",
        deterministic=True,
        bound="upper",
    )

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "an ideal binary mask")
        return Support(True, "bound for methods that give every bin to one source") if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Nothing to learn."""

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``.

        Raises:
            SupervisionError: the context hands out no references.
        """
        return separate_ideally(mixtures, ctx, lambda sources, spectra: winner_takes_all(sources.abs()))
