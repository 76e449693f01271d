"""The error of images in GLO masking: absolute differences of pixels, and of a classifier's features.

It is the perceptual loss of Johnson, Alahi and Fei-Fei, "Perceptual losses for real-time style transfer and
super-resolution" (2016), with absolute differences::

    mean |a - b|  +  weight * mean over blocks l of mean |phi_l(a) - phi_l(b)|

The paper of GLO masking takes VGG, trained on ImageNet, for phi. Here phi is ``cifarnet``, a classifier of our own
that ships with sepbench and was trained on the labels of CIFAR-10.
"""

from __future__ import annotations

import torch

from baselines.extractors.classifier_io import load_classifier
from baselines.networks.classifier import SMALLEST_SIDE, SmallClassifier
from baselines.priors.shipped import FOLDER

CLASSIFIER = "cifarnet"


def sees(shape: tuple[int, ...]) -> bool:
    """Whether the classifier takes images ``(C, H, W)``: three channels, and large enough."""
    return shape[0] == 3 and min(shape[-2:]) >= SMALLEST_SIDE


class ImageError:
    """The error of images: see the top of this file.

    Args:
        weight: of the classifier's part; 0 needs no classifier.
        device: where the images are.
        network: a classifier to use instead of ``cifarnet``.
    """

    def __init__(self, weight: float = 0.0, device: str | torch.device = "cpu", network: SmallClassifier | None = None) -> None:
        self.weight = weight
        self.network = None
        if weight > 0:
            self.network = (network or load_classifier(FOLDER / f"{CLASSIFIER}.safetensors")).to(device)

    def __call__(self, made: torch.Tensor, true: torch.Tensor, largest: float = 1.0) -> torch.Tensor:
        """The error ``(B,)`` of images ``(B, C, H, W)``.

        Args:
            made: the images.
            true: the images that they should equal.
            largest: the largest value of a pixel, which the classifier sees as 1.
        """
        error = (made - true).abs().flatten(1).mean(1)
        if self.network is None:
            return error
        with torch.no_grad():
            wanted = self.network.maps(true / largest)
        seen = self.network.maps(made / largest)
        blocks = [(a - b).abs().flatten(1).mean(1) for a, b in zip(seen, wanted, strict=True)]
        return error + self.weight * torch.stack(blocks).mean(0)
