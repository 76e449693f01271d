"""A generator of clean signals, learnt against a discriminator: the fit of ``s-d``.

It follows Kong et al., "Single-channel signal separation and deconvolution with generative adversarial networks"
(IJCAI 2019), after Goodfellow et al. (2014) and DCGAN (Radford, Metz and Chintala 2016)::

    discriminator:  mean -log D(x) + mean -log(1 - D(G(z)))
    generator:      mean -log D(G(z))                           z ~ N(0, I)

The paper or the released code states the networks, weights uniform with a standard deviation of 0.02, Adam (2e-4; 0.5,
0.999), batches of 128 without the partial one of an epoch, 10,001 iterations and 50,000 images. They do not state the
rest, and three choices are ours. Clean and generated images pass the discriminator separately, as DCGAN does for its
batch norm. The generator learns after the discriminator, from the same codes. Batch norm begins with scale 1 and shift
0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from baselines.networks.dcgan import DCGANDiscriminator, DCGANGenerator, sd_discriminator, sd_generator
from baselines.training.config import generator
from baselines.training.epochs import MeanLoss, cut_epochs, epoch_rows, full_batches
from baselines.training.loop import resume, run
from sepbench.precision import has_narrow_map, training_autocast
from sepbench.protocols import RunContext, TrainingView
from sepbench.settings import STRICT

Precision = Literal["float32", "bfloat16"]
DEVIATION = 0.02
"""Standard deviation of the weights at the start."""
_FILE = "generator.safetensors"


@plain_dataclass(frozen=True, slots=True)
class GANRecipe:
    """How the two networks are trained. The defaults are the paper's.

    Attributes:
        steps: updates of each network.
        lr, betas: of Adam, for both.
        batch: clean images per step, and codes per step.
        precision: ``bfloat16`` computes both networks under autocast, unless a CPU would get them wrong.
        seed: of weights, order and codes.
    """

    steps: int = 10_001
    lr: float = 2e-4
    betas: tuple[float, float] = (0.5, 0.999)
    batch: int = 128
    precision: Precision = "bfloat16"
    seed: int = 0


def new_networks(latent: int, shape: tuple[int, ...], seed: int, device: str | torch.device) -> tuple[DCGANGenerator, DCGANDiscriminator]:
    """Generator and discriminator for images ``(C, H, W)``. Their weights depend only on the seed.

    Args:
        latent: dimension of a code.
        shape: ``(C, H, W)``.
        seed: of the weights.
        device: where to put them.
    """
    with torch.random.fork_rng(devices=[]):  # torch draws its own first weights here; the loop below overwrites them
        made, critic = sd_generator(latent, shape), sd_discriminator(shape)
    random = generator(seed, "weights")
    bound = math.sqrt(3.0) * DEVIATION
    for module in [*made.modules(), *critic.modules()]:
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.uniform_(module.weight, -bound, bound, generator=random)
    return made.to(device), critic.to(device)


class GANTraining:
    """Training of generator and discriminator: see the top of this file. It is a ``baselines.training.loop.Training``.

    Args:
        made: the generator, trained in place.
        critic: the discriminator, trained in place.
        recipe: see ``GANRecipe``.
        images: clean images ``(N, C, H, W)`` in [0, 1].

    Raises:
        SepbenchError: there are fewer images than a batch needs.
    """

    def __init__(self, made: DCGANGenerator, critic: DCGANDiscriminator, recipe: GANRecipe, images: torch.Tensor) -> None:
        self.made, self.critic, self.recipe = made, critic, recipe
        self.device = next(made.parameters()).device
        self.images = images.to(self.device)
        self.of_made = torch.optim.Adam(made.parameters(), lr=recipe.lr, betas=recipe.betas)
        self.of_critic = torch.optim.Adam(critic.parameters(), lr=recipe.lr, betas=recipe.betas)
        self.batches = full_batches(recipe.batch, len(images))
        self.step = 0
        self.seconds = 0.0
        self.losses = {"loss": MeanLoss(self.device), "generator": MeanLoss(self.device)}

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps

    @property
    def fraction(self) -> float:
        return self.step / self.recipe.steps

    def advance(self) -> None:
        """Make one update of the discriminator and one of the generator, on the same codes."""
        recipe = self.recipe
        epoch, batch = divmod(self.step, self.batches)
        rows = epoch_rows(recipe.seed, "clean", epoch, batch, recipe.batch, len(self.images), self.device)
        codes = torch.randn(recipe.batch, self.made.latent, generator=generator(recipe.seed, "codes", self.step)).to(self.device)
        self.made.train()
        self.critic.train()
        with self._autocast():
            images = self.made(codes)
        self._judge(self.images[rows], images.detach())
        self._fool(images)
        self.step += 1

    def _judge(self, clean: torch.Tensor, images: torch.Tensor) -> None:
        """Update the discriminator.

        With d the value before its sigmoid, ``-log D`` is ``softplus(-d)``, and ``-log(1 - D)`` is ``softplus(d)``.
        """
        self.of_critic.zero_grad(set_to_none=True)
        with self._autocast():
            of_clean, of_images = self.critic(clean), self.critic(images)
        loss = functional.softplus(-of_clean.float()).mean() + functional.softplus(of_images.float()).mean()
        loss.backward()
        self.of_critic.step()
        self.losses["loss"].add(loss)

    def _fool(self, images: torch.Tensor) -> None:
        """Update the generator against the updated discriminator."""
        self.of_made.zero_grad(set_to_none=True)
        self.critic.requires_grad_(False)
        with self._autocast():
            of_images = self.critic(images)
        loss = functional.softplus(-of_images.float()).mean()
        loss.backward()
        self.critic.requires_grad_(True)
        self.of_made.step()
        self.losses["generator"].add(loss)

    def _autocast(self) -> torch.autocast:
        """The maps of the generator are squares of at least 4 x 4, so that the discriminator alone can have a narrow one."""
        narrow = has_narrow_map(self.critic.size, self.critic.halvings)
        return training_autocast(self.device, self.recipe.precision == "bfloat16", narrow=narrow)

    def row(self) -> Mapping[str, Any]:
        """``loss`` of the discriminator and ``generator``, the generator's loss: means since the last row.

        Raises:
            SepbenchError: one is not finite.
        """
        return {name: value for name, losses in self.losses.items() for value in losses.take(self.step).values()}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {
            "made": self.made.state_dict(),
            "critic": self.critic.state_dict(),
            "of_made": self.of_made.state_dict(),
            "of_critic": self.of_critic.state_dict(),
            "losses": {name: losses.state() for name, losses in self.losses.items()},
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        self.made.load_state_dict(state["made"])
        self.critic.load_state_dict(state["critic"])
        self.of_made.load_state_dict(state["of_made"])
        self.of_critic.load_state_dict(state["of_critic"])
        for name, losses in self.losses.items():
            losses.restore(state["losses"][name])


@dataclass(config=STRICT)
class LearntGenerator:
    """``fit``, ``save`` and ``load`` of a method that only needs a generator of clean signals, and their settings.

    Budget ``quick`` makes a tenth of the steps, rounded up.
    """

    latent: int = Field(100, ge=1, description="dimension of a code")
    steps: int = Field(10_001, ge=1, description="updates of generator and discriminator")
    lr: float = Field(2e-4, gt=0, description="Adam's rate, of both networks")
    batch: int = Field(128, ge=2, description="clean images per step, and codes per step")
    samples: int = Field(50_000, ge=2, description="how many clean images the fit learns from (the first ones)")
    fit_precision: Precision = Field("bfloat16", description="of the networks during the fit (float32 on CPUs without it); mixtures are separated in float32")

    _generator: DCGANGenerator | None = field(default=None, init=False, repr=False)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Train. The fit continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            SepbenchError: there are fewer images than a batch needs, or a loss is not finite.
        """
        recipe = GANRecipe(cut_epochs(self.steps, ctx.budget), self.lr, batch=self.batch, precision=self.fit_precision, seed=ctx.seed)
        made, critic = new_networks(self.latent, ctx.task.source_shape, ctx.seed, ctx.device)
        training = GANTraining(made, critic, recipe, view.clean(self.samples))
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._generator = made.eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the generator's weights and the statistics of its batch norm."""
        save_file({name: value.detach().cpu().contiguous() for name, value in self.fitted().state_dict().items()}, folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read what ``save`` wrote."""
        made = new_networks(self.latent, ctx.task.source_shape, 0, "cpu")[0]
        made.load_state_dict(load_file(folder / _FILE))
        self._generator = made.to(ctx.device).eval().requires_grad_(False)

    def fitted(self) -> DCGANGenerator:
        """The generator in evaluation mode: codes ``(B, latent)`` to images ``(B, C, H, W)`` in [0, 1].

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        if self._generator is None:
            raise ValueError("fit() or load() first")
        return self._generator
