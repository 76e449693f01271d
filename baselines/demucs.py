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
from typing import ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import estimates_from_parts, part_support, parts_over_weights
from baselines.networks.demucs import Demucs, DemucsConfig
from baselines.training.waveform import Errors, absolute_errors, waveform_orders
from baselines.training.waveform_method import LearntWaveforms
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, Preset, presets

_PAPER = "Defossez, Usunier, Bottou and Bach 2019, sec. 4"


@dataclass(config=STRICT)
class DemucsSeparator(LearntWaveforms):
    """Waveforms of the sources by a U-Net on samples.

    Budget ``quick`` makes a tenth of the steps, rounded up.
    """

    width: int = Field(24, ge=1, description="channels of the first layer; each further one has twice as many")
    depth: int = Field(5, ge=1, description="layers of the encoder, and of the decoder")
    lstm_layers: int = Field(2, ge=0, description="of the bottom; 0 leaves it out")

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
    errors: ClassVar[Errors] = staticmethod(absolute_errors)

    def supports(self, task: TaskSpec) -> Support:
        support = part_support(task, self.info.name, frozenset({"audio"}))
        return waveform_orders(task, self.info.name) if support.ok else support

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``."""
        values = mixtures.values.to(ctx.device)
        parts = self.parts(values)
        return estimates_from_parts(parts, values, mixtures.operator) if self.consistent else parts_over_weights(parts, mixtures.operator)

    def network(self, task: TaskSpec) -> Demucs:
        return Demucs(DemucsConfig(task.n_sources, task.source_shape[0], self.width, self.depth, lstm_layers=self.lstm_layers))


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
