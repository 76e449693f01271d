"""Supervised masks. Halperin, Ephrat and Hoshen 2018, table 1 (row "Supervised").

The paper is "Neural separation of observed and unobserved distributions".

Supervision: ``sources``.

The mask network of NES learns by regression on synthetic mixtures of true sources: ``y = b + x``. It minimises ``|y
m(y) - b|`` (L1), and ``x`` is ``y (1 - m(y))``. Every epoch pairs all samples of both classes anew. The paper does not
state optimiser, rates and epochs. Ours are Adam with the betas of the released NES code, 50 epochs, and a rate that
falls to zero over the last 40 % of the steps.

``supervised-sources`` has one mask for each of K classes. The masks add up to 1 (softmax), the loss is the error of
all estimates, and it learns from all training samples. With two classes its loss is that of ``supervised``, because
both errors of one mask are the same. ``supervised-pit`` is for tasks whose sources are all of one class. Its loss
takes each mixture's best assignment (permutation-invariant training, Yu et al. 2017).

``supervised-long`` learns for 150 epochs.

``supervised-unet`` has a modern network (``baselines/networks/mask_unet.py``) with the same data and supervision. It
shows what the paper's network does not reach.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.mask_signals import parts_of
from baselines.decomposition.mask_tasks import mask_support
from baselines.training.epochs import cut_epochs, full_batches
from baselines.training.loop import resume, run
from baselines.training.mask import (
    Loss,
    MaskLayout,
    MaskNetwork,
    MaskRecipe,
    MaskTraining,
    Network,
    Power,
    Precision,
    load_network,
    mask_layout,
    masks_for,
    mean_error,
    new_network,
    observed_error,
    permutation_invariant_error,
    save_network,
)
from sepbench.protocols import Domain, MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, presets

Targets = Literal["observed", "classes", "permutations"]
LOSSES: Mapping[Targets, Loss] = {"observed": observed_error, "classes": mean_error, "permutations": permutation_invariant_error}
IMAGES: frozenset[Domain] = frozenset({"image"})
DOMAINS: frozenset[Domain] = IMAGES | {"audio"}
_MOST_PERMUTED = 5
_FILE = "mask.safetensors"
_PAPER = "Halperin, Ephrat and Hoshen 2018, sec. 4 (Supervised)"


@dataclass(config=STRICT)
class SupervisedMask:
    """Masks learnt from true sources, with the network and the loss of NES.

    Budget ``quick`` makes a tenth of the epochs, rounded up.
    """

    targets: Targets = Field("observed", description="what the masks estimate: the observed source, each class, or the sources in any order")
    network: Network = Field("autoencoder", description="the paper's autoencoder, or the U-Net of our score priors")
    power: Power = Field(1, description="of the errors in the loss: 1 for the paper's L1, 2 for squared errors")
    samples: int | None = Field(12_000, ge=1, description="how many clean samples of each class the fit learns from (the first ones); none for all")
    epochs: int = Field(50, ge=1, description="passes over the samples")
    lr: float = Field(1e-3, gt=0, description="Adam's rate")
    decay: float = Field(0.4, gt=0, le=1, description="the share of the steps, at the end, over which the rate falls to zero")
    batch: int = Field(32, ge=2, description="mixtures per step")
    fit_precision: Precision = Field("bfloat16", description="of the network during the fit (float32 on CPUs without it); it separates in float32")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="supervised",
        title="Supervised mask (NES)",
        version="1",
        domains=DOMAINS,
        supervision="sources",
        paper=_PAPER,
        deterministic=False,
    )
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    _network: MaskNetwork | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = mask_support(task, self.info.name, DOMAINS if self.network == "autoencoder" else IMAGES)
        if not support.ok:
            return support
        if self.targets == "permutations":
            if not task.class_agnostic:
                return Support(False, f"{self.info.name} is for tasks whose sources are all of one class; choose supervised or supervised-sources")
            if task.assignment == "ordered":
                return Support(False, f"{self.info.name} cannot tell sources of one class apart; choose a task under the best assignment")
            return Support(task.n_sources <= _MOST_PERMUTED, f"{task.n_sources} sources have too many orders" if task.n_sources > _MOST_PERMUTED else "")
        if len(set(task.source_classes)) < task.n_sources:
            return Support(False, f"{self.info.name} tells sources by their classes, and this task has two of one class; choose supervised-pit")
        if self.targets == "observed" and task.n_sources != 2:
            return Support(False, f"{self.info.name} has one mask, for two sources; choose supervised-sources for {task.n_sources}")
        return Support(True)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn the masks. The fit continues from the checkpoints in ``ctx.cache``, if there are any."""
        signals = parts_of(ctx.task)
        parts = [signals.source(view.sources(slot, self.samples), slot) for slot in self._order(ctx.task)]
        recipe = MaskRecipe(self.lr, batch=self.batch, power=self.power, precision=self.fit_precision, seed=ctx.seed)
        network = new_network(self._layout(ctx.task), ctx.seed, ctx.device)
        training = SupervisedTraining(network, recipe, LOSSES[self.targets], parts, cut_epochs(self.epochs, ctx.budget), self.decay)
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._network = network

    def save(self, folder: Path) -> None:
        save_network(self._fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        self._network = load_network(self._layout(ctx.task), folder / _FILE, ctx.device)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, K, ...)`` that explain them.

        For images, each estimate is between 0 and the mixture over the weight of its source.
        """
        return parts_of(ctx.task).estimates(masks_for(self._fitted()), mixtures, self._order(ctx.task), ctx)

    def _fitted(self) -> MaskNetwork:
        if self._network is None:
            raise ValueError("fit() or load() first")
        return self._network

    def _layout(self, task: TaskSpec) -> MaskLayout:
        return mask_layout(self.network, parts_of(task).shape, masks=1 if self.targets == "observed" else task.n_sources)

    def _order(self, task: TaskSpec) -> list[int]:
        """The slots in the network's order.

        With one mask its source comes first: the observed source, or the last one if the task has no observed source.
        """
        slots = list(range(task.n_sources))
        if self.targets != "observed":
            return slots
        known = slots[-1] if task.observed_source is None else task.observed_source
        return [known, *(slot for slot in slots if slot != known)]


class SupervisedTraining(MaskTraining):
    """Regression on sums of true parts, paired anew in every epoch.

    Args:
        network, recipe, loss: see ``MaskTraining``.
        parts: K tensors ``(N_k, C, H, W)``. An epoch has as many batches as the smallest one fills.
        epochs: length of the run.
        decay: the share of the steps, at the end, over which the rate falls to zero.
    """

    def __init__(self, network: MaskNetwork, recipe: MaskRecipe, loss: Loss, parts: list[torch.Tensor], epochs: int, decay: float) -> None:
        super().__init__(network, recipe, loss)
        self.parts = [part.to(self.device) for part in parts]
        self.batches = full_batches(recipe.batch, *map(len, parts))
        self.steps = epochs * self.batches
        self.falling = max(1.0, decay * self.steps)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Make one batch: row i of every source's own permutation makes mixture i."""
        epoch, batch = divmod(self.step, self.batches)
        chosen = [part[self.rows(f"source {number}", epoch, batch, len(part))] for number, part in enumerate(self.parts)]
        self.update(torch.stack(chosen, 1), min(1.0, (self.steps - self.step) / self.falling))
        self.step += 1


PRESETS: Mapping[str, type[SupervisedMask]] = presets(
    SupervisedMask,
    {
        "supervised-long": Preset(
            "Supervised mask, 150 epochs",
            _PAPER,
            "supervised for 150 epochs instead of 50; the paper does not state their number.",
            {"epochs": 150},
        ),
        "supervised-unet": Preset(
            "Supervised mask, U-Net",
            f"after {_PAPER}; the network and squared errors are ours",
            "supervised with the U-Net of our score priors and squared errors.",
            {"network": "unet", "power": 2},
            domains=IMAGES,
        ),
        "supervised-sources": Preset(
            "Supervised masks of all classes",
            f"after {_PAPER}; a mask for each class is ours",
            "A mask for each class, learnt from all training samples of all classes.",
            {"targets": "classes", "samples": None},
        ),
        "supervised-pit": Preset(
            "Supervised masks, permutation-invariant",
            "masks of Halperin, Ephrat and Hoshen 2018; loss of Yu, Kolbaek, Tan and Jensen 2017, sec. 2.2",
            "Sources of one class: each mixture's best assignment counts.",
            {"targets": "permutations", "samples": None},
        ),
    },
)
"""The registered names of supervised masks: one network, other targets."""
