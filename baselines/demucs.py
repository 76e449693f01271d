"""Demucs: Defossez, Usunier, Bottou and Bach, "Music source separation in the waveform domain" (2019, arXiv 1911.13254), sec. 4 and 5.

Supervision: ``sources``.

A U-Net on samples with an LSTM at its bottom (``baselines/networks/demucs.py``) writes the waveform of every source; nothing in it makes them add up to
the mixture. Stated: the layout, the rescaled first weights, the loss L1 on waveforms, Adam at 3e-4, and mixtures of sources of different songs, cut, negated
and scaled by 0.25 to 1.25 at random. Ours:

* sizes that two CPU cores train within the hour; ``demucs-paper`` has the paper's: depth 6, 64 channels at first, 266 M parameters;
* a rate of 1e-3 that falls to zero over the last part of a set number of steps, with gradients clipped: training is short;
* mixtures of root mean square 1, for networks without normalisation have a level that suits them;
* the best permutation in the loss where sources are of one class;
* what the estimates leave of the mixture is spread over them (``consistent``).

Left out: the average over shifted inputs at test time (sec. 4.4), which costs ten times the separation; pitch and tempo augmentation; upsampling within the
network, which came with a later version of the paper.

``docs/waveform_methods.md`` has sizes, costs and what else was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.mask_tasks import part_weights
from baselines.decomposition.parts import estimates_from_parts, part_support, parts_over_weights
from baselines.networks.demucs import Demucs, DemucsConfig
from baselines.training.epochs import cut_epochs
from baselines.training.loop import resume, run
from baselines.training.mask import Precision
from baselines.training.waveform import (
    WaveformRecipe,
    absolute_errors,
    load_network,
    new_network,
    remix_training,
    repeats_a_class,
    save_network,
    separated_parts,
    waveform_orders,
)
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, presets

_FILE = "demucs.safetensors"
_PAPER = "Defossez, Usunier, Bottou and Bach 2019, sec. 4"


@dataclass(config=STRICT)
class DemucsSeparator:
    """Waveforms of the sources by a U-Net on samples.

    Budget ``quick`` makes a tenth of the steps, rounded up.
    """

    width: int = Field(24, ge=1, description="channels of the first layer; each further one has twice as many")
    depth: int = Field(5, ge=1, description="layers of the encoder, and of the decoder")
    lstm_layers: int = Field(2, ge=0, description="of the bottom; 0 leaves it out")
    steps: int = Field(10_000, ge=1, description="updates of the weights")
    batch: int = Field(4, ge=1, description="mixtures per step")
    segment: int = Field(32_768, ge=1, description="the most samples of a training mixture")
    lr: float = Field(1e-3, gt=0, description="Adam's rate")
    decay: float = Field(0.5, gt=0, le=1, description="the share of the steps, at the end, over which the rate falls to zero")
    clip: float = Field(5.0, gt=0, description="largest norm of a gradient")
    consistent: bool = Field(True, description="spread what the estimates leave of the mixture over them; the paper does not")
    fit_precision: Precision = Field("bfloat16", description="of the network while it learns; it separates in float32")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="demucs",
        title="Demucs",
        version="1",
        domains=frozenset({"audio"}),
        supervision="sources",
        paper=_PAPER,
        deterministic=False,
        max_batch_cpu=100,
    )
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    _network: Demucs | None = field(default=None, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name, frozenset({"audio"}))
        return waveform_orders(task, self.info.name) if support.ok else support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn from mixtures made anew in every step, or go on where ``ctx.cache`` stands."""
        recipe = WaveformRecipe(
            absolute_errors,
            any_order=repeats_a_class(ctx.task),
            steps=cut_epochs(self.steps, ctx.budget),
            batch=self.batch,
            segment=self.segment,
            lr=self.lr,
            decay=self.decay,
            clip=self.clip,
            precision=self.fit_precision,
            seed=ctx.seed,
        )
        network = new_network(lambda: Demucs(self._layout(ctx.task)), ctx.seed, ctx.device)
        training = remix_training(network, view, recipe, None if ctx.task.operator == "gain" else part_weights(ctx.task))
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._network = network

    def save(self, folder: Path) -> None:
        save_network(self._fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        self._network = load_network(lambda: Demucs(self._layout(ctx.task)), folder / _FILE, ctx.device)

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``."""
        values = mixtures.values.to(ctx.device)
        parts = separated_parts(self._fitted(), values)
        return estimates_from_parts(parts, values, mixtures.operator) if self.consistent else parts_over_weights(parts, mixtures.operator)

    def _fitted(self) -> Demucs:
        if self._network is None:
            raise ValueError("fit() or load() first")
        return self._network

    def _layout(self, task: TaskSpec) -> DemucsConfig:
        return DemucsConfig(task.n_sources, task.source_shape[0], self.width, self.depth, lstm_layers=self.lstm_layers)


PRESETS: Mapping[str, type[DemucsSeparator]] = presets(
    DemucsSeparator,
    {
        "demucs-paper": Preset(
            "Demucs, sizes of the paper",
            _PAPER,
            "The paper's depth, width and rate, 266 M parameters; it wants a GPU.",
            {"width": 64, "depth": 6, "lr": 3e-4, "steps": 100_000, "batch": 16, "segment": 65_536, "consistent": False},
        ),
    },
)
"""The registered names of Demucs: one network, other sizes."""
