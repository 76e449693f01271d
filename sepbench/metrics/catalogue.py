"""All metrics by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch

from sepbench.errors import SuiteError
from sepbench.metrics.assignment import MAX_SOURCES
from sepbench.metrics.bss_eval_images import ISR, SAR, SIR
from sepbench.metrics.bss_eval_v3 import SDR_V3
from sepbench.metrics.consistency import MIXTURE_ERROR
from sepbench.metrics.posterior import C2ST, ENERGY_DISTANCE, PIT_ERROR, POSTERIOR_COV_ERROR, POSTERIOR_MEAN_ERROR
from sepbench.metrics.psnr import PSNR, PSNR_PAD32, PSNR_SUM_MSE, PSNR_UNCLAMPED
from sepbench.metrics.sdr import SDR, SDR_MEAN
from sepbench.metrics.si_sdr import SI_SDR, SI_SDR_IMPROVEMENT
from sepbench.metrics.squared_error import Array
from sepbench.metrics.ssim import SSIM
from sepbench.protocols import Domain, Metric, Mixtures, Support, TaskSpec
from sepbench.registry import nearest


class CataloguedMetric(Metric, Protocol):
    """A metric that also knows the tasks it is defined for."""

    def supports(self, task: TaskSpec) -> Support:
        """Whether the metric is defined for a task's signals; the reason in ``note`` if not."""
        ...


@runtime_checkable
class FromSquaredError(Protocol):
    """A metric that is a function of the mean squared error alone: scoring computes the errors once for all of these."""

    @property
    def clamps(self) -> bool:
        """Whether the errors are those of estimates cut to [0, 1]."""
        ...

    def from_mse(self, mse: Array, image_size: tuple[int, int]) -> Array:
        """Mean squared errors to pairwise scores, elementwise; NaN stays NaN."""
        ...


@runtime_checkable
class JointMetric(Protocol):
    """A metric of a whole mixture (``per='mixture'``) that needs references: pairwise values, an assignment, then ``combine``."""

    def combine(self, assigned: torch.Tensor) -> torch.Tensor:
        """``(B, S)`` pairwise values of the assigned sources -> ``(B,)`` float64."""
        ...


@runtime_checkable
class WholeExampleMetric(Protocol):
    """A metric per source that looks at more than one estimate and its reference: at the example's other sources, or at its mixture."""

    @property
    def family(self) -> str:
        """Metrics of one family fall off together, in one call, and share ``info.assigned_by``."""
        ...

    def assigned_scores(self, estimates: torch.Tensor, references: torch.Tensor, mixtures: Mixtures) -> Mapping[str, torch.Tensor]:
        """``(B, K, ...)`` twice, estimate k assigned to reference k -> ``(B, K)`` float64 by name, for every metric of the family."""
        ...


@runtime_checkable
class NeedsTask(Protocol):
    """A metric that must be told the task before it can compute (windows of one second need the sample rate); ``get_metric`` does that."""

    def for_task(self, task: TaskSpec) -> CataloguedMetric:
        """The same metric for one task that it supports."""
        ...


_OF_IMAGES: tuple[CataloguedMetric, ...] = (PSNR, PSNR_UNCLAMPED, PSNR_SUM_MSE, PSNR_PAD32, SSIM)
_OF_AUDIO: tuple[CataloguedMetric, ...] = (SDR, SDR_MEAN, SI_SDR, SI_SDR_IMPROVEMENT, SDR_V3, ISR, SIR, SAR)
_OF_DRAWS: tuple[CataloguedMetric, ...] = (POSTERIOR_MEAN_ERROR, POSTERIOR_COV_ERROR, ENERGY_DISTANCE, C2ST, PIT_ERROR)
_METRICS: dict[str, CataloguedMetric] = {metric.info.name: metric for metric in (*_OF_IMAGES, *_OF_AUDIO, MIXTURE_ERROR, *_OF_DRAWS)}


def get_metric(name: str, task: TaskSpec | None = None) -> CataloguedMetric:
    """The metric of a name.

    Args:
        task: what is to be scored. Without it the metric can be asked for its ``info``, and computes only if it is no ``NeedsTask``.

    Raises:
        UnknownNameError: no such metric; the message offers the nearest names.
    """
    if name not in _METRICS:
        raise nearest(name, metric_names(), "metric")
    metric = _METRICS[name]
    return metric.for_task(task) if task is not None and isinstance(metric, NeedsTask) else metric


def metric_names(domain: Domain | None = None) -> list[str]:
    """Names in the catalogue's order: all, or those defined for one domain."""
    return [name for name, metric in _METRICS.items() if domain is None or domain in metric.info.domains]


def check_metrics(names: Sequence[str], task: TaskSpec) -> None:
    """Refuse, before anything runs, metrics that a task cannot be scored by.

    Raises:
        UnknownNameError: no such metric.
        SuiteError: a metric is listed twice or not defined for the task's signals, or the task has too many sources to assign.
    """
    where = f"{task.suite}/{task.name}"
    if task.assignment == "permutation" and task.n_sources > MAX_SOURCES:
        raise SuiteError(f"task {where} has {task.n_sources} sources: the best assignment is found for at most {MAX_SOURCES}; declare it 'ordered'")
    for position, name in enumerate(names):
        metric = get_metric(name)
        if name in names[:position]:
            raise SuiteError(f"metric {name!r} is listed twice for task {where}; remove one")
        if task.domain not in metric.info.domains:
            raise SuiteError(f"metric {name!r} is not defined for {task.domain} signals; remove it from task {where}")
        if task.posterior_draws and metric.info.per != "posterior":
            raise SuiteError(f"metric {name!r} scores estimates, task {where} has posterior draws; remove it from the task")
        support = metric.supports(task)
        if not support.ok:
            raise SuiteError(f"metric {name!r} {support.note}; remove it from task {where}")
