"""All metrics by name: those that are installed as entry points of the group ``sepbench.metrics``, loaded when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any, get_args

from sepbench.errors import MetricError, SepbenchError, SuiteError, UnknownNameError
from sepbench.metrics.assignment import MAX_SOURCES
from sepbench.metrics.kinds import (
    ChoosesTasks,
    Combines,
    FromSquaredError,
    Metric,
    MetricInfo,
    MixtureMetric,
    NeedsTask,
    PairMetric,
    Per,
    PooledMetric,
    PosteriorMetric,
    SetMetric,
)
from sepbench.metrics.squared_error import PSNR_CAP_DB
from sepbench.protocols import Domain, Support, TaskSpec
from sepbench.registry import METRIC_GROUP, flat, load_entry, points

# What comes first in lists, most used first; all others follow by name.
_FIRST: tuple[str, ...] = (
    *("psnr", "psnr_unclamped", "psnr_sum_mse", "psnr_pad32", "psnr_pooled32", "psnr_pooled32_pad", "ssim"),
    *("sdr", "sdr_mean", "sdr_corpus_median", "si_sdr", "si_sdr_improvement", "sdr_v3", "isr", "sir", "sar"),
    *("mixture_error", "posterior_mean_error", "posterior_cov_error", "energy_distance", "c2st", "pit_error"),
    *(f"{statistic}_{extractor}" for extractor in ("inception", "cifarnet", "mnistnet") for statistic in ("fid", "fid_inf", "kid", "is")),
)


def get_metric(name: str, task: TaskSpec | None = None) -> Metric:
    """The metric of a name.

    Args:
        task: what is to be scored. Without it the metric can be asked for its ``info``, and computes only if it is no ``NeedsTask``.

    Raises:
        UnknownNameError: no such metric; the message offers the nearest names.
        NameClaimedError: two distributions claim the name.
        MetricError: it cannot be loaded, or is no metric.
    """
    point = points(METRIC_GROUP).get(name)
    metric = _loaded(name, point.value if point else "")
    return metric.for_task(task) if task is not None and isinstance(metric, NeedsTask) else metric


def cap_of(name: str) -> float:
    """The value that a metric gives an estimate without any error, where it cuts it off there (PSNR); infinity where it does not, or is not installed."""
    try:
        metric = get_metric(name)
    except SepbenchError:
        return math.inf
    return PSNR_CAP_DB if isinstance(metric, FromSquaredError) and metric.info.unit == "dB" else math.inf


def pair_metric(name: str, task: TaskSpec | None = None) -> PairMetric:
    """The metric of a name, where a value per pair of estimate and true source is needed.

    Raises:
        SuiteError: it has none; and as ``get_metric``.
    """
    metric = get_metric(name, task)
    if not isinstance(metric, PairMetric):
        raise SuiteError(f"metric {name!r} has no value per pair of estimate and true source; choose one that has, such as psnr or sdr")
    return metric


def metric_names(domain: Domain | None = None) -> list[str]:
    """Names of all metrics, or of those defined for one domain, in the order of lists.

    Without ``domain`` nothing is imported. With it, those that cannot be loaded are left out: ``get_metric`` says why.
    """
    order = {name: place for place, name in enumerate(_FIRST)}
    names = sorted(points(METRIC_GROUP), key=lambda name: (order.get(name, len(order)), name))
    return names if domain is None else [name for name in names if _is_defined_for(name, domain)]


def _is_defined_for(name: str, domain: Domain) -> bool:
    try:
        return domain in get_metric(name).info.domains
    except SepbenchError:
        return False


@cache
def _loaded(name: str, value: str) -> Metric:
    """``value``, what the entry names, keeps apart what was registered under one name at different times."""
    return checked_metric(name, load_entry(METRIC_GROUP, name))


def checked_metric(name: str, metric: Any) -> Metric:
    """What an entry names, if it is a metric.

    Raises:
        MetricError: it breaks the contract of ``sepbench.metrics.kinds``; one line says how.
    """
    fault = _fault(name, metric)
    if fault:
        raise MetricError(f"metric {name!r} {fault}; see sepbench.metrics.kinds")
    return metric  # type: ignore[no-any-return]


def _fault(name: str, metric: Any) -> str:
    if isinstance(metric, type):
        return f"is the class {metric.__qualname__}; its entry point must name an object of it"
    try:
        info: object = metric.info
    except Exception as error:
        return f"cannot say its info: {type(error).__name__}: {flat(error)}"
    if not isinstance(info, MetricInfo):
        return f"(of type {type(metric).__name__}): info must be a MetricInfo, got {type(info).__name__}"
    if info.name != name:
        return f"calls itself {info.name!r}; its entry point must have that name"
    if not isinstance(metric, get_args(Metric)):
        return f"({type(metric).__name__}) has none of pairwise, mixture_scores, pool and posterior_score"
    if info.per not in get_args(Per) or not _is_kind_of(metric, info.per):
        return f"says per={info.per!r}, which its methods do not give"
    if not info.domains or not frozenset(info.domains) <= frozenset(get_args(Domain)):
        return f"says domains={info.domains!r}; give a frozenset of {', '.join(get_args(Domain))}"
    if isinstance(metric, PairMetric | PooledMetric) and not info.assigned_by:
        return "does not say assigned_by; give the name of the metric of pairs whose assignment counts, its own if that is it"
    return ""


def _is_kind_of(metric: Metric, per: str) -> bool:
    kinds: dict[str, Any] = {"source": PairMetric | MixtureMetric, "group": PooledMetric, "posterior": PosteriorMetric, "set": SetMetric}
    if per == "mixture":
        return isinstance(metric, MixtureMetric) or (isinstance(metric, PairMetric) and isinstance(metric, Combines))
    return isinstance(metric, kinds[per])


def defined_for(metric: Metric, task: TaskSpec) -> Support:
    """Whether a task of one of the metric's domains can be scored by it; the reason in ``note``, a verb phrase, if not.

    Raises:
        MetricError: ``supports`` of the metric fails.
    """
    info = metric.info
    if info.per == "posterior" and not task.posterior_draws:
        return Support(False, "scores posterior draws, the task has estimates")
    if info.assigned_by and task.assignment == "permutation":
        try:
            pair_metric(info.assigned_by)
        except (UnknownNameError, SuiteError) as error:
            return Support(False, f"cannot be assigned by {info.assigned_by!r} ({error})")
    if not isinstance(metric, ChoosesTasks):
        return Support(True)
    try:
        support: object = metric.supports(task)
    except Exception as error:
        raise MetricError(f"metric {info.name!r} cannot say whether it supports a task: {type(error).__name__}: {flat(error)}") from error
    if not isinstance(support, Support):
        raise MetricError(f"metric {info.name!r}: supports() must return a sepbench.protocols.Support, got {type(support).__name__}")
    return support


def check_metrics(names: Sequence[str], task: TaskSpec) -> None:
    """Refuse, before anything runs, metrics that a task cannot be scored by.

    Raises:
        UnknownNameError: no such metric.
        SuiteError: a metric is listed twice or not defined for the task's signals, or the task has too many sources to assign.
        MetricError: a metric that cannot be loaded, or is none.
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
        support = defined_for(metric, task)
        if not support.ok:
            raise SuiteError(f"metric {name!r} {support.note}; remove it from task {where}")
