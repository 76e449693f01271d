"""``sepbench export``: a task's mixtures as files for a program in any language."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sepbench.suites.model import Task


class FormatChoice(StrEnum):
    """How signals are written."""

    npy = "npy"
    npz = "npz"
    safetensors = "safetensors"
    png = "png"
    wav = "wav"


def export(
    suite: Annotated[str, typer.Option(help="Suite; 'sepbench list suites' shows them.")],
    task: Annotated[str, typer.Option(help="Task of the suite.")],
    out: Annotated[Path, typer.Option(help="The folder to write. It appears when all of it is there.", metavar="FOLDER")],
    references: Annotated[bool, typer.Option("--references", help="Also write the true sources.")] = False,
    form: Annotated[
        FormatChoice, typer.Option("--format", help="npy, npz, safetensors: one array. png (16 bits), wav (float): one file each.")
    ] = FormatChoice.npy,
    limit: Annotated[int | None, typer.Option(help="Only the first so many mixtures.")] = None,
) -> None:
    """Write a task's mixtures, and a manifest that says how they were mixed, so that any program can take part.

    FOLDER/mixtures.npy (M, ...) and FOLDER/references.npy (M, K, ...), or FOLDER/mixtures/000012.wav and FOLDER/references/000012_1.wav.
    Estimates in the form of the references are what 'sepbench evaluate' takes. docs/evaluate.md has examples.
    """
    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.evaluate import fetch_data_of
    from sepbench.registry import nearest
    from sepbench.suites.export import export_task
    from sepbench.suites.loader import load_suite

    loaded = load_suite(suite)
    if task not in loaded.tasks:
        raise nearest(task, list(loaded.tasks), f"task of suite {loaded.name}")
    chosen = loaded.tasks[task]
    fetch_data_of(chosen)
    notes = Console(stderr=True)
    try:
        with notes.status("writing") as status:
            made = export_task(
                loaded,
                chosen,
                out,
                form=form.value,
                references=references,
                limit=limit,
                advance=lambda done, total: status.update(f"writing: {done:,} of {total:,}"),
            )
    except KeyboardInterrupt:
        notes.print("interrupted; nothing was written, the same command starts again", soft_wrap=True)
        raise typer.Exit(130) from None
    count = chosen.n_examples if limit is None else min(limit, chosen.n_examples)
    for line in _told(loaded.name, suite, chosen, out, form, references, count, made):
        Console().print(Text(line), soft_wrap=True)


def _told(name: str, suite: str, task: Task, out: Path, form: FormatChoice, references: bool, count: int, made: bool) -> list[str]:
    """What was written, where, and what comes next."""
    import shlex

    each = form in (FormatChoice.png, FormatChoice.wav)
    files = {what: f"{out}/{what}{'/' if each else f'.{form.value}'}" for what in ("mixtures", *(["references"] if references else []))}
    limited = f" --limit {count}" if count < task.n_examples else ""
    draws = f"{task.spec.posterior_draws}, " if task.spec.posterior_draws else ""
    shape = f"({count}, {draws}{task.spec.n_sources}, {', '.join(map(str, task.spec.source_shape))})"
    estimates = f"{task.spec.n_sources} files each, named as 000000_1.{form.value}" if each else f"one array {shape}"
    highest = task.mixture_set().operator_for([0]).output_range(0.0, 1.0)[1]
    weights = "Each is a source before its weight in the mixture: divide a stem as it sounds there by its weight in manifest.json. "
    weighted = weights if task.spec.operator in ("mean", "gain") else ""
    what = f"{count:,} mixture{'' if count == 1 else 's'} of {name}, {task.spec.name}"
    return [
        f"{what}, as {form.value}{'' if made else ' (there already)'}: {files['mixtures']}",
        *([f"true sources: {files['references']}"] if references else []),
        f"{'what the pixels mean, and ' if form is FormatChoice.png else ''}how they were mixed: {out}/manifest.json",
        *([f"the pixel 65535 means {highest:g} in a mixture and 1 in an estimate"] if form is FormatChoice.png else []),
        f"Next: separate them into {estimates} (docs/evaluate.md has more layouts). {weighted}Then:",
        f"  sepbench evaluate --suite {shlex.quote(suite)} --task {task.spec.name} --estimates PATH --name NAME{limited}",
    ]
