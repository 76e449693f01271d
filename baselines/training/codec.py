"""Training of the VQ-VAE that makes the tokens of LASS (``baselines/networks/vqvae.py``).

    loss = r mean (x - D(e))^2 + mean (sg[z] - e)^2 + beta mean (z - sg[e])^2

with z = E(x), e the nearest code, and sg: no gradient. This is van den Oord et al. 2017, eq. (3), with means over
pixels and over the numbers of a latent. Postolache et al. 2023 state Adam at 1e-4, batches of 64 and 500 epochs. They
do not state the rest. Ours are r (1), beta (0.25, van den Oord et al.), the betas of Adam, a rate that falls linearly
to zero at the end, and restarts. A restart replaces a code that was the nearest of no latent in ``restart_every``
steps. A latent of the last batch takes its place (Dhariwal et al. 2020, "Jukebox", sec. 3.1).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

from baselines.networks.vqvae import STRIDE, VQVAE
from baselines.training.config import generator
from baselines.training.epochs import MeanLoss, epoch_rows, full_batches
from sepbench.precision import has_narrow_map, training_autocast

Precision = Literal["float32", "bfloat16"]
_LOOKED_AT = 256
"""How many held-out images the log's figures use."""
_AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class VQVAERecipe:
    """How the network is trained. The defaults are the paper's if the paper states them.

    Attributes:
        epochs: passes over the images.
        batch: images per step.
        lr: Adam's rate.
        decay: share of the steps, at the end, over which the rate falls linearly to zero.
        commitment: beta.
        reconstruction: r. The inverse of the variance of the pixels (10 on MNIST) gives the weights of van den Oord et
            al.'s code.
        restart_every: steps after which an unused code restarts; 0 never restarts one.
        precision: ``bfloat16`` computes encoder and decoder under autocast, unless a CPU would get them wrong.
        seed: of weights, order and restarts.
        means: share of a batch that is replaced with means of two images, in [0, 1). LASS takes tokens of such means,
            and a codec of clean images codes them badly. Of pictures of sounds the means are no pictures of mixtures,
            see ``baselines/training/sound_tokens.py``.
    """

    epochs: int = 500
    batch: int = 64
    lr: float = 1e-4
    decay: float = 0.2
    commitment: float = 0.25
    reconstruction: float = 1.0
    restart_every: int = 100
    precision: Precision = "bfloat16"
    seed: int = 0
    means: float = 0.0


