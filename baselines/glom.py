"""GLO masking. Halperin, Ephrat and Hoshen 2018, sec. 3 and table 1 (GLOM).

The paper is "Neural separation of observed and unobserved distributions".

Supervision: ``mixtures+one``.

Two DCGAN generators, G_B and G_X, are learnt together with a code of every training sample
(``baselines/training/latent.py``). G_B makes the clean samples of the observed source. G_B plus G_X make the mixtures.
Codes stay in the unit ball. For a new mixture y the generators are fixed, and descent finds two codes. Then::

    b = y G_B(z_b) / (G_B(z_b) + G_X(z_x)),    x = y - b

Learning has two stages, as in the paper, or one (``glom-joint``). The paper finds both alike. It does not state the
dimension of codes, the rates, the epochs, the error, how codes stay in the ball, and the length of the search. We take
L1 as the error, and project onto the ball after every step. The paper adds a perceptual loss on bags and shoes, with a
classifier trained on ImageNet. Ours is the setting ``perceptual``, with a classifier of our own that was trained on
CIFAR-10 with its labels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.mask_tasks import observed_and_other_support
from baselines.decomposition.parts import estimates_from_parts
from baselines.networks.classifier import SMALLEST_SIDE
from baselines.training.latent import Generators, LearntGenerators, in_unit_ball, shared_out
from baselines.training.perceptual import ImageError, sees
from baselines.training.search import descend
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, presets

_PAPER = "Halperin, Ephrat and Hoshen 2018, sec. 3 (GLOM)"
_QUICK_SEARCH = 4


@dataclass(config=STRICT)
class LatentMasking(LearntGenerators):
    """Masks from two generators. Descent finds the codes of each mixture.

    Budget ``quick`` makes a tenth of the epochs, rounded up, and a quarter of the steps of a search, rounded up.
    """

    search_steps: int = Field(400, ge=1, description="the most steps of the search for a mixture's codes")
    restarts: int = Field(4, ge=1, description="searches for each mixture, from random codes; the one of least error counts")
    search_lr: float = Field(0.05, gt=0, description="Adam's rate of the search")
    tolerance: float = Field(0.01, ge=0, lt=1, description="a search ends when 50 more steps lower its error by less than this share")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="glom",
        title="GLO masking",
        version="2",
        domains=frozenset({"image"}),
        supervision="mixtures+one",
        paper=_PAPER,
        deterministic=False,
        max_batch_cpu=32,
    )
    fit_scope: ClassVar[FitScope] = FitScope(OF_SIGNALS.task, "glom", "1", LearntGenerators)

    def supports(self, task: TaskSpec) -> Support:
        support = observed_and_other_support(task, self.info.name)
        if support.ok and self.perceptual and not sees(task.source_shape):
            return Support(False, f"the classifier of perceptual takes colour images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels; leave it at 0")
        return support

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to estimates ``(B, 2, C, H, W)`` that explain them exactly.

        The two generated parts share out the mixture. Each estimate is its part over the weight of its source.
        """
        values = mixtures.values.to(ctx.device)
        steps = -(-self.search_steps // _QUICK_SEARCH) if ctx.budget == "quick" else self.search_steps
        starts = self._starts(mixtures, ctx)
        error = ImageError(self.perceptual, ctx.device)
        made = found_parts(self.fitted(), values, starts, steps, self.search_lr, self.tolerance, error, lambda done: ctx.progress(done, "codes of mixtures"))
        parts = shared_out(made, values)  # the observed source comes first
        return estimates_from_parts(parts if ctx.task.observed_source == 0 else parts.flip(1), values, mixtures.operator)

    def _starts(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Codes ``(B, restarts, 2, latent)`` of about unit length, like those that learning starts with.

        They depend only on the seed and the example.
        """
        draws = [ctx.noise.normals(mixtures.example_ids, number, 2, (self.latent,), ctx.device) for number in range(self.restarts)]
        return in_unit_ball(torch.stack(draws, 1) / math.sqrt(self.latent))


def found_parts(
    generators: Generators,
    mixtures: torch.Tensor,
    starts: torch.Tensor,
    steps: int,
    lr: float,
    tolerance: float,
    error: ImageError,
    progress: Callable[[float], None] = lambda fraction: None,
) -> torch.Tensor:
    """The generated parts ``(B, 2, C, H, W)`` that explain mixtures ``(B, C, H, W)`` best.

    The generators are fixed. Each mixture has R searches by descent on two codes, and keeps the codes of its least
    error. A search ends by the rule of ``search.descend``.

    Args:
        generators: G_B and G_X. They are set to evaluation mode.
        mixtures: ``(B, C, H, W)``.
        starts: the first codes ``(B, R, 2, latent)``, in the ball. The middle of the ball is a bad start: no code was
            learnt near it. A generator that makes an empty image there has a saturated sigmoid and almost no gradient.
        steps: the most steps of a search.
        lr: Adam's rate.
        tolerance: see ``search.descend``.
        error: of an explained mixture.
        progress: called with the share of the steps that are done, in [0, 1].
    """
    count, restarts = starts.shape[:2]
    generators.eval()
    needed = [parameter for parameter in generators.parameters() if parameter.requires_grad]
    generators.requires_grad_(False)

    def errors(codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        explained = generators.part(0, codes[:, 0]) + generators.part(1, codes[:, 1])
        return error(explained, mixtures[rows // restarts], sum(generators.weights))

    try:
        found = descend(starts.flatten(0, 1), errors, steps, lr, tolerance=tolerance, nearest=in_unit_ball, progress=progress)
        with torch.no_grad():
            every = torch.arange(len(found), device=found.device)
            best = errors(found, every).unflatten(0, (count, restarts)).argmin(1)
            codes = found.unflatten(0, (count, restarts))[torch.arange(count, device=found.device), best]
            return torch.stack([generators.part(which, codes[:, which]) for which in range(2)], 1)
    finally:
        for parameter in needed:
            parameter.requires_grad_(True)


PRESETS: Mapping[str, type[LatentMasking]] = presets(
    LatentMasking,
    {"glom-joint": Preset("GLO masking, learnt jointly", _PAPER, "Both generators at once, the mixtures' error with weight lambda = 1.", {"joint": True})},
)
"""The registered names of GLO masking: two stages, and both at once."""
