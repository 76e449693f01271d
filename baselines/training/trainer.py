"""Training of a score prior by denoising score matching. A killed run resumes bit for bit.

The loss is Karras et al. (2022), eq. (8). The learning rate has a warm-up, a constant part and a linear decay
("warm-up, stable, decay"). Until the decay begins, nothing depends on the length of the run. So you can end a run
early, or extend it: copy ``pre_decay.pt`` over ``checkpoint.pt``.

With OMP_NUM_THREADS=1, ``workers`` Python threads share one batch. Each has its own replica of the network (shared
weights, own gradients), and they meet once per step. OpenMP threads meet after every operation. On busy cores each
meeting costs a scheduler slice: we measured 10 s instead of 0.3 s per step at a load of 5 on 2 cores. If torch has
several threads, the workers take turns, so threads do not compete for the cores.
"""

from __future__ import annotations

import copy
import json
import math
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from baselines.priors.edm import EDMDenoiser
from baselines.priors.weights_io import images_sha256
from baselines.training import loop
from baselines.training.config import TrainConfig, batch_indices, draw_sigmas, generator, mirrored, rate_share
from baselines.training.edm_loss import BandMeans, as_float, edm_losses, fixed_noise, spread_sigmas
from baselines.training.loop import CHECKPOINT, CHECKPOINT_SECONDS, Progress
from baselines.training.on_device import Batch, DeviceBatches, Finite, GradientParts
from baselines.training.optimiser import Mapper, Optimiser
from sepbench.errors import SepbenchError
from sepbench.memory import out_of_memory
from sepbench.precision import float32_products, training_autocast

PRE_DECAY = "pre_decay.pt"
DECAY_FLAG = "STOP_AND_DECAY"
_VALIDATION_IMAGES = 512
_VALIDATION_CHUNK = 32


def _replicas(model: EDMDenoiser, count: int) -> list[EDMDenoiser]:
    """The model and ``count - 1`` copies. The copies share its weights and have their own gradients."""
    copies = [model]
    for _ in range(count - 1):
        replica = copy.deepcopy(model)
        for own, shared in zip(replica.parameters(), model.parameters(), strict=True):
            own.data = shared.data
        copies.append(replica)
    return copies


