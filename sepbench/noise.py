"""Counter-based noise: a draw depends on (seed, example id, step, source, element), never on batch, shard, device or order.

The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011, sec. 3.3),
written in torch integer arithmetic. The four 32-bit counter words are (block of four elements, step, example id, source + stream);
the two key words are the seed. Uniforms are exact on every device; normals are their Box-Muller transform in float32, so between
devices they agree to the accuracy of ``log``, ``sin`` and ``cos``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

_MASK = 0xFFFFFFFF
_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # multipliers, table 2 of the paper
_W0, _W1 = 0x9E3779B9, 0xBB67AE85  # Weyl increments of the key
_ROUNDS = 10
_CHUNK = 1 << 15  # counters worked on at a time on the CPU: the six int64 work arrays stay in the second-level cache

STREAMS = 1 << 16  # the fourth counter word holds stream * 2**16 + source
MAX_SOURCES = 1 << 16


def philox4x32(counter: Sequence[torch.Tensor], key: tuple[int, int], rounds: int = _ROUNDS) -> tuple[torch.Tensor, ...]:
    """Philox4x32 on int64 tensors that hold unsigned 32-bit words.

    Args:
        counter: four broadcastable int64 tensors with values in [0, 2**32).
        key: two words in [0, 2**32).
        rounds: 10 in the paper's recommended variant.

    Returns:
        Four int64 tensors with values in [0, 2**32).
    """
    c0, c1, c2, c3 = (c.clone() for c in torch.broadcast_tensors(*counter))
    p0, p1 = torch.empty_like(c0), torch.empty_like(c0)
    k0, k1 = key
    for _ in range(rounds):
        # A 32 x 32 -> 64 bit product wraps into a negative int64; masking after the shift gives the high word all the same.
        torch.mul(c0, _M0, out=p0)
        torch.mul(c2, _M1, out=p1)
        torch.bitwise_right_shift(p1, 32, out=c0)
        c0.bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(_MASK)
        torch.bitwise_right_shift(p0, 32, out=c2)
        c2.bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(_MASK)
        # The low words keep rubbish above bit 31 until the next mask: only XOR touches them before.
        c1, p1 = p1, c1
        c3, p0 = p0, c3
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return c0, c1.bitwise_and_(_MASK), c2, c3.bitwise_and_(_MASK)


def noise_levels(sigma: float | torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Noise levels as a tensor; a number is filled in on the device, because a copy from the host would wait there for the queue at every step."""
    if isinstance(sigma, torch.Tensor):
        return sigma.to(device=device, dtype=dtype)
    return torch.full((), sigma, dtype=dtype, device=device)


def _key(seed: int) -> tuple[int, int]:
    return seed & _MASK, (seed >> 32) & _MASK


def _elements(shape: Sequence[int]) -> int:
    return math.prod(shape)


@dataclass(frozen=True, slots=True)
class NoiseSource:
    """The only source of randomness a separator has.

    Attributes:
        seed: the run's seed, 64 bits of which are used.
        stream: separates uses that share steps and sources (0 for the sampler itself, others for restarts or probes).
    """

    seed: int
    stream: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.stream < STREAMS:
            raise ValueError(f"stream must lie in [0, {STREAMS}), got {self.stream}")

    def fork(self, stream: int) -> NoiseSource:
        """The same seed on another, independent stream."""
        return NoiseSource(self.seed, stream)

    def words(
        self, example_ids: torch.Tensor, step: int, source: int, count: int, device: str | torch.device = "cpu", streams: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Random 32-bit words ``(B, 4 * ceil(count / 4))`` as int64, bit-identical on every device.

        Args:
            example_ids: ``(B,)`` integers in [0, 2**32).
            step: step of the sampler, in [0, 2**32).
            source: source number in [0, 2**16).
            count: words wanted per example.
            streams: ``(B,)`` integers in [0, 2**16), a stream per row (several draws of one example in a batch) instead of the source's own.

        Raises:
            ValueError: step, source or an example id outside its range.
        """
        if not (0 <= step <= _MASK and 0 <= source < MAX_SOURCES):
            raise ValueError(f"step must lie in [0, 2**32) and source in [0, 2**16), got step {step}, source {source}")
        ids = example_ids.to(device=device, dtype=torch.int64)
        if ids.device.type == "cpu" and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) > _MASK):
            raise ValueError("example ids must lie in [0, 2**32)")
        blocks = -(-count // 4)
        out = torch.empty((ids.shape[0], blocks, 4), dtype=torch.int64, device=ids.device)
        last = torch.full_like(ids, self.stream) if streams is None else streams.to(device=device, dtype=torch.int64)
        self._fill(out, ids, step, last * MAX_SOURCES + source)
        return out.flatten(1)

    def _fill(self, out: torch.Tensor, ids: torch.Tensor, step: int, last_words: torch.Tensor) -> None:
        batch, blocks, _ = out.shape
        block_numbers = torch.arange(blocks, dtype=torch.int64, device=out.device)
        second = torch.full((), step, dtype=torch.int64, device=out.device)  # torch.tensor would copy from the host
        rows = batch if out.device.type != "cpu" else max(1, _CHUNK // max(1, blocks))
        for start in range(0, batch, rows):
            chunk, last = (words[start : start + rows, None] for words in (ids, last_words))
            words = philox4x32((block_numbers[None, :], second, chunk, last), _key(self.seed))
            for column, word in enumerate(words):
                out[start : start + rows, :, column] = word

    def uniform(
        self,
        example_ids: torch.Tensor,
        step: int,
        source: int,
        shape: Sequence[int],
        device: str | torch.device = "cpu",
        streams: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Uniforms ``(B, *shape)`` float32 in [0, 1): multiples of 2**-24, bit-identical on every device."""
        count = _elements(shape)
        words = self.words(example_ids, step, source, count, device, streams)[:, :count]
        return (words >> 8).to(torch.float32).mul_(2.0**-24).reshape(-1, *shape)

    def normal(
        self,
        example_ids: torch.Tensor,
        step: int,
        source: int,
        shape: Sequence[int],
        device: str | torch.device = "cpu",
        streams: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Standard normals ``(B, *shape)`` float32 by Box and Muller (1958), eq. (1)."""
        count = _elements(shape)
        words = self.words(example_ids, step, source, count, device, streams).unflatten(1, (-1, 2))
        # (0, 1]: the logarithm's argument is never zero. 24 bits bound the radius by sqrt(48 ln 2) = 5.77.
        radius = (words[..., 0] >> 8).to(torch.float32).add_(1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
        angle = (words[..., 1] >> 8).to(torch.float32).mul_(2.0 * math.pi * 2.0**-24)
        pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1)
        return pairs.flatten(1)[:, :count].reshape(-1, *shape)
