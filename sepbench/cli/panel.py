"""``sepbench panel``: pictures of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sepbench.report.panels.choice import Choice
    from sepbench.report.panels.opened_run import OpenedRun
    from sepbench.suites.model import Task


class Figures(StrEnum):
    """What is drawn from the files of the run alone."""

    all = "all"
    grid = "grid"
    histogram = "histogram"


def panel(
    run: Annotated[Path, typer.Argument(help="Folder of a run.", metavar="RUN")],
    task: Annotated[str, typer.Option(help="Tasks, separated by commas. Default: all of the run.")] = "",
    method: Annotated[str, typer.Option(help="Methods, separated by commas. Default: all that finished.")] = "",
    examples: Annotated[str, typer.Option(help="Mixtures to show, as in 0,5,7, instead of a spread from best to worst.")] = "",
    count: Annotated[int | None, typer.Option(min=1, help="How many mixtures: best, median, worst and evenly between. Default: 7.")] = None,
    figures: Annotated[Figures, typer.Option(help="grid needs kept estimates, histogram only scores.")] = Figures.all,
    samples: Annotated[int, typer.Option(min=0, max=64, help="Also draw so many posterior samples of one mixture (the first of --examples). Computes.")] = 0,
    gradients: Annotated[bool, typer.Option("--gradients", help="Also draw the prior's gradient norm against the noise level. Computes.")] = False,
    device: Annotated[str, typer.Option(help="Where --samples and --gradients compute: cpu, cuda, cuda:N or auto.")] = "auto",
    out: Annotated[Path | None, typer.Option(help="Folder of the pictures. Default: RUN/panels.")] = None,
) -> None:
    """Write pictures of a run as PNG files: mixtures, estimates and truth; how the metric is spread; posterior samples; gradient norms.

    grid-TASK.png (methods side by side: the overview), METRIC-TASK.png (histogram), grid-TASK-METHOD.png, samples-TASK-METHOD.png,
    gradient-norm-TASK-METHOD.png. Needs the extra 'report'. Reads only what the run kept, unless --samples or --gradients is given.
    """
    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.run import names
    from sepbench.errors import SepbenchError
    from sepbench.report.panels.canvas import new_figure
    from sepbench.report.panels.opened_run import OpenedRun

    if examples and count is not None:
        raise SepbenchError("--examples and --count exclude each other; give one of them")
    asked = numbers(examples)
    new_figure(1, 1)  # a missing matplotlib is said before anything is computed
    notes = Console(stderr=True)
    opened = OpenedRun.open(run, lambda text: notes.print(Text.assemble(("note:", "yellow"), f" {text}"), soft_wrap=True))
    folder = out or run / "panels"
    for chosen in opened.tasks(names(task)):
        job = _Job(opened, chosen, opened.methods(chosen.spec.name, names(method)), bool(method), asked, count, device, folder)
        for draw in job.figures(figures, samples, gradients):
            with notes.status("drawing"):
                written = draw()
            typer.echo(str(written))


def numbers(text: str) -> tuple[int, ...]:
    from sepbench.errors import SepbenchError

    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise SepbenchError(f"--examples {text!r} is no list of numbers; write it as 0,5,7") from None


class _Job:
    """One task's figures: all are checked before the first is drawn."""

    def __init__(
        self, run: OpenedRun, task: Task, methods: list[str], by_name: bool, examples: tuple[int, ...], count: int | None, device: str, folder: Path
    ) -> None:
        self.run, self.task, self.methods, self.by_name = run, task, methods, by_name
        self.asked, self.count, self.device, self.folder = examples, count, device, folder

    @property
    def name(self) -> str:
        return self.task.spec.name

    def figures(self, wanted: Figures, samples: int, gradients: bool) -> Iterator[Callable[[], Path]]:
        """What is to be drawn: the overview first, then what looks closer, and what computes last."""
        from sepbench.report.panels.gradients import has_prior
        from sepbench.report.panels.samples import can_sample
        from sepbench.report.panels.shown import check_shown

        grids = wanted in (Figures.all, Figures.grid)
        if grids or samples:
            check_shown(self.task.spec)
        if grids:
            for method in self.methods:
                self.run.estimates(self.task, method, self._choice(self.run.values(self.name, method)).examples[:1])
        samplers = self._able(can_sample, "--samples", "draws posterior samples") if samples else []
        with_prior = self._able(has_prior, "--gradients", "has a score prior") if gradients else []
        if grids and len(self.methods) > 1:
            yield self._comparison
        if wanted in (Figures.all, Figures.histogram):
            yield self._histogram
        if grids:
            yield from (lambda method=method: self._grid(method) for method in self.methods)
        yield from (lambda method=method: self._samples(method, samples) for method in samplers)
        yield from (lambda method=method: self._gradients(method) for method in with_prior)

    def _able(self, test: Callable[[OpenedRun, str], bool], option: str, what: str) -> list[str]:
        """The methods that an option can be served for; named ones must be able to."""
        from sepbench.errors import SepbenchError, some

        able = [method for method in self.methods if test(self.run, method)]
        unable = [method for method in self.methods if method not in able]
        if not able:
            raise SepbenchError(f"{option}: none of {some(self.methods)} {what}; name a method of the run that does, or leave the option out")
        if self.by_name and unable:
            self.run.warn(f"{option} is not for {some(unable)}: only a method that {what} can serve it")
        return able

    def _choice(self, values: dict[int, float], averaged: bool = False) -> Choice:
        from sepbench.report.panels.choice import DEFAULT_COUNT, named, spread

        if self.asked:
            return named(self.asked, self.run.n_planned(self.name))
        info = self.run.metric.info
        return spread(values, self.count or DEFAULT_COUNT, info.higher_is_better, f"{info.name} averaged over the methods" if averaged else info.name)

    def _histogram(self) -> Path:
        from sepbench.report.panels.histogram import draw_histogram, histogram

        return draw_histogram(histogram(self.run, self.name, self.methods), self.folder / f"{self.run.metric.info.name}-{self.name}.png")

    def _grid(self, method: str) -> Path:
        from sepbench.report.panels.grids import method_grid
        from sepbench.report.panels.sheet import draw_sheet

        sheet = method_grid(self.run, self.task, method, self._choice(self.run.values(self.name, method)))
        return draw_sheet(sheet, self.folder / f"grid-{self.name}-{method}.png")

    def _comparison(self) -> Path:
        from sepbench.report.panels.grids import comparison_grid, shared_values
        from sepbench.report.panels.sheet import draw_sheet

        choice = self._choice(shared_values(self.run, self.name, self.methods), averaged=True)
        return draw_sheet(comparison_grid(self.run, self.task, self.methods, choice), self.folder / f"grid-{self.name}.png")

    def _samples(self, method: str, n: int) -> Path:
        from sepbench.report.panels.choice import spread
        from sepbench.report.panels.samples import sample_sheet
        from sepbench.report.panels.sheet import draw_sheet

        info = self.run.metric.info
        example = self.asked[0] if self.asked else spread(self.run.values(self.name, method), 1, info.higher_is_better, info.name).examples[0]
        sheet = sample_sheet(self.run, self.task, method, example, n, self.device)
        return draw_sheet(sheet, self.folder / f"samples-{self.name}-{method}.png")

    def _gradients(self, method: str) -> Path:
        from sepbench.report.panels.gradients import draw_gradients, gradient_norms

        return draw_gradients(gradient_norms(self.run, self.task, method, self.device), self.folder / f"gradient-norm-{self.name}-{method}.png")
