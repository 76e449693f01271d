"""Mask networks in use and in training: what ``supervised``, ``nes`` and methods built on them share.

The model is that of Halperin, Ephrat and Hoshen, "Neural separation of observed and unobserved distributions" (2018),
sec. 3. A network reads the mixture y and gives a mask m(y) in [0, 1]. The estimate of the observed source is T(y) = y
m(y), and the estimate of the other is y - T(y). The loss is L1.

Everything here is in *parts*. A part is a source times its weight in the mixture, so parts add up to the mixture.
Under ``sum`` a part is the source, and under ``mean`` a K-th of it. ``baselines.decomposition.parts`` turns parts into
estimates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

from baselines.networks.mask_autoencoder import MaskAutoencoder, MaskConfig
from baselines.networks.mask_unet import MaskUNet, MaskUNetConfig
from baselines.training.config import derived_seed
from baselines.training.epochs import MeanLoss, epoch_rows
from baselines.training.recorded_step import StepRunner, adam, restore_adam, set_rate
from sepbench.precision import has_narrow_map, training_autocast

Precision = Literal["float32", "bfloat16"]
Network = Literal["autoencoder", "unet"]
MaskLayout = MaskConfig | MaskUNetConfig
MaskNetwork = MaskAutoencoder | MaskUNet
Power = Literal[1, 2]
Loss = Callable[[torch.Tensor, torch.Tensor, Power], torch.Tensor]
"""A function from estimated and true parts ``(B, K, C, H, W)``, and the power of the errors, to a number."""
_INNERMOST = 4


# ---- the network in use ---------------------------------------------------------------------------------------------------------------


def mask_layout(network: Network, shape: tuple[int, ...], masks: int = 1, running_statistics: bool = True) -> MaskLayout:
    """The layout for images ``(C, H, W)``.

    ``autoencoder`` has as many layers as bring the longer side to about 4, at least 2 and at most 4. For MNIST at
    32x32 (and at 28x28, which is padded to it) these are the paper's 3 + 3, and at 64x64 its code's 4 + 4. ``unet`` is
    the same for all sizes. It has no batch norm and no statistics.

    Args:
        network: which of the two.
        shape: ``(C, H, W)``.
        masks: how many masks; 1 leaves the rest of the mixture to the second source.
        running_statistics: batch norm keeps running statistics for use.
    """
    if network == "unet":
        return MaskUNetConfig(shape[0], masks)
    layers = math.ceil(math.log2(max(shape[-2:]) / _INNERMOST))
    return MaskConfig(shape[0], min(max(layers, 2), 4), masks=masks, running_statistics=running_statistics)


def new_network(layout: MaskLayout, seed: int, device: str | torch.device = "cpu") -> MaskNetwork:
    """A network with torch's default weights (the paper names none). They depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "weights"))
        network = MaskUNet(layout) if isinstance(layout, MaskUNetConfig) else MaskAutoencoder(layout)
        return network.to(device)


def padded_size(network: MaskNetwork, size: tuple[int, int]) -> tuple[int, int]:
    """The height and width that images of ``size`` are padded to, which the network's layers divide."""
    (height, width), unit = size, 1 << network.config.layers
    fits = height >= unit and height % unit <= network.config.extra_rows
    return height if fits else height + -height % unit, width + -width % unit


def masks_of(network: MaskNetwork, mixtures: torch.Tensor) -> torch.Tensor:
    """Masks in [0, 1], float32, of mixtures ``(B, C, H, W)``: ``(B, C, H, W)`` for one mask, else ``(B, K, C, H, W)``.

    If the network's layers do not divide a side, zeros pad it evenly on both ends, and the masks are cut back: 28x28
    becomes 32x32.
    """
    height, width = mixtures.shape[-2:]
    more_rows, more_columns = (padded - side for padded, side in zip(padded_size(network, (height, width)), (height, width), strict=True))
    top, left = more_rows // 2, more_columns // 2
    masks: torch.Tensor = network(functional.pad(mixtures, (left, more_columns - left, top, more_rows - top)))
    return masks[..., top : top + height, left : left + width].float()


def masked_parts(network: MaskNetwork, mixtures: torch.Tensor) -> torch.Tensor:
    """Mixtures ``(B, C, H, W)`` to parts ``(B, K, C, H, W)`` that add up to them.

    One mask gives ``(y m, y - y m)``, and K masks give ``y m_k``. For complex mixtures (spectra) the network sees the
    magnitudes, and the parts are complex too.
    """
    masks = masks_of(network, magnitudes(mixtures))
    if network.config.masks > 1:
        return mixtures.unsqueeze(1) * masks
    known = mixtures * masks
    return torch.stack([known, mixtures - known], 1)


def magnitudes(values: torch.Tensor) -> torch.Tensor:
    """Absolute values of spectra; images as they are."""
    return values.abs() if values.is_complex() else values


def separated_parts(network: MaskNetwork, mixtures: torch.Tensor) -> torch.Tensor:
    """``masked_parts`` of a trained network, always in float32.

    With fewer digits the size of a batch would change the result.
    """
    network.eval()
    with torch.no_grad():
        return masked_parts(network, mixtures)


def masks_for(network: MaskNetwork) -> Callable[[torch.Tensor], torch.Tensor]:
    """The masks of a trained network, as ``SignalParts.estimates`` needs them.

    The function takes mixtures ``(B, C, H, W)`` to masks ``(B, K, C, H, W)`` float32, with K = 1 for one mask.
    """

    def masks(mixtures: torch.Tensor) -> torch.Tensor:
        network.eval()
        with torch.no_grad():
            found = masks_of(network, mixtures)
        return found.unsqueeze(1) if network.config.masks == 1 else found

    return masks


