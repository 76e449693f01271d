"""Mixing operators: how sources become a mixture.

Every operator is linear with one matrix ``A`` of a single row, acting either across the K sources (``sum``, ``mean``, ``gain``) or
across the channels of one source (``channel-mean``). Samplers need ``forward``, ``adjoint``, ``pseudo_inverse``, ``matrix``,
``gram`` and ``output_range``, and use nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sepbench.errors import SuiteError
from sepbench.protocols import MixingOperator
from sepbench.torch_later import torch


def _expand(weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """(K,) or (B, K) weights with trailing axes added so that they broadcast against ``(B, K, ...)``."""
    rows = weights if weights.ndim == 2 else weights.unsqueeze(0)
    return rows.reshape(*rows.shape, *([1] * (like.ndim - 2))).to(device=like.device, dtype=like.dtype)


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """``m = sum_k w_k x_k``; weights ``(K,)`` shared, or ``(B, K)`` per example (audio at a given SNR)."""

    name: str
    weights: torch.Tensor

    @property
    def n_sources(self) -> int:
        return int(self.weights.shape[-1])

    def matrix(self) -> torch.Tensor:
        return self.weights.double().unsqueeze(-2)

    def gram(self) -> torch.Tensor:
        return self.weights.double().square().sum(-1)

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        if sources.shape[1] != self.n_sources:
            raise ValueError(f"operator {self.name!r} mixes {self.n_sources} sources, got shape {tuple(sources.shape)}")
        weighted = sources * _expand(self.weights, sources)
        # Left to right instead of sum(1): the order of additions, hence every bit of the mixture, is fixed on all devices.
        mixture = weighted[:, 0].clone()
        for k in range(1, self.n_sources):
            mixture += weighted[:, k]
        return mixture

    def adjoint(self, mixtures: torch.Tensor) -> torch.Tensor:
        stacked = mixtures.unsqueeze(1)
        return stacked * _expand(self.weights, stacked)

    def pseudo_inverse(self, mixtures: torch.Tensor) -> torch.Tensor:
        stacked = mixtures.unsqueeze(1)
        return stacked * _expand(self.weights / self.weights.square().sum(-1, keepdim=True), stacked)

    def output_range(self, low: float, high: float) -> tuple[float, float]:
        ends = torch.stack([self.weights * low, self.weights * high])
        return float(ends.amin(0).sum(-1).min()), float(ends.amax(0).sum(-1).max())

    def select(self, rows: torch.Tensor) -> WeightedSum:
        return self if self.weights.ndim == 1 else WeightedSum(self.name, self.weights[rows.to(self.weights.device)])

    def to(self, device: str | torch.device) -> WeightedSum:
        return WeightedSum(self.name, self.weights.to(device))


@dataclass(frozen=True, slots=True)
class ChannelMean:
    """Colorization: one source ``(B, 1, C, H, W)`` whose channels are averaged to ``(B, 1, H, W)`` (BASIS sec. 5.3)."""

    channels: int
    name: str = field(default="channel-mean", init=False)

    @property
    def n_sources(self) -> int:
        return 1

    def matrix(self) -> torch.Tensor:
        return torch.full((1, self.channels), 1.0 / self.channels, dtype=torch.float64)

    def gram(self) -> torch.Tensor:
        return torch.tensor(1.0 / self.channels, dtype=torch.float64)

    def forward(self, sources: torch.Tensor) -> torch.Tensor:
        if sources.ndim != 5 or sources.shape[1] != 1 or sources.shape[2] != self.channels:
            raise ValueError(f"operator 'channel-mean' wants (B, 1, {self.channels}, H, W), got shape {tuple(sources.shape)}")
        total = sources[:, 0, 0].clone()
        for c in range(1, self.channels):
            total += sources[:, 0, c]
        return (total / self.channels).unsqueeze(1)

    def adjoint(self, mixtures: torch.Tensor) -> torch.Tensor:
        return (mixtures / self.channels).unsqueeze(1).repeat(1, 1, self.channels, 1, 1)

    def pseudo_inverse(self, mixtures: torch.Tensor) -> torch.Tensor:
        return mixtures.unsqueeze(1).repeat(1, 1, self.channels, 1, 1)

    def output_range(self, low: float, high: float) -> tuple[float, float]:
        return low, high

    def select(self, rows: torch.Tensor) -> ChannelMean:
        return self

    def to(self, device: str | torch.device) -> ChannelMean:
        return self


OPERATOR_NAMES = ("sum", "mean", "channel-mean", "gain")


def make_operator(name: str, n_sources: int, *, channels: int = 3, gains: Sequence[Sequence[float]] | torch.Tensor | None = None) -> MixingOperator:
    """The operator of a task.

    Args:
        name: one of ``OPERATOR_NAMES``.
        n_sources: K; 1 for ``channel-mean``.
        channels: colour channels, for ``channel-mean``.
        gains: ``(B, K)`` linear gains, for ``gain``.

    Raises:
        SuiteError: unknown name, or arguments that do not fit it.
    """
    if name == "sum":
        return WeightedSum("sum", torch.ones(n_sources))
    if name == "mean":
        return WeightedSum("mean", torch.full((n_sources,), 1.0 / n_sources))
    if name == "channel-mean":
        if n_sources != 1:
            raise SuiteError(f"operator 'channel-mean' takes one source, the task has {n_sources}")
        return ChannelMean(channels)
    if name == "gain":
        weights = torch.as_tensor(gains if gains is not None else [], dtype=torch.float32)
        if weights.ndim != 2 or weights.shape[1] != n_sources or not bool(torch.isfinite(weights).all()):
            raise SuiteError(f"operator 'gain' needs one finite gain per example and source, (B, {n_sources}); got shape {tuple(weights.shape)}")
        return WeightedSum("gain", weights)
    raise SuiteError(f"unknown mixing operator {name!r}; choose from {', '.join(OPERATOR_NAMES)}")
