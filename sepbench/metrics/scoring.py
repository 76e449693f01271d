"""Estimates to scores: one value per example, source and metric, in float64 on the CPU.

The scores of an example depend on that example alone, bit for bit: the same in any batch, shard or order. Whatever the device of the
estimates, scores are computed on the CPU, so that scoring a finished run again from its files gives the same bits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sepbench.errors import MetricError
from sepbench.metrics.assignment import best_assignment, matched
from sepbench.metrics.catalogue import check_metrics, get_metric, pair_metric
from sepbench.metrics.kinds import PART, Combines, FromSquaredError, Metric, MixtureMetric, PairMetric, PooledMetric, SetMetric
from sepbench.metrics.squared_error import Array, as_float64, pairwise_mse
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.torch_later import torch

_ELEMENTS_PER_BLOCK = 200_000
_EXAMPLES_PER_BLOCK = 128
SEEN = "seen"
"""Part of a set's metric: its rows say of which estimates the features are kept."""


@dataclass(frozen=True, slots=True)
class ScoreTable:
    """Scores as flat columns of equal length: metrics in the order asked for, within a metric the examples in theirs, then the sources.

    Attributes:
        example: int64, the example's number in the frozen list.
        source: int64, the reference's slot; -1 for metrics of a whole mixture.
        metric: str; rows of a pooled metric hold its parts, and are named ``metric/part``; those of a set's metric are named ``metric/seen``.
        value: float64; NaN where an estimate that enters the score holds NaN or infinity.
    """

    example: npt.NDArray[np.int64]
    source: npt.NDArray[np.int64]
    metric: npt.NDArray[np.str_]
    value: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.value)


