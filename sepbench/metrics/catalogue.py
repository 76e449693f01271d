"""All metrics by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch

from sepbench.errors import SuiteError
from sepbench.metrics.assignment import MAX_SOURCES
from sepbench.metrics.consistency import MIXTURE_ERROR
from sepbench.metrics.posterior import C2ST, ENERGY_DISTANCE, PIT_ERROR, POSTERIOR_COV_ERROR, POSTERIOR_MEAN_ERROR
from sepbench.metrics.psnr import PSNR, PSNR_PAD32, PSNR_SUM_MSE, PSNR_UNCLAMPED
from sepbench.metrics.squared_error import Array
from sepbench.metrics.ssim import SSIM
from sepbench.protocols import Domain, Metric, Support, TaskSpec
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


_OF_ESTIMATES: tuple[CataloguedMetric, ...] = (PSNR, PSNR_UNCLAMPED, PSNR_SUM_MSE, PSNR_PAD32, SSIM, MIXTURE_ERROR)
_OF_DRAWS: tuple[CataloguedMetric, ...] = (POSTERIOR_MEAN_ERROR, POSTERIOR_COV_ERROR, ENERGY_DISTANCE, C2ST, PIT_ERROR)
_METRICS: dict[str, CataloguedMetric] = {metric.info.name: metric for metric in (*_OF_ESTIMATES, *_OF_DRAWS)}


def get_metric(name: str) -> CataloguedMetric:
    """The metric of a name.

    Raises:
        UnknownNameError: no such metric; the message offers the nearest names.
    """
    if name not in _METRICS:
        raise nearest(name, metric_names(), "metric")
    return _METRICS[name]


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
