"""Counter-based noise: a draw depends on (seed, example id, step, source, element), never on batch, shard, device or order.

The generator is Philox4x32-10 of Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (SC 2011, sec. 3.3),
written in torch integer arithmetic. The four 32-bit counter words are (block of four elements, step, example id, source + stream);
the two key words are the seed. Uniforms are exact on every device; normals are their Box-Muller transform in float32, so between
devices they agree to the accuracy of ``log``, ``sin`` and ``cos``.

On a GPU that costs about a hundred launches a call. Where Triton is there, ``sepbench/noise_kernel.py`` does it in one, once its numbers have been
held against these; ``SEPBENCH_NOISE=eager`` leaves it out.
"""

from __future__ import annotations

import functools
import math
import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from sepbench.torch_later import torch

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


def _normals(words: torch.Tensor) -> torch.Tensor:
    """Box and Muller (1958), eq. (1), of words ``(rows, n)``, n even: ``(rows, n)`` float32."""
    words = words.unflatten(1, (-1, 2))
    # (0, 1]: the logarithm's argument is never zero. 24 bits bound the radius by sqrt(48 ln 2) = 5.77.
    radius = (words[..., 0] >> 8).to(torch.float32).add_(1.0).mul_(2.0**-24).log_().mul_(-2.0).sqrt_()
    angle = (words[..., 1] >> 8).to(torch.float32).mul_(2.0 * math.pi * 2.0**-24)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=-1).flatten(1)


Kernel: TypeAlias = "Callable[[torch.Tensor, torch.Tensor, int, tuple[int, int], int, bool], torch.Tensor]"


@functools.cache
def _kernel(device: torch.device) -> Kernel | None:
    """The one-launch form of a GPU's noise, if it can be used there."""
    if device.type != "cuda" or os.environ.get("SEPBENCH_NOISE", "") == "eager":
        return None
    return verified_kernel(device)


def verified_kernel(device: torch.device) -> Kernel | None:
    """The kernel of ``sepbench/noise_kernel.py`` if it gives our uniforms to the bit, and our normals to their accuracy; else None and a warning."""
    try:
        from sepbench.noise_kernel import fill

        (ids, last), key = _check_rows(device), _key(2**63 + 11)
        words = NoiseSource(2**63 + 11)._words(ids, last, 2**31 + 3, 1030)
        uniforms, normals = fill(ids, last, 2**31 + 3, key, 1030, False), fill(ids, last, 2**31 + 3, key, 1030, True)
        right = torch.equal(uniforms, _uniforms(words[:, :1030])) and float((normals - _normals(words)[:, :1030]).abs().max()) < 2e-6
        reason = "its numbers are not ours"
    except Exception as error:  # no Triton, no compiler for it, or a driver that it does not know
        right, reason = False, f"{type(error).__name__}: {error}"
    if right:
        return fill
    warnings.warn(f"noise on {device} goes without its kernel, which is slower and changes nothing else ({reason[:200]})", RuntimeWarning, stacklevel=2)
    return None


