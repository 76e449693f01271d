"""Supervised NMF of audio: dictionaries of spectra from clean recordings, codes of the mixture's spectrogram, masks in the ratio of the parts.

Smaragdis, Raj and Shashanka, "Supervised and semi-supervised separation of sounds from single-channel mixtures" (ICA 2007), sec. 3; dictionaries
and codes by the multiplicative updates of Lee and Seung, "Algorithms for non-negative matrix factorization" (NIPS 2000), theorem 2
(``divergence="kl"``, which the former minimise as a latent variable model) or theorem 1 (``"euclidean"``).

Supervision: ``sources`` (clean recordings of every class). Class-agnostic tasks have no classes to know, and there the
level is ``prior``.

V ``(F, N)`` are the mixture's magnitudes (mean of the channels), W atoms, and H codes:

* classes differ: W_k from the frames of class k. H codes V on all atoms together; v_k = W_k^T H_k is source k's part.
* one class (``class-agnostic``): one W from all recordings. Atoms are grouped (``group_atoms``) once per mixture, by their mean codes over time;
  co-activation counts training recordings. With p_k(r) the share of atom r in group k, v_k = sum_r p_k(r) W_r^T H_r.
* estimate k: the mixture's spectrum times v_k / sum_j v_j, transformed back, divided by the operator's weight (``separate_by_masks``).

SDR in dB on the first validation mixtures (20 of each noise, 40 of fsdd-pairs, 10 of drums-bass-synth), mean of both sources:

================  =======  ====  =========  ========
task              average  here  euclidean  atoms=64
================  =======  ====  =========  ========
drums-bass-synth  2.5      4.1   3.7        4.1
fsdd-noise brown  3.0      9.0   9.5
fsdd-noise pink   3.0      5.6   5.9
fsdd-pairs split  3.0      3.4   3.4
fsdd-pairs        3.0      3.4   3.4
================  =======  ====  =========  ========

``kl`` and ``euclidean`` each win on one kind of sound. The paper uses ``kl``. Sharper groups lower the last row
(sharpness 1: 3.1, 4: 2.7). Image suites get ``baselines/nmf.py`` under the same name.
"""

from __future__ import annotations

from dataclasses import field
from itertools import pairwise
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.atom_groups import co_activation, dictionary_support, group_atoms
from baselines.decomposition.masks import mask_support, separate_by_masks
from baselines.decomposition.nonnegative import random_atoms
from baselines.decomposition.spectrogram_nmf import Divergence, code_spectra, explained, learn_atoms, masks_of_parts, recording_spectra, training_frames
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class SupervisedAudioNMF:
    """Dictionaries of the frames of clean recordings; see the module for the model.

    Budget ``quick`` learns the dictionaries from a quarter of the recordings and frames in a quarter of the iterations.
    """

    atoms: int = Field(32, ge=1, description="atoms per class, at most one per training frame")
    shared_atoms: int = Field(64, ge=1, description="atoms of the one dictionary of a class-agnostic task")
    iterations: int = Field(100, ge=1, description="multiplicative updates of each dictionary")
    coding_iterations: int = Field(50, ge=1, description="multiplicative updates of a mixture's codes")
    samples: int = Field(500, ge=1, description="how many training recordings a dictionary learns from (the first ones)")
    frames: int = Field(20_000, ge=1, description="frames per dictionary, spread evenly over the recordings")
    divergence: Divergence = Field("kl", description="divergence between spectrogram and model: kl or euclidean")
    sharpness: float = Field(0.25, ge=0, description="how sharply atoms of a class-agnostic task are grouped: 0 shares each evenly, large values cut hard")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf",
        title="NMF",
        version="1",
        domains=frozenset({"audio"}),
        supervision="sources",
        paper="audio: Smaragdis et al. 2007, sec. 3; Lee and Seung 2000, theorems 1 and 2",
        deterministic=False,
    )
    _dictionaries: tuple[torch.Tensor, ...] = field(default=(), init=False, repr=False)
    _affinity: torch.Tensor | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, "NMF")
        support = dictionary_support(task, self.shared_atoms) if support.ok else support
        if support.ok and task.class_agnostic and task.assignment == "ordered":
            return Support(False, "NMF without classes cannot tell which group of atoms is which source; choose a task under the best assignment")
        return support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """One dictionary per class, or one for all.

        Raises:
            MethodError: the training recordings hold samples that are not finite, or no sound.
        """
        cut = 4 if ctx.budget == "quick" else 1
        samples = max(1, self.samples // cut)
        if ctx.task.class_agnostic:
            atoms = self._learn(view.clean(samples), self.shared_atoms, cut, ctx, slot=0, slots=1)
            self._dictionaries = (atoms,)
            spectra = recording_spectra(view.clean(samples), ctx.task.sample_rate or 1, ctx.device)
            codes = [code_spectra(chunk, atoms, self.coding_iterations, self.divergence).double().mean(2) for chunk in spectra]
            self._affinity = co_activation(torch.cat(codes))
            return
        slots = ctx.task.n_sources
        self._dictionaries = tuple(self._learn(view.sources(k, samples), self.atoms, cut, ctx, slot=k, slots=slots) for k in range(slots))
        self._affinity = None

    def _learn(self, recordings: torch.Tensor, atoms: int, cut: int, ctx: RunContext, *, slot: int, slots: int) -> torch.Tensor:
        """Atoms ``(R, F)`` of recordings ``(N, C, T)``."""
        frames = training_frames(recordings, ctx.task.sample_rate or 1, max(1, self.frames // cut), ctx.device)
        start = random_atoms(frames, min(atoms, len(frames)), ctx.noise.fork(1), slot)
        label = f"dictionary {slot + 1} of {slots}"
        iterations = max(1, self.iterations // cut)
        return learn_atoms(frames, start, iterations, self.divergence, lambda done: ctx.progress((slot + done) / slots, label))

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``."""
        if not self._dictionaries:
            raise ValueError("separate() before fit()")
        return separate_by_masks(mixtures, ctx, lambda magnitudes, rate: self._masks(magnitudes, mixtures.n_sources))

    def _masks(self, magnitudes: torch.Tensor, sources: int) -> torch.Tensor:
        """Magnitudes ``(B, C, F, N)`` to masks ``(B, K, C, F, N)``; channels are averaged for the codes and share the masks."""
        atoms = torch.cat(self._dictionaries)
        codes = code_spectra(magnitudes.mean(1), atoms, self.coding_iterations, self.divergence)
        coded = self._grouped_codes(codes, sources) if self._affinity is not None else self._class_codes(codes)
        return masks_of_parts(torch.stack([explained(code, atoms) for code in coded], 1), magnitudes.shape[1])

    def _class_codes(self, codes: torch.Tensor) -> list[torch.Tensor]:
        """K times ``(B, R, N)``: the codes of each class's atoms, zero for the others."""
        ends = torch.tensor([0, *(len(dictionary) for dictionary in self._dictionaries)]).cumsum(0).tolist()
        numbers = torch.arange(codes.shape[1], device=codes.device).unsqueeze(1)
        return [codes * ((numbers >= first) & (numbers < last)) for first, last in pairwise(ends)]

    def _grouped_codes(self, codes: torch.Tensor, groups: int) -> list[torch.Tensor]:
        """K times ``(B, R, N)``: each group's share of the codes."""
        assert self._affinity is not None
        shares = group_atoms(codes.double().mean(2), self._affinity, groups, self.sharpness).float()
        return [codes * share.unsqueeze(2) for share in shares.unbind(1)]