@dataclass(slots=True)
class _Block:
    """A few examples on the CPU, with the intermediate results that metrics share."""

    task: TaskSpec
    estimates: torch.Tensor
    references: torch.Tensor
    mixtures: Mixtures
    _errors: dict[bool, Array] = field(default_factory=dict)
    _assignments: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)
    _pairwise: dict[str, torch.Tensor] = field(default_factory=dict)
    _wholes: dict[tuple[type, str, str], torch.Tensor] = field(default_factory=dict)

    def squared_errors(self, clamps: bool) -> Array:
        if clamps not in self._errors:
            pairs = [(s, s) for s in self.task.scored_sources] if self.task.assignment == "ordered" else None
            self._errors[clamps] = pairwise_mse(self.estimates.numpy(), self.references.numpy(), clamps, pairs)
        return self._errors[clamps]

    def pairwise(self, metric: PairMetric) -> torch.Tensor:
        """``(b, K, K)``; for metrics of the squared error on ordered tasks only the diagonal of the scored slots."""
        name = metric.info.name
        if name not in self._pairwise:
            if isinstance(metric, FromSquaredError):
                size = (self.references.shape[-2], self.references.shape[-1])
                self._pairwise[name] = torch.from_numpy(metric.from_mse(self.squared_errors(metric.clamps), size))
            else:
                self._pairwise[name] = _checked(name, metric.pairwise(self.estimates, self.references), self._shape(2))
        return self._pairwise[name]

    def assignment(self, name: str) -> tuple[torch.Tensor, torch.Tensor]:
        """``(b, K)`` best assignment by a metric, and ``(b,)`` whether it is defined; the identity on ordered tasks and where no metric is named."""
        if name not in self._assignments:
            if self.task.assignment == "ordered" or not name:
                identity = torch.arange(self.task.n_sources).expand(len(self.estimates), -1)
                self._assignments[name] = (identity, torch.ones(len(self.estimates), dtype=torch.bool))
            else:
                metric = pair_metric(name, self.task)
                scores = self.pairwise(metric)
                self._assignments[name] = (best_assignment(scores, metric.info.higher_is_better), scores.isfinite().flatten(1).all(1))
        return self._assignments[name]

    def whole(self, metric: MixtureMetric) -> torch.Tensor:
        """``(b,)`` or ``(b, K)`` values of all references; what other metrics of its class get from the same call is kept for them."""
        name, by = metric.info.name, metric.info.assigned_by
        if (type(metric), by, name) not in self._wholes:
            found = metric.mixture_scores(self.in_order(by), self.references, self.mixtures)
            if name not in found:
                raise MetricError(f"metric {name!r}: mixture_scores gave values of {', '.join(found) or 'nothing'} and none of its own")
            self._wholes |= {(type(metric), by, other): values for other, values in found.items()}
        return _checked(name, self._wholes[type(metric), by, name], self._shape(1 if metric.info.per == "source" else 0))

    def in_order(self, assigned_by: str) -> torch.Tensor:
        """``(b, K, ...)`` estimates, estimate k for reference k; as they are for metrics that need no order."""
        if not assigned_by:
            return self.estimates
        assignment, _ = self.assignment(assigned_by)
        return torch.from_numpy(self.estimates.numpy()[np.arange(len(assignment))[:, None], assignment.numpy()])

    def assigned_scores(self, metric: PairMetric | MixtureMetric) -> torch.Tensor:
        """``(b, S)`` values of the scored references under the metric's assignment."""
        slots = list(self.task.scored_sources)
        assignment, defined = self.assignment(metric.info.assigned_by)
        if isinstance(metric, PairMetric) and (isinstance(metric, FromSquaredError) or metric.info.name in self._pairwise):
            values = matched(self.pairwise(metric), assignment)[:, slots]
        elif isinstance(metric, MixtureMetric):
            values = self.whole(metric)[:, slots]
        else:
            # Indexed by numpy: torch gathers these small rows many times slower.
            chosen = self.estimates.numpy()[np.arange(len(assignment))[:, None], assignment[:, slots].numpy()]
            wanted = self.references.numpy()[:, slots]
            pairs = (torch.from_numpy(side.reshape(-1, 1, *side.shape[2:])) for side in (chosen, wanted))
            values = _checked(metric.info.name, metric.pairwise(*pairs), (len(assignment) * len(slots), 1, 1)).reshape(-1, len(slots))
        return torch.where(defined.unsqueeze(1), values, torch.nan)

    def columns(self, metric: Metric) -> Mapping[str, Array]:
        """Values by the name of their rows: of the metric, of the parts of a pooled one, or whether the features of a set's metric are there."""
        if isinstance(metric, SetMetric):
            return {f"{metric.info.name}{PART}{SEEN}": self.seen()}
        return self.parts(metric) if isinstance(metric, PooledMetric) else {metric.info.name: self.score(metric)}

    def seen(self) -> Array:
        """``(b, S)``: 1 for estimates that have features, NaN for those that hold what is not finite."""
        scored = self.estimates.numpy()[:, list(self.task.scored_sources)]
        return np.where(np.isfinite(scored.reshape(*scored.shape[:2], -1)).all(axis=-1), 1.0, np.nan)

    def parts(self, metric: PooledMetric) -> Mapping[str, Array]:
        """``(b, S)`` by part."""
        name, by = metric.info.name, metric.info.assigned_by
        _, defined = self.assignment(by)
        found = metric.parts(self.in_order(by), self.references, self.mixtures.example_ids)
        wrong = [part for part in found if not part or PART in part]
        if wrong or not found:
            raise MetricError(f"metric {name!r} must name its parts, without {PART!r}, got {', '.join(map(repr, wrong)) or 'none'}")
        slots = list(self.task.scored_sources)
        checked = {part: _checked(name, values, self._shape(1))[:, slots] for part, values in found.items()}
        return {f"{name}{PART}{part}": torch.where(defined.unsqueeze(1), values, torch.nan).numpy() for part, values in checked.items()}

    def score(self, metric: Metric) -> Array:
        """``(b, S)`` for metrics per source, ``(b, 1)`` for metrics per mixture."""
        name, per = metric.info.name, metric.info.per
        if per == "source" and isinstance(metric, PairMetric | MixtureMetric):
            return self.assigned_scores(metric).numpy()
        if per == "mixture" and isinstance(metric, PairMetric) and isinstance(metric, Combines):
            return _checked(name, metric.combine(self.assigned_scores(metric)), self._shape(0)).unsqueeze(1).numpy()
        if per == "mixture" and isinstance(metric, MixtureMetric):
            _, defined = self.assignment(metric.info.assigned_by)
            return torch.where(defined, self.whole(metric), torch.nan).unsqueeze(1).numpy()
        raise MetricError(f"metric {name!r} gives no value per source or mixture")

    def _shape(self, source_axes: int) -> tuple[int, ...]:
        return (len(self.estimates), *[self.task.n_sources] * source_axes)


