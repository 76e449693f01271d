"""Semi-supervised sparse NMF of images, our variant of Halperin, Ephrat and Hoshen (2018), appendix B: the L1 penalty is on the codes.

Supervision: ``mixtures+one``.

The paper puts a squared L1 norm on the bases instead, and that method is ``nmf-semi-printed``. This row is not the
paper's method, so the paper's numbers are shown beside the other. With l = 50 atoms per source and L1 weight alpha = 1
on all codes Z >= 0:

1. W_B: sparse NMF of the clean samples, ``1/2 ||B - Z W_B||^2 + alpha sum(Z)``, l atoms;
2. W_X: sparse NMF of the training mixtures with 2 l atoms, the first l fixed to W_B;
3. a mixture is coded by non-negative least squares on both; the estimates are the products ``Z_B W_B`` and ``Z_X W_X``: no mask.

Pixels are in [0, 1] and atoms in the unit ball. Without the ball codes could shrink and atoms grow at no cost, and the
penalty would say nothing. Both stages take a stated number of rounds of ``sparse_factorise``. Audio suites get
``baselines/nmf_semi_audio.py`` under the same name.
"""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.nonnegative import sparse_encode
from baselines.decomposition.parts import estimates_from_parts, part_support
from baselines.decomposition.semi_supervised import learn_observed_and_other, semi_supervised_support
from sepbench.errors import MethodError
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import STRICT


@dataclass(config=STRICT)
class SemiSupervisedNMF:
    """Atoms of the observed source B from clean samples, of the other source X from mixtures.

    Budget ``quick`` learns from a quarter of the samples in a quarter of the rounds.
    """

    atoms: int = Field(50, ge=1, description="l, atoms per source; at most one per training sample")
    sparsity: float = Field(1.0, ge=0, description="alpha, L1 weight on the codes while the atoms are learnt")
    coding_sparsity: float = Field(0.0, ge=0, description="the same while a mixture is coded; 0 is plain NNLS")
    iterations: int = Field(100, ge=1, description="rounds of either stage")
    coding_iterations: int = Field(200, ge=1, description="gradient steps for the code of a mixture")
    samples: int = Field(12_000, ge=1, description="how many clean samples, and how many mixtures, are learnt from (the first ones)")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nmf-semi",
        title="Semi-supervised NMF",
        version="1",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper="after Halperin, Ephrat and Hoshen 2018, appendix B; L1 on the codes is ours",
        deterministic=False,
    )
    _observed: torch.Tensor | None = field(default=None, init=False, repr=False)
    _other: torch.Tensor | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, "semi-supervised NMF")
        return semi_supervised_support(task) if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Stages 1 and 2.

        Raises:
            MethodError: the training images hold negative values.
        """
        cut = 4 if ctx.budget == "quick" else 1
        rounds, samples = max(1, self.iterations // cut), max(1, self.samples // cut)
        clean, mixed = view.observed(samples).flatten(1).to(ctx.device), view.mixtures(samples).flatten(1).to(ctx.device)
        if bool((clean < 0).any()) or bool((mixed < 0).any()):
            raise MethodError("NMF needs training data without negative values")
        self._observed, self._other = learn_observed_and_other(clean, mixed, self.atoms, rounds, self.sparsity, ctx)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)``, not negative, not clamped from above."""
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
