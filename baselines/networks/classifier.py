"""A small convolutional classifier of images. It gives features and class probabilities to distances between sets.

The layout follows Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU" (2024), sec. 3. It has a frozen 2x2
whitening layer and three blocks. A block has two 3x3 convolutions with batch norm and GELU, and the first of them is
followed by 2x2 max pooling. The features are the mean over the last map instead of its maximum. One linear layer takes
them to the classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

PATCH = 2
SMALLEST_SIDE = 18
"""The smallest side of an image, in pixels. Three poolings leave one."""


@dataclass(frozen=True, slots=True)
class ClassifierConfig:
    """Layout of a ``SmallClassifier``.

    Attributes:
        channels: image channels C.
        widths: feature channels of the three blocks. The last is the number F of features.
        classes: number of classes, at least 2.

    Raises:
        ValueError: a number is too small.
    """

    channels: int = 3
    widths: tuple[int, int, int] = (64, 256, 256)
    classes: int = 10

    def __post_init__(self) -> None:
        if self.channels < 1 or self.classes < 2 or min(self.widths) < 1:
            raise ValueError(f"channels and widths must be positive and classes at least 2, got {self}")


class PoolingBlock(nn.Module):
    """3x3 convolution, 2x2 max pooling, norm, GELU; 3x3 convolution, norm, GELU.

    It takes ``(B, C, H, W)`` to ``(B, width, H // 2, W // 2)``.
    """

    def __init__(self, width_in: int, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width_in, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(width)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.first_norm(F.max_pool2d(self.first(x), 2)))
        return F.gelu(self.second_norm(self.second(x)))


class SmallClassifier(nn.Module):
    """The classifier: see the top of this file.

    It takes images ``(B, C, H, W)`` in [0, 1] with sides of at least 18 pixels.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        patch_size = config.channels * PATCH**2
        self.whiten = nn.Conv2d(config.channels, 2 * patch_size, PATCH)
        self.whiten.weight.requires_grad_(False)
        first, second, third = config.widths
        self.blocks = nn.Sequential(PoolingBlock(2 * patch_size, first), PoolingBlock(first, second), PoolingBlock(second, third))
        self.head = nn.Linear(third, config.classes)

    def whiten_by(self, images: torch.Tensor, floor: float = 5e-4) -> None:
        """Set the frozen first layer from images ``(N, C, H, W)`` in [0, 1].

        Its filters are each eigenvector of the patches' covariance, over the square root of its eigenvalue (plus
        ``floor``), and their negatives.
        """
        patches = F.unfold(images.to(torch.float64), PATCH).transpose(1, 2).flatten(0, 1)
        values, vectors = torch.linalg.eigh(torch.cov(patches.T))
        filters = (vectors / (values + floor).sqrt()).T.reshape(-1, self.config.channels, PATCH, PATCH)
        with torch.no_grad():
            self.whiten.weight.copy_(torch.cat([filters, -filters]))
            bias = -(self.whiten.weight.double() * patches.mean(0).reshape(1, -1, PATCH, PATCH)).sum((1, 2, 3))
            assert self.whiten.bias is not None
            self.whiten.bias.copy_(bias)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Features ``(B, F)``: the mean over the last map."""
        maps: torch.Tensor = self.blocks(self.whiten(images))
        return maps.mean((2, 3))

    def maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The output ``(B, width, H', W')`` of each of the three blocks."""
        made = [self.whiten(images)]
        for block in self.blocks:
            made.append(block(made[-1]))
        return made[1:]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, classes)``."""
        logits: torch.Tensor = self.head(self.features(images))
        return logits
