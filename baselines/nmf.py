"""Supervised NMF of images: dictionaries from clean samples, non-negative coding of the mixture, one part of the code per source.

Lee and Seung, "Algorithms for non-negative matrix factorization" (NIPS 2000), theorem 1, for dictionaries and codes; one dictionary per
class as in Smaragdis, Raj and Shashanka, "Supervised and semi-supervised separation of sounds from single-channel mixtures" (ICA 2007),
sec. 3. Kong et al. (IJCAI 2019, table 2, "NMF") give no settings for the class-agnostic task.

Supervision: ``sources`` (clean samples of every class). Class-agnostic tasks have no classes to know, and there the
level is ``prior``.

X ``(N, D)`` are clean samples, m a mixture, W atoms, h codes, and w_k the operator's weights:

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

Hard groups (the last column) fall below the average. Co-activation says too little about which atoms belong together,
least on natural images. Soft shares keep what it says. Audio suites get ``baselines/nmf_audio.py`` under the same name.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.atom_groups import co_activation, dictionary_support, group_atoms
from baselines.decomposition.nonnegative import FLOOR, Factors, encode, factorise, random_atoms
from baselines.decomposition.parts import estimates_from_parts, part_support
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class SupervisedNMF:
    """Dictionaries of clean samples; see the module for the model.

    Budget ``quick`` learns the dictionaries from a quarter of the samples in a quarter of the iterations.
    """

    atoms: int = Field(16, ge=1, description="atoms per class, at most one per training sample")
    shared_atoms: int = Field(32, ge=1, description="atoms of the one dictionary of a class-agnostic task")
    iterations: int = Field(200, ge=1, description="multiplicative updates of each dictionary")
    coding_iterations: int = Field(20, ge=1, description="multiplicative updates of a mixture's code; more fit the mixture better and separate it worse")
    samples: int = Field(12_000, ge=1, description="how many training samples a dictionary learns from (the first ones)")
    mask: bool = Field(True, description="cut the mixture in the ratio of the parts; false takes the parts themselves")
    sharpness: float = Field(0.25, ge=0, description="how sharply atoms of a class-agnostic task are grouped: 0 shares each evenly, large values cut hard")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf",
        title="NMF",
        version="1",
        domains=frozenset({"image"}),
        supervision="sources",
        paper="Lee and Seung 2000, theorem 1; Smaragdis et al. 2007, sec. 3",
        deterministic=False,
    )
    _dictionaries: tuple[torch.Tensor, ...] = field(default=(), init=False, repr=False)
    _affinity: torch.Tensor | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "NMF")
        return dictionary_support(task, self.shared_atoms) if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """One dictionary per class, or one for all.

        Raises:
            MethodError: the training images hold negative values.
        """
        cut = 4 if ctx.budget == "quick" else 1
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

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, K, C, H, W)``, not negative, not clamped from above."""
        if not self._dictionaries:
            raise ValueError("separate() before fit()")
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
