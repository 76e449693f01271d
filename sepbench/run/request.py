"""What a user asks of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sepbench.errors import SepbenchError
from sepbench.protocols import Budget

BUDGETS: tuple[Budget, ...] = ("quick", "paper")


class RequestError(SepbenchError):
    """The request itself makes no sense: a limit of zero, a device that is not there."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One run. Suite, seed, budget, device, settings and shard size decide which numbers come out, so they are the run's identity.

    Attributes:
        suite: name of the suite.
        methods: registry keys; empty for the suite's own list.
        tasks: task names; empty for every task of the test split. Validation tasks run only when named.
        limit: only the first so many mixtures of each task.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for the GPU where there is one.
        seed: key of all noise, >= 0.
        fit_seed: key of the noise of fits, where it is another; None: ``seed``.
        budget: ``paper`` or ``quick``, handed to the methods.
        settings: constructor settings per method.
        shard_size: mixtures per shard, which the batches start anew with; None cuts whole batches by their measured cost.
        keep_estimates: keep estimates after they are scored (needed to score again).
        latency: also measure the seconds of single-mixture calls.
        retry_failed: separate shards again in which mixtures failed.
        refit: do not read a fit from the cache; the new one replaces it.
    """

    suite: str
    methods: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    limit: int | None = None
    device: str = "auto"
    seed: int = 0
    fit_seed: int | None = None
    budget: Budget = "paper"
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    shard_size: int | None = None
    keep_estimates: bool = True
    latency: bool = False
    retry_failed: bool = False
    refit: bool = False

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise RequestError(f"--limit must be at least 1, got {self.limit}; leave it out to run every mixture")
        if self.shard_size is not None and self.shard_size < 1:
            raise RequestError(f"--shard-size must be at least 1, got {self.shard_size}")
        if self.seed < 0:
            raise RequestError(f"--seed must not be negative, got {self.seed}")
        if self.seed >= 2**63:
            raise RequestError(f"--seed must be below 2**63, got {self.seed}")
        if self.budget not in BUDGETS:
            raise RequestError(f"--budget must be {' or '.join(BUDGETS)}, got {self.budget!r}")
