"""Grids of mixtures, estimates and true sources (BASIS, Fig. 1): one method in full, or several side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from sepbench.metrics.assignment import best_assignment
from sepbench.metrics.catalogue import pair_metric
from sepbench.metrics.kinds import Metric
from sepbench.protocols import TaskSpec
from sepbench.report.numbers import number_format
from sepbench.report.panels.choice import Choice
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.sheet import Block, Head, Sheet, SheetRow, block_layout, value_texts
from sepbench.report.panels.shown import shown
from sepbench.suites.model import Task


def assignment_of(metric: Metric, estimates: torch.Tensor, references: torch.Tensor, spec: TaskSpec) -> torch.Tensor:
    """The assignment that a metric's scores were made under.

    Args:
        metric: of sources or of mixtures that need references.
        estimates, references: ``(B, K, ...)``.
        spec: the task.

    Returns:
        ``(B, K)`` int64; entry [b, j] is the estimate that answers to reference j. The identity on ordered tasks and for metrics without references.
    """
    if spec.assignment == "ordered" or not metric.info.assigned_by:
        return torch.arange(spec.n_sources).expand(len(estimates), -1)
    by = pair_metric(metric.info.assigned_by, spec)
    return best_assignment(by.pairwise(estimates, references), by.info.higher_is_better)


def in_order(estimates: torch.Tensor, assignment: torch.Tensor) -> torch.Tensor:
    """``(B, K, ...)`` estimates in the order of the references that ``assignment`` ``(B, K)`` gives them."""
    return estimates[torch.arange(len(estimates))[:, None], assignment]


def method_grid(run: OpenedRun, task: Task, method: str, choice: Choice) -> Sheet:
    """Mixture, assigned estimates and true sources of one method."""
    spec = task.spec
    values = run.values(spec.name, method)
    write = number_format(run.metric.info.unit, max((abs(v) for v in values.values() if math.isfinite(v)), default=0.0))
    mixtures, truths = mixture_blocks(task, choice.examples), truth_blocks(task, choice.examples)
    estimates = estimate_blocks(run, task, method, choice.examples)
    unit = _unit(run.metric)
    rows = []
    for number, example in enumerate(choice.examples):
        value = values[example]
        scored = f"{write(value)}{unit}" if math.isfinite(value) else "failed"
        label = tuple(filter(None, (choice.words[number], f"mixture {example}", scored)))
        rows.append(SheetRow(label, (mixtures[number], estimates[number], truths[number])))
    k = spec.n_sources
    heads = (Head(mixture_head(task), 1, 1), Head("estimates" if k > 1 else "estimate", 1, k), Head("true sources" if k > 1 else "truth", 1, k))
    subtitle = f"{choice.told}. {_per_image(run.metric, spec)}"
    return Sheet(f"{method} on {spec.suite}, {spec.name}", subtitle, heads, tuple(rows))


def comparison_grid(run: OpenedRun, task: Task, methods: Sequence[str], choice: Choice) -> Sheet:
    """Several methods side by side on the same mixtures."""
    spec = task.spec
    layout = block_layout(spec.n_sources, len(methods) + 1)
    columns = [mixture_blocks(task, choice.examples)]
    columns += [estimate_blocks(run, task, method, choice.examples) for method in methods]
    columns.append(truth_blocks(task, choice.examples))
    labels = [tuple(filter(None, (word, f"mixture {example}"))) for word, example in zip(choice.words, choice.examples, strict=True)]
    rows = tuple(SheetRow(label, blocks) for label, blocks in zip(labels, zip(*columns, strict=True), strict=True))
    heads = [Head(mixture_head(task), 1, 1), *(Head(name, *layout) for name in methods), Head("truth", *layout)]
    subtitle = f"{choice.told}. {_per_image(run.metric, spec)}"
    return Sheet(f"Methods side by side on {spec.suite}, {spec.name}", subtitle, tuple(heads), rows)


def shared_values(run: OpenedRun, task: str, methods: Sequence[str]) -> dict[int, float]:
    """Example -> mean over the methods, NaN where one of them failed: the order in which mixtures of a comparison are chosen."""
    tables: list[Mapping[int, float]] = [run.values(task, method) for method in methods]
    return {example: float(np.mean([table.get(example, math.nan) for table in tables])) for example in tables[0]}


def mixture_head(task: Task) -> str:
    """``mixture``, and below it ``(0 to 2)``: the range that black and white of an image stand for, left out where it is that of the sources."""
    if task.spec.domain != "image":
        return "mixture"
    low, high = task.mixture_set().operator_for([0]).output_range(0.0, 1.0)
    return "mixture" if (low, high) == (0.0, 1.0) else f"mixture\n({low:g} to {high:g})"


def mixture_blocks(task: Task, examples: Sequence[int]) -> list[Block]:
    """One picture per example; black and white of an image are the ends of the mixture's own range."""
    mixture_set = task.mixture_set()
    blocks = []
    for example in examples:
        mixtures = mixture_set.mixtures([example])
        blocks.append(Block(shown(mixtures.values, task.spec, *mixtures.operator.output_range(0.0, 1.0)), ("",)))
    return blocks


def truth_blocks(task: Task, examples: Sequence[int]) -> list[Block]:
    """The K true sources of each example, with their classes where the task has several."""
    spec = task.spec
    captions = ("",) * spec.n_sources if spec.class_agnostic else tuple(spec.source_classes)
    return [Block(shown(sources, spec), captions) for sources in task.mixture_set().sources(examples)]


def estimate_blocks(run: OpenedRun, task: Task, method: str, examples: Sequence[int]) -> list[Block]:
    """The K estimates of each example, in the order of the references they were scored against, with the values they were given."""
    spec, metric = task.spec, run.metric
    estimates = run.estimates(task, method, examples)
    references = task.mixture_set().sources(examples)
    ordered = in_order(estimates, assignment_of(metric, estimates, references, spec))
    values = run.source_values(spec.name, method, examples)
    write = number_format(metric.info.unit, max((abs(v) for v in values.values() if math.isfinite(v)), default=0.0))
    blocks = []
    for example, images in zip(examples, ordered, strict=True):
        scores = [values.get((example, k), math.nan) for k in range(spec.n_sources)]
        if images.isfinite().all():
            captions = tuple(write(score) if math.isfinite(score) else "" for score in scores)
        else:
            captions = value_texts([math.nan] * spec.n_sources, write)
        blocks.append(Block(shown(images, spec), captions))
    return blocks


def _unit(metric: Metric) -> str:
    return "" if metric.info.unit in ("", "1") else f" {metric.info.unit}"


def _per_image(metric: Metric, spec: TaskSpec) -> str:
    name, unit = metric.info.name, _unit(metric)
    order = "Estimates stand in the order of the best assignment" if spec.assignment == "permutation" and spec.n_sources > 1 else "Estimates"
    if metric.info.per == "mixture":
        return f"{order}."
    under = f"under each is its {name}{' in' + unit if unit else ''}"
    return f"{order}; {under}." if order.startswith("Estimates stand") else f"{under[0].upper()}{under[1:]}."
