"""Supervised NMF: dictionaries from clean samples, non-negative coding of the mixture, one part of the code per source.

Lee and Seung, "Algorithms for non-negative matrix factorization" (NIPS 2000), theorem 1, for dictionaries and codes; one dictionary per
class as in Smaragdis, Raj and Shashanka, "Supervised and semi-supervised separation of sounds from single-channel mixtures" (ICA 2007),
sec. 3. Kong et al. (IJCAI 2019, table 2, "NMF") give no settings for the class-agnostic task.

Supervision: ``sources`` (clean samples of every class); on class-agnostic tasks there are no classes to know and the level is ``prior``.

With X ``(N, D)`` clean samples, m a mixture, W atoms, h codes, w_k the operator's weights:

* classes differ: W_k from class k. h codes m on all atoms together; v_k = h_k W_k is source k's part of the mixture.
* one class (``class-agnostic``): one W from all samples. The atoms that m uses are grouped (``group_atoms``) by how often they work
  together in single clean signals: with p_k(r) the share of atom r in group k, v_k = sum_r p_k(r) h_r W_r.
* estimate k = m v_k / sum_j v_j / w_k (ratio mask, so the estimates mix to m exactly), or v_k / w_k with ``mask=False``.

Settings were chosen on validation tasks (held-out training images). PSNR in dB, of the first 500 examples or all 200:

==================  =======  =====  =======  =====================  ========
classes split       average  here   no mask  coding_iterations=100  atoms=50
==================  =======  =====  =======  =====================  ========
mnist-pairs         14.8     16.2   14.0     16.2                   15.7
digits-pairs        14.5     15.3   14.4     14.9                   15.4
cifar10-mini-pairs  15.0     15.4   14.3     15.1                   15.5
==================  =======  =====  =======  =====================  ========

==================  =======  =====  ==============
no classes          average  here   sharpness=1000
==================  =======  =====  ==============
mnist-pairs         14.9     15.6   14.1
digits-pairs        14.7     15.1   12.7
cifar10-mini-pairs  15.7     15.9   11.8
==================  =======  =====  ==============

Hard groups (the last column) fall below the average: co-activation says too little about which atoms belong together, least on natural
images. Soft shares keep what it says.

Audio: the same with the frames of magnitude spectrograms as signals (``baselines.decomposition.spectrogram_nmf``), masks on the spectrum of the mixture.
On class-agnostic tasks atoms are grouped once per mixture, by their mean codes over time, and co-activation counts training recordings.
SDR in dB on the first validation mixtures (20 of each noise, 40 of fsdd-pairs, 10 of drums-bass-synth), mean of both sources:

================  =======  ====  =========  ================
task              average  here  euclidean  audio_atoms=64
================  =======  ====  =========  ================
drums-bass-synth  2.5      4.1   3.7        4.1
fsdd-noise brown  3.0      9.0   9.5
fsdd-noise pink   3.0      5.6   5.9
fsdd-pairs split  3.0      3.4   3.4
fsdd-pairs        3.0      3.4   3.4
================  =======  ====  =========  ================

``kl`` and ``euclidean`` each win on one kind of sound; ``kl`` is the paper's. Sharper groups lower the last row (sharpness 1: 3.1, 4: 2.7).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar

import torch
from torch.nn import functional

from baselines.decomposition.masks import mask_support, separate_by_masks
from baselines.decomposition.nonnegative import FLOOR, Factors, encode, factorise, random_atoms
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.spectrogram_nmf import Divergence, code_spectra, explained, learn_atoms, masks_of_parts, recording_spectra, training_frames
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView

_KMEANS_ROUNDS = 10
_LIFT_FLOOR = 1e-2
"""Pairs of atoms that never work together count as if they did a hundredth as often as by chance."""


def co_activation(codes: torch.Tensor) -> torch.Tensor:
    """How much more often than by chance two atoms work together in one signal: ``(N, R)`` codes to ``(R, R)``.

    The logarithm of the lift, ``log(E[h_i h_j] / (E[h_i] E[h_j]))``: positive for atoms of one kind of signal, negative for atoms that
    exclude each other. The diagonal, and atoms never used, are zero.
    """
    means = codes.mean(0)
    chance = means.unsqueeze(1) * means
    lift = codes.T @ codes / codes.shape[0] / chance.clamp(min=FLOOR)
    logs = torch.where(chance > FLOOR, (lift + _LIFT_FLOOR).log(), 0.0)
    return logs.fill_diagonal_(0.0)


def group_atoms(codes: torch.Tensor, affinity: torch.Tensor, groups: int, sharpness: float) -> torch.Tensor:
    """Shares ``(B, K, R)`` of each atom in K groups, for each mixture; they add up to 1 over the groups.

    Spectral clustering of the atoms a mixture uses. For K = 2 it is the relaxation of: choose signs s that maximise
    ``sum_ij h_i h_j A_ij s_i s_j`` with both groups equally active. The K - 1 leading eigenvectors of ``P diag(h) A diag(h) P``, P projecting
    out h, embed the atoms; directions of K clusters are found by spherical k-means from farthest-first seeds; shares are the softmax
    of the projections on them. Atoms the mixture hardly uses lie near 0 and are shared evenly.

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
    """Unit directions ``(B, K, d)`` of K clusters of the rows of ``(B, R, d)``, weighted by length; first seed is the longest row."""
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


