"""Semi-supervised sparse NMF: clean samples of one source, mixtures for the other (Halperin, Ephrat and Hoshen, 2018, appendix B).

Supervision: ``mixtures+one``.

With l = 50 atoms per source and L1 weight alpha = 1 on all codes Z >= 0:

1. W_B: sparse NMF of the clean samples, ``1/2 ||B - Z W_B||^2 + alpha sum(Z)``, l atoms;
2. W_X: sparse NMF of the training mixtures with 2 l atoms, the first l fixed to W_B;
3. a mixture is coded by non-negative least squares on both; the estimates are the products ``Z_B W_B`` and ``Z_X W_X``: no mask.

The paper alternates NNLS "until convergence"; here a stated number of rounds of ``sparse_factorise``. Not said in the paper: the scale of
the data and the normalisation that alpha = 1 refers to. Here: pixels in [0, 1], atoms in the unit ball, alpha on the codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch

from baselines.nonnegative import sample_atoms, sparse_encode, sparse_factorise
from baselines.parts import estimates_from_parts, part_support
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView


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
    """

    atoms: int = 50
    sparsity: float = 1.0
    coding_sparsity: float = 0.0
    iterations: int = 100
    coding_iterations: int = 200
    samples: int = 12_000

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-semi",
        title="Semi-supervised NMF",
        version="1",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper="Halperin, Ephrat and Hoshen 2018, appendix B",
        deterministic=False,
    )
    _observed: torch.Tensor | None = field(default=None, init=False, repr=False)
    _other: torch.Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if min(self.atoms, self.iterations, self.coding_iterations, self.samples) < 1:
            raise ValueError("atoms, iterations, coding_iterations and samples must be at least 1")
        if self.sparsity < 0 or self.coding_sparsity < 0:
            raise ValueError("sparsity and coding_sparsity must not be negative")

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "semi-supervised NMF")
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
            MethodError: the training data hold negative values.
        """
        cut = 4 if ctx.budget == "quick" else 1
        samples, rounds = max(1, self.samples // cut), max(1, self.iterations // cut)
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

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, 2, ...)``, not negative, not clamped from above."""
        if self._observed is None or self._other is None:
            raise ValueError("separate() before fit()")
        values = mixtures.values.to(ctx.device).flatten(1)
        # float64: where atoms outnumber pixels the least-squares code is not unique, and float32 rounding, which differs between batch
        # sizes, can restart the descent at another step and lead to another one (0.02 in a pixel of digits-pairs).
        atoms = torch.cat([self._observed, self._other]).double()
        codes = sparse_encode(values.double(), atoms, self.coding_iterations, sparsity=self.coding_sparsity).float()
        known = len(self._observed)
        parts = [codes[:, :known] @ self._observed, codes[:, known:] @ self._other]
        ordered = torch.stack(parts if ctx.task.observed_source == 0 else parts[::-1], 1).unflatten(2, mixtures.values.shape[1:])
        return estimates_from_parts(ordered, ordered.sum(1), mixtures.operator)
