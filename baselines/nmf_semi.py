"""Semi-supervised sparse NMF: clean samples of one source, mixtures for the other (Halperin, Ephrat and Hoshen, 2018, appendix B).

Supervision: ``mixtures+one``.

With l = 50 atoms per source and L1 weight alpha = 1 on all codes Z >= 0:

1. W_B: sparse NMF of the clean samples, ``1/2 ||B - Z W_B||^2 + alpha sum(Z)``, l atoms;
2. W_X: sparse NMF of the training mixtures with 2 l atoms, the first l fixed to W_B;
3. a mixture is coded by non-negative least squares on both; the estimates are the products ``Z_B W_B`` and ``Z_X W_X``: no mask.

The paper alternates NNLS "until convergence"; here a stated number of rounds of ``sparse_factorise``. Not said in the paper: the scale of
the data and the normalisation that alpha = 1 refers to. Here: pixels in [0, 1], atoms in the unit ball, alpha on the codes.

Audio: signals are the frames of magnitude spectrograms, scaled so that the root mean square length of a training mixture's frame is 50: alpha refers
to that. At 10, about the length of an MNIST digit, alpha = 1 is too much: SDR 7.3 and 2.2 dB on 20 validation mixtures each of fsdd-noise with brown
noise and with babble, 8.9 and 2.6 dB at 50, 9.0 and 2.4 dB at 200. The products cut the mixture's spectrum in their ratio, since magnitudes
alone are no sound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from baselines.decomposition.masks import mask_support, separate_by_masks
from baselines.decomposition.nonnegative import sample_atoms, sparse_encode, sparse_factorise
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.spectrogram_nmf import masks_of_parts, training_frames
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView

_FRAME_LENGTH = 50.0
"""Of an average frame of the training mixtures, after scaling."""


@dataclass
class SemiSupervisedNMF:
    """Atoms of the observed source B from clean samples, of the other source X from mixtures.

    Budget ``quick`` learns from a quarter of the samples in a quarter of the rounds.

    Attributes:
        atoms: l, per source; at most one per training sample.
        sparsity: alpha, L1 weight on the codes while the atoms are learnt.
        coding_sparsity: the same while a mixture is coded; 0 is plain NNLS, as in the paper.
        iterations: rounds of either stage.
        coding_iterations: gradient steps for the code of a mixture.
        samples: the first so many clean samples, and so many mixtures.
        audio_samples, frames: of audio, the first so many recordings of either kind, and so many frames spread evenly over them.
    """

    atoms: int = 50
    sparsity: float = 1.0
    coding_sparsity: float = 0.0
    iterations: int = 100
    coding_iterations: int = 200
    samples: int = 12_000
    audio_samples: int = 500
    frames: int = 12_000

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-semi",
        title="Semi-supervised NMF",
        version="1",
        domains=frozenset({"image", "audio"}),
        supervision="mixtures+one",
        paper="Halperin, Ephrat and Hoshen 2018, appendix B",
        deterministic=False,
    )
    _observed: torch.Tensor | None = field(default=None, init=False, repr=False)
    _other: torch.Tensor | None = field(default=None, init=False, repr=False)
    _scale: float = field(default=1.0, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.atoms, self.iterations, self.coding_iterations, self.samples, self.audio_samples, self.frames) < 1:
            raise ValueError("atoms, iterations, coding_iterations, samples, audio_samples and frames must be at least 1")
        if self.sparsity < 0 or self.coding_sparsity < 0:
            raise ValueError("sparsity and coding_sparsity must not be negative")

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "semi-supervised NMF") if task.domain == "audio" else part_support(task, "semi-supervised NMF")
        if not support.ok:
            return support
        if task.observed_source is None:
            return Support(False, "semi-supervised NMF learns from clean samples of one source; this task has no observed source")
        if task.n_sources != 2:
            return Support(False, f"semi-supervised NMF separates one observed source from one other, the task has {task.n_sources}")
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Stages 1 and 2.

        Raises:
            MethodError: the training images hold negative values; the training recordings hold samples that are not finite, or no sound.
        """
        cut = 4 if ctx.budget == "quick" else 1
        rounds = max(1, self.iterations // cut)
        if ctx.task.domain == "audio":
            clean, mixed = self._training_frames(view, ctx, cut)
        else:
            samples = max(1, self.samples // cut)
            clean, mixed = view.observed(samples).flatten(1).to(ctx.device), view.mixtures(samples).flatten(1).to(ctx.device)
            if bool((clean < 0).any()) or bool((mixed < 0).any()):
                raise MethodError("NMF needs training data without negative values")
        noise = ctx.noise.fork(1)
        atoms = sample_atoms(clean, min(self.atoms, len(clean)), noise, 0)
        stage_1 = sparse_factorise(clean, atoms, rounds, sparsity=self.sparsity, progress=lambda done: ctx.progress(done / 3, "stage 1: the observed source"))
        self._observed = stage_1.atoms
        known = len(stage_1.atoms)
        atoms = torch.cat([stage_1.atoms, sample_atoms(mixed, min(self.atoms, len(mixed)), noise, 1)])
        stage_2 = sparse_factorise(
            mixed, atoms, rounds, sparsity=self.sparsity, fixed=known, progress=lambda done: ctx.progress((1 + 2 * done) / 3, "stage 2: the other source")
        )
        self._other = stage_2.atoms[known:]

    def _training_frames(self, view: TrainingView, ctx: RunContext, cut: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Frames ``(n, F)`` of the observed source and of mixtures, scaled; sets the scale."""
        samples, frames, rate = max(1, self.audio_samples // cut), max(1, self.frames // cut), ctx.task.sample_rate or 1
        clean = training_frames(view.observed(samples), rate, frames, ctx.device)
        mixed = training_frames(view.mixtures(samples), rate, frames, ctx.device)
        self._scale = _FRAME_LENGTH / float(mixed.square().sum(1).mean().sqrt())
        return clean * self._scale, mixed * self._scale

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, 2, ...)``, not negative, not clamped from above; audio ``(B, C, T)`` to ``(B, 2, C, T)``."""
        if self._observed is None or self._other is None:
            raise ValueError("separate() before fit()")
        if ctx.task.domain == "audio":
            return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._audio_masks(magnitudes, ctx.task.observed_source == 0))
        values = mixtures.values.to(ctx.device).flatten(1)
        # float64: where atoms outnumber pixels the least-squares code is not unique, and float32 rounding, which differs between batch
        # sizes, can restart the descent at another step and lead to another one (0.02 in a pixel of digits-pairs).
        atoms = torch.cat([self._observed, self._other]).double()
        codes = sparse_encode(values.double(), atoms, self.coding_iterations, sparsity=self.coding_sparsity).float()
        known = len(self._observed)
        parts = [codes[:, :known] @ self._observed, codes[:, known:] @ self._other]
        ordered = torch.stack(parts if ctx.task.observed_source == 0 else parts[::-1], 1).unflatten(2, mixtures.values.shape[1:])
        return estimates_from_parts(ordered, ordered.sum(1), mixtures.operator)

    def _audio_masks(self, magnitudes: torch.Tensor, observed_first: bool) -> torch.Tensor:
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
