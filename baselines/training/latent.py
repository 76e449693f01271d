"""Generative latent optimisation of mixtures, in training and in use. Halperin, Ephrat and Hoshen 2018, sec. 3.

The paper is "Neural separation of observed and unobserved distributions" (GLO masking). It follows Bojanowski et al.,
"Optimizing the latent space of generative networks" (2018). ``glom`` uses this, and NES can start from it.

There are two generators. Every training sample has a code for each generator that it uses. Gradient descent learns the
codes together with the generators, in the unit ball::

    |G_B(z_b) - b|                               for clean samples b
    |G_B(z_yb) + G_X(z_yx) - y|                  for mixtures y

The errors are those of ``baselines/training/perceptual.py``. Training has two stages: first G_B and the codes of clean
samples, then, with G_B fixed, G_X and the codes of mixtures. Or it is joint, and the second line has a weight. The
same descent finds the two codes of a new mixture, with both generators fixed. Everything is in parts: a part is a
generator's image times the weight of its source in a mixture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors.torch import load_file, save_file
from torch import nn

from baselines.networks.dcgan import DCGANGenerator, egg_generator, square_side
from baselines.training.config import derived_seed, generator
from baselines.training.epochs import MeanLoss, cut_epochs, epoch_rows, full_batches
from baselines.training.loop import resume, run
from baselines.training.mask import Precision
from baselines.training.perceptual import ImageError
from sepbench.operators import make_operator
from sepbench.precision import training_autocast
from sepbench.protocols import RunContext, TaskSpec, TrainingView
from sepbench.settings import STRICT

_EMPTY = 1e-3
_FILE = "generators.safetensors"


@plain_dataclass(frozen=True, slots=True)
class LatentRecipe:
    """How generators and codes are trained. The paper states only the unit ball. The rest is ours.

    Attributes:
        latent: dimension of a code.
        epochs: passes over the clean samples and over the mixtures.
        lr, code_lr: Adam's rates of the generators and of the codes.
        betas: of both.
        batch: samples per step.
        joint: minimise both lines of the loss at once instead of in two stages.
        weight: of the mixtures' line, if training is joint.
        perceptual: weight of the classifier's part in all errors, see ``ImageError``.
        precision: ``bfloat16`` computes generators under autocast.
        seed: of weights, codes and order.
    """

    latent: int = 100
    epochs: int = 50
    lr: float = 1e-3
    code_lr: float = 1e-2
    betas: tuple[float, float] = (0.5, 0.999)
    batch: int = 32
    joint: bool = False
    weight: float = 1.0
    perceptual: float = 0.0
    precision: Precision = "bfloat16"
    seed: int = 0


class Generators(nn.Module):
    """G_B and G_X. They turn codes ``(B, latent)`` into parts ``(B, C, H, W)``.

    If a side of the image is no power of two, the image is the middle of the next larger square.

    Args:
        latent: dimension of a code.
        shape: ``(C, H, W)`` of an image.
        weights: of the observed and of the other source in a mixture.
    """

    def __init__(self, latent: int, shape: tuple[int, ...], weights: tuple[float, float]) -> None:
        super().__init__()
        height, width = shape[-2:]
        side = square_side((height, width))
        self.latent, self.weights = latent, weights
        self.both = nn.ModuleList(egg_generator(latent, shape[0], side, size=(height, width)) for _ in range(2))

    def part(self, which: int, codes: torch.Tensor) -> torch.Tensor:
        """The part ``(B, C, H, W)`` float32 of codes ``(B, latent)``, by generator 0 (observed) or 1 (other)."""
        network = self.both[which]
        assert isinstance(network, DCGANGenerator)
        part: torch.Tensor = self.weights[which] * network(codes).float()
        return part


def new_generators(latent: int, shape: tuple[int, ...], weights: tuple[float, float], seed: int, device: str) -> Generators:
    """Generators with torch's default weights, which depend only on the seed.

    The arguments are those of ``Generators``.
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, "generators"))
        return Generators(latent, shape, weights).to(device)


def in_unit_ball(codes: torch.Tensor) -> torch.Tensor:
    """Codes ``(..., latent)``, each moved to the nearest point with z . z <= 1."""
    moved: torch.Tensor = codes / codes.norm(dim=-1, keepdim=True).clamp(min=1.0)
    return moved


def first_codes(count: int, latent: int, *key: object) -> torch.Tensor:
    """Random codes ``(count, latent)`` of about unit length, in the ball. They depend only on ``key``."""
    return in_unit_ball(torch.randn(count, latent, generator=generator(*key)) / math.sqrt(latent))


