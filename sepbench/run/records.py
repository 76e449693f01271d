"""Typed records of what a run was and how it went: the contents of ``run.json`` and of ``cells/*.json``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

CellState = Literal["done", "failed", "unsupported", "partial"]


class _Record(BaseModel):
    """JSON in and out; entries of later versions are kept as they are, entries that an earlier version lacked have their defaults."""

    model_config = ConfigDict(extra="allow", ser_json_inf_nan="constants")

    def mapping(self) -> dict[str, Any]:
        """The record as JSON would give it back."""
        return self.model_dump(mode="json")


class CellRecord(_Record):
    """One method on one task.

    Attributes:
        state: ``done``; ``partial`` if some mixtures failed or were not reached; ``failed`` if the fit or every mixture failed; ``unsupported``.
        supervision: the level that was granted.
        note: the method's caveat, or why it does not take the task.
        error: the first error, one line.
        fit_seconds: of the fit, reading training data left out; of the one that was cached, if it was.
        fit_cached: the fit was read from the cache.
        fit_timing_group: where the fit was timed.
        load_seconds: spent in reading training data.
        warm_up_seconds: of the first, untimed call.
        separate_seconds: of all separated mixtures together.
        evaluations: of the prior per source, all separated mixtures together; None unless they were counted for each of them.
        n_planned, n_separated, n_failed: numbers of mixtures.
        latency_seconds: median of single-mixture calls, where it was measured.
        peak_mb: peak memory in 10**6 bytes.
        samples: draws behind one estimate, or the number of draws that the suite scores.
        weights_sha256: digest of trained weights, "" if there are none.
        training_sha256: digest of the training data that the method was fitted on, "" if it needed none.
        prior: what the method's prior is, "" if it has none: kind, parameters, digest.
        workers: the most processes that separated side by side; what timings are comparable with depends on it.
        timing_group: the workers' own, where it is not the run's.
        estimates_sha256: digest of the estimates, if they were supplied and nothing was separated (``run/supplied.py``); else "".
        command, git_sha: of the last session that separated for this cell.
        traceback: of the first failure.
    """

    state: CellState = "partial"
    supervision: str = ""
    note: str = ""
    error: str = ""
    fit_seconds: float | None = None
    fit_cached: bool = False
    fit_timing_group: str = ""
    load_seconds: float | None = None
    warm_up_seconds: float | None = None
    separate_seconds: float = 0.0
    evaluations: float | None = None
    n_planned: int = 0
    n_separated: int = 0
    n_failed: int = 0
    latency_seconds: float | None = None
    peak_mb: float | None = None
    samples: int = 1
    weights_sha256: str = ""
    training_sha256: str = ""
    prior: str = ""
    workers: int = 1
    timing_group: str = ""
    estimates_sha256: str = ""
    command: str = ""
    git_sha: str = ""
    traceback: str = ""


class SuiteRecord(_Record):
    """The suite. ``path`` is where its file lies, if it was asked for by its file and not by its name."""

    name: str
    version: int
    path: str = ""


class TaskRecord(_Record):
    """A task: digests of its list and its mixtures, the mixtures that it has and the most that a session of this run asked for."""

    digest: str = ""
    pairs_sha256: str
    mixtures_sha256: str
    n_examples: int = 0
    n_planned: int


class MethodRecord(_Record):
    """A method with every setting it ran with.

    Attributes:
        files: setting -> path -> SHA-256 of the files that settings name.
        source: ``module:class``.
        source_sha256: digest of its code, see ``source.py``.
    """

    version: str
    title: str = ""
    supervision: str = ""
    bound: str = ""
    deterministic: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    files: dict[str, dict[str, str]] = Field(default_factory=dict)
    source: str = ""
    source_sha256: str = ""
    weights_sha256: str = ""


class EnvironmentRecord(_Record):
    """Versions, processor, threads, git state and GPU, see ``provenance.environment``."""

    python: str = ""
    platform: str = ""
    cpu: str = ""
    instruction_set: str = ""
    threads: int = 0
    omp_num_threads: str = ""
    packages: dict[str, str] = Field(default_factory=dict)
    git_sha: str = ""
    git_dirty: bool = False
    gpu: str = ""


class FitRecord(_Record):
    """What a method's fit on a task took, and whether it was read from the cache in the last session that needed it."""

    seconds: float
    cached: bool
    timing_group: str = ""


class SessionRecord(_Record):
    """One command that worked in the folder."""

    command: str
    created: str
    git_sha: str = ""
    backend: str = "local"
    workers: int = 1


class RunRecord(_Record):
    """The contents of ``run.json``.

    Attributes:
        command, created: of the first session; all sessions stand in ``sessions``.
        grid: task -> methods that were asked for on it; empty for every method on every task.
        fits: task -> method -> how its fit went; written when a session ends.
        seed, fit_seed: keys of all noise and of the noise of fits, None for the same.
        limit: the largest that was asked for; None for every mixture.
        refit: name of the ``--refit`` that is under way, "" if there is none or it has ended; see ``FitFacts.session``.
        shard_size: None where shards are cut by measured cost.
    """

    format: int
    sepbench_version: str
    command: str = ""
    created: str = ""
    suite: SuiteRecord
    tasks: dict[str, TaskRecord]
    methods: dict[str, MethodRecord]
    grid: dict[str, list[str]] = Field(default_factory=dict)
    metrics: list[str]
    seed: int
    fit_seed: int | None = None
    budget: str
    device: str
    limit: int | None
    shard_size: int | None
    timing_group: str
    environment: EnvironmentRecord
    sessions: list[SessionRecord] = Field(default_factory=list)
    fits: dict[str, dict[str, FitRecord]] = Field(default_factory=dict)
    refit: str = ""

    def methods_on(self, task: str) -> list[str]:
        """The methods that were asked for on a task, in the order in which they joined the run."""
        return self.grid.get(task, []) if self.grid else list(self.methods)
