"""Scoring stage: from a shard's estimates to rows, references rebuilt from the mixture set. Knows nothing of separators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sepbench.metrics.draws import score_draws
from sepbench.metrics.kinds import PART
from sepbench.metrics.scoring import score_batch
from sepbench.metrics.sets.extraction import ShardFeatures, extractors_of, features_of
from sepbench.metrics.sets.extractors import get_extractor
from sepbench.metrics.sets.references import keep_reference
from sepbench.run.plan import Shard
from sepbench.run.separate import one_line
from sepbench.run.sink import ShardEstimates, ShardScores, Sink
from sepbench.torch_later import torch

if TYPE_CHECKING:
    from sepbench.data.mixtures import MixtureSet
    from sepbench.suites.model import Task

WHOLE_MIXTURE = -1
"""``source`` of rows that belong to no single source."""


@dataclass(frozen=True, slots=True)
class SetScoring:
    """How metrics of sets are scored.

    Attributes:
        device: where features are extracted.
        references: key of the reference by extractor.
    """

    device: str = "cpu"
    references: Mapping[str, str] = field(default_factory=dict)


def prepare_sets(task: Task, metrics: Sequence[str], device: str, sink: Sink) -> SetScoring:
    """See to it that the references of a task are there, in the run too.

    Raises:
        DataError: data or weights are missing, or a folder cannot be written.
    """
    kept = {name: keep_reference(task, get_extractor(name), device) for name in extractors_of(metrics)}
    for reference in kept.values():
        sink.keep_reference(reference.key, reference.path)
    return SetScoring(device, {name: reference.key for name, reference in kept.items()})


_NO_SETS = SetScoring()


def score_shard(shard: Shard, data: ShardEstimates, mixture_set: MixtureSet, task: Task, metrics: Sequence[str], sets: SetScoring = _NO_SETS) -> ShardScores:
    """Scores of one shard: one row per example, scored source and metric (and part, of a pooled one); one row per metric, with the error, for
    examples that failed.

    Where the task has ``posterior_draws`` the shard holds draws instead of estimates, and they are scored against the exact posterior.

    Runs on the CPU whatever device separated, so that scores of the same estimates are the same everywhere; features of sets alone are extracted on
    the device of ``sets``. A metric that raises fails the shard's examples with its error.
    """
    errors = dict(data.errors)
    good = torch.tensor([example for example in range(shard.start, shard.stop) if example not in errors], dtype=torch.int64)
    columns = _no_rows()
    parts: tuple[str, ...] = ()
    features: dict[str, ShardFeatures] = {}
    if len(good):
        mixtures, rows = mixture_set.mixtures(good), data.estimates[good - shard.start]
        references = None if task.spec.posterior_draws else mixture_set.sources(good)
        try:
            if references is None:
                table = score_draws(metrics, rows, mixtures, task.exact_posterior(), task.spec)
            else:
                table = score_batch(metrics, rows, references, mixtures, task.spec)
                features = {name: features_of(name, rows, task.spec, sets.device, key) for name, key in sets.references.items()}
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            errors |= dict.fromkeys(good.tolist(), f"scoring failed: {one_line(error)}")
        else:
            parts = _parts(table.metric, metrics)
            columns = (
                np.asarray(table.example, dtype=np.int64),
                np.asarray(table.source, dtype=np.int64),
                _codes(table.metric, (*metrics, *parts)),
                np.asarray(table.value, dtype=np.float64),
            )
    scores = _assemble(shard, columns, data.seconds.numpy(), errors, metrics, parts, fit_failed=False)
    scores = replace(scores, evaluations=_evaluations(shard, data, errors))
    return replace(scores, features=features, feature_examples=good.numpy()) if features else scores


def _evaluations(shard: Shard, data: ShardEstimates, errors: Mapping[int, str]) -> float | None:
    """Sum over the examples without an error; None where one of them was not counted, or there are none."""
    if data.evaluations is None:
        return None
    counted = data.evaluations[[example - shard.start for example in range(shard.start, shard.stop) if example not in errors]]
    return float(counted.sum()) if len(counted) and bool(counted.isfinite().all()) else None


def failed_scores(shard: Shard, error: str, metrics: Sequence[str], *, fit_failed: bool = True) -> ShardScores:
    """Rows of a shard that failed as a whole: one per example and metric. ``fit_failed``: because its method could not be fitted."""
    seconds = np.full(len(shard), np.nan)
    return _assemble(shard, _no_rows(), seconds, dict.fromkeys(range(shard.start, shard.stop), error), metrics, (), fit_failed=fit_failed)


_Columns = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float64]]


def _no_rows() -> _Columns:
    return np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.float64)


def _parts(names: object, metrics: Sequence[str]) -> tuple[str, ...]:
    """Names of rows that hold parts of pooled metrics."""
    found = dict.fromkeys(np.unique(np.asarray(names)).tolist())
    return tuple(name for name in found if name.partition(PART)[0] in metrics and PART in name)


def _codes(names: object, metrics: Sequence[str]) -> npt.NDArray[np.int32]:
    """Metric names, one per row, to their positions in ``metrics``."""
    rows = np.asarray(names)
    codes = np.full(rows.shape, -1, dtype=np.int32)
    for code, metric in enumerate(metrics):
        codes[rows == metric] = code
    if codes.size and codes.min() < 0:
        raise ValueError(f"scores of metrics that were not asked for: {sorted(set(rows[codes < 0].tolist()))}")
    return codes


def _assemble(
    shard: Shard,
    scored: _Columns,
    seconds: npt.NDArray[np.float64],
    errors: Mapping[int, str],
    metrics: Sequence[str],
    parts: Sequence[str],
    *,
    fit_failed: bool,
) -> ShardScores:
    """Scored rows first, then one row per failed example and metric."""
    texts = ["", *dict.fromkeys(errors.values())]
    failed = np.fromiter(errors, dtype=np.int64, count=len(errors)).repeat(len(metrics))
    failed_codes = np.fromiter((texts.index(text) for text in errors.values()), dtype=np.int32, count=len(errors)).repeat(len(metrics))
    example = np.concatenate([scored[0], failed])
    separated = np.array([example not in errors for example in range(shard.start, shard.stop)])
    return ShardScores(
        example=example,
        source=np.concatenate([scored[1], np.full(len(failed), WHOLE_MIXTURE, np.int64)]),
        metric=np.concatenate([scored[2], np.tile(np.arange(len(metrics), dtype=np.int32), len(errors))]),
        value=np.concatenate([scored[3], np.full(len(failed), np.nan)]),
        seconds=seconds[example - shard.start],
        error=np.concatenate([np.zeros(len(scored[0]), np.int32), failed_codes]),
        metrics=tuple(metrics),
        errors=texts,
        fit_failed=fit_failed,
        n_separated=int(separated.sum()),
        n_failed=len(errors),
        separate_seconds=float(np.nansum(seconds[separated])),  # NaN: nobody measured them
        parts=parts,
    )