def _check_rows(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Third and fourth counter words that the kernel is tried with, the extremes among them."""
    return torch.tensor([0, 1, 77, _MASK], device=device), torch.tensor([0, 5, _MASK, 1 << 17], device=device)


def _uniforms(words: torch.Tensor) -> torch.Tensor:
    return (words >> 8).to(torch.float32).mul_(2.0**-24)


@dataclass(frozen=True, slots=True)
class Counters:
    """Rows of noise: third and fourth counter word of each, ``(rows,)`` int64 on the device that draws. The same for every step of a sampler."""

    ids: torch.Tensor
    last_words: torch.Tensor


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
            ValueError: step, source, stream or an example id outside its range.
        """
        if not 0 <= step <= _MASK:
            raise ValueError(f"step must lie in [0, 2**32), got {step}")
        rows = self.counters(example_ids, range(source, source + 1), device, streams)
        return self._words(rows.ids, rows.last_words, step, count)

    def counters(self, example_ids: torch.Tensor, sources: range, device: str | torch.device = "cpu", streams: torch.Tensor | None = None) -> Counters:
        """``B * len(sources)`` rows: all sources of an example, then those of the next. For ``draw``, which a sampler calls at every step.

        Raises:
            ValueError: a source, a stream or an example id outside its range. Ids and streams on a GPU are not looked at, which would wait for it.
        """
        if not (sources.start >= 0 and sources.stop <= MAX_SOURCES):
            raise ValueError(f"source must lie in [0, 2**16), got {sources.start} to {sources.stop - 1}")
        ids = example_ids.to(device=device, dtype=torch.int64)
        if ids.device.type == "cpu" and ids.numel() and (int(ids.min()) < 0 or int(ids.max()) > _MASK):
            raise ValueError("example ids must lie in [0, 2**32)")
        own = torch.full_like(ids, self.stream) if streams is None else streams.to(device=device, dtype=torch.int64)
        if own.device.type == "cpu" and own.numel() and (int(own.min()) < 0 or int(own.max()) >= STREAMS):
            raise ValueError(f"streams must lie in [0, {STREAMS}), got {int(own.min())} to {int(own.max())}; draw less often from one example")
        last = own * MAX_SOURCES
        if len(sources) == 1:
            return Counters(ids, last + sources.start)
        numbers = torch.arange(sources.start, sources.stop, dtype=torch.int64, device=ids.device)
        return Counters(ids.repeat_interleave(len(sources)), (last[:, None] + numbers).flatten())

    def draw(self, rows: Counters, step: int, shape: Sequence[int], normal: bool = True) -> torch.Tensor:
        """Standard normals, or uniforms, of every row: ``(rows, *shape)`` float32.

        Raises:
            ValueError: the step is outside [0, 2**32).
        """
        if not 0 <= step <= _MASK:
            raise ValueError(f"step must lie in [0, 2**32), got {step}")
        count = math.prod(shape)
        kernel = _kernel(rows.ids.device)
        if kernel is not None:
            return kernel(rows.ids, rows.last_words, step, _key(self.seed), count, normal).reshape(len(rows.ids), *shape)
        parts = []
        for ids, last in zip(*(words.split(self._rows_at_once(words, count)) for words in (rows.ids, rows.last_words)), strict=True):
            words = self._words(ids, last, step, count)
            parts.append(_normals(words)[:, :count] if normal else _uniforms(words[:, :count]))
        return (parts[0] if len(parts) == 1 else torch.cat(parts)).reshape(len(rows.ids), *shape)

    @staticmethod
    def _rows_at_once(words: torch.Tensor, count: int) -> int:
        """Rows that are turned from counters into numbers while they are in the cache; all on a GPU."""
        return max(1, len(words) if words.device.type != "cpu" else _CHUNK // max(1, -(-count // 4)))

    def _words(self, ids: torch.Tensor, last_words: torch.Tensor, step: int, count: int) -> torch.Tensor:
        out = torch.empty((ids.shape[0], -(-count // 4), 4), dtype=torch.int64, device=ids.device)
        self._fill(out, ids, step, last_words)
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
        return self.draw(self.counters(example_ids, range(source, source + 1), device, streams), step, shape, normal=False)

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
        return self.draw(self.counters(example_ids, range(source, source + 1), device, streams), step, shape, normal=True)

    def uniforms(
        self,
        example_ids: torch.Tensor,
        step: int,
        sources: int,
        shape: Sequence[int],
        device: str | torch.device = "cpu",
        streams: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Uniforms of sources 0 to ``sources - 1`` in one call, ``(B, sources, *shape)``: the bits of ``uniform`` for each."""
        drawn: torch.Tensor = self.draw(self.counters(example_ids, range(sources), device, streams), step, shape, normal=False)
        return drawn.unflatten(0, (-1, sources))  # type: ignore[no-any-return]

    def normals(
        self,
        example_ids: torch.Tensor,
        step: int,
        sources: int,
        shape: Sequence[int],
        device: str | torch.device = "cpu",
        streams: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Standard normals of sources 0 to ``sources - 1`` in one call, ``(B, sources, *shape)``: the bits of ``normal`` for each."""
        drawn: torch.Tensor = self.draw(self.counters(example_ids, range(sources), device, streams), step, shape, normal=True)
        return drawn.unflatten(0, (-1, sources))  # type: ignore[no-any-return]
