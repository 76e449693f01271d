"""P(m | z1, z2) of LASS: which token the mixture of two images has where the images have tokens z1 and z2 (Postolache et al. 2023, sec. 3.2).

The authors count: of many pairs of clean images, the tokens of both and of their mixture, position by position. The counts are a sparse tensor, here its
non-zeros sorted by (m, z1, z2), so that the pairs of one mixture token lie together. As the paper has it, and other than the released code, counts are
symmetric in (z1, z2) and every triple of a batch counts; both are switches (flags 42 and 43 of docs/protocols.md).

A pair that was never seen has likelihood zero for every m, unless there is ``smoothing``. A mixture token that no pair was seen with is looked up as the
nearest one that was, by the distance of their codes; whoever samples is told how many there were.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sepbench.errors import DataError, SepbenchError
from sepbench.files import write_atomically

_FORMAT = "token-sums-1"
_PENDING = 1 << 22
"""Triples that wait to be added up at once."""
_MOST_SMOOTHED = 1024
"""Codes beyond which smoothing, which leaves no pair out, would fill the memory."""


@dataclass(frozen=True, slots=True)
class TokenPairs:
    """The pairs that one mixture token may come from.

    Attributes:
        first, second: z1 and z2, ``(L,)`` int64 each, sorted by (z1, z2).
        logs: ``log P(m | z1, z2)``, ``(L,)`` float32, all finite.
    """

    first: torch.Tensor
    second: torch.Tensor
    logs: torch.Tensor


class SumCounter:
    """Counts triples exactly, whatever the batches are and whoever counts them.

    Args:
        codes: K, of the codec.
        every_triple: False for the released code's counts: of triples that are equal within one call of ``add`` only one counts (flag 43).
    """

    def __init__(self, codes: int, *, every_triple: bool = True) -> None:
        self.codes, self.every_triple = codes, every_triple
        self._keys, self._counts = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        self._waiting: list[torch.Tensor] = []
        self._waiting_count = 0

    def add(self, first: torch.Tensor, second: torch.Tensor, mixture: torch.Tensor) -> None:
        """Count tokens of two sources and of their mixture, int64 of one shape, any shape.

        Raises:
            ValueError: shapes that differ, or tokens that the codec does not have.
        """
        if not first.shape == second.shape == mixture.shape:
            raise ValueError(f"tokens of one shape are counted together, got {tuple(first.shape)}, {tuple(second.shape)} and {tuple(mixture.shape)}")
        keys = torch.zeros(first.numel(), dtype=torch.int64)
        for tokens in (mixture, first, second):
            tokens = tokens.detach().flatten().cpu()
            if tokens.numel() and not 0 <= int(tokens.min()) <= int(tokens.max()) < self.codes:
                raise ValueError(f"tokens must lie in [0, {self.codes})")
            keys = keys * self.codes + tokens
        if not self.every_triple:
            keys = keys.unique()
        self._waiting.append(keys)
        self._waiting_count += len(keys)
        if self._waiting_count > _PENDING:
            self._add_up()

    def counts(self, *, symmetric: bool = True) -> SumCounts:
        """What was counted so far; ``symmetric`` counts every pair as (z1, z2) and as (z2, z1), False is the released code (flag 42)."""
        self._add_up()
        made = SumCounts(self.codes, self._keys, self._counts)
        return made.symmetric() if symmetric else made

    def restore(self, counts: SumCounts) -> None:
        """Go on from what ``counts(symmetric=False)`` returned."""
        self._keys, self._counts, self._waiting, self._waiting_count = counts.keys, counts.counts, [], 0

    def _add_up(self) -> None:
        keys, counts = torch.cat(self._waiting) if self._waiting else self._keys[:0], torch.ones(self._waiting_count, dtype=torch.int64)
        self._keys, self._counts = _summed(torch.cat([self._keys, keys]), torch.cat([self._counts, counts]))
        self._waiting, self._waiting_count = [], 0


@dataclass(frozen=True)
class SumCounts:
    """How often each triple was seen.

    Attributes:
        codes: K.
        keys: ``(n,)`` int64, ``(m * K + z1) * K + z2`` of the triples that were seen, ascending.
        counts: ``(n,)`` int64, all positive.
        codec: digest of the codec that made the tokens; empty if nobody told.
    """

    codes: int
    keys: torch.Tensor
    counts: torch.Tensor
    codec: str = ""

    @property
    def density(self) -> float:
        """Share of the ``K**3`` triples that were seen; the paper's table 1 has 1.49 % on MNIST."""
        return len(self.keys) / float(self.codes) ** 3

    @property
    def digest(self) -> str:
        """SHA-256 of codes, codec, keys and counts."""
        digest = hashlib.sha256(f"{_FORMAT} {self.codes} {self.codec}\n".encode())
        for part in (self.keys, self.counts):
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def symmetric(self) -> SumCounts:
        """Every pair counted in both orders."""
        keys, counts = _summed(torch.cat([self.keys, self._turned(self.keys)]), torch.cat([self.counts, self.counts]))
        return SumCounts(self.codes, keys, counts, self.codec)

    def _turned(self, keys: torch.Tensor) -> torch.Tensor:
        """The keys of the same triples with z1 and z2 exchanged."""
        pairs = keys % self.codes**2
        return keys - pairs + (pairs % self.codes) * self.codes + pairs // self.codes

    def save(self, path: Path) -> None:
        """Write counts and digest, whole or not at all. Of symmetric counts one order is written, and numbers in 32 bits where they fit."""
        turned, order = self._turned(self.keys).sort()
        halved = torch.equal(turned, self.keys) and torch.equal(self.counts[order], self.counts)
        kept = self._turned(self.keys) >= self.keys if halved else torch.ones_like(self.keys, dtype=torch.bool)
        tensors = {"keys": _narrow(self.keys[kept]), "counts": _narrow(self.counts[kept])}
        facts = {"format": _FORMAT, "codes": str(self.codes), "codec": self.codec, "sha256": self.digest, "orders": "1" if halved else "2"}
        write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata=facts))


