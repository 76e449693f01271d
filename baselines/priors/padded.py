"""A prior of images for tasks that pad them: ``TaskSpec.padding`` zero pixels on all four sides.

The border of every source is zero, and known to be so. The density of a padded image is therefore that of the image
in its middle, and at every noise level the border has the posterior mean 0 and the score ``-x / sigma^2``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch.nn.functional import pad

from baselines.priors.score_prior import trailing_axes
from sepbench.noise import NoiseSource
from sepbench.protocols import HasDensity, ScorePrior
from sepbench.selection import EstimatesDensity


@dataclass(frozen=True, slots=True)
class PaddedPrior:
    """A prior of images ``(C, H, W)`` as one of images ``(C, H + 2 padding, W + 2 padding)`` with a border of zeros.

    Attributes:
        inner: the prior of the images in the middle.
        padding: pixels of the border on each side, at least 1.
    """

    inner: ScorePrior
    padding: int

    def denoise(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Posterior mean of the clean image given the noisy x, ``(..., C, H + 2 padding, W + 2 padding)``; 0 in the border."""
        return pad(self.inner.denoise(self.middle(x), sigma), [self.padding] * 4)

    def score(self, x: torch.Tensor, sigma: float | torch.Tensor) -> torch.Tensor:
        """Gradient of ``log p_sigma`` at x, ``(..., C, H + 2 padding, W + 2 padding)``; ``-x / sigma^2`` in the border."""
        scores = -x / trailing_axes(sigma, x).square()
        self.middle(scores).copy_(self.inner.score(self.middle(x), sigma))
        return scores

    def middle(self, x: torch.Tensor) -> torch.Tensor:
        """The images without their borders, a view."""
        return x[..., self.padding : -self.padding, self.padding : -self.padding]


@dataclass(frozen=True, slots=True)
class PaddedDensity(PaddedPrior):
    """One whose inner prior has a ``log_prob``."""

    def log_prob(self, x: torch.Tensor) -> torch.Tensor:
        """``log p`` in nats of the images in the middle, ``(M,)`` float64."""
        return cast(HasDensity, self.inner).log_prob(self.middle(x))


@dataclass(frozen=True, slots=True)
class PaddedFlow(PaddedDensity):
    """One whose inner prior estimates its log density by random probes too."""

    def estimated_log_prob(self, x: torch.Tensor, example_ids: torch.Tensor, noise: NoiseSource, *, steps: int, spacing: int) -> torch.Tensor:
        """See ``sepbench.selection.EstimatesDensity``: of the images in the middle."""
        return cast(EstimatesDensity, self.inner).estimated_log_prob(self.middle(x), example_ids, noise, steps=steps, spacing=spacing)


def padded(prior: ScorePrior, own: tuple[int, ...], shape: tuple[int, ...]) -> ScorePrior:
    """A prior of images of shape ``own`` as one of images of ``shape``, with the densities that it has.

    It is the prior itself if both shapes are the same. Otherwise ``shape`` has a border of as many pixels on each side.
    """
    if own == shape:
        return prior
    kind = PaddedFlow if isinstance(prior, EstimatesDensity) else PaddedDensity if isinstance(prior, HasDensity) else PaddedPrior
    return kind(prior, (shape[-1] - own[-1]) // 2)
