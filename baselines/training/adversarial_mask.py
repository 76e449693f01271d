"""Adversarial masks in training, for ``am`` and as a start for NES: Halperin, Ephrat and Hoshen, "Neural separation of observed and unobserved distributions"
(2018), sec. 3 and appendix A.

A mask network makes ``y m(y)`` of a mixture; a discriminator with spectral norm tells it from clean samples b by least squares (LSGAN, Mao et al. 2017)::

    discriminator:   mean (D(b) - 1)^2 + mean D(y m(y))^2
    mask network:    mean (D(y m(y)) - 1)^2 + weight * mean |m(y) - 1|

The last term keeps the mask as open as it may be: a mask that lets nothing but a small part of b through would fool the discriminator too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from baselines.networks.dcgan import DCGANDiscriminator, egg_discriminator
from baselines.training.config import derived_seed
from baselines.training.epochs import full_batches
from baselines.training.mask import MaskNetwork, MaskRecipe, MaskTraining, masks_of

EPOCHS, RATE, OPENNESS, FILTERS = 50, 2e-4, 1.0, 64
"""Epochs and rate are not stated: the rate is DCGAN's, the epochs are ours. The weight of ``mean |m - 1|`` and the discriminator's filters are the paper's."""


def new_discriminator(network: MaskNetwork, size: tuple[int, int], seed: int, device: str | torch.device, filters: int = FILTERS) -> DCGANDiscriminator:
    """A discriminator as deep as the mask network, its weights drawn from the seed alone."""
    config = network.config
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "discriminator"))
        return egg_discriminator(config.channels, size, config.layers, filters).to(device)


class AdversarialTraining(MaskTraining):
    """A step is one update of the discriminator and one of the mask network, on the same batch.

    Args:
        network, recipe: see ``MaskTraining``; the discriminator has an Adam of its own with the same rate and betas.
        clean: parts ``(M, C, H, W)`` of the observed source.
        mixed: training mixtures ``(N, C, H, W)``.
        epochs: length of the run.
        openness: weight of ``mean |m - 1|``.
    """

    def __init__(self, network: MaskNetwork, recipe: MaskRecipe, clean: torch.Tensor, mixed: torch.Tensor, epochs: int, openness: float = OPENNESS) -> None:
        super().__init__(network, recipe)
        self.clean, self.mixed, self.openness = clean.to(self.device), mixed.to(self.device), openness
        height, width = mixed.shape[-2:]
        self.discriminator = new_discriminator(network, (height, width), recipe.seed, self.device)
        self.critic = torch.optim.Adam(self.discriminator.parameters(), lr=recipe.lr, betas=recipe.betas)
        self.batches = full_batches(recipe.batch, len(clean), len(mixed))
        self.steps = epochs * self.batches

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """One batch."""
        epoch, batch = divmod(self.step, self.batches)
        clean = self.clean[self.rows("B", epoch, batch, len(self.clean))]
        mixed = self.mixed[self.rows("Y", epoch, batch, len(self.mixed))]
        self.network.train()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            masks = masks_of(self.network, mixed)
        self._judge(clean, mixed * masks.detach())
        self._fool(mixed, masks)
        self.step += 1

    def _judge(self, clean: torch.Tensor, masked: torch.Tensor) -> None:
        """The discriminator's update. In float32: the spectral norm is found by iterations that bfloat16 would blur."""
        self.critic.zero_grad(set_to_none=True)
        loss = (self.discriminator(clean) - 1.0).square().mean() + self.discriminator(masked).square().mean()
        loss.backward()
        self.critic.step()

    def _fool(self, mixed: torch.Tensor, masks: torch.Tensor) -> None:
        """The mask network's update, against the discriminator as it is now."""
        self.discriminator.requires_grad_(False)
        self.descend((self.discriminator(mixed * masks) - 1.0).square().mean() + self.openness * (masks - 1.0).abs().mean())
        self.discriminator.requires_grad_(True)

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {**super().state(), "discriminator": self.discriminator.state_dict(), "critic": self.critic.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        super().restore(state)
        self.discriminator.load_state_dict(state["discriminator"])
        self.critic.load_state_dict(state["critic"])