def save_network(network: MaskNetwork, path: Path) -> None:
    """Write the weights and the statistics of batch norm."""
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path)


def load_network(layout: MaskLayout, path: Path, device: str) -> MaskNetwork:
    """Read the network that ``save_network`` wrote. It must have the same layout. The result is in evaluation mode."""
    network = new_network(layout, 0)
    network.load_state_dict(load_file(path))
    return network.to(device).eval()


# ---- losses ---------------------------------------------------------------------------------------------------------------------------


def observed_error(parts: torch.Tensor, truth: torch.Tensor, power: Power = 1) -> torch.Tensor:
    """``mean |T(y) - b|``, the paper's loss.

    Only the first part counts. ``power`` 2 squares the errors, here and below.
    """
    return (parts[:, 0] - truth[:, 0]).abs().pow(power).mean()


def mean_error(parts: torch.Tensor, truth: torch.Tensor, power: Power = 1) -> torch.Tensor:
    """The mean error of all parts: absolute, or squared with ``power`` 2."""
    return (parts - truth).abs().pow(power).mean()


def permutation_invariant_error(parts: torch.Tensor, truth: torch.Tensor, power: Power = 1) -> torch.Tensor:
    """The mean over mixtures of the mean error under each mixture's best assignment.

    See Yu et al. 2017, "Permutation invariant training".
    """
    errors = (parts.unsqueeze(2) - truth.unsqueeze(1)).abs().pow(power).flatten(3).mean(3)  # (B, K, K): part k against source l
    slots = range(parts.shape[1])
    of_orders = torch.stack([torch.stack([errors[:, k, order[k]] for k in slots]).mean(0) for order in permutations(slots)])
    return of_orders.amin(0).mean()


# ---- training -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MaskRecipe:
    """How a mask network is trained.

    Attributes:
        lr: Adam's rate.
        betas: Adam's.
        batch: mixtures per step.
        power: of the errors in the loss, 1 for L1.
        precision: ``bfloat16`` computes the network under autocast, unless a CPU would get it wrong. Parts, loss and weights stay float32.
        seed: of weights and order.
    """

    lr: float
    betas: tuple[float, float] = (0.5, 0.999)
    batch: int = 32
    power: Power = 1
    precision: Precision = "bfloat16"
    seed: int = 0


class MaskTraining:
    """The part of ``baselines.training.loop.Training`` that all trainings of mask networks share.

    A subclass decides the number of steps, and what a step does.

    Args:
        network: trained in place, on its device.
        recipe: rate, batch, precision, seed.
        loss: of estimated and true parts.
    """

    def __init__(self, network: MaskNetwork, recipe: MaskRecipe, loss: Loss = observed_error) -> None:
        self.network, self.recipe, self.loss = network, recipe, loss
        self.device = next(network.parameters()).device
        self.optimiser = adam(network.parameters(), recipe.lr, recipe.betas)
        self.step = 0
        self.seconds = 0.0
        self.losses = MeanLoss(self.device)
        # In float32, graphs and eager steps drifted apart on an H100. We do not know why.
        self.steps_on = StepRunner(self._step_on, self.device, may_record=recipe.precision == "bfloat16")

    def restart_optimiser(self) -> None:
        """Start a fresh Adam for the same network."""
        self.optimiser = adam(self.network.parameters(), self.recipe.lr, self.recipe.betas)
        self.steps_on.forget()

    def update(self, truth: torch.Tensor, share: float = 1.0) -> None:
        """Make one step of Adam on the mixtures ``truth.sum(1)``.

        Args:
            truth: true parts ``(B, K, C, H, W)`` on the network's device. For spectra the loss compares magnitudes.
            share: of the recipe's rate.
        """
        self.network.train()
        set_rate(self.optimiser, self.recipe.lr * share)
        self.losses.add(self.steps_on(truth))

    def _step_on(self, truth: torch.Tensor) -> torch.Tensor:
        with self.autocast((truth.shape[-2], truth.shape[-1])):
            parts = masked_parts(self.network, magnitudes(truth.sum(1)))
        return self._down(self.loss(parts, magnitudes(truth), self.recipe.power))

    def autocast(self, size: tuple[int, int]) -> torch.autocast:
        """The block in which the network computes masks of images of this height and width. It is float32 where a map is 1 wide on a CPU."""
        narrow = has_narrow_map(padded_size(self.network, size), self.network.config.layers)
        return training_autocast(self.device, self.recipe.precision == "bfloat16", narrow=narrow)

    def descend(self, loss: torch.Tensor) -> None:
        """Make one step of Adam down a loss, and count the loss for the log."""
        self.losses.add(self._down(loss))

    def _down(self, loss: torch.Tensor) -> torch.Tensor:
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.optimiser.step()
        return loss

    def estimate(self, mixtures: torch.Tensor) -> torch.Tensor:
        """Parts ``(B, K, C, H, W)`` of mixtures ``(B, C, H, W)`` by the present network, in float32."""
        return separated_parts(self.network, mixtures)

    def rows(self, name: str, epoch: int, batch: int, count: int) -> torch.Tensor:
        """Row numbers ``(batch,)`` of a batch, see ``epoch_rows``."""
        return epoch_rows(self.recipe.seed, name, epoch, batch, self.recipe.batch, count, self.device)

    def row(self) -> Mapping[str, Any]:
        """The mean loss since the last row.

        Raises:
            SepbenchError: the loss is not finite.
        """
        return self.losses.take(self.step)

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "losses": self.losses.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        self.network.load_state_dict(state["network"])
        restore_adam(self.optimiser, state["optimiser"])
        self.steps_on.forget()
        self.losses.restore(state["losses"])
