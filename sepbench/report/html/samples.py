"""Posterior samples of one mixture. Computes: methods are fitted again and draw, where the user asked for it (``--samples``)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sepbench.errors import SepbenchError
from sepbench.report.html.board import TaskView, slug
from sepbench.report.html.media import Media, strip
from sepbench.report.panels.choice import named, spread
from sepbench.report.panels.grids import assignment_of, in_order, shared_values
from sepbench.report.panels.opened_run import OpenedRun
from sepbench.report.panels.samples import can_sample, draw_samples
from sepbench.report.panels.session import fitted_again
from sepbench.report.panels.shown import check_shown, shown
from sepbench.suites.model import Task


@dataclass(frozen=True, slots=True)
class MethodSamples:
    """One method's samples: a strip of all draws per source."""

    method: str
    strips: tuple[tuple[str, str], ...]
    """File and words, per source."""


@dataclass(frozen=True, slots=True)
class Samples:
    """All of the section.

    Attributes:
        count: draws of every method.
        example: the mixture, the same for all methods, so that they can be compared; ``why`` it is this one.
        mixture: file and words; ``truths``: file and words per source.
        drawn: every method that can.
        width: pixels that one picture is shown at.
    """

    count: int
    example: int
    why: str
    mixture: tuple[str, str]
    truths: tuple[tuple[str, str], ...]
    drawn: tuple[MethodSamples, ...]
    width: int


def samples(view: TaskView, media: Media, count: int, device: str, asked: Sequence[int], warn: Callable[[str], None]) -> Samples | None:
    """Draw; None where nobody asked, or no method of the run draws pictures."""
    run = view.board.opened
    if not count or run is None:
        return None
    try:
        (task,) = run.tasks([view.task])
        check_shown(task.spec)
        able = [method for method in run.methods(view.task) if can_sample(run, method)]
        if not able:
            return None
        example, why = (named(asked[:1], run.n_planned(view.task)).examples[0], "chosen") if asked else _median(run, view.task, able)
    except SepbenchError as error:
        warn(f"no samples of {view.task}: {error}")
        return None
    spec, truth, drawn = task.spec, task.mixture_set().sources([example]), []
    folder = f"media/{view.board.slug}/{slug(view.task)}"
    names = [f"source {k + 1}" if spec.class_agnostic else str(spec.source_classes[k]) for k in range(spec.n_sources)]
    references = _references(task, example, folder)
    if not media.add(references):
        warn(f"no samples of {view.task}: the budget is used up (--budget-mb)")
        return None
    mixture, *truths = zip(references, (f"Mixture {example}", *(f"True {name} of mixture {example}" for name in names)), strict=True)
    for method in able:
        try:
            draws = draw_samples(fitted_again(run, task, method, device), example, count)
        except SepbenchError as error:
            warn(f"no samples of {method}: {error}")
            continue
        ordered = in_order(draws, assignment_of(run.metric, draws, truth.expand(count, *truth.shape[1:]), spec))
        files = {f"{folder}/samples-{slug(method)}_{k}.png": strip(shown(ordered[:, k], spec)) for k in range(spec.n_sources)}
        if media.add(files):
            told = tuple((file, f"{count} samples of {name} by {method}, mixture {example}") for file, name in zip(files, names, strict=True))
            drawn.append(MethodSamples(method, told))
    return Samples(count, example, why, mixture, tuple(truths), tuple(drawn), 160 if spec.domain == "audio" else 64) if drawn else None


def _references(task: Task, example: int, folder: str) -> dict[str, bytes]:
    """The mixture's picture, then one per true source."""
    mixtures, truth = task.mixture_set().mixtures([example]), task.mixture_set().sources([example])
    files = {f"{folder}/samples_mixture.png": strip(shown(mixtures.values, task.spec, *mixtures.operator.output_range(0.0, 1.0)))}
    return files | {f"{folder}/samples_truth_{k}.png": strip(shown(truth[:, k], task.spec)) for k in range(task.spec.n_sources)}


def _median(run: OpenedRun, task: str, methods: Sequence[str]) -> tuple[int, str]:
    """The mixture of the median mean over the methods that draw.

    Raises:
        SepbenchError: no mixture has a value of every method.
    """
    info = run.metric.info
    by = f"mean {info.name} of the methods that draw" if len(methods) > 1 else info.name
    return spread(shared_values(run, task, methods), 1, info.higher_is_better, info.name).examples[0], f"median {by}"