def _tell(ctx: RunContext, slot: int, slots: int, done: float) -> None:
    ctx.progress((slot + done) / slots, f"dictionary {slot + 1} of {slots}")


@dataclass
class SupervisedNMF:
    """Dictionaries of clean samples; see the module for the model.

    Budget ``quick`` learns the dictionaries from a quarter of the samples in a quarter of the iterations.

    Attributes:
        atoms: per class, at most one per training sample.
        shared_atoms: of the one dictionary of a class-agnostic task.
        iterations: multiplicative updates of each dictionary.
        coding_iterations: multiplicative updates of a mixture's code. More of them fit the mixture better and separate it worse.
        samples: the first so many training samples per dictionary.
        mask: cut the mixture in the ratio of the parts; False takes the parts themselves.
        sharpness: of the atom groups of a class-agnostic task, see ``group_atoms``.
        audio_atoms, audio_shared_atoms, audio_iterations, audio_coding_iterations: the same of spectrograms.
        audio_samples, frames: the first so many training recordings per dictionary, and so many frames spread evenly over them.
        divergence: of spectrograms, ``kl`` or ``euclidean``.
    """

    atoms: int = 16
    shared_atoms: int = 32
    iterations: int = 200
    coding_iterations: int = 20
    samples: int = 12_000
    mask: bool = True
    sharpness: float = 0.25
    audio_atoms: int = 32
    audio_shared_atoms: int = 64
    audio_iterations: int = 100
    audio_coding_iterations: int = 50
    audio_samples: int = 500
    frames: int = 20_000
    divergence: Divergence = "kl"

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf",
        title="NMF",
        version="1",
        domains=frozenset({"image", "audio"}),
        supervision="sources",
        paper="Lee and Seung 2000, theorem 1; Smaragdis et al. 2007, sec. 3",
        deterministic=False,
    )
    _dictionaries: tuple[torch.Tensor, ...] = field(default=(), init=False, repr=False)
    _affinity: torch.Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.atoms, self.shared_atoms, self.iterations, self.coding_iterations, self.samples) < 1:
            raise ValueError("atoms, shared_atoms, iterations, coding_iterations and samples must be at least 1")
        if self.sharpness < 0:
            raise ValueError(f"sharpness must not be negative, got {self.sharpness}")
        if min(self.audio_atoms, self.audio_shared_atoms, self.audio_iterations, self.audio_coding_iterations, self.audio_samples, self.frames) < 1:
            raise ValueError("audio_atoms, audio_shared_atoms, audio_iterations, audio_coding_iterations, audio_samples and frames must be at least 1")
        if self.divergence not in ("kl", "euclidean"):
            raise ValueError(f"divergence must be 'kl' or 'euclidean', got {self.divergence!r}")

    def supports(self, task: TaskSpec) -> Support:
        audio = task.domain == "audio"
        support = mask_support(task, "NMF") if audio else part_support(task, "NMF")
        if not support.ok:
            return support
        if task.class_agnostic:
            shared = self.audio_shared_atoms if audio else self.shared_atoms
            if shared < task.n_sources:
                return Support(False, f"{shared} {'audio_' if audio else ''}shared_atoms cannot make {task.n_sources} groups; choose more")
            if audio and task.assignment == "ordered":
                return Support(False, "NMF without classes cannot tell which group of atoms is which source; choose a task under the best assignment")
            return Support(True, "one dictionary, its atoms grouped for each mixture")
        if len(set(task.source_classes)) < task.n_sources:
            return Support(False, "some sources share a class and some do not; NMF takes tasks with one class per source or one for all")
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """One dictionary per class, or one for all.

        Raises:
            MethodError: the training images hold negative values; the training recordings hold samples that are not finite, or no sound.
        """
        cut = 4 if ctx.budget == "quick" else 1
        if ctx.task.domain == "audio":
            self._fit_audio(view, ctx, cut)
            return
        samples, iterations = max(1, self.samples // cut), max(1, self.iterations // cut)
        if ctx.task.class_agnostic:
            factors = self._learn(view.clean(samples), self.shared_atoms, iterations, ctx, slot=0, slots=1)
            self._dictionaries = (factors.atoms,)
            self._affinity = co_activation(factors.codes.double())
            return
        slots = ctx.task.n_sources
        learnt = [self._learn(view.sources(k, samples), self.atoms, iterations, ctx, slot=k, slots=slots) for k in range(slots)]
        self._dictionaries = tuple(factors.atoms for factors in learnt)
        self._affinity = None

    def _learn(self, samples: torch.Tensor, atoms: int, iterations: int, ctx: RunContext, *, slot: int, slots: int) -> Factors:
        signals = samples.flatten(1).to(ctx.device)
        if bool((signals < 0).any()):
            raise MethodError("NMF needs training samples without negative values")
        start = random_atoms(signals, min(atoms, len(signals)), ctx.noise.fork(1), slot)
        label = f"dictionary {slot + 1} of {slots}"
        return factorise(signals, start, iterations, progress=lambda done: ctx.progress((slot + done) / slots, label)).unit_atoms()

    def _fit_audio(self, view: TrainingView, ctx: RunContext, cut: int) -> None:
        rate, samples, iterations = ctx.task.sample_rate or 1, max(1, self.audio_samples // cut), max(1, self.audio_iterations // cut)
        shared = ctx.task.class_agnostic
        slots, atoms = (1, self.audio_shared_atoms) if shared else (ctx.task.n_sources, self.audio_atoms)
        learnt = []
        for slot in range(slots):
            recordings = view.clean(samples) if shared else view.sources(slot, samples)
            frames = training_frames(recordings, rate, max(1, self.frames // cut), ctx.device)
            start = random_atoms(frames, min(atoms, len(frames)), ctx.noise.fork(1), slot)
            told = partial(_tell, ctx, slot, slots)
            learnt.append(learn_atoms(frames, start, iterations, self.divergence, told))
        self._dictionaries, self._affinity = tuple(learnt), None
        if shared:
            spectra = recording_spectra(view.clean(samples), rate, ctx.device)
            codes = [code_spectra(chunk, learnt[0], self.audio_coding_iterations, self.divergence).double().mean(2) for chunk in spectra]
            self._affinity = co_activation(torch.cat(codes))

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, K, ...)``, not negative, not clamped from above; audio ``(B, C, T)`` to ``(B, K, C, T)``."""
        if not self._dictionaries:
            raise ValueError("separate() before fit()")
        if ctx.task.domain == "audio":
            return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._audio_masks(magnitudes, mixtures.n_sources))
        values = mixtures.values.to(ctx.device).flatten(1)
        parts = self._grouped_parts(values, mixtures.n_sources) if self._affinity is not None else self._class_parts(values)
        if self.mask:
            parts = (parts + FLOOR) / (parts + FLOOR).sum(1, keepdim=True) * values.unsqueeze(1)
        parts = parts.unflatten(2, mixtures.values.shape[1:])
        return estimates_from_parts(parts, parts.sum(1), mixtures.operator).float()

    def _class_parts(self, values: torch.Tensor) -> torch.Tensor:
        """``(B, K, D)``: what each class's atoms contribute."""
        codes = encode(values, torch.cat(self._dictionaries), self.coding_iterations)
        split = codes.split([len(atoms) for atoms in self._dictionaries], dim=1)
        return torch.stack([code @ atoms for code, atoms in zip(split, self._dictionaries, strict=True)], 1)

    def _grouped_parts(self, values: torch.Tensor, groups: int) -> torch.Tensor:
        """``(B, K, D)``: what each group of atoms contributes. In float64: seeds are picked by argmax, rounding must not decide ties of a batch."""
        assert self._affinity is not None
        atoms = self._dictionaries[0].double()
        codes = encode(values.double(), atoms, self.coding_iterations)
        shares = group_atoms(codes, self._affinity, groups, self.sharpness)
        return ((shares * codes.unsqueeze(1)) @ atoms).to(values.dtype)

    def _audio_masks(self, magnitudes: torch.Tensor, sources: int) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to masks ``(B, K, C, F, N)``; channels are averaged for the codes and share the masks."""
        atoms = torch.cat(self._dictionaries)
        codes = code_spectra(magnitudes.mean(1), atoms, self.audio_coding_iterations, self.divergence)
        if self._affinity is not None:
            shares = group_atoms(codes.double().mean(2), self._affinity, sources, self.sharpness).float()
            weighted = [codes * shares[:, k].unsqueeze(2) for k in range(sources)]
        else:
            ends = torch.tensor([0, *(len(dictionary) for dictionary in self._dictionaries)]).cumsum(0).tolist()
            kept = torch.arange(len(atoms), device=codes.device).unsqueeze(1)
            weighted = [codes * ((kept >= ends[k]) & (kept < ends[k + 1])) for k in range(sources)]
        return masks_of_parts(torch.stack([explained(code, atoms) for code in weighted], 1), magnitudes.shape[1])