class ScoreTraining:
    """A run in a folder: ``log.jsonl``, ``checkpoint.pt`` and, once the decay has begun, ``pre_decay.pt``.

    A file ``STOP_AND_DECAY`` in the folder starts the decay at once. It can contain the number of steps of the decay.

    Args:
        model: a freshly initialised denoiser, trained on its device. A checkpoint in the folder replaces its weights.
        images: training images ``(N, C, H, W)`` uint8 or float32; uint8 count as v / 255.
        held_out: validation images of the same kind. The first 512 are used.
        config: settings. They must equal those of a checkpoint in the folder, except ``steps``.
        folder: of the run. It is made if it is missing.
        init: digest of the weights that the model starts from; None if they were drawn.
        resident: everything stays on the device, see ``baselines.training.on_device``; None: on a GPU.
        compiled: compile a resident network with ``torch.compile``. If that fails, it trains without, after a warning.

    Raises:
        SepbenchError: the folder has a run with other settings, images or weights to start from.
    """

    def __init__(
        self,
        model: EDMDenoiser,
        images: torch.Tensor,
        held_out: torch.Tensor,
        config: TrainConfig,
        folder: Path,
        init: str | None = None,
        resident: bool | None = None,
        compiled: bool = False,
    ) -> None:
        self.model, self.images, self.config, self.folder = model, images, config, folder
        self.device = next(model.parameters()).device
        self.held_out = as_float(held_out[:_VALIDATION_IMAGES])
        self.resident = self.device.type != "cpu" if resident is None else resident
        self.workers = 1 if self.resident else config.workers
        self.replicas = _replicas(model, self.workers)
        self._compiled: Any = torch.compile(model) if compiled and self.resident else None
        self._batches = DeviceBatches(images, config, self.device) if self.resident else None
        self._parts = GradientParts(self._part_gradient, model.zero_grad)
        self._finite = Finite(self.device)
        self.optimiser = Optimiser(model, config, batched=self.resident)
        self.ema = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.window = self._empty_window()
        self.step = 0
        self.seconds = 0.0
        self.decay_start: int | None = None
        self.decay_steps = 0
        self.origin = {"init": init, "images": images_sha256(images)}
        self.asked: Mapping[str, float | None] = {}  # the length in the last call of run()
        self._deadline: float | None = None
        self._validate_every = 500
        self._mapper: Mapper = map
        folder.mkdir(parents=True, exist_ok=True)
        loop.resume(self, folder, self.device)

    # ---- one step -----------------------------------------------------------------------------------------------------------------

    def _empty_window(self) -> BandMeans:
        return BandMeans.empty(self.device if self.resident else "cpu")

    def _losses(self, model: EDMDenoiser, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Losses ``(B,)`` with their graph, in the run's precision."""
        # A forward pass uses every weight once, so autocast's cache, which threads share, would gain nothing.
        with training_autocast(self.device, self.config.bf16, cache_enabled=False), float32_products(self.device):
            return edm_losses(model if self._compiled is None else self._compiled, clean, noise, sigma, model.sigma_data)

    def _part_gradient(self, batch: Batch, rows: slice) -> torch.Tensor:
        """Add the gradient of some rows of a resident batch. Returns their losses."""
        losses = self._losses(self.model, *(tensor[rows] for tensor in batch))
        (losses.sum() / len(batch[0])).backward()
        return losses.detach()

    def _gradient(self, worker: int, clean: torch.Tensor, noise: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """Leave the gradient of the worker's share of the batch in its replica. Returns its losses."""
        model = self.replicas[worker]
        rows = slice(worker, None, self.workers)  # interleaved: each worker gets the whole noise range
        losses = self._losses(model, clean[rows], noise[rows], sigma[rows])
        (losses.sum() / len(clean)).backward()
        return losses.detach()

    def _sum_gradients(self) -> list[nn.Parameter]:
        parameters = list(self.model.parameters())
        for replica in self.replicas[1:]:
            for own, other in zip(parameters, replica.parameters(), strict=True):
                if own.grad is not None and other.grad is not None:
                    own.grad += other.grad
        return parameters

    def train_step(self, mapper: Mapper = map) -> None:
        """Update the weights and their running average.

        Raises:
            SepbenchError: the gradient is not finite. A resident training raises this only when the log or a
                checkpoint is due.
        """
        if self._batches is None:
            self._step_on_host(mapper)
        else:
            self._step_on_device(self._batches)

    def _ema_share(self) -> float:
        return 1.0 - min(self.config.ema, (1 + self.step) / (10 + self.step))

    def _step_on_device(self, batches: DeviceBatches) -> None:
        batch = batches(self.step)
        try:
            losses = self._parts(batch)
        except Exception as error:
            if self._compiled is None or out_of_memory(error):
                raise
            reason = (str(error).strip().splitlines() or [""])[0]
            warnings.warn(f"the network is trained without torch.compile ({type(error).__name__}: {reason})", RuntimeWarning, stacklevel=2)
            self._compiled = None
            losses = self._parts(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self._finite.add(norm)
        self.optimiser.step(rate_share(self.config, self.step, self.decay_start, self.decay_steps))
        named = dict(self.model.named_parameters())
        with torch.no_grad():
            torch._foreach_lerp_([self.ema[name] for name in named], list(named.values()), self._ema_share())
        self.step += 1
        self.window.add(batch[2], losses, norm)

    def _refuse_divergence(self) -> None:
        """Raise before a resident training reports or writes: a checkpoint of NaN weights would end the run."""
        if self.resident and not self._finite:
            raise SepbenchError(f"training diverged by step {self.step}: a gradient is not finite; lower the learning rates and start again")

    def _step_on_host(self, mapper: Mapper) -> None:
        config = self.config
        random = generator(config.seed, "step", self.step)
        clean = as_float(self.images[batch_indices(config.seed, self.step, config.batch, len(self.images))])
        sigma = draw_sigmas(config, random, config.batch)
        noise = torch.randn(clean.shape, generator=random)
        if config.mirror:
            clean = mirrored(clean, random)
        clean, noise, levels = clean.to(self.device), noise.to(self.device), sigma.to(self.device)
        for replica in self.replicas:
            replica.zero_grad(set_to_none=True)
        losses = torch.empty(config.batch)
        for worker, part in enumerate(mapper(lambda w: self._gradient(w, clean, noise, levels), range(self.workers))):
            losses[worker :: self.workers] = part.cpu()
        norm = float(nn.utils.clip_grad_norm_(self._sum_gradients(), config.clip))
        if not math.isfinite(norm):
            raise SepbenchError(f"training diverged at step {self.step}: the gradient is not finite; lower the learning rates and start again")
        self.optimiser.step(rate_share(config, self.step, self.decay_start, self.decay_steps), mapper)
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                self.ema[name].lerp_(p, self._ema_share())
        self.step += 1
        self.window.add(sigma, losses, norm)

    # ---- the run ------------------------------------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps or (self.decay_start is not None and self.step >= self.decay_start + self.decay_steps)

    def _plan_decay(self, deadline_seconds: float | None) -> None:
        """Begin the decay if the plan, the deadline or the flag file says so, and record the step."""
        if self.decay_start is not None:
            return
        fraction = self.config.decay_fraction
        natural = max(1, round(self.step * fraction / (1.0 - fraction)))  # makes the decay its planned share of the whole run
        flag = self.folder / DECAY_FLAG
        if flag.exists():
            text = flag.read_text(encoding="utf-8").strip()
            steps = int(text) if text.isdigit() else natural
        elif self.step >= self.config.steps - round(self.config.steps * fraction):
            steps = self.config.steps - self.step
        elif deadline_seconds is not None and self.step >= 20 and self.seconds * (1.0 + natural / self.step) >= deadline_seconds:
            steps = natural
        else:
            return
        self.save(self.folder / PRE_DECAY)
        self.decay_start, self.decay_steps = self.step, steps
        # Write this at once: a run killed from here on repeats the decay from this very step, whatever the clock says
        # then.
        self.save(self.folder / CHECKPOINT)

    def _accept(self, asked: Mapping[str, float | None]) -> None:
        """Take the requested length. Once the decay has begun, it is fixed, and another request is refused."""
        if not self.finished and self.decay_start is None:
            self.asked = asked
            return
        changed = [f"{key} {was or 'not given'} then, {asked[key] or 'not given'} now" for key, was in self.asked.items() if asked[key] != was]
        if not changed:
            return
        end = self.asked["steps"] if self.decay_start is None else self.decay_start + self.decay_steps
        if end is None or self.step >= end:
            what, first = f"a finished run of {self.step} steps", ""
        else:
            what, first = f"an unfinished run, {self.step} of {end} steps", "ask for the same to finish it, "
        raise SepbenchError(f"{self.folder} holds {what} ({', '.join(changed)}); {first}give another --folder, or delete it to train anew")

    def advance(self) -> None:
        """Make one step. Before it, decide whether the decay begins."""
        self._plan_decay(self._deadline)
        self.train_step(self._mapper)

    def run(
        self,
        deadline_minutes: float | None = None,
        checkpoint_seconds: float = CHECKPOINT_SECONDS,
        log_every: int = 100,
        validate_every: int = 500,
        progress: Progress = lambda fraction, text: None,
    ) -> None:
        """Train to the end, from the folder's checkpoint.

        Args:
            deadline_minutes: training time after which the run should end. The decay begins early enough at the
                measured speed.
            checkpoint_seconds, log_every, progress: see ``baselines.training.loop.run``.
            validate_every: steps between validations, a multiple of ``log_every``.

        Raises:
            SepbenchError: the folder's run is finished or in its decay, and its request had other steps or another
                deadline.
        """
        self._accept({"steps": self.config.steps, "minutes": deadline_minutes})
        self._deadline = None if deadline_minutes is None else 60.0 * deadline_minutes
        self._validate_every = validate_every
        with ThreadPoolExecutor(self.config.workers) as pool:
            self._mapper = pool.map if torch.get_num_threads() == 1 and not self.resident else map
            loop.run(self, self.folder, checkpoint_seconds=checkpoint_seconds, log_every=log_every, progress=progress)
            self._mapper = map

    @property
    def fraction(self) -> float:
        """Share of the steps, or of the deadline, that is done, in [0, 1]."""
        by_steps = self.step / (self.config.steps if self.decay_start is None else self.decay_start + self.decay_steps)
        by_clock = 0.0 if self._deadline is None or self.decay_start is not None else self.seconds / self._deadline
        return min(1.0, max(by_steps, by_clock))

    def row(self) -> dict[str, Any]:
        """Share of the peak rate, means since the last row, and at times the validation.

        Raises:
            SepbenchError: a gradient of a resident training was not finite.
        """
        self._refuse_divergence()
        row: dict[str, Any] = {
            "rate": round(rate_share(self.config, self.step - 1, self.decay_start, self.decay_steps), 4),
            "grad_norm": round(float(self.window.norm) / max(1, self.window.steps), 4),
            "loss": self.window.means(),
            "decay_start": self.decay_start,
        }
        if self.step % self._validate_every == 0 or self.finished:
            row["validation"] = self.validate(self._mapper)
        self.window = self._empty_window()
        return row

    def averaged(self) -> EDMDenoiser:
        """A copy of the model with the averaged weights, in evaluation mode and without gradients."""
        model = copy.deepcopy(self.model)
        model.load_state_dict(self.ema, strict=False)
        return model.eval().requires_grad_(False)

    def validate(self, mapper: Mapper = map) -> list[float]:
        """Weighted loss per noise band of the averaged weights on held-out images.

        Levels and noise are the same at every call. A band without levels is NaN.
        """
        sigma = spread_sigmas(len(self.held_out), *self.config.sigma_range)
        noise = fixed_noise(self.held_out.shape)
        model, size = self.averaged(), len(sigma) if self.resident else _VALIDATION_CHUNK

        def chunk(start: int) -> torch.Tensor:
            rows = slice(start, start + size)
            clean, noise_here, levels = (part[rows].to(self.device) for part in (self.held_out, noise, sigma))
            autocast = training_autocast(self.device, self.config.bf16, cache_enabled=False)
            with torch.no_grad(), autocast, float32_products(self.device):
                return edm_losses(model, clean, noise_here, levels, model.sigma_data).cpu()

        bands = BandMeans.empty()
        bands.add(sigma, torch.cat(list(mapper(chunk, range(0, len(sigma), size)))))
        return bands.means()

    # ---- checkpoints --------------------------------------------------------------------------------------------------------------

    def save(self, path: Path) -> None:
        """Write the whole state atomically."""
        loop.save(self, path)

    def state(self) -> dict[str, Any]:
        """See ``baselines.training.loop.Training``."""
        self._refuse_divergence()
        return {
            "config": asdict(self.config),
            "origin": self.origin,
            "asked": dict(self.asked),
            "decay": (self.decay_start, self.decay_steps),
            "model": self.model.state_dict(),
            "ema": self.ema,
            "optimiser": self.optimiser.state_dict(),
            "scale": (self.model.sigma_data, self.model.mean),
            "window": (self.window.total, self.window.count, float(self.window.norm), self.window.steps),
        }

    def _refuse_another_run(self, path: Path, state: Mapping[str, Any]) -> None:
        # A checkpoint that is older than a setting was trained at that setting's default.
        found = asdict(TrainConfig(steps=1)) | state["config"]
        wanted, found = (json.loads(json.dumps(c)) for c in (asdict(self.config), found))
        changed = sorted(key for key in wanted if key != "steps" and wanted[key] != found[key])
        if changed:
            raise SepbenchError(f"{path} was trained with other settings ({', '.join(changed)}); use those or another folder")
        origin = state.get("origin", self.origin)  # old checkpoints lack it, and then only the scale below tells
        if origin["init"] != self.origin["init"]:
            raise SepbenchError(f"{path} was started from other weights (--init); start from those or use another folder")
        if origin["images"] != self.origin["images"] or state["scale"] != (self.model.sigma_data, self.model.mean):
            raise SepbenchError(f"{path} was trained on other images; use those or another folder")

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            SepbenchError: it belongs to another run.
        """
        path = self.folder / CHECKPOINT
        self._refuse_another_run(path, state)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise SepbenchError(f"{path} holds a network of another layout; use that layout or another folder") from error
        self.ema = {name: value.clone() for name, value in state["ema"].items()}
        self.optimiser.load_state_dict(state["optimiser"])
        self.decay_start, self.decay_steps = state["decay"]
        self.asked = state.get("asked", {"steps": state["config"]["steps"]})  # old checkpoints lack the deadline
        if "window" in state:
            total, count, norm, steps = state["window"]
            place = self.window.total.device
            self.window = BandMeans(total.to(place), count.to(place), norm, steps)