def new_vqvae(shape: tuple[int, ...], codes: int, width: int, seed: int, device: str | torch.device) -> VQVAE:
    """A network for images ``(C, H, W)``. Its weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):  # torch draws its own first weights here; draw_weights overwrites them
        network = VQVAE(shape[0], (shape[1], shape[2]), codes, width)
    network.draw_weights(generator(seed, "vqvae"))
    return network.to(device)


def falling(step: int, steps: int, decay: float) -> float:
    """Share of the rate at a step, in [0, 1]: 1, then linear to zero over the last share ``decay`` of the steps."""
    return min(1.0, (steps - step) / max(1.0, decay * steps))


class VQVAETraining:
    """Training of the codec: see the top of this file. It is a ``baselines.training.loop.Training``.

    Args:
        network: trained in place.
        recipe: see ``VQVAERecipe``.
        images: ``(N, C, H, W)`` in [0, 1].
        held_out: ``(M, C, H, W)``, images that are not trained on, for the figures of the log. The first 256 are used.

    Raises:
        SepbenchError: there are fewer images than a batch needs.
    """

    def __init__(self, network: VQVAE, recipe: VQVAERecipe, images: torch.Tensor, held_out: torch.Tensor) -> None:
        self.network, self.recipe = network, recipe
        self.device = network.codebook.device
        self.images, self.held_out = images.to(self.device), held_out[:_LOOKED_AT].to(self.device)
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr)
        self.batches = full_batches(recipe.batch, len(images))
        self.steps = recipe.epochs * self.batches
        self.step, self.seconds = 0, 0.0
        self.losses = MeanLoss(self.device)
        self.used = torch.zeros(len(network.codebook), dtype=torch.int64, device=self.device)
        self.restarted = 0

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Make one step of Adam, and restart codes when it is time."""
        recipe = self.recipe
        epoch, batch = divmod(self.step, self.batches)
        rows = epoch_rows(recipe.seed, "vqvae-images", epoch, batch, recipe.batch, len(self.images), self.device)
        clean = self._with_means(self.images[rows])
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * falling(self.step, self.steps, recipe.decay)
        self.optimiser.zero_grad(set_to_none=True)
        self.network.train()
        narrow = has_narrow_map((clean.shape[-2], clean.shape[-1]), STRIDE.bit_length() - 1)
        with training_autocast(self.device, recipe.precision == "bfloat16", narrow=narrow):
            coded = self.network(clean)
        loss = recipe.reconstruction * functional.mse_loss(coded.images, clean) + functional.mse_loss(coded.codes, coded.latents.detach())
        loss = loss + recipe.commitment * functional.mse_loss(coded.latents, coded.codes.detach())
        loss.backward()
        self.optimiser.step()
        self.losses.add(loss)
        self.used += torch.bincount(coded.tokens.flatten(), minlength=len(self.used))
        self.step += 1
        if recipe.restart_every and self.step % recipe.restart_every == 0:
            self._restart(coded.latents.detach())

    def _with_means(self, images: torch.Tensor) -> torch.Tensor:
        """The batch, with means of two images in its first rows: each is averaged with the image after it.

        After the last image comes the first. The order is new in every epoch, and so are the pairs.
        """
        count = round(self.recipe.means * len(images))
        if not count:
            return images
        return torch.cat([0.5 * (images[:count] + images.roll(-1, 0)[:count]), images[count:]])

    def _restart(self, latents: torch.Tensor) -> None:
        """Replace the codes that were not used since the last restart with latents from ``(B, D, h, w)``.

        Each code gets another latent. If there are too few latents, the other codes stay.
        """
        dead = (self.used == 0).nonzero().squeeze(1)
        self.used.zero_()
        vectors = latents.movedim(1, -1).flatten(0, -2)
        order = torch.randperm(len(vectors), generator=generator(self.recipe.seed, "restart", self.step)).to(self.device)
        dead = dead[: len(vectors)]
        with torch.no_grad():
            self.network.codebook[dead] = vectors[order[: len(dead)]]
        for moment in ("exp_avg", "exp_avg_sq"):
            self.optimiser.state[self.network.codebook][moment][dead] = 0.0
        self.restarted += len(dead)

    def row(self) -> Mapping[str, Any]:
        """The mean loss since the last row, how many codes were restarted so far, and ``figures`` of held-out images.

        Raises:
            SepbenchError: the loss is not finite.
        """
        return {**self.losses.take(self.step), "restarted": self.restarted, **figures(self.network, self.held_out)}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "losses": self.losses.state(),
            "used": self.used,
            "restarted": self.restarted,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.losses.restore(state["losses"])
        self.used.copy_(state["used"])
        self.restarted = state["restarted"]


@torch.no_grad()
def figures(network: VQVAE, images: torch.Tensor) -> dict[str, float]:
    """How good a codec is on images ``(N, C, H, W)`` in [0, 1] that it did not learn from.

    ``psnr`` is that of the reconstruction in dB (peak 1, mean over images, at most 100). ``codes`` is how many codes
    are used. ``perplexity`` is exp of the entropy of the tokens, at most K. Without images the result is empty. The
    network stays in evaluation mode.
    """
    if not len(images):
        return {}
    tokens = tokens_of(network, images)
    made = torch.cat([network.decode(network.embed(part)) for part in tokens.split(_AT_ONCE)])
    errors = (made - images.to(made.device)).square().flatten(1).mean(1).double().clamp(min=1e-10)
    shares = torch.bincount(tokens.flatten(), minlength=len(network.codebook)).double() / tokens.numel()
    entropy = -(shares * shares.clamp(min=1e-300).log()).sum()
    return {"psnr": round(float(-10 * errors.log10().mean()), 3), "codes": int((shares > 0).sum()), "perplexity": round(float(entropy.exp()), 2)}


def tokens_of(network: VQVAE, images: torch.Tensor) -> torch.Tensor:
    """Tokens ``(N, S)`` int64 of images ``(N, C, H, W)``, on the network's device, computed part by part.

    The network stays in evaluation mode.
    """
    network.eval()
    device = network.codebook.device
    return torch.cat([network.tokens_of(part.to(device)) for part in images.split(_AT_ONCE)])


def network_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights, names and shapes.

    It tells which codec made tokens, whatever the name of its file.
    """
    digest = hashlib.sha256()
    for name, value in network.state_dict().items():
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
