"""How a GPU runs a network: as it is written, recorded as CUDA graphs, or compiled. Eager is the reference, and what is left where another fails.

A graph replays the kernels that eager launches, so its numbers are eager's; it saves the launches, which is what small batches cost. ``fused`` is a graph
of a network whose norms are one kernel each, ``compile`` is torch.compile with channels last: fewer passes over the memory, other roundings. None takes
gradients: densities stay eager.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.nn import functional as F

from baselines.networks.unet import NormSilu, fuse
from sepbench.memory import out_of_memory

EngineKind = Literal["eager", "graph", "fused", "compile"]
Pass = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Images ``(N, C, H, W)`` and levels ``(N,)`` to images: ``EDMDenoiser.forward`` or ``.score``."""
MAX_GRAPHS = 16
"""Shapes that are recorded; every graph keeps its memory. What comes after runs eager."""
_WARM_UP = 3


def fused_norm(device: torch.device) -> NormSilu:
    """The kernel, once it has given on the device what torch gives.

    Raises:
        RuntimeError: its numbers are not torch's.
        Exception: whatever Triton raises where it cannot make it.
    """
    from baselines.networks.norm_kernel import norm_silu

    norm = nn.GroupNorm(3, 24).to(device).requires_grad_(False)
    ramp = torch.linspace(-2.0, 3.0, 2 * 24 * 7 * 5, device=device).reshape(2, 24, 7, 5)
    x = (7 * ramp).cos() + ramp
    scale, shift = (2 * ramp[:, :, :1, :1]).sin(), ramp[:, :, 1:2, 1:2]
    pairs = ((norm_silu(x, norm), F.silu(norm(x))), (norm_silu(x, norm, scale, shift), F.silu(norm(x) * scale + shift)))
    if max(float((ours - theirs).abs().max()) for ours, theirs in pairs) > 1e-4:
        raise RuntimeError("the kernel's norms are not torch's")
    return norm_silu


def rounded(network: nn.Module) -> nn.Module:
    """A copy whose convolutions and linear layers hold bfloat16 weights: the numbers that autocast rounds them to, without rounding at every call."""
    copied = copy.deepcopy(network)
    for module in copied.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.to(torch.bfloat16)
    return copied


@dataclass(slots=True)
class Recorded:
    """One recorded call: copy into ``x`` and ``sigma``, ``replay``, and read ``out`` before the next replay."""

    x: torch.Tensor
    sigma: torch.Tensor
    out: torch.Tensor
    replay: Callable[[], None]


Recorder = Callable[[Pass, torch.Tensor, torch.Tensor], Recorded]


def record_cuda_graph(function: Pass, x: torch.Tensor, sigma: torch.Tensor) -> Recorded:
    """Record ``function`` on buffers of its own, after a few calls on a side stream, as torch's notes on CUDA graphs ask for."""
    x, sigma = x.clone(), sigma.clone(memory_format=torch.contiguous_format)
    side = torch.cuda.Stream(x.device)
    side.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(side):
        for _ in range(_WARM_UP):
            function(x, sigma)
    torch.cuda.current_stream(x.device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(x, sigma)
    return Recorded(x, sigma, out, graph.replay)


@dataclass(slots=True)
class Engine:
    """Runs the passes of one network.

    Attributes:
        kind: how.
        record: makes the graphs.
        failed: another engine than eager was tried and gave up.
        round_once: on a GPU the weights of a network in bfloat16 are rounded once.
    """

    kind: EngineKind = "eager"
    record: Recorder = record_cuda_graph
    failed: bool = False
    round_once: bool = True
    _own: nn.Module | None = field(default=None, repr=False)
    _made: dict[tuple[object, ...], Recorded] = field(default_factory=dict, repr=False)
    _compiled: dict[str, Pass] = field(default_factory=dict, repr=False)

    def network(self, network: nn.Module, bfloat16: bool, device: torch.device) -> nn.Module:
        """The network that computes the passes: itself, or a copy for a GPU, in which autocast has nothing to round or norms are kernels."""
        rounds, fuses = bfloat16 and self.round_once, self.kind == "fused"
        if device.type != "cuda" or not (rounds or fuses):
            return network
        if self._own is None:
            self._own = rounded(network) if rounds else copy.deepcopy(network)
            if fuses:
                try:
                    fuse(self._own, fused_norm(device))
                except Exception as error:
                    self._gives_up(error)
        return self._own

    def __call__(self, function: Pass, network: nn.Module, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        """``function(x, sigma)``, a bound method of ``network``; no gradient is wanted.

        Raises:
            RuntimeError: out of memory, as eager raises it.
        """
        if self.kind == "eager" or self.failed or not len(x):
            return function(x, sigma)
        try:
            return self._through_compiler(function, network, x, sigma) if self.kind == "compile" else self._replayed(function, x, sigma)
        except Exception as error:
            if out_of_memory(error):
                raise
            self._gives_up(error)
        return function(x, sigma)

    def _gives_up(self, error: Exception) -> None:
        reason = (str(error).strip().splitlines() or [""])[0]
        warnings.warn(f"engine {self.kind} failed and eager goes on ({type(error).__name__}: {reason[:200]})", RuntimeWarning, stacklevel=3)
        self.failed = True
        self._made.clear()
        self._compiled.clear()

    def _replayed(self, function: Pass, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        key = (function.__name__, tuple(x.shape), torch.is_autocast_enabled(x.device.type))
        if key not in self._made:
            if len(self._made) >= MAX_GRAPHS:
                return function(x, sigma)
            self._made[key] = self.record(function, x, sigma)
        recorded = self._made[key]
        recorded.x.copy_(x)
        recorded.sigma.copy_(sigma)
        recorded.replay()
        return recorded.out.clone()

    def _through_compiler(self, function: Pass, network: nn.Module, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        if function.__name__ not in self._compiled:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self._compiled[function.__name__] = torch.compile(function)
        return self._compiled[function.__name__](x.contiguous(memory_format=torch.channels_last), sigma.contiguous())
