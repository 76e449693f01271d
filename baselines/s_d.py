"""S-D. Kong, Xu, Wang, Jackson and Plumbley, IJCAI 2019.

The paper is "Single-channel signal separation and deconvolution with generative adversarial networks".

Supervision: ``prior``.

One generator G of clean images is learnt against a discriminator (``baselines/training/generative.py``). For a mixture
y of K sources, G is fixed, and descent finds the codes::

    loss(z_1 .. z_K) = mean (y - sum_k w_k G(z_k))^2 + 1e-3 sum_k mean z_k^2

1. Start R times at random, z_k ~ N(0, I), and make 201 steps of Adam each time. Keep the start whose mixture has the
   least mean squared error.
2. Continue from there for up to 5,001 steps.

The estimates are the images G(z_k). The deconvolution of the title finds 5 x 5 filters together with the codes. It is
not implemented: separation is the case of known filters, for which no driver is released (flag 41 of
docs/protocols.md).

Ours differs in this. Each stage keeps the codes of its least loss instead of its last ones. A search of stage 2 can
end early (``baselines/training/search.py``). The error is divided by the squared mean weight of the sources, so the
operators ``mean`` and ``sum`` give the same estimates.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import part_support
from baselines.networks.dcgan import DCGANGenerator
from baselines.training.generative import LearntGenerator
from baselines.training.search import Errors, descend
from sepbench.memory import scaled
from sepbench.noise import NoiseSource
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, FitScope, Preset, presets

_PAPER = "Kong et al. 2019, sec. 3"
_QUICK_SEARCH = 4
_SMALLEST_SIDE = 4
_CPU_IMAGES, _GPU_IMAGES = 128, 8192
"""How many images are generated at once."""


@dataclass(config=STRICT)
class GenerativeSeparation(LearntGenerator):
    """Codes of a generator. Descent finds them from random starts.

    Budget ``quick`` makes a tenth of the steps of the fit, and a quarter of the steps of the searches, all rounded up.
    """

    restarts: int = Field(8, ge=1, description="R, random starts of a mixture")
    first_steps: int = Field(201, ge=1, description="steps from every start")
    last_steps: int = Field(5001, ge=0, description="the most steps that the best start continues for")
    search_lr: float = Field(0.01, gt=0, description="Adam's rate of the searches")
    pull: float = Field(1e-3, ge=0, description="weight of the codes' mean squares in the loss")
    tolerance: float = Field(1e-3, ge=0, lt=1, description="stage 2 ends when 50 more steps lower its loss by less than this share")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="s-d",
        title="S-D, 8 restarts",
        version="1",
        domains=frozenset({"image"}),
        supervision="prior",
        paper=_PAPER,
        deterministic=False,
        max_batch_cpu=3,
    )
    fit_scope: ClassVar[FitScope] = FitScope(frozenset({"source_shape"}), "s-d", "1", LearntGenerator)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name)
        if support.ok and task.assignment == "ordered":
            return Support(
                False, f"{self.info.name} has one model for all sources and cannot tell which source is which; choose a task under the best assignment"
            )
        if support.ok and min(task.source_shape[-2:]) < _SMALLEST_SIDE:
            return Support(False, f"{self.info.name} takes images of at least {_SMALLEST_SIDE} x {_SMALLEST_SIDE} pixels")
        return support

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to generated sources ``(B, K, C, H, W)`` in [0, 1].

        Their mixture is near the given one. A mixture that is not finite gets NaN.
        """
        scene = Scene(self.fitted(), mixtures, self.pull)
        shorter = _QUICK_SEARCH if ctx.budget == "quick" else 1
        first, last = -(-self.first_steps // shorter), -(-self.last_steps // shorter)
        at_once = (_CPU_IMAGES if torch.device(ctx.device).type == "cpu" else scaled(_GPU_IMAGES, ctx.device)) // mixtures.n_sources
        cut = self.restarts * first / (self.restarts * first + last)
        parts = _in_parts(len(mixtures), at_once // self.restarts, lambda done: ctx.progress(cut * done, "stage 1"))
        codes = torch.cat([best_of_starts(scene, rows, self.restarts, ctx.noise, first, self.search_lr, told)[0] for rows, told in parts])
        parts = _in_parts(len(mixtures), at_once, lambda done: ctx.progress(cut + (1.0 - cut) * done, "stage 2"))
        codes = torch.cat([descend(codes[rows], scene.losses(rows), last, self.search_lr, tolerance=self.tolerance, progress=told) for rows, told in parts])
        finite = mixtures.values.isfinite().flatten(1).all(1)
        return torch.where(finite[:, None, None, None, None], scene.images(codes), torch.nan)


class Scene:
    """A fixed generator, and the mixtures that its images should explain.

    Args:
        network: codes ``(B, latent)`` to images ``(B, C, H, W)``. Its weights must need no gradients.
        mixtures: the batch. Its operator weighs and adds sources.
        pull: weight of the codes' mean squares in the loss.
    """

    def __init__(self, network: DCGANGenerator, mixtures: Mixtures, pull: float) -> None:
        self.network, self.mixtures, self.pull = network, mixtures, pull
        self.device = mixtures.values.device
        self.operator = mixtures.operator.to(self.device)

    def images(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes ``(n, K, latent)`` to images ``(n, K, C, H, W)``."""
        made: torch.Tensor = self.network(codes.flatten(0, 1)).unflatten(0, (-1, codes.shape[1]))
        return made

    def errors(self, codes: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        """Mean squared errors ``(n,)`` of codes ``(n, K, latent)`` as explanations of the mixtures ``rows`` ``(n,)``.

        They are divided by the squared mean weight of a source.
        """
        operator = self.operator.select(rows)
        weight = operator.matrix().mean((-2, -1)).to(self.device, torch.float32)
        residual = self.mixtures.values[rows] - operator.forward(self.images(codes))
        return residual.square().flatten(1).mean(1) / weight.square()

    def losses(self, rows: torch.Tensor) -> Errors:
        """The loss that ``descend`` minimises. Search i is of mixture ``rows[i]``."""
        of_mixtures = rows.to(self.device)

        def loss(codes: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
            return self.errors(codes, of_mixtures[left]) + self.pull * codes.square().mean(2).sum(1)

        return loss


def best_of_starts(
    scene: Scene,
    rows: torch.Tensor,
    restarts: int,
    noise: NoiseSource,
    steps: int,
    lr: float,
    progress: Callable[[float], None] = lambda fraction: None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Stage 1: the best codes ``(n, K, latent)`` of all restarts of each mixture, and their errors ``(n,)``.

    Start r of a mixture is the same for any number of restarts.

    Args:
        scene: generator and mixtures.
        rows: the numbers ``(n,)`` of the mixtures.
        restarts: R.
        noise: of the starts.
        steps: from every start.
        lr: Adam's rate.
        progress: called with the share that is done, in [0, 1].
    """
    every, number = rows.repeat_interleave(restarts), torch.arange(restarts).repeat(len(rows))
    ids, sources = scene.mixtures.example_ids[every], scene.mixtures.n_sources
    starts = noise.normals(ids, 0, sources, (scene.network.latent,), scene.device, number)
    codes = descend(starts, scene.losses(every), steps, lr, progress=progress)
    with torch.no_grad():
        errors = scene.errors(codes, every.to(scene.device)).unflatten(0, (-1, restarts))
    least, best = errors.min(1)
    return codes.unflatten(0, (-1, restarts))[torch.arange(len(rows), device=scene.device), best], least


def _in_parts(count: int, at_once: int, tell: Callable[[float], None]) -> Iterator[tuple[torch.Tensor, Callable[[float], None]]]:
    """Numbers from 0 to ``count`` in parts of at most ``at_once``, but at least 1.

    Each part comes with a function: given the share of the part that is done, it reports the share of all.
    """
    parts = torch.arange(count).split(max(1, at_once))
    for begun, part in enumerate(parts):
        yield part, partial(_share_of_all, tell, begun, len(parts))


def _share_of_all(tell: Callable[[float], None], begun: int, parts: int, done: float) -> None:
    tell((begun + done) / parts)


def _preset(restarts: int, max_batch_cpu: int) -> Preset:
    title = f"S-D, {restarts} restart" + "s" * (restarts > 1)
    return Preset(title, f"{_PAPER}, table 2", f"{restarts} of the paper's 1, 8 and 32 restarts.", {"restarts": restarts}, max_batch_cpu=max_batch_cpu)


PRESETS: Mapping[str, type[GenerativeSeparation]] = presets(GenerativeSeparation, {"s-d-1": _preset(1, 8), "s-d-32": _preset(32, 1)})
"""The registered names of S-D, by restarts: 8 as in the released script, and the other rows of the paper's table 2.

They share their fits.
"""
