"""Posterior samples of one mixture. Computes: methods are fitted again and draw, where the user asked for it (``--samples``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sepbench.errors import SepbenchError
from sepbench.report.html.board import TaskView, slug
from sepbench.report.html.media import Media, strip
from sepbench.report.panels.choice import spread
from sepbench.report.panels.grids import assignment_of, in_order
from sepbench.report.panels.samples import can_sample, draw_samples
from sepbench.report.panels.session import fitted_again
from sepbench.report.panels.shown import check_shown, shown


@dataclass(frozen=True, slots=True)
class MethodSamples:
    """One method's samples: a strip of all draws per source."""

    method: str
    example: int
    strips: tuple[tuple[str, str], ...]
    """File and words, per source."""


@dataclass(frozen=True, slots=True)
class Samples:
    """All of the section."""

    count: int
    drawn: tuple[MethodSamples, ...]


def samples(view: TaskView, media: Media, count: int, device: str, asked: Sequence[int], warn: Callable[[str], None]) -> Samples | None:
    """Draw; None where nobody asked, or no method of the run draws pictures."""
    run = view.board.opened
    if not count or run is None:
        return None
    drawn = []
    try:
        (task,) = run.tasks([view.task])
        check_shown(task.spec)
        able = [method for method in run.methods(view.task) if can_sample(run, method)]
    except SepbenchError as error:
        warn(f"no samples of {view.task}: {error}")
        return None
    info, spec = run.metric.info, task.spec
    for method in able:
        example = asked[0] if asked else spread(run.values(view.task, method), 1, info.higher_is_better, info.name).examples[0]
        try:
            draws = draw_samples(fitted_again(run, task, method, device), example, count)
        except SepbenchError as error:
            warn(f"no samples of {method}: {error}")
            continue
        truth = task.mixture_set().sources([example])
        ordered = in_order(draws, assignment_of(run.metric, draws, truth.expand(count, *truth.shape[1:]), spec))
        stem = f"media/{view.board.slug}/{slug(view.task)}/samples-{slug(method)}"
        files = {f"{stem}-{k}.png": strip(shown(ordered[:, k], spec)) for k in range(spec.n_sources)}
        if media.add(files):
            names = [f"source {k + 1}" if spec.class_agnostic else str(spec.source_classes[k]) for k in range(spec.n_sources)]
            told = tuple((file, f"{count} samples of {name} by {method}, mixture {example}") for file, name in zip(files, names, strict=True))
            drawn.append(MethodSamples(method, example, told))
    return Samples(count, tuple(drawn)) if drawn else None
