"""Training steps of small networks on a GPU, recorded once as a CUDA graph and then replayed.

A step of a mask network is some hundred kernels of a few microseconds. It takes longer to launch them than to run
them. A graph launches all of them at once. It replays the kernels of an eager step. In bfloat16, the only precision
that uses it, the numbers are the same as well (see docs/gpu.md). What changes from step to step is in buffers that the
graph reads: the batch, Adam's rate and its count of steps. Eager steps are the reference, and the fallback if
recording fails. ``SEPBENCH_TRAIN=eager`` turns recording off.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from sepbench.memory import out_of_memory

EAGER = "SEPBENCH_TRAIN"
_WARM_UP = 3
Step = Callable[[torch.Tensor], torch.Tensor]
"""A function from a batch to its loss. It zeroes gradients, computes them and updates the weights."""


@dataclass(slots=True)
class RecordedStep:
    """A recorded step. Copy into ``batch``, call ``replay``, and read ``loss`` before the next replay."""

    batch: torch.Tensor
    loss: torch.Tensor
    replay: Callable[[], None]


Recorder = Callable[[Step, torch.Tensor], RecordedStep]


def record_cuda_step(step: Step, batch: torch.Tensor) -> RecordedStep:
    """Record a step on batches like ``batch`` without making it."""
    batch = batch.clone(memory_format=torch.contiguous_format)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = step(batch)
    return RecordedStep(batch, loss.detach(), graph.replay)


class StepRunner:
    """Makes the steps of one training, eager or recorded.

    Args:
        step: makes one step. It must depend only on its batch and on the device's memory.
        device: where. Only a GPU records.
        record: makes the graph; None: CUDA's on a GPU.
        may_record: False stays eager.
    """

    def __init__(self, step: Step, device: torch.device, record: Recorder | None = None, *, may_record: bool = True) -> None:
        self.step, self.device = step, device
        self.record = record if record is not None else record_cuda_step if may_record and _records(device) else None
        self.forget()

    def forget(self) -> None:
        """Record anew after a few eager steps, because optimiser or weights are other tensors than before."""
        self._eager_steps, self._recorded = 0, None  # type: int, RecordedStep | None

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Make a step on ``batch``, and return its loss. The loss is valid until the next step.

        Raises:
            RuntimeError: out of memory, as in an eager step.
        """
        if self.record is None:
            return self.step(batch)
        if self._recorded is None or self._recorded.batch.shape != batch.shape:
            if self._eager_steps < _WARM_UP:
                self._eager_steps += 1
                return self._warming(batch)
            try:
                self._recorded = self.record(self.step, batch)
            except Exception as error:
                if out_of_memory(error):
                    raise
                reason = (str(error).strip().splitlines() or [""])[0]
                warnings.warn(f"training goes on without a CUDA graph ({type(error).__name__}: {reason[:200]})", RuntimeWarning, stacklevel=2)
                self.record = None
                return self.step(batch)
        self._recorded.batch.copy_(batch)
        self._recorded.replay()
        return self._recorded.loss

    def _warming(self, batch: torch.Tensor) -> torch.Tensor:
        """Make an eager step on a side stream, as torch's notes on CUDA graphs require."""
        if self.device.type != "cuda":
            return self.step(batch)
        side, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            loss = self.step(batch)
        current.wait_stream(side)
        return loss


def _records(device: torch.device) -> bool:
    return device.type == "cuda" and os.environ.get(EAGER) != "eager"


def adam(parameters: Iterable[nn.Parameter], lr: float, betas: tuple[float, float]) -> torch.optim.Adam:
    """Adam. On a GPU it is one kernel, with rate and count of steps on the device, so a graph can record it."""
    wanted = list(parameters)
    device = wanted[0].device
    if device.type != "cuda":
        return torch.optim.Adam(wanted, lr=lr, betas=betas)
    return torch.optim.Adam(wanted, lr=torch.tensor(lr, device=device), betas=betas, capturable=True, fused=True)


def set_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set Adam's rate, also for recorded steps."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def restore_adam(optimiser: torch.optim.Adam, state: Mapping[str, Any]) -> None:
    """Continue from a state dict of ``adam``, from any kind of device."""
    own = ("lr", "capturable", "fused", "foreach")
    groups = [{**group, **{name: mine[name] for name in own}} for group, mine in zip(state["param_groups"], optimiser.param_groups, strict=True)]
    optimiser.load_state_dict({"state": state["state"], "param_groups": groups})
