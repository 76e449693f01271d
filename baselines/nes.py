"""Neural Egg Separation. Halperin, Ephrat and Hoshen 2018, algorithm 1.

The paper is "Neural separation of observed and unobserved distributions".

Supervision: ``mixtures+one``.

There are clean samples b of one source and mixtures y = b + x, but no samples of x. The method estimates the x of the
training mixtures ("eggs"), and learns from these estimates, in turns::

    X_0 = C y                                          for all training mixtures y
    for n = 1 .. N:
        for P epochs:
            y' = b_j + x_i,  b_j from B, x_i from X_(n-1), paired at random
            minimise |T(y') - b_j| (L1) over the weights of T, by Adam
        X_n = y - T(y)                                 for all training mixtures y

The masks T(y) = y m(y) are those of ``baselines/training/mask.py``. N = 10, P = 25, C = 0.5.

The network keeps its weights through the outer iterations, and its Adam starts afresh in each. Every epoch permutes B
and X independently and drops the last, partial batch. The re-estimation covers the dropped mixtures with a batch that
overlaps the one before. The released code (8f3a35b) does all this too. Its rate is 1e-3 (``nes-code``), and the
paper's is 0.01 (``nes``). In the code, batch norm also never leaves training mode. So its estimates depend on the
other mixtures of a batch. ``nes-code-test-batch-statistics`` does the same, and so it breaks the contract that
``sepbench validate`` checks.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from pydantic.dataclasses import dataclass
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from baselines.decomposition.mask_signals import parts_of
from baselines.decomposition.mask_tasks import observed_and_other_support, part_weights
from baselines.training.adversarial_mask import EPOCHS, RATE, AdversarialTraining
from baselines.training.config import generator
from baselines.training.epochs import cut_epochs, full_batches
from baselines.training.latent import LatentRecipe, LatentTraining, new_generators, shared_out
from baselines.training.loop import Training, resume, run
from baselines.training.mask import (
    MaskLayout,
    MaskNetwork,
    MaskRecipe,
    MaskTraining,
    Network,
    Power,
    Precision,
    load_network,
    mask_layout,
    masks_for,
    new_network,
    observed_error,
    save_network,
)
from sepbench.errors import MethodError
from sepbench.protocols import Domain, MethodInfo, Mixtures, RunContext, Support, TaskSpec, TrainingView
from sepbench.settings import OF_SIGNALS, STRICT, FitScope, Preset, presets

CONSTANT, RANDOM, ADVERSARIAL, LATENT = "constant", "random", "am", "glom"
IMAGES: frozenset[Domain] = frozenset({"image"})
DOMAINS: frozenset[Domain] = IMAGES | {"audio"}
_ITERATIONS, _EGGS = "iterations", "eggs.safetensors"
_SHARE_OF_START = 0.3
_PAPER = "Halperin, Ephrat and Hoshen 2018, algorithm 1"


@dataclass(config=STRICT)
class NeuralEggSeparation:
    """Masks learnt from clean samples of the observed source and from the method's own estimates of the other source.

    Budget ``quick`` makes a tenth of the epochs in each outer iteration, rounded up: 3 of 25.

    Attributes:
        eggs: after ``fit``, the estimates of the other source in the first ``kept`` training mixtures, at the start
            and after every outer iteration, ``(N + 1, kept, C, H, W)`` on the CPU. For audio these are segments of
            complex spectra.
    """

    iterations: int = Field(10, ge=1, description="N, outer iterations")
    epochs: int = Field(25, ge=1, description="P, epochs in each of them")
    init: str = Field(
        CONSTANT, description="X_0: constant (C y), random (u y, u uniform per pixel), or a safetensors file with a tensor x, an estimate per mixture"
    )
    constant: float = Field(0.5, ge=0, description="C, the other source's share of every pixel at the start, with init constant")
    lr: float = Field(0.01, gt=0, description="Adam's rate")
    decay: float = Field(0.0, ge=0, le=1, description="the share of each outer iteration's steps, at the end, over which the rate falls to zero; 0: never")
    network: Network = Field("autoencoder", description="the paper's autoencoder, or the U-Net of our score priors")
    power: Power = Field(1, description="of the errors in the loss: 1 for the paper's L1, 2 for squared errors")
    samples: int = Field(12_000, ge=2, description="how many clean samples, and how many mixtures, the fit learns from (the first ones)")
    batch: int = Field(32, ge=2, description="mixtures per step")
    fit_precision: Precision = Field("bfloat16", description="of the network during the fit (float32 on CPUs without it); it estimates in float32")
    test_batch_statistics: bool = Field(False, description="batch norm uses the statistics of the batch that it separates; estimates then depend on the batch")
    kept: int = Field(64, ge=0, description="how many training mixtures keep their estimates of every outer iteration")

    info: ClassVar[MethodInfo] = MethodInfo(
        name="nes",
        title="Neural Egg Separation",
        version="1",
        domains=DOMAINS,
        supervision="mixtures+one",
        paper=_PAPER,
        deterministic=False,
    )
    fit_scope: ClassVar[FitScope] = OF_SIGNALS
    eggs: torch.Tensor | None = field(default=None, init=False, repr=False)
    _networks: list[MaskNetwork] = field(default_factory=list, init=False, repr=False)

    def supports(self, task: TaskSpec) -> Support:
        support = observed_and_other_support(task, self.info.name, DOMAINS if self.network == "autoencoder" else IMAGES)
        if support.ok and task.domain == "audio" and self.init not in (CONSTANT, RANDOM):
            return Support(False, f"{self.info.name} of audio starts from init={CONSTANT} or {RANDOM}; {self.init} is for images")
        return support

    def fit(self, view: TrainingView, ctx: RunContext) -> None:
        """Run algorithm 1. It continues from the checkpoints in ``ctx.cache``, if there are any.

        Raises:
            MethodError: the file of ``init`` cannot be used.
        """
        known, other = self._slots(ctx.task)
        signals = parts_of(ctx.task)
        mixed, clean = signals.mixture(view.mixtures(self.samples)), signals.source(view.observed(self.samples), known)
        recipe = MaskRecipe(self.lr, batch=self.batch, power=self.power, precision=self.fit_precision, seed=ctx.seed)
        network = new_network(self._layout(ctx.task), ctx.seed, ctx.device)
        before = _SHARE_OF_START if self.init in (ADVERSARIAL, LATENT) else 0.0
        eggs = self._first_eggs(clean, mixed, ctx)
        training = EggTraining(network, recipe, clean, mixed, eggs, self.iterations, cut_epochs(self.epochs, ctx.budget), self.kept, self.decay)
        resume(training, ctx.cache, ctx.device)
        run(training, ctx.cache, progress=lambda done, text: ctx.progress(before + (1.0 - before) * done, text))
        self._networks = [_with_weights(network, weights) for weights in training.networks]
        self.eggs = signals.as_sources(torch.stack(training.kept_eggs), other)

    def _first_eggs(self, clean: torch.Tensor, mixed: torch.Tensor, ctx: RunContext) -> torch.Tensor:
        """X_0 as parts ``(N, C, H, W)``."""
        if self.init == CONSTANT:
            return self.constant * mixed
        if self.init == RANDOM:
            return torch.rand(mixed.shape, generator=generator(ctx.seed, "eggs")) * mixed
        if self.init in (ADVERSARIAL, LATENT):
            return self._learnt_eggs(clean, mixed, ctx)
        try:
            found = load_file(Path(self.init)).get("x")
        except (OSError, SafetensorError) as error:
            told = str(error).splitlines()[0]
            words = ", ".join((CONSTANT, RANDOM, ADVERSARIAL, LATENT))
            raise MethodError(f"init must be {words} or a safetensors file, got {self.init} ({told})") from error
        if found is None or found.shape != mixed.shape:
            shape = "no tensor x" if found is None else f"x of shape {tuple(found.shape)}"
            raise MethodError(f"{self.init} holds {shape}; an estimate of the other source for each training mixture is {tuple(mixed.shape)}")
        return part_weights(ctx.task)[self._slots(ctx.task)[1]] * found.float()

    def _learnt_eggs(self, clean: torch.Tensor, mixed: torch.Tensor, ctx: RunContext) -> torch.Tensor:
        """X_0 as parts: what ``am`` or ``glom`` with its defaults estimates in the training mixtures.

        It learns in a folder of its own.
        """
        folder = None if ctx.cache is None else ctx.cache / self.init

        def learn(training: Training) -> None:
            resume(training, folder, ctx.device)
            run(training, folder, progress=lambda done, text: ctx.progress(_SHARE_OF_START * done, f"{self.init}: {text}"))

        if self.init == ADVERSARIAL:
            recipe = MaskRecipe(RATE, batch=self.batch, precision=self.fit_precision, seed=ctx.seed)
            network = new_network(mask_layout("autoencoder", ctx.task.source_shape), ctx.seed, ctx.device)
            masks = AdversarialTraining(network, recipe, clean, mixed, cut_epochs(EPOCHS, ctx.budget))
            learn(masks)
            return torch.cat([masks.estimate(batch)[:, 1] for batch in masks.mixed.split(self.batch)])
        latent = LatentRecipe(batch=self.batch, precision=self.fit_precision, seed=ctx.seed)
        latent = replace(latent, epochs=cut_epochs(latent.epochs, ctx.budget))
        known, other = self._slots(ctx.task)
        weights = part_weights(ctx.task)
        generators = new_generators(latent.latent, ctx.task.source_shape, (weights[known], weights[other]), ctx.seed, ctx.device)
        codes = LatentTraining(generators, latent, clean, mixed)
        learn(codes)
        return shared_out(codes.training_parts(), codes.mixed)[:, 1]

    def separate(self, mixtures: Mixtures, ctx: RunContext) -> torch.Tensor:
        """Mixtures ``(B, ...)`` to estimates ``(B, 2, ...)`` that explain them.

        The parts are T(y) and y - T(y). Each estimate is its part over the weight of its source.
        """
        batch = self.batch if self.test_batch_statistics else None
        return parts_of(ctx.task).estimates(masks_for(self._fitted()[-1]), mixtures, list(self._slots(ctx.task)), ctx, batch)

    def after(self, iteration: int) -> NeuralEggSeparation:
        """NES(k): the method as it was after outer iteration 1, 2, ... (figures 2 and 3 of the paper).

        Raises:
            ValueError: there is no such iteration, or nothing is fitted.
        """
        earlier = copy.copy(self)
        earlier._networks = self._fitted()[:iteration]
        if not 1 <= iteration <= len(self._networks):
            raise ValueError(f"outer iterations are 1 to {len(self._networks)}, got {iteration}")
        return earlier

    def save(self, folder: Path) -> None:
        """Write the network after every outer iteration, and the kept estimates."""
        (folder / _ITERATIONS).mkdir()
        for number, network in enumerate(self._fitted()):
            save_network(network, folder / _ITERATIONS / f"{number + 1:03d}.safetensors")
        assert self.eggs is not None
        save_file({"x": torch.view_as_real(self.eggs) if self.eggs.is_complex() else self.eggs}, folder / _EGGS)

    def load(self, folder: Path, ctx: RunContext) -> None:
        paths = sorted((folder / _ITERATIONS).iterdir())
        self._networks = [load_network(self._layout(ctx.task), path, ctx.device) for path in paths]
        eggs = load_file(folder / _EGGS)["x"]
        self.eggs = torch.view_as_complex(eggs) if ctx.task.domain == "audio" else eggs

    def _fitted(self) -> list[MaskNetwork]:
        if not self._networks:
            raise ValueError("fit() or load() first")
        return self._networks

    def _layout(self, task: TaskSpec) -> MaskLayout:
        return mask_layout(self.network, parts_of(task).shape, running_statistics=not self.test_batch_statistics)

    @staticmethod
    def _slots(task: TaskSpec) -> tuple[int, int]:
        """The slots of the observed and of the other source."""
        assert task.observed_source is not None  # ``supports`` checks it
        return task.observed_source, 1 - task.observed_source


class EggTraining(MaskTraining):
    """Algorithm 1.

    A step is one batch of an epoch, or one batch of the re-estimation at the end of an outer iteration.

    Args:
        network, recipe: see ``MaskTraining``.
        clean: parts ``(M, C, H, W)`` of the observed source.
        mixed: training mixtures ``(N, C, H, W)``.
        eggs: X_0, as parts of these mixtures.
        iterations: how many outer iterations.
        epochs: how many in each of them.
        kept: how many mixtures keep their estimates of every outer iteration.
        decay: the share of the steps of every outer iteration, at the end, over which the rate falls to zero.

    Attributes:
        networks: the weights after every outer iteration, on the CPU.
        kept_eggs: the kept parts at the start and after every outer iteration.
    """

    def __init__(
        self,
        network: MaskNetwork,
        recipe: MaskRecipe,
        clean: torch.Tensor,
        mixed: torch.Tensor,
        eggs: torch.Tensor,
        iterations: int,
        epochs: int,
        kept: int,
        decay: float = 0.0,
    ) -> None:
        super().__init__(network, recipe, observed_error)
        self.clean, self.mixed, self.eggs = clean.to(self.device), mixed.to(self.device), eggs.clone().to(self.device)
        self.batches = full_batches(recipe.batch, len(clean), len(mixed))
        self.epochs = epochs
        self.learning = epochs * self.batches
        self.falling = max(1.0, decay * self.learning)
        self.per_iteration = self.learning + -(-len(mixed) // recipe.batch)
        self.steps = iterations * self.per_iteration
        self.kept = kept
        self.networks: list[dict[str, torch.Tensor]] = []
        self.kept_eggs = [eggs[:kept].clone().cpu()]

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        """Make one step."""
        iteration, number = divmod(self.step, self.per_iteration)
        if number < self.learning:
            epoch, batch = divmod(number, self.batches)
            self._learn(iteration * self.epochs + epoch, batch, min(1.0, (self.learning - number) / self.falling))
        else:
            self._estimate(number - self.learning)
        self.step += 1
        if self.step % self.per_iteration == 0:
            self.networks.append({name: value.detach().cpu().clone() for name, value in self.network.state_dict().items()})
            self.kept_eggs.append(self.eggs[: self.kept].clone().cpu())
            self.restart_optimiser()

    def _learn(self, epoch: int, batch: int, share: float) -> None:
        """Learn from ``y' = b_j + x_i``, with j and i from independent permutations, at a share of the recipe's rate."""
        b = self.clean[self.rows("B", epoch, batch, len(self.clean))]
        x = self.eggs[self.rows("X", epoch, batch, len(self.eggs))]
        self.update(torch.stack([b, x], 1), share)

    def _estimate(self, batch: int) -> None:
        """``X_n = y - T(y)`` in place, because no estimate depends on X_(n-1).

        The last batch is a whole one and overlaps the one before.
        """
        start = min(batch * self.recipe.batch, len(self.mixed) - self.recipe.batch)
        rows = slice(start, start + self.recipe.batch)
        self.eggs[rows] = self.estimate(self.mixed[rows])[:, 1]

    def row(self) -> Mapping[str, Any]:
        """The outer iteration, and the mean loss since the last row.

        Raises:
            SepbenchError: the loss is not finite.
        """
        return {"iteration": min(self.step // self.per_iteration + 1, self.steps // self.per_iteration), **super().row()}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {**super().state(), "eggs": self.eggs, "networks": self.networks, "kept_eggs": self.kept_eggs}

    def restore(self, state: Mapping[str, Any]) -> None:
        """See ``baselines.training.loop.Training``."""
        super().restore(state)
        self.eggs = state["eggs"].to(self.device)
        self.networks = [{name: value.cpu() for name, value in weights.items()} for weights in state["networks"]]
        self.kept_eggs = [eggs.cpu() for eggs in state["kept_eggs"]]


def _with_weights(network: MaskNetwork, weights: Mapping[str, torch.Tensor]) -> MaskNetwork:
    """A copy of a network with other weights, for separation."""
    made = copy.deepcopy(network)
    made.load_state_dict(weights)
    return made.eval()


PRESETS: Mapping[str, type[NeuralEggSeparation]] = presets(
    NeuralEggSeparation,
    {
        "nes-code": Preset(
            "Neural Egg Separation, rate of the code",
            f"{_PAPER}; rate of the released code (flag 37)",
            "Adam at 1e-3 instead of the paper's 0.01.",
            {"lr": 1e-3},
        ),
        "nes-code-test-batch-statistics": Preset(
            "Neural Egg Separation as released, statistics of the test batch",
            f"{_PAPER}; rate and batch norm of the released code (flags 37 and 39)",
            "nes-code with batch norm in training mode at all times, as in the released code: estimates depend on the other mixtures of a batch.",
            {"lr": 1e-3, "test_batch_statistics": True},
        ),
        "nes-unet": Preset(
            "Neural Egg Separation, U-Net",
            f"after {_PAPER}; network, squared errors, epochs and falling rate are ours, the rate is the released code's",
            "nes-code with the U-Net of our score priors, squared errors, 50 epochs in all, and a rate that falls in every outer iteration.",
            {"network": "unet", "power": 2, "lr": 1e-3, "epochs": 5, "decay": 0.4},
            domains=IMAGES,
        ),
        "nes-am": Preset(
            "Neural Egg Separation from adversarial masks",
            "Halperin, Ephrat and Hoshen 2018, sec. 4.1 (fine-tuning from AM)",
            "nes whose first estimates of the other source are those of am.",
            {"init": ADVERSARIAL},
            domains=IMAGES,
        ),
        "nes-glom": Preset(
            "Neural Egg Separation from latent optimisation",
            "Halperin, Ephrat and Hoshen 2018, sec. 3 (FT)",
            "nes whose first estimates of the other source are those of glom.",
            {"init": LATENT},
            domains=IMAGES,
        ),
    },
)
"""The registered names of NES: the paper's rate, the code's rate, the code's batch norm, and other starts."""
