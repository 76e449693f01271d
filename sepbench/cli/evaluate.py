"""``sepbench evaluate``: scores estimates that exist already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from sepbench.results.store import RunStore
    from sepbench.suites.model import Suite, Task


def evaluate(
    suite: Annotated[str, typer.Option(help="Suite; 'sepbench list suites' shows them.")],
    task: Annotated[str, typer.Option(help="Task of the suite.")],
    estimates: Annotated[
        Path, typer.Option(help="A .npy, .npz or .safetensors file (M, K, ...), a folder of images or sounds, or a .parquet index.", metavar="PATH")
    ],
    name: Annotated[str, typer.Option(help="What the row is called.")],
    out: Annotated[Path | None, typer.Option(help="The run's folder; what is in it already is kept. Default: runs/SUITE-HASH.", metavar="RUN")] = None,
    supervision: Annotated[str, typer.Option(help="What the method learnt from: blind, mixtures+one, sources, prior or bound. Default: unstated.")] = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many mixtures.")] = None,
    partial: Annotated[bool, typer.Option("--partial", help="Estimates of some mixtures may be missing. Such a row is marked, and never ranked.")] = False,
    allow_clipped: Annotated[bool, typer.Option("--allow-clipped", help="Take sounds that stay at full scale as they are.")] = False,
    keep_estimates: Annotated[bool, typer.Option(help="Keep a copy of the estimates in the run's folder; 'score' and 'panel' need it.")] = True,
    device: Annotated[str, typer.Option(help="Where features for FID, KID and inception score are extracted: cpu, cuda, cuda:N or auto.")] = "cpu",
) -> None:
    """Score estimates that exist already, made by any program, and write a leaderboard.

    The row goes through show, compare, check, publish and panel like any other. It carries the SHA-256 of what was supplied and no seconds.
    With the same --out another name or another task is added. 'sepbench export' writes the mixtures; docs/evaluate.md shows every layout.
    Exit code 2 if estimates are missing, extra, misnamed or of another shape, rate or kind: nothing is written then. 130 if it was interrupted.
    """
    import shlex
    import sys

    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.run import finish
    from sepbench.results.evaluation import evaluate_estimates
    from sepbench.suites.loader import load_suite

    console, notes = Console(), Console(stderr=True)
    loaded = load_suite(suite)
    if task in loaded.tasks:
        fetch_data_of(loaded.tasks[task])
    try:
        with notes.status("reading estimates") as status:
            store = evaluate_estimates(
                suite,
                task,
                estimates,
                name,
                out,
                supervision=supervision,
                limit=limit,
                partial=partial,
                allow_clipped=allow_clipped,
                keep_estimates=keep_estimates,
                device=device,
                command=shlex.join(["sepbench", *sys.argv[1:]]),
                warn=lambda text: notes.print(Text.assemble(("warning:", "yellow"), f" {text}"), soft_wrap=True),
                inspected=lambda done, total: status.update(f"reading estimates: {done:,} of {total:,} mixtures"),
                scored=lambda done, total: status.update(f"scoring: {done:,} of {total:,} mixtures"),
            )
    except KeyboardInterrupt:
        notes.print("interrupted; the same command goes on where it stopped", soft_wrap=True)
        raise typer.Exit(130) from None
    with store.session():
        finish(store, loaded, console, task)
    _print_next_step(store, task, name, loaded, console)
    console.print(Text(f"estimates: sha256 {store.read_cells()[task, name].estimates_sha256}"), soft_wrap=True)


def _print_next_step(store: RunStore, task: str, name: str, suite: Suite, console: Console) -> None:
    """Where the row stands alone: how others come beside it."""
    import shlex

    from rich.text import Text

    run = store.read_run()
    if len(run.methods_on(task)) > 1:
        return
    cheap = tuple(method for method in suite.methods if method in ("average", "nmf")) or suite.methods[:2]
    count = run.tasks[task].n_planned
    limit = ["--limit", str(count)] if count < suite.tasks[task].n_examples else []
    options = ["--suite", run.suite.path or suite.name, "--tasks", task, "--methods", ",".join(cheap), *limit, "--out", str(store.path)]
    named = shlex.join(["sepbench", "run", *options])
    console.print(Text(f"to compare {name} with methods on the same mixtures: {named}"), soft_wrap=True)


def fetch_data_of(task: Task) -> None:
    """Download what a task needs and is missing, with a progress bar; silent where everything is there."""
    from sepbench.data.datasets import manifests_of
    from sepbench.data.files.manifests import load_manifest
    from sepbench.report.fetching import fetch_with_progress

    for name in manifests_of(task.spec.datasets):
        fetch_with_progress(load_manifest(name))
