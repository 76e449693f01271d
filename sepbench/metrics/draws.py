"""Posterior draws to scores: one value per example and metric, in float64 on the CPU.

One example at a time, whatever the batch: products of another batch size may round in another way, and a score must depend on its example alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from sepbench.errors import SuiteError
from sepbench.gmm import ExactPosterior
from sepbench.metrics.catalogue import check_metrics, get_metric
from sepbench.metrics.kinds import PosteriorMetric, PosteriorReference
from sepbench.metrics.scoring import ScoreTable
from sepbench.noise import NoiseSource
from sepbench.protocols import Mixtures, TaskSpec
from sepbench.torch_later import torch

_REFERENCE_NOISE = NoiseSource(int.from_bytes(hashlib.sha256(b"exact draws that posterior metrics compare with").digest()[:8], "big"))
"""Frozen with the suites, and apart from every run's seed: the row of an exact sampler must not be compared with itself."""


def posterior_reference(exact: ExactPosterior, mixtures: Mixtures, draws: int) -> PosteriorReference:
    """Exact moments and ``draws`` exact draws of every mixture ``(B, D)``, the same in every run."""
    values = mixtures.values.cpu()
    mean, covariance = exact.moments(values)
    sampled = exact.sample(values, _REFERENCE_NOISE, mixtures.example_ids.cpu(), draws)
    return PosteriorReference(mean.flatten(1), covariance, sampled.flatten(2))


def score_draws(metric_names: Sequence[str], draws: torch.Tensor, mixtures: Mixtures, exact: ExactPosterior, spec: TaskSpec) -> ScoreTable:
    """Score a batch of posterior draws by several metrics.

    Args:
        metric_names: keys of the catalogue, all of metrics ``per='posterior'``.
        draws: ``(B, N, K, D)``, N = ``spec.posterior_draws``; any device.
        mixtures: the batch's mixtures.
        exact: the task's posterior.
        spec: the task.

    Returns:
        A ``ScoreTable`` of B rows per metric, source -1.

    Raises:
        UnknownNameError: no such metric.
        SuiteError: a metric that does not score draws.
        ValueError: shapes that do not fit the task.
    """
    check_metrics(metric_names, spec)
    expected = (len(mixtures), spec.posterior_draws, spec.n_sources, *spec.source_shape)
    if tuple(draws.shape) != expected:
        raise ValueError(f"draws of task {spec.suite}/{spec.name} must be {expected}, got {tuple(draws.shape)}")
    metrics = [_posterior_metric(name) for name in metric_names]
    values = np.full((len(metrics), len(mixtures)), np.nan)
    for b in range(len(mixtures)):
        row = torch.tensor([b])
        reference = posterior_reference(
            exact, Mixtures(mixtures.values[b : b + 1], mixtures.example_ids[b : b + 1], mixtures.operator.select(row)), draws.shape[1]
        )
        points = draws[b : b + 1].detach().cpu().double().flatten(2)
        for m, metric in enumerate(metrics):
            values[m, b] = float(metric.posterior_score(points, reference))
    ids = mixtures.example_ids.cpu().numpy().astype(np.int64)
    return ScoreTable(
        example=np.tile(ids, len(metrics)),
        source=np.full(values.size, -1, dtype=np.int64),
        metric=np.repeat(np.array(metric_names, dtype=np.str_), len(ids)),
        value=values.reshape(-1),
    )


def _posterior_metric(name: str) -> PosteriorMetric:
    metric = get_metric(name)
    if not isinstance(metric, PosteriorMetric):
        raise SuiteError(f"metric {name!r} scores estimates, not posterior draws; remove it from the suite")
    return metric
