"""Adversarial masks in training. Halperin, Ephrat and Hoshen 2018, sec. 3 and appendix A.

The paper is "Neural separation of observed and unobserved distributions". ``am`` uses this training, and NES can start
from it.

A mask network turns a mixture into ``y m(y)``. A discriminator with spectral norm tells ``y m(y)`` from clean samples
b by least squares (LSGAN, Mao et al. 2017)::

    discriminator:   mean (D(b) - 1)^2 + mean D(y m(y))^2
    mask network:    mean (D(y m(y)) - 1)^2 + weight * mean |m(y) - 1|

The last term keeps the mask as open as possible. Without it, a mask that passes only a small part of b would also fool
the discriminator.
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
"""Epochs, rate, weight of ``mean |m - 1|`` and filters of the discriminator.

The last two are the paper's. It does not state the others: the rate is DCGAN's, and the epochs are ours.
"""


def new_discriminator(network: MaskNetwork, size: tuple[int, int], seed: int, device: str | torch.device, filters: int = FILTERS) -> DCGANDiscriminator:
    """A discriminator as deep as the mask network, if the shorter side of the images allows it. Its weights depend only on the seed.

    Args:
        network: the mask network.
        size: ``(H, W)`` of the images.
        seed: of the weights.
        device: where to put it.
        filters: of the first layer.
    """
    config = network.config
    layers = min(config.layers, min(size).bit_length() - 1)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "discriminator"))
        return egg_discriminator(config.channels, size, layers, filters).to(device)


class AdversarialTraining(MaskTraining):
    """Adversarial training. A step is one update of the discriminator and one of the mask network, on the same batch.

    Args:
        network, recipe: see ``MaskTraining``. The discriminator has its own Adam with the same rate and betas.
        clean: parts ``(M, C, H, W)`` of the observed source.
        mixed: training mixtures ``(N, C, H, W)``.
        epochs: length of the run.
        openness: weight of ``mean |m - 1|``.

    Raises:
        SepbenchError: there are fewer samples or mixtures than a batch needs.
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
        """Make one step."""
        epoch, batch = divmod(self.step, self.batches)
        clean = self.clean[self.rows("B", epoch, batch, len(self.clean))]
        mixed = self.mixed[self.rows("Y", epoch, batch, len(self.mixed))]
        self.network.train()
        with self.autocast((mixed.shape[-2], mixed.shape[-1])):
            masks = masks_of(self.network, mixed)
        self._judge(clean, mixed * masks.detach())
        self._fool(mixed, masks)
        self.step += 1

    def _judge(self, clean: torch.Tensor, masked: torch.Tensor) -> None:
        """Update the discriminator, in float32: iterations find the spectral norm, and bfloat16 would blur them."""
        self.critic.zero_grad(set_to_none=True)
        loss = (self.discriminator(clean) - 1.0).square().mean() + self.discriminator(masked).square().mean()
        loss.backward()
        self.critic.step()

    def _fool(self, mixed: torch.Tensor, masks: torch.Tensor) -> None:
        """Update the mask network against the updated discriminator."""
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
