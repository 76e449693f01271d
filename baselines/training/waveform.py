"""Networks from waveform to waveforms, in use and in training: what ``conv-tasnet`` and ``demucs`` share.

Everything here is in *parts*. A part is a source times its weight in the mixture, so true parts add up to the mixture.
Every step makes new mixtures. Each source has its own stream of permutations, and row i of all streams makes mixture
i. Each signal is cut at a random place, and has a random sign and gain (Defossez et al. 2019, sec. 5.2: shift, sign,
scale and pairing across songs). Channels are not swapped, because the suites are mono. Pitch and tempo do not change.
A network sees mixtures of root mean square 1, and its parts are scaled back to the mixture's level. This scaling is
ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.training.config import batch_indices, derived_seed, generator
from baselines.training.epochs import MeanLoss
from baselines.training.mask import Precision
from sepbench.precision import training_autocast
from sepbench.protocols import Support, TaskSpec, TrainingRows, TrainingView

Errors = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""A function from estimated and true parts ``(..., C, T)`` to errors ``(...)``.

The axes before channels and time broadcast.
"""

Network = TypeVar("Network", bound=nn.Module)
_SILENCE = 1e-5
"""Mixtures with a higher root mean square are scaled to 1. Quieter ones are silence, and are not scaled."""
_MOST_PERMUTED = 5
_DEVICE_SAMPLES = 1 << 23
"""Samples (over channels and mixtures) that a GPU separates at a time: 128 chunks of 3 s at 22,050 Hz.

A CPU takes one mixture at a time, so its estimates are the same to the bit, whatever else is in the batch.
"""


# ---- the network in use ---------------------------------------------------------------------------------------------------------------


def new_network(make: Callable[[], Network], seed: int, device: str | torch.device = "cpu") -> Network:
    """A network whose first weights depend only on the seed."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "weights"))
        return make().to(device)


def levels_of(mixtures: torch.Tensor) -> torch.Tensor:
    """Root mean square ``(B, 1, 1)`` of each mixture ``(B, C, T)``; 1 for silence."""
    level = mixtures.square().mean((1, 2), keepdim=True).sqrt()
    return torch.where(level > _SILENCE, level, 1.0)


def separated_parts(network: nn.Module, mixtures: torch.Tensor) -> torch.Tensor:
    """Mixtures ``(B, C, T)`` to parts ``(B, K, C, T)``, always in float32.

    With fewer digits the size of a batch would change the result. If a mixture has a sample that is not finite, its
    parts are NaN, and the other mixtures are not affected. Silence has silent parts.
    """
    network.eval()
    rows = 1 if mixtures.device.type == "cpu" else max(1, _DEVICE_SAMPLES // max(1, mixtures.shape[1:].numel()))
    finite = mixtures.isfinite().flatten(1).all(1)[:, None, None]
    heard = torch.where(finite, mixtures, 0.0)
    levels = levels_of(heard)
    with torch.no_grad():
        parts = torch.cat([network(chunk) for chunk in (heard / levels).split(rows)]) * levels.unsqueeze(1)
    silent = (heard == 0).flatten(1).all(1)[:, None, None, None]
    return torch.where(finite.unsqueeze(1), torch.where(silent, 0.0, parts), torch.nan)


def waveform_orders(task: TaskSpec, method: str) -> Support:
    """Whether a network can order its K outputs as a task wants: by class, or in any order if classes repeat."""
    if not repeats_a_class(task):
        return Support(True)
    if task.assignment == "ordered":
        return Support(
            False, f"{method} tells sources by their classes, and this task wants two of one class in order; choose a task under the best assignment"
        )
    return Support(task.n_sources <= _MOST_PERMUTED, f"{task.n_sources} sources have too many orders" if task.n_sources > _MOST_PERMUTED else "")


def repeats_a_class(task: TaskSpec) -> bool:
    """Whether two sources are of one class, so a loss must take them in any order."""
    return len(set(task.source_classes)) < task.n_sources


def save_network(network: nn.Module, path: Path) -> None:
    """Write the weights."""
    save_file({name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}, path)


def load_network(make: Callable[[], Network], path: Path, device: str) -> Network:
    """Read the network that ``save_network`` wrote. It must have the same layout."""
    network = new_network(make, 0)
    network.load_state_dict(load_file(path))
    return network.to(device)


# ---- losses ---------------------------------------------------------------------------------------------------------------------------


def absolute_errors(parts: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1: the mean absolute error ``(...)`` of parts ``(..., C, T)``."""
    return (parts - truth).abs().mean((-2, -1))


def negative_sdr(parts: torch.Tensor, truth: torch.Tensor, floor: float = 1e-3) -> torch.Tensor:
    """``-10 log10(|s|^2 / |s - e|^2)`` in dB, ``(...)``.

    ``floor`` times the number of samples is added to both powers. Mixtures have a mean square of 1. So silence in a
    source and errors below -30 dB of the mixture do not count.
    """
    least = floor * truth.shape[-2] * truth.shape[-1]
    signal, error = truth.square().sum((-2, -1)), (truth - parts).square().sum((-2, -1))
    return 10 * ((error + least).log10() - (signal + least).log10())


