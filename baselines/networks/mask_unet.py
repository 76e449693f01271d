"""A modern mask network: the U-Net of our score priors, with a mask at its end. It is ours and no paper's.

So mask and prior have the same layers and differ only in what they learn from, and their rows compare levels of
supervision. The network of Halperin et al. (``baselines/networks/mask_autoencoder.py``) squeezes every picture through
4x4 positions. This one has skips, residual blocks and attention.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from baselines.networks.unet import ScoreUNet, UNetConfig


@dataclass(frozen=True, slots=True)
class MaskUNetConfig:
    """Layout of a ``MaskUNet``.

    Attributes:
        channels: C, of the mixture and of each mask.
        masks: K; 1 gives the mask of one source by a sigmoid, more give K masks that add up to 1 by a softmax.
        widths, blocks, heads: see ``UNetConfig``.
    """

    channels: int = 1
    masks: int = 1
    widths: tuple[int, int, int] = (32, 64, 128)
    blocks: tuple[int, int, int] = (1, 1, 1)
    heads: int = 4

    @property
    def layers(self) -> int:
        """How often the resolution is halved."""
        return 2

    @property
    def extra_rows(self) -> int:
        """See ``MaskConfig``."""
        return 0


class MaskUNet(nn.Module):
    """Masks in [0, 1] of mixtures whose height and width are multiples of 4.

    At the start every mask is 1 / K, and a single mask is 1/2.
    """

    def __init__(self, config: MaskUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.body = ScoreUNet(UNetConfig(config.channels, config.widths, config.blocks, config.heads))
        self.body.head = nn.Conv2d(config.widths[0], config.masks * config.channels, 3, padding=1)
        nn.init.zeros_(self.body.head.weight)
        nn.init.zeros_(self.body.head.bias) if self.body.head.bias is not None else None

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Mixtures ``(B, C, H, W)`` to masks: ``(B, C, H, W)`` for one mask, else ``(B, K, C, H, W)``."""
        no_noise = mixtures.new_zeros(len(mixtures))  # the blocks need a noise label; a constant one only adds a learnt scale and shift
        logits = self.body(mixtures, no_noise)
        if self.config.masks == 1:
            return torch.sigmoid(logits)
        masks: torch.Tensor = logits.unflatten(1, (self.config.masks, self.config.channels)).softmax(1)
        return masks
