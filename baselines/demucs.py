"""Demucs. Defossez, Usunier, Bottou and Bach 2019 (arXiv 1911.13254), sec. 4 and 5.

The paper is "Music source separation in the waveform domain".

Supervision: ``sources``.

A U-Net on samples with an LSTM at its bottom (``baselines/networks/demucs.py``) writes the waveform of every source.
Nothing in it makes these add up to the mixture. The paper states the layout, the rescaled first weights, the loss L1
on waveforms, and Adam at 3e-4. It also states the mixtures: sources of different songs, cut, negated and scaled by
0.25 to 1.25 at random. Ours differs in this:

* Two CPU cores train our sizes within the hour. ``demucs-paper`` has the paper's: depth 6, 64 channels at first, 266 M
  parameters.
* The rate is 1e-3 and falls to zero over the last part of a set number of steps, and gradients are clipped, because
  training is short.
* Mixtures have root mean square 1, because a network without normalisation works at one level.
* The loss takes the best permutation if two sources are of one class.
* The rest of the mixture that the estimates do not explain is spread over them (``consistent``).

We left out three things: the average over shifted inputs at test time (sec. 4.4), which makes separation ten times as
slow; pitch and tempo augmentation; and upsampling within the network, which a later version of the paper added.

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

    width: int = Field(24, ge=1, description="channels of the first layer; each further layer doubles them")
    depth: int = Field(5, ge=1, description="layers of the encoder, and of the decoder")
    lstm_layers: int = Field(2, ge=0, description="layers of the LSTM at the bottom; 0: no LSTM")

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
        """Mixtures ``(B, C, T)`` to estimates ``(B, K, C, T)``.

        They explain the mixture exactly if ``consistent`` is set. A mixture that is not finite gets NaN.
        """
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
