"""Several posterior samples of one mixture (BASIS, Fig. 5). Computes: the method is fitted again and draws."""

from __future__ import annotations

import math

import torch

from sepbench.ambient import put_back
from sepbench.errors import MethodError, SepbenchError
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.kinds import PairMetric
from sepbench.protocols import PosteriorSampler, TaskSpec
from sepbench.registry import create_separator
from sepbench.report.panels.grids import assignment_of, in_order, mixture_blocks, mixture_head, truth_blocks
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.session import fitted_again
from sepbench.report.panels.sheet import Block, Head, Sheet, SheetRow, value_texts
from sepbench.report.panels.shown import shown
from sepbench.report.rows import number_format
from sepbench.run.separate import one_line
from sepbench.run.session import Session
from sepbench.suites.model import Task

_PER_ROW = 8


def can_sample(run: OpenedRun, method: str) -> bool:
    """Whether a method of the run draws posterior samples."""
    return isinstance(create_separator(method, run.record.methods[method].settings, run.suite.domain), PosteriorSampler)


def draw_samples(session: Session, example: int, n: int) -> torch.Tensor:
    """``(n, K, ...)`` float32 on the CPU: independent draws for one mixture, not clamped, in the method's own order of sources.

    Raises:
        MethodError: the method cannot sample, raises, or returns something else.
    """
    separator, spec = session.separator, session.ctx.task
    name = session.cell.method
    if not isinstance(separator, PosteriorSampler):
        raise MethodError(f"{name} draws no posterior samples; choose a method that does with --method")
    mixtures = session.mixture_set.mixtures([example], session.ctx.device)
    try:
        with put_back():
            drawn = separator.sample(mixtures, n, session.ctx)
    except SepbenchError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a third party's method raises
        raise MethodError(f"{name} failed to sample mixture {example}: {one_line(error)}") from error
    wanted = (1, n, spec.n_sources, *spec.source_shape)
    if tuple(drawn.shape) != wanted:
        raise MethodError(f"{name}: sample returned shape {tuple(drawn.shape)} instead of {wanted}")
    return drawn[0].detach().float().cpu()


def sample_sheet(run: OpenedRun, task: Task, method: str, example: int, n: int, device: str) -> Sheet:
    """Mixture, truth, mean of the samples, then the samples, each with its value of the ranking metric."""
    drawn = draw_samples(fitted_again(run, task, method, device), example, n)
    return layout_samples(run, task, method, example, drawn)


def layout_samples(run: OpenedRun, task: Task, method: str, example: int, drawn: torch.Tensor) -> Sheet:
    """A sheet of draws ``(n, K, ...)``; each is put into the order of its best assignment before the mean is taken."""
    spec, n = task.spec, len(drawn)
    truth = task.mixture_set().sources([example])
    ordered = in_order(drawn, assignment_of(run.metric, drawn, truth.expand(n, *truth.shape[1:]), spec))
    per_row = math.ceil(n / math.ceil(n / _PER_ROW))
    blocks: list[Block | None] = [_sample_block(run, spec, images, truth[0]) for images in ordered]
    blocks += [None] * (-n % per_row)
    start: list[Block | None] = [mixture_blocks(task, [example])[0], truth_blocks(task, [example])[0], _sample_block(run, spec, ordered.mean(0), truth[0])]
    rows = []
    for first in range(0, len(blocks), per_row):
        label: tuple[str, ...] = (f"mixture {example}",) if first == 0 else ()
        if n > per_row:
            label += (f"samples {first + 1} to {min(first + per_row, n)}",)
        rows.append(SheetRow(label, (*(start if first == 0 else [None] * 3), *blocks[first : first + per_row])))
    k = spec.n_sources
    heads = [Head(mixture_head(task), 1, 1), Head("truth", k, 1), Head("mean of samples", k, 1)]
    heads += [Head(f"sample {number + 1}" if n <= per_row else "sample", k, 1) for number in range(per_row)]
    info = run.metric.info
    unit = "" if info.unit in ("", "1") else f" in {info.unit}"
    subtitle = f"{n} independent draws for one mixture, each in the order of its best assignment; under each image is its {info.name}{unit}."
    if spec.assignment == "ordered":
        subtitle = f"{n} independent draws for one mixture; under each image is its {info.name}{unit}."
    return Sheet(f"Posterior samples of {method} on {spec.suite}, {spec.name}", subtitle, tuple(heads), tuple(rows))


def _sample_block(run: OpenedRun, spec: TaskSpec, images: torch.Tensor, truth: torch.Tensor) -> Block:
    """Signals ``(K, ...)`` that are already in the order of the truth."""
    metric = get_metric(run.metric.info.name, spec)
    if metric.info.per == "mixture" or not isinstance(metric, PairMetric):
        return Block(shown(images, spec), ("",) * len(images))
    values = [float(metric.pairwise(a[None, None], b[None, None])) for a, b in zip(images, truth, strict=True)]
    write = number_format(metric.info.unit, max((abs(value) for value in values if math.isfinite(value)), default=0.0))
    return Block(shown(images, spec), value_texts(values, write))
