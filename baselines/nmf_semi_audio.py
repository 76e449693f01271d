"""Semi-supervised sparse NMF of audio, our variant of Halperin, Ephrat and Hoshen (2018), appendix B: the L1 penalty is on the codes.

Supervision: ``mixtures+one``.

The paper puts a squared L1 norm on the bases instead (``nmf-semi-printed``, for images). Signals are the frames of
magnitude spectrograms. With l = 50 atoms per source and L1 weight alpha = 1 on all codes Z >= 0:

1. W_B: sparse NMF of the clean samples, ``1/2 ||B - Z W_B||^2 + alpha sum(Z)``, l atoms;
2. W_X: sparse NMF of the training mixtures with 2 l atoms, the first l fixed to W_B;
3. every frame of a mixture is coded by non-negative least squares on both. Magnitudes alone are no sound, so the
   products ``Z_B W_B`` and ``Z_X W_X`` cut the mixture's spectrum in their ratio.

The paper does not say to which scale alpha = 1 refers. Here frames are scaled so that the root mean square length of a
training mixture's frame is 50. At 10, about the length of an MNIST digit, alpha = 1 is too much. On 20 validation
mixtures each of fsdd-noise with brown noise and with babble, SDR is 7.3 and 2.2 dB at 10, 8.9 and 2.6 dB at 50, and 9.0
and 2.4 dB at 200. Image suites get ``baselines/nmf_semi.py`` under the same name.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.masks import mask_support, separate_by_masks
from baselines.decomposition.nonnegative import sparse_encode
from baselines.decomposition.semi_supervised import learn_observed_and_other, semi_supervised_support
from baselines.decomposition.spectrogram_nmf import masks_of_parts, training_frames
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT

_FRAME_LENGTH = 50.0
"""Of an average frame of the training mixtures, after scaling."""


@dataclass(config=STRICT)
class SemiSupervisedAudioNMF:
    """Atoms of the observed source B from clean recordings, of the other source X from mixtures.

    Budget ``quick`` learns from a quarter of the recordings and frames in a quarter of the rounds.
    """

    atoms: int = Field(50, ge=1, description="l, atoms per source; at most one per training frame")
    sparsity: float = Field(1.0, ge=0, description="alpha, L1 weight on the codes while the atoms are learnt")
    coding_sparsity: float = Field(0.0, ge=0, description="the same while a mixture is coded; 0 is plain NNLS, as in the paper")
    iterations: int = Field(100, ge=1, description="rounds of either stage")
    coding_iterations: int = Field(200, ge=1, description="gradient steps for the codes of a mixture")
    samples: int = Field(500, ge=1, description="how many clean recordings, and how many mixtures, are learnt from (the first ones)")
    frames: int = Field(12_000, ge=1, description="frames of either kind, spread evenly over the recordings")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-semi",
        title="Semi-supervised NMF",
        version="1",
        domains=frozenset({"audio"}),
        supervision="mixtures+one",
        paper="after Halperin, Ephrat and Hoshen 2018, appendix B; L1 on the codes is ours",
        deterministic=False,
    )
    _observed: torch.Tensor | None = field(default=None, init=False, repr=False)
    _other: torch.Tensor | None = field(default=None, init=False, repr=False)
    _scale: float = field(default=1.0, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "semi-supervised NMF")
        return semi_supervised_support(task) if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Stages 1 and 2.

        Raises:
            MethodError: the training recordings hold samples that are not finite, or no sound.
        """
        cut = 4 if ctx.budget == "quick" else 1
        rounds, samples, frames = max(1, self.iterations // cut), max(1, self.samples // cut), max(1, self.frames // cut)
        rate = ctx.task.sample_rate or 1
        clean = training_frames(view.observed(samples), rate, frames, ctx.device)
        mixed = training_frames(view.mixtures(samples), rate, frames, ctx.device)
        self._scale = _FRAME_LENGTH / float(mixed.square().sum(1).mean().sqrt())
        self._observed, self._other = learn_observed_and_other(clean * self._scale, mixed * self._scale, self.atoms, rounds, self.sparsity, ctx)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, 2, C, T)``."""
        if self._observed is None or self._other is None:
            raise ValueError("separate() before fit()")
        return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._masks(magnitudes, ctx.task.observed_source == 0))

    def _masks(self, magnitudes: torch.Tensor, observed_first: bool) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to masks ``(B, 2, C, F, N)``; channels are averaged for the codes and share the masks."""
        assert self._observed is not None
        assert self._other is not None
        spectra = magnitudes.mean(1).double() * self._scale
        dictionaries = [self._observed.double(), self._other.double()]
        frames = spectra.mT.flatten(0, 1)
        codes = sparse_encode(frames, torch.cat(dictionaries), self.coding_iterations, sparsity=self.coding_sparsity)
        parts = [code @ atoms for code, atoms in zip(codes.split([len(atoms) for atoms in dictionaries], 1), dictionaries, strict=True)]
        ordered = torch.stack(parts if observed_first else parts[::-1]).unflatten(1, (len(spectra), -1)).permute(1, 0, 3, 2)
        return masks_of_parts(ordered, magnitudes.shape[1]).float()