def merged(parts: Sequence[SumCounts]) -> SumCounts:
    """The counts of several workers together.

    Raises:
        SepbenchError: none, or counts of different codecs.
    """
    if len({(part.codes, part.codec) for part in parts}) != 1:
        raise SepbenchError("counts can be merged where one codec made the tokens of all; count again with one codec")
    keys, counts = _summed(torch.cat([part.keys for part in parts]), torch.cat([part.counts for part in parts]))
    return SumCounts(parts[0].codes, keys, counts, parts[0].codec)


def load_counts(path: Path, codes: int | None = None, codec: str | None = None) -> SumCounts:
    """Read what ``SumCounts.save`` wrote.

    Args:
        path: the file.
        codes, codec: what they must be of; None takes any.

    Raises:
        DataError: no file, a damaged one, or counts of another codec.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            if facts.get("format") != _FORMAT or not {"keys", "counts"} <= set(file.keys()):
                raise DataError(f"{path} holds no counts of token sums as this version of sepbench writes them; count again")
            made = SumCounts(int(facts["codes"]), file.get_tensor("keys").long(), file.get_tensor("counts").long(), facts.get("codec", ""))
            if facts.get("orders") == "1":
                turned = made._turned(made.keys)
                other = turned != made.keys
                keys, order = torch.cat([made.keys, turned[other]]).sort()
                made = SumCounts(made.codes, keys, torch.cat([made.counts, made.counts[other]])[order], made.codec)
    except FileNotFoundError:
        raise DataError(f"{path} is missing; count the sums of tokens first") from None
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise DataError(f"{path} cannot be read as counts of token sums ({type(error).__name__}); delete it and count again") from error
    if made.digest != facts.get("sha256"):
        raise DataError(f"{path} is damaged: its counts do not have the digest that they were written with; delete it and count again")
    if codes is not None and made.codes != codes:
        raise DataError(f"{path} counts tokens of {made.codes} codes, the codec has {codes}; count again with this codec")
    if codec is not None and made.codec != codec:
        raise DataError(f"{path} counts tokens of another codec ({made.codec[:12] or 'unnamed'}, not {codec[:12]}); count again with this codec")
    return made


@dataclass
class SumLikelihood:
    """``log P(m | z1, z2)``, by mixture token.

    Args:
        counts: what was seen.
        codebook: ``(K, D)``, the codes; tells which seen token is nearest to one that was never seen.
        smoothing: s of ``(count + s) / (all counts of the pair + s K)``. With 0, pairs that were not seen with m are left out.
        device: where the pairs are wanted.

    Raises:
        SepbenchError: nothing was counted, or smoothing where K is too large for it.
    """

    counts: SumCounts
    codebook: torch.Tensor
    smoothing: float = 0.0
    device: str | torch.device = "cpu"
    _known: dict[int, TokenPairs] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        codes, keys = self.counts.codes, self.counts.keys
        if not len(keys):
            raise SepbenchError("no sums of tokens were counted; count pairs of training images first")
        if self.smoothing > 0 and codes > _MOST_SMOOTHED:
            raise SepbenchError(f"smoothing keeps all {codes}^2 pairs of every token, which is for at most {_MOST_SMOOTHED} codes; set smoothing to 0")
        self._starts = torch.searchsorted(keys, torch.arange(codes + 1) * codes**2)
        self._pairs = keys % codes**2
        self._distinct, where = self._pairs.unique(return_inverse=True)
        self._totals = torch.zeros(len(self._distinct), dtype=torch.int64).index_add_(0, where, self.counts.counts)
        self._total_of = self._totals[where]
        book = self.codebook.detach().cpu().double()
        seen = self.seen.nonzero().squeeze(1)
        self._nearest = torch.where(self.seen, torch.arange(codes), seen[torch.cdist(book, book[seen]).argmin(1)])

    @property
    def seen(self) -> torch.Tensor:
        """Which mixture tokens some pair was seen with, ``(K,)`` bool."""
        return self._starts[1:] > self._starts[:-1]

    def unseen(self, mixture: torch.Tensor) -> int:
        """How many of the mixture tokens were never seen and are looked up as others."""
        return int((~self.seen[mixture.cpu()]).sum())

    def pairs(self, token: int) -> TokenPairs:
        """The pairs that a mixture token may come from; at least one."""
        token = int(self._nearest[token])
        if token not in self._known:
            self._known[token] = self._smoothed(token) if self.smoothing > 0 else self._counted(token)
        return self._known[token]

    def _counted(self, token: int) -> TokenPairs:
        part = slice(int(self._starts[token]), int(self._starts[token + 1]))
        return self._listed(self._pairs[part], self.counts.counts[part].double() / self._total_of[part].double())

    def _smoothed(self, token: int) -> TokenPairs:
        codes = self.counts.codes
        part = slice(int(self._starts[token]), int(self._starts[token + 1]))
        counts, totals = (torch.zeros(codes**2, dtype=torch.float64) for _ in range(2))
        counts[self._pairs[part]] = self.counts.counts[part].double()
        totals[self._distinct] = self._totals.double()
        return self._listed(torch.arange(codes**2), (counts + self.smoothing) / (totals + self.smoothing * codes))

    def _listed(self, pairs: torch.Tensor, probabilities: torch.Tensor) -> TokenPairs:
        codes = self.counts.codes
        first, second, logs = pairs // codes, pairs % codes, probabilities.log().float()
        return TokenPairs(first.to(self.device), second.to(self.device), logs.to(self.device))


def _narrow(values: torch.Tensor) -> torch.Tensor:
    """As int32 where that holds them."""
    fits = not len(values) or int(values.max()) < 1 << 31
    return values.to(torch.int32 if fits else torch.int64).contiguous()


def _summed(keys: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct keys, ascending, and the sums of their counts."""
    distinct, where = keys.unique(return_inverse=True)
    return distinct, torch.zeros(len(distinct), dtype=torch.int64).index_add_(0, where, counts)
