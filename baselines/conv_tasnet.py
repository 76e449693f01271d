"""Conv-TasNet. Luo and Mesgarani, IEEE/ACM Transactions on Audio, Speech, and Language Processing 27(8), 2019.

The paper is "Conv-TasNet: surpassing ideal time-frequency magnitude masking for speech separation".

Supervision: ``sources``.

The network has a learnt transform of the waveform, K masks and a learnt transform back. Dilated convolutions over the
whole transform make the masks (``baselines/networks/conv_tasnet.py``):

    w = relu(U * y),   m_1 .. m_K = sigmoid(TCN(w)),   estimate k = V (w m_k)        (sec. II)

The masks need not add up to 1, and the network's estimates need not add up to the mixture. The paper (sec. III) states
Adam at 1e-3, gradients clipped at norm 5, segments of 4 s, 100 epochs, half the rate when validation stalls, and the
loss -SI-SNR (eq. 12-14) under the best permutation. Ours differs in this:

* Two CPU cores train our sizes within the hour. ``conv-tasnet-paper`` has the paper's best sizes, 5.1 M parameters.
* Every step makes new mixtures (``baselines/training/waveform.py``). The number of steps is set, and the rate falls to
  zero over the last part of them.
* The loss is -SDR. SI-SNR leaves the level of an estimate open. SDR ranks audio here, and it does not forgive a wrong
  level. The loss takes the best permutation only if two sources are of one class. Otherwise output k is the k-th
  class.
* The rest of the mixture that the estimates do not explain is spread over them (``consistent``).

``docs/waveform_methods.md`` has sizes, costs and what else was tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from baselines.decomposition.parts import estimates_from_parts, part_support, parts_over_weights
from baselines.networks.conv_tasnet import ConvTasNet, ConvTasNetConfig
from baselines.training.waveform import Errors, negative_sdr, waveform_orders
from baselines.training.waveform_method import LearntWaveforms
from sepbench.protocols import MethodInfo, Mixtures, RunContext, Support, TaskSpec
from sepbench.settings import STRICT, Preset, presets

_PAPER = "Luo and Mesgarani 2019, sec. II"


@dataclass(config=STRICT)
class ConvTasNetSeparator(LearntWaveforms):
    """Masks on a learnt transform of the waveform.

    Budget ``quick`` makes a tenth of the steps, rounded up.
    """

    filters: int = Field(256, ge=1, description="N, filters of encoder and decoder")
    milliseconds: float = Field(3.0, gt=0, description="length of a filter; L is that many samples, made even")
    bottleneck: int = Field(96, ge=1, description="B, channels between blocks")
    hidden: int = Field(192, ge=1, description="H, channels within a block")
    skip: int = Field(96, ge=1, description="Sc, channels from a block to the masks")
    kernel: Literal[1, 3, 5, 7, 9] = Field(3, description="P, taps of the depthwise convolutions")
    blocks: int = Field(7, ge=1, description="X, blocks of a repeat; dilations double, the first is 1")
    repeats: int = Field(2, ge=1, description="R, repeats of the blocks")
    steps: int = Field(6_000, ge=1, description="updates of the weights")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="conv-tasnet",
        title="Conv-TasNet",
        version="1",
        domains=frozenset({"audio"}),
        supervision="sources",
        paper=_PAPER,
        deterministic=False,
        max_batch_cpu=100,
    )
    errors: ClassVar[Errors] = staticmethod(negative_sdr)

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

    def network(self, task: TaskSpec) -> ConvTasNet:
        length = 2 * max(1, round(self.milliseconds * (task.sample_rate or 1) / 2_000))
        sizes = (self.bottleneck, self.hidden, self.skip, self.kernel, self.blocks, self.repeats)
        return ConvTasNet(ConvTasNetConfig(task.n_sources, task.source_shape[0], self.filters, length, *sizes))


PRESETS: Mapping[str, type[ConvTasNetSeparator]] = presets(
    ConvTasNetSeparator,
    {
        "conv-tasnet-paper": Preset(
            "Conv-TasNet, sizes of the paper",
            f"{_PAPER}, table II",
            "The paper's best sizes, 5.1 M parameters; it wants a GPU.",
            {
                "filters": 512,
                "milliseconds": 2.0,
                "bottleneck": 128,
                "hidden": 512,
                "skip": 128,
                "blocks": 8,
                "repeats": 3,
                "steps": 100_000,
                "batch": 8,
                "segment": 65_536,
                "consistent": False,
            },
        ),
    },
)
"""The registered names of Conv-TasNet: one network, other sizes."""
