"""A method whose ``fit`` trains a tiny network through ``ctx.cache``, and the fit in a process of its own, to be killed:
``python fit_until_done.py FOLDER STEPS CHECKPOINT_SECONDS SECONDS_PER_STEP``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from baselines.training.config import batch_indices, derived_seed, generator
from baselines.training.loop import resume, run
from sepbench.noise import NoiseSource
from sepbench.protocols import RunContext, TaskSpec


class LinearTraining:
    """A linear autoencoder of noisy vectors, with Adam."""

    def __init__(self, rows: torch.Tensor, steps: int, seed: int, seconds_per_step: float = 0.0) -> None:
        self.rows, self.steps, self.seed, self.seconds_per_step = rows, steps, seed, seconds_per_step
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(seed, "weights"))
            self.network = nn.Sequential(nn.Linear(6, 3), nn.Linear(3, 6))
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.step, self.seconds = 0, 0.0
        self.losses: list[float] = []

    @property
    def finished(self) -> bool:
        return self.step >= self.steps

    @property
    def fraction(self) -> float:
        return self.step / self.steps

    def advance(self) -> None:
        clean = self.rows[batch_indices(self.seed, self.step, 8, len(self.rows))]
        noise = 0.1 * torch.randn(clean.shape, generator=generator(self.seed, "step", self.step))
        self.optimiser.zero_grad()
        loss = functional.mse_loss(self.network(clean + noise), clean)
        loss.backward()
        self.optimiser.step()
        self.losses.append(float(loss.detach()))
        time.sleep(self.seconds_per_step)
        self.step += 1

    def row(self) -> dict[str, Any]:
        mean = sum(self.losses) / len(self.losses)
        self.losses = []
        return {"loss": round(mean, 6)}

    def state(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self.optimiser.state_dict(), "losses": self.losses}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.losses = state["losses"]


def fit(ctx: RunContext, steps: int, checkpoint_seconds: float = 60.0, seconds_per_step: float = 0.0) -> LinearTraining:
    """What a method's ``fit`` does; the trained network is in what it returns."""
    rows = torch.rand(40, 6, generator=torch.Generator().manual_seed(1))
    training = LinearTraining(rows, steps, ctx.seed, seconds_per_step)
    resume(training, ctx.cache, ctx.device)
    run(training, ctx.cache, checkpoint_seconds=checkpoint_seconds, log_every=10, progress=ctx.progress)
    return training


def context(cache: Path | None) -> RunContext:
    task = TaskSpec("toys", "task", "vector", 1, (6,), "sum", ("a",), "ordered", (0,))
    return RunContext(task, "cpu", NoiseSource(3), 3, cache=cache)


if __name__ == "__main__":
    fit(context(Path(sys.argv[1])), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]))