def _checked(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """What a metric returned, if it is what its kind returns."""
    given: object = values
    if not isinstance(given, torch.Tensor):
        raise MetricError(f"metric {name!r} must return float64 values {shape}, got {type(given).__name__}")
    if tuple(given.shape) != shape or given.dtype != torch.float64 or given.device.type != "cpu":
        raise MetricError(f"metric {name!r} must return float64 values {shape} on the CPU, got {given.dtype} {tuple(given.shape)} on {given.device}")
    return given


def _check_shapes(estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures, spec: TaskSpec) -> None:
    expected = (len(mixtures), spec.n_sources, *spec.source_shape)
    for what, tensor in (("estimates", estimates), ("references", references)):
        if tuple(tensor.shape) != expected:
            raise ValueError(f"{what} of task {spec.suite}/{spec.name} must be {expected}, got {tuple(tensor.shape)}")


def _blocks(estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures, spec: TaskSpec) -> Iterator[_Block]:
    """The batch in blocks that stay in the cache, as float64 on the CPU."""
    per_example = math.prod(estimates.shape[1:])
    step = max(1, min(_EXAMPLES_PER_BLOCK, _ELEMENTS_PER_BLOCK // max(1, per_example)))
    for start in range(0, len(estimates), step):
        rows = slice(start, min(start + step, len(estimates)))
        operator = mixtures.operator.select(torch.arange(rows.start, rows.stop))
        part = Mixtures(mixtures.values[rows].cpu(), mixtures.example_ids[rows], operator)
        yield _Block(spec, torch.from_numpy(as_float64(estimates[rows])), torch.from_numpy(as_float64(references[rows])), part)


def score_batch(
    metric_names: Sequence[str],
    estimates: torch.Tensor,
    references: torch.Tensor,
    mixtures: Mixtures,
    spec: TaskSpec,
) -> ScoreTable:
    """Score a batch of estimates by several metrics.

    On ``ordered`` tasks estimate k answers to reference k. On ``permutation`` tasks each metric uses the best assignment of its
    ``assigned_by`` over all K sources; where the scores that decide it are not finite, the example is NaN in full. Only the slots in
    ``spec.scored_sources`` are reported, and only they enter metrics of the whole mixture that need references.

    Args:
        metric_names: keys of the catalogue.
        estimates, references: ``(B, K, ...)`` float32 or float64, any device; not changed.
        mixtures: the batch's mixtures, for example ids and ``mixture_error``.
        spec: the task.

    Returns:
        A ``ScoreTable`` of B x S rows per metric of sources and per part of a pooled one, and B rows per metric of mixtures.

    Raises:
        UnknownNameError: no such metric.
        SuiteError: a metric that the task cannot be scored by.
        MetricError: a metric that does not return what its kind returns.
        ValueError: shapes that do not fit the task.
    """
    check_metrics(metric_names, spec)
    _check_shapes(estimates, references, mixtures, spec)
    metrics = [get_metric(name, spec) for name in metric_names]
    found: dict[str, dict[str, list[Array]]] = {name: {} for name in metric_names}
    for block in _blocks(estimates, references, mixtures, spec):
        for metric in metrics:
            for name, values in block.columns(metric).items():
                found[metric.info.name].setdefault(name, []).append(values)
    columns = {name: parts for of_metric in found.values() for name, parts in of_metric.items()}
    whole = {name for metric in metrics if metric.info.per == "mixture" for name in found[metric.info.name]}
    slots = {name: np.array((-1,) if name in whole else spec.scored_sources, dtype=np.int64) for name in columns}
    ids = mixtures.example_ids.cpu().numpy().astype(np.int64)
    return ScoreTable(
        example=np.concatenate([np.zeros(0, np.int64), *(np.repeat(ids, len(slots[name])) for name in columns)]),
        source=np.concatenate([np.zeros(0, np.int64), *(np.tile(slots[name], len(ids)) for name in columns)]),
        metric=np.repeat(np.array(list(columns), dtype=np.str_), [len(ids) * len(slots[name]) for name in columns]),
        value=np.concatenate([np.zeros(0), *(part.reshape(-1) for parts in columns.values() for part in parts)]),
    )