def shared_out(parts: torch.Tensor, mixtures: torch.Tensor) -> torch.Tensor:
    """Parts ``(B, 2, C, H, W)`` of mixtures ``(B, C, H, W)``, in the ratio of two generated parts ``(B, 2, C, H, W)``.

    If both parts of a pixel are empty, it is shared evenly.
    """
    kept = parts + _EMPTY
    return mixtures.unsqueeze(1) * kept / kept.sum(1, keepdim=True)


class LatentTraining:
    """Training of generators and codes: see the top of this file. It is a ``baselines.training.loop.Training``.

    Args:
        generators: trained in place.
        recipe: see ``LatentRecipe``.
        clean: parts ``(M, C, H, W)`` of the observed source.
        mixed: training mixtures ``(N, C, H, W)``.

    Raises:
        SepbenchError: there are fewer samples or mixtures than a batch needs.
    """

    def __init__(self, generators: Generators, recipe: LatentRecipe, clean: torch.Tensor, mixed: torch.Tensor) -> None:
        self.generators, self.recipe = generators, recipe
        self.device = next(generators.parameters()).device
        self.clean, self.mixed = clean.to(self.device), mixed.to(self.device)
        self.error = ImageError(recipe.perceptual, self.device)
        sizes = {"b": len(clean), "yb": len(mixed), "yx": len(mixed)}
        self.codes = {
            name: nn.Embedding.from_pretrained(first_codes(count, recipe.latent, recipe.seed, "codes", name), freeze=False, sparse=True).to(self.device)
            for name, count in sizes.items()
        }
        self.of_generators = torch.optim.Adam(generators.parameters(), lr=recipe.lr, betas=recipe.betas)
        # If a code is not in the batch, neither it nor its momentum moves.
        self.of_codes = torch.optim.SparseAdam([codes.weight for codes in self.codes.values()], lr=recipe.code_lr, betas=recipe.betas)
        if recipe.joint:
            self.first, self.batches = 0, full_batches(recipe.batch, len(clean), len(mixed))
        else:
            self.first, self.batches = recipe.epochs * full_batches(recipe.batch, len(clean)), full_batches(recipe.batch, len(mixed))
        self.steps = self.first + recipe.epochs * self.batches
        self.step = 0
        self.seconds = 0.0
        self.losses = MeanLoss(self.device)

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Make one step: a batch of the first stage, of the second, or of both at once."""
        observed, other = self.generators.both
        if self.step < self.first:
            observed.train()
            self._descend(self._clean_error(*divmod(self.step, full_batches(self.recipe.batch, len(self.clean)))))
        else:
            epoch, batch = divmod(self.step - self.first, self.batches)
            other.train()
            observed.train(self.recipe.joint).requires_grad_(self.recipe.joint)
            error = self._mixture_error(epoch, batch)
            self._descend(self._clean_error(epoch, batch) + self.recipe.weight * error if self.recipe.joint else error)
        self.step += 1

    def _clean_error(self, epoch: int, batch: int) -> torch.Tensor:
        rows = self._rows("B", epoch, batch, len(self.clean))
        return self.error(self._part(0, "b", rows), self.clean[rows], self.generators.weights[0]).mean()

    def _mixture_error(self, epoch: int, batch: int) -> torch.Tensor:
        rows = self._rows("Y", epoch, batch, len(self.mixed))
        return self.error(self._part(0, "yb", rows) + self._part(1, "yx", rows), self.mixed[rows], sum(self.generators.weights)).mean()

    def _part(self, which: int, name: str, rows: torch.Tensor) -> torch.Tensor:
        codes = self.codes[name](rows)
        with training_autocast(self.device, self.recipe.precision == "bfloat16"):
            return self.generators.part(which, codes)

    def _rows(self, name: str, epoch: int, batch: int, count: int) -> torch.Tensor:
        return epoch_rows(self.recipe.seed, name, epoch, batch, self.recipe.batch, count, self.device)

    def _descend(self, loss: torch.Tensor) -> None:
        self.of_generators.zero_grad(set_to_none=True)
        self.of_codes.zero_grad(set_to_none=True)
        loss.backward()
        moved = [(codes.weight, codes.weight.grad.coalesce().indices()[0]) for codes in self.codes.values() if codes.weight.grad is not None]
        self.of_generators.step()
        self.of_codes.step()
        with torch.no_grad():
            for weight, rows in moved:
                weight[rows] = in_unit_ball(weight[rows])
        self.losses.add(loss)

    def training_parts(self) -> torch.Tensor:
        """The generated parts ``(N, 2, C, H, W)`` of the training mixtures, from their own codes."""
        self.generators.eval()
        names = ("yb", "yx")
        with torch.no_grad():
            batches = [
                torch.stack([self.generators.part(which, self.codes[name].weight[rows]) for which, name in enumerate(names)], 1)
                for rows in torch.arange(len(self.mixed), device=self.device).split(self.recipe.batch)
            ]
        return torch.cat(batches)

    def row(self) -> Mapping[str, Any]:
        """The stage, and the mean loss since the last row.

        Raises:
            SepbenchError: the loss is not finite.
        """
        return {"stage": "joint" if self.recipe.joint else 1 if self.step <= self.first else 2, **self.losses.take(self.step)}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {
            "generators": self.generators.state_dict(),
            "codes": {name: codes.weight.detach() for name, codes in self.codes.items()},
            "of_generators": self.of_generators.state_dict(),
            "of_codes": self.of_codes.state_dict(),
            "losses": self.losses.state(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        self.generators.load_state_dict(state["generators"])
        for name, codes in self.codes.items():
            codes.load_state_dict({"weight": state["codes"][name]})
        self.of_generators.load_state_dict(state["of_generators"])
        self.of_codes.load_state_dict(state["of_codes"])
        self.losses.restore(state["losses"])


def save_generators(generators: Generators, path: Path) -> None:
    """Write the weights and the statistics of batch norm."""
    save_file({name: value.detach().cpu().contiguous() for name, value in generators.state_dict().items()}, path)


def load_generators(latent: int, shape: tuple[int, ...], weights: tuple[float, float], path: Path, device: str) -> Generators:
    """Read the generators that ``save_generators`` wrote. They must have the same layout.

    The arguments are those of ``Generators``. The result is in evaluation mode on ``device``.
    """
    generators = new_generators(latent, shape, weights, 0, "cpu")
    generators.load_state_dict(load_file(path))
    return generators.to(device).eval()


@dataclass(config=STRICT)
class LearntGenerators:
    """``fit``, ``save`` and ``load`` of a method that only needs the two generators, and their settings.

    Budget ``quick`` makes a tenth of the epochs, rounded up.
    """

    latent: int = Field(100, ge=1, description="dimension of a code")
    epochs: int = Field(50, ge=1, description="passes over the clean samples, and over the mixtures")
    lr: float = Field(1e-3, gt=0, description="Adam's rate of the generators")
    code_lr: float = Field(1e-2, gt=0, description="Adam's rate of the codes during the fit")
    joint: bool = Field(False, description="learn both sources at once, instead of the observed one first")
    weight: float = Field(1.0, gt=0, description="lambda, weight of the mixtures, if joint")
    perceptual: float = Field(0.0, ge=0, description="weight of the features of cifarnet, a classifier, beside the pixels; for colour images")
    samples: int = Field(12_000, ge=2, description="how many clean samples, and how many mixtures, the fit learns from (the first ones)")
    batch: int = Field(32, ge=2, description="samples per step")
    fit_precision: Precision = Field("bfloat16", description="of the generators during the fit (float32 on CPUs without it); searches are in float32")

    _generators: Generators | None = field(default=None, init=False, repr=False)

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Learn generators and codes. The fit continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            SepbenchError: there are fewer samples or mixtures than a batch needs, or the loss is not finite.
        """
        recipe = LatentRecipe(
            latent=self.latent,
            epochs=cut_epochs(self.epochs, ctx.budget),
            lr=self.lr,
            code_lr=self.code_lr,
            batch=self.batch,
            joint=self.joint,
            weight=self.weight,
            perceptual=self.perceptual,
            precision=self.fit_precision,
            seed=ctx.seed,
        )
        weights = _weights(ctx.task)
        generators = new_generators(self.latent, ctx.task.source_shape, weights, ctx.seed, ctx.device)
        training = LatentTraining(generators, recipe, weights[0] * view.observed(self.samples), view.mixtures(self.samples))
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=ctx.progress)
        self._generators = generators.eval().requires_grad_(False)

    def save(self, folder: Path) -> None:
        """Write the generators' weights and the statistics of their batch norm."""
        save_generators(self.fitted(), folder / _FILE)

    def load(self, folder: Path, ctx: RunContext) -> None:
        """Read what ``save`` wrote."""
        generators = load_generators(self.latent, ctx.task.source_shape, _weights(ctx.task), folder / _FILE, ctx.device)
        self._generators = generators.requires_grad_(False)

    def fitted(self) -> Generators:
        """The generators in evaluation mode.

        Raises:
            ValueError: ``fit`` or ``load`` was not called.
        """
        if self._generators is None:
            raise ValueError("fit() or load() first")
        return self._generators


def _weights(task: TaskSpec) -> tuple[float, float]:
    """Weights of the observed and of the other source in a mixture."""
    assert task.observed_source is not None  # ``supports`` of the methods checks it
    weights = make_operator(task.operator, task.n_sources).matrix().reshape(-1).tolist()
    return weights[task.observed_source], weights[1 - task.observed_source]