def in_order(errors: Errors, parts: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The mean error, with part k against source k: ``(B, K, C, T)`` to a number."""
    return errors(parts, truth).mean()


def in_best_order(errors: Errors, parts: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """The mean over mixtures of the error under each mixture's best assignment: ``(B, K, C, T)`` to a number.

    This is utterance-level permutation-invariant training (Kolbaek et al. 2017).
    """
    pairs = errors(parts.unsqueeze(2), truth.unsqueeze(1))  # (B, K, K): part k against source l
    slots = range(parts.shape[1])
    of_orders = torch.stack([torch.stack([pairs[:, k, order[k]] for k in slots]).mean(0) for order in permutations(slots)])
    return of_orders.amin(0).mean()


# ---- training -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WaveformRecipe:
    """How a network is trained.

    Attributes:
        errors: the loss, from estimated and true parts.
        any_order: each mixture's best assignment counts.
        steps: length of the run.
        batch: mixtures per step.
        segment: the most samples of a mixture.
        lr: Adam's rate.
        decay: the share of the steps, at the end, over which the rate falls to zero.
        clip: the largest norm of a gradient.
        gains: every source is multiplied by a number between these two, drawn uniformly, and by -1 in half of the
            cases.
        precision: ``bfloat16`` computes the network under autocast. Parts, loss and weights stay float32.
        seed: of weights, order and mixtures.
    """

    errors: Errors
    any_order: bool
    steps: int
    batch: int
    segment: int
    lr: float
    decay: float
    clip: float
    gains: tuple[float, float] = (0.25, 1.25)
    precision: Precision = "bfloat16"
    seed: int = 0


class Remixes:
    """The true parts of a step's mixtures. They depend only on the seed and the step.

    Args:
        sources: clean signals of each source slot, ``(C, T)`` each.
        weights: of each source in a mixture; None if they differ between mixtures. Then every whole signal is first
            scaled to the energy of the first source's signal (0 dB, as the suites with gains mix; the view does not
            give the gains).
        recipe: batch, segment, gains and seed.
    """

    def __init__(self, sources: Sequence[TrainingRows], weights: Sequence[float] | None, recipe: WaveformRecipe) -> None:
        self.sources, self.weights, self.recipe = sources, weights, recipe

    def __call__(self, step: int) -> torch.Tensor:
        """Parts ``(B, K, C, segment)`` float32 on the CPU; shorter if the signals are."""
        recipe = self.recipe
        parts: list[torch.Tensor] = []
        for slot, rows in enumerate(self.sources):
            chosen = batch_indices(derived_seed(recipe.seed, "source", slot), step, recipe.batch, len(rows))
            parts.append(rows.load(chosen))
        random = generator(recipe.seed, "mixtures", step)
        loudness = [torch.linalg.vector_norm(part, dim=(1, 2), keepdim=True) for part in parts]
        for slot, part in enumerate(parts):
            weight = self.weights[slot] if self.weights is not None else loudness[0] / loudness[slot].clamp(min=1e-9)
            parts[slot] = weight * self._altered(self._cut(part, random), random)
        return torch.stack(parts, 1)

    def _cut(self, signals: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """A segment of each signal, each from a random place."""
        samples = signals.shape[-1]
        if samples <= self.recipe.segment:
            return signals
        starts = torch.randint(samples - self.recipe.segment + 1, (len(signals),), generator=random).tolist()
        return torch.stack([signal[:, start : start + self.recipe.segment] for signal, start in zip(signals, starts, strict=True)])

    def _altered(self, signals: torch.Tensor, random: torch.Generator) -> torch.Tensor:
        """The signals, each with a random gain and sign."""
        low, high = self.recipe.gains
        gains = low + (high - low) * torch.rand(len(signals), 1, 1, generator=random)
        signs = 2.0 * torch.randint(2, (len(signals), 1, 1), generator=random) - 1.0
        return signals * (gains * signs)


class WaveformTraining:
    """Regression on remixed sources. It is a ``baselines.training.loop.Training``.

    Args:
        network: trained in place, on its device.
        recipe: loss, length, rate, batch, precision, seed.
        remixes: the true parts of each step.
    """

    def __init__(self, network: nn.Module, recipe: WaveformRecipe, remixes: Callable[[int], torch.Tensor]) -> None:
        self.network, self.recipe, self.remixes = network, recipe, remixes
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.Adam(network.parameters(), lr=recipe.lr, fused=True)
        self.step = 0
        self.seconds = 0.0
        self.losses = MeanLoss(self.device)
        self._falling = max(1.0, recipe.decay * recipe.steps)

    @property
    def finished(self) -> bool:
        return self.step >= self.recipe.steps

    @property
    def fraction(self) -> float:
        return self.step / self.recipe.steps

    def advance(self) -> None:
        """Make one step of Adam on new mixtures."""
        recipe = self.recipe
        truth = self.remixes(self.step).to(self.device)
        mixtures = truth.sum(1)
        levels = levels_of(mixtures)
        self.network.train()
        with training_autocast(self.device, recipe.precision == "bfloat16"):
            parts = self.network(mixtures / levels)
        loss = (in_best_order if recipe.any_order else in_order)(recipe.errors, parts.float(), truth / levels.unsqueeze(1))
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), recipe.clip)
        for group in self.optimiser.param_groups:
            group["lr"] = recipe.lr * min(1.0, (recipe.steps - self.step) / self._falling)
        self.optimiser.step()
        self.losses.add(loss)
        self.step += 1

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
        self.optimiser.load_state_dict(state["optimiser"])
        self.losses.restore(state["losses"])


def remix_training(network: nn.Module, view: TrainingView, recipe: WaveformRecipe, weights: Sequence[float] | None) -> WaveformTraining:
    """A training on the clean signals of a view. ``weights`` as in ``Remixes``."""
    rows = [view.rows("sources", slot) for slot in range(view.task.n_sources)]
    return WaveformTraining(network, recipe, Remixes(rows, weights, recipe))
