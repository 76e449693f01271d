"""``sepbench run``: from a suite's name to a leaderboard."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sepbench.cli import completion
from sepbench.cli.run_config import load_config

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from sepbench.results.store import RunStore
    from sepbench.run.backends import Backend
    from sepbench.run.execute import Outcome
    from sepbench.run.plan import Plan
    from sepbench.run.records import RunRecord
    from sepbench.suites.model import Suite


class BudgetChoice(StrEnum):
    """Settings of the methods."""

    quick = "quick"
    paper = "paper"


def run(
    ctx: typer.Context,
    suite: Annotated[str, typer.Option(help="Suite to run; 'sepbench list suites' shows them.", autocompletion=completion.suites)],
    methods: Annotated[str, typer.Option(help="Methods, separated by commas. Default: the suite's own list.", autocompletion=completion.methods)] = "",
    tasks: Annotated[str, typer.Option(help="Tasks, separated by commas. Default: every task of the test split.", autocompletion=completion.tasks)] = "",
    limit: Annotated[int | None, typer.Option(help="Only the first so many mixtures of each task.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")] = "auto",
    seed: Annotated[int, typer.Option(help="Key of all noise.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Run random methods with so many seeds on the same fit: --seed and those after it.")] = 1,
    fits: Annotated[int, typer.Option(min=1, help="Fit random methods that learn so many times, with --seed and those after it.")] = 1,
    out: Annotated[Path | None, typer.Option(help="The run's folder. Default: runs/SUITE-HASH, the same for the same command.")] = None,
    budget: Annotated[BudgetChoice, typer.Option(help="The methods' settings: the paper's, or quick ones.")] = BudgetChoice.paper,
    settings: Annotated[list[str] | None, typer.Option("--set", help="METHOD.SETTING=VALUE; may be repeated.")] = None,
    workers: Annotated[str, typer.Option(help="Processes that share the work, a number or 'auto'. The numbers do not depend on it.")] = "",
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of each process. Default: OMP_NUM_THREADS, or 1. The last bits depend on it.")] = None,
    backend: Annotated[str, typer.Option(help="Who works: local (this machine) or ray (a cluster, see docs/clusters.md).")] = "local",
    shard_size: Annotated[int | None, typer.Option(help="Mixtures per file of results. Default: what takes about half a minute.")] = None,
    refit: Annotated[bool, typer.Option(help="Train methods again whose fit is in the cache.")] = False,
    keep_estimates: Annotated[bool, typer.Option(help="Keep estimates after they are scored; 'sepbench score' needs them.")] = True,
    latency: Annotated[bool, typer.Option(help="Also measure the seconds of single-mixture calls.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Try mixtures again that failed in an earlier session of this run.")] = False,
    save_audio: Annotated[int, typer.Option(min=0, metavar="N", help="Also write the first N mixtures of each task as WAV files, into the run's folder.")] = 0,
    config: Annotated[Path | None, typer.Option(is_eager=True, callback=load_config, help="Read options from this YAML, JSON or TOML file.")] = None,
    save_config: Annotated[Path | None, typer.Option(help="Also write the file (.yaml, .json) with which --config repeats this command.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Show the plan, and run nothing.")] = False,
) -> None:
    """Separate a suite's mixtures with each method, score, and write a leaderboard.

    The same command resumes an interrupted run: what exists is done. With the same --out a larger --limit, more methods or more tasks extend it.
    Exit code 1 if a method failed on a task as a whole (the others have run),
    2 if the request cannot be run, 130 if it was interrupted.
    """
    import sys

    from rich.console import Console
    from rich.text import Text

    from sepbench.cli import run_config
    from sepbench.cli.threads import use_threads
    from sepbench.report.fitting import print_table

    use_threads(threads)

    from sepbench.report.fetching import fetch_with_progress
    from sepbench.results.recording import prepare
    from sepbench.results.repeats import folder_of
    from sepbench.results.store import RunStore
    from sepbench.run.backends.chosen import make_backend
    from sepbench.run.plan import make_plan, repeated_plans
    from sepbench.run.provenance import default_folder, run_record
    from sepbench.run.request import RunRequest
    from sepbench.settings import parse_settings
    from sepbench.suites.loader import load_suite

    _check_given(ctx, methods=methods, tasks=tasks)
    request = RunRequest(
        suite=suite,
        methods=names(methods),
        tasks=names(tasks),
        limit=limit,
        device=device,
        seed=seed,
        budget=budget.value,
        settings=parse_settings(run_config.settings_of(ctx)),
        shard_size=shard_size,
        keep_estimates=keep_estimates,
        latency=latency,
        retry_failed=retry_failed,
        refit=refit,
    )
    loaded = load_suite(suite)
    if save_audio:
        _check_audio(loaded, keep_estimates)
    plan = make_plan(request, loaded)
    if save_config is not None:
        run_config.save_config(ctx, save_config)
    command = run_config.command_line(ctx, sys.argv[1:])
    folder = out or default_folder(run_record(plan, command))
    console = Console()
    if not request.methods:
        from sepbench.report.costs import cost_line

        Console(stderr=True).print(Text(f"note: {cost_line(plan)}"), soft_wrap=True)
    if dry_run:
        print_table(_plan_table(plan), console)
        console.print(Text(f"would write to {folder}"), soft_wrap=True)
        return
    prepare(plan, fetch_with_progress)
    team = make_backend(backend, workers, plan.device)
    repeats = list(repeated_plans(plan, loaded, seeds, fits))
    outcome = _execute(plan, run_record(plan, command, backend, team.workers), folder, team, last=not repeats)
    for kind, repeated in repeats:
        place = folder_of(folder, kind, repeated.request.seed if kind == "seeds" else repeated.request.fit_seed or 0)
        _execute(repeated, run_record(repeated, command, backend, team.workers), place, team, last=False)
    if repeats:
        store = RunStore.open(folder)
        with store.session():
            finish(store, plan.suite, console)
    if save_audio:
        _save_audio(folder, save_audio, console)
    _tell_failures(outcome, folder)
    if not keep_estimates:
        Console(stderr=True).print("estimates were removed: 'sepbench score' cannot score this run again")
    raise typer.Exit(outcome.exit_code)


def _tell_failures(outcome: Outcome, folder: Path) -> None:
    """What to do about mixtures that failed, and where the traceback of the first lies; with ``SEPBENCH_TRACEBACK`` those of all cells."""
    from rich.console import Console
    from rich.text import Text

    from sepbench.places import TRACEBACK, wants_traceback
    from sepbench.results.layout import Layout
    from sepbench.run.separate import ContractError

    notes = Console(stderr=True)
    failed = [(cell.task.spec.name, cell.method, record) for cell, record in outcome.cells if record.n_failed]
    if failed:
        notes.print("mixtures that failed keep their rows; once the cause is mended, the same command with --retry-failed tries them again", soft_wrap=True)
    partial = next((method for _, method, record in failed if record.n_separated), "")
    if partial:
        notes.print(Text(f"if the code of {partial} changes, which has scored mixtures here, it needs another --out"), soft_wrap=True)
    # What sepbench says of estimates that break the contract arose in its own code.
    traced = [found for found in failed if found[2].traceback and not found[2].error.startswith(ContractError.__name__)]
    if traced and not wants_traceback():
        task, method, _ = traced[0]
        what = f"the whole traceback lies in {Layout(folder).cell(task, method)}; {TRACEBACK}=1 shows it here"
        notes.print(Text(what), soft_wrap=True)
    for task, method, record in traced if wants_traceback() else ():
        notes.print(Text(f"{task} / {method}\n{record.traceback.rstrip()}"), soft_wrap=True)


def _check_audio(suite: Suite, keep_estimates: bool) -> None:
    from sepbench.errors import SepbenchError
    from sepbench.report.audio_examples import check_audio

    check_audio(suite)
    if not keep_estimates:
        raise SepbenchError("--save-audio reads the estimates that --no-keep-estimates removes; leave one of them out")


def _save_audio(folder: Path, count: int, console: Console) -> None:
    from rich.text import Text

    from sepbench.report.audio_examples import write_examples
    from sepbench.report.panels.opened_run import OpenedRun

    # Text and not str, here and below: rich would take square brackets in a method's words or in a path for styles.
    run = OpenedRun.open(folder, lambda text: console.print(Text(f"note: {text}"), soft_wrap=True))
    written = write_examples(run, count, folder / "audio")
    console.print(Text(f"audio: {len(written)} mixtures in {folder / 'audio'}"), soft_wrap=True)


def _check_given(ctx: typer.Context, **lists: str) -> None:
    """An empty list of names that somebody gave (a variable of the shell that is not set, say) is no wish for everything.

    Raises:
        SepbenchError: one is empty.
    """
    from sepbench.errors import SepbenchError

    for option, text in lists.items():
        if not names(text) and getattr(ctx.get_parameter_source(option), "name", "") in ("COMMANDLINE", "DEFAULT_MAP"):
            raise SepbenchError(f"--{option} names nothing; leave it out to run all {option} of the suite")


def names(text: str) -> tuple[str, ...]:
    """``"a, b"`` to ``("a", "b")``."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _execute(plan: Plan, record: RunRecord, folder: Path, team: Backend, last: bool) -> Outcome:
    """Run a plan in its folder; ``last``: print its table, for nothing follows that changes it."""
    from rich.console import Console

    from sepbench.report.progress import RunProgress
    from sepbench.results.recording import record_run

    progress = RunProgress()
    try:
        return record_run(plan, record, folder, progress, team, lambda store: finish(store, plan.suite, Console()) if last else None)
    except KeyboardInterrupt:
        total = sum(cell.n_planned for cell in plan.cells)
        progress.console.print(f"interrupted after {progress.finished:,} of {total:,} mixtures; run the same command again to resume")
        raise typer.Exit(130) from None


def finish(store: RunStore, suite: Suite, console: Console, task: str = "") -> None:
    """Build the leaderboard from the scores on disk, write it, and print it, or the part of one task, with its place."""
    from rich.text import Text

    from sepbench.report.table import render_leaderboard
    from sepbench.results.recording import finish as write
    from sepbench.results.recording import leaderboard_path

    results = write(store, suite)
    frame = results.frame[results.frame["task"] == task] if task else results.frame
    render_leaderboard(frame, suite, console, cells=results.cells, bounds=results.bounds, evidence=results.evidence)
    others = results.frame["task"].nunique() - frame["task"].nunique()
    if others:
        console.print(Text(f"{others:,} more {'task is' if others == 1 else 'tasks are'} in this run: 'sepbench show {store.path}' shows all"), soft_wrap=True)
    console.print(Text(f"leaderboard: {leaderboard_path(store)}"), soft_wrap=True)


def _plan_table(plan: Plan) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{plan.suite.name} version {plan.suite.version}, {plan.device}, seed {plan.request.seed}, {plan.request.budget} budget"
    table = Table(title=Text(title, style="table.title"), title_justify="left")
    for column in ("task", "method", "learns from", "mixtures", "note"):
        table.add_column(column, justify="right" if column == "mixtures" else "left", overflow="fold")
    for cell in plan.cells:
        amount = f"{cell.n_planned:,}" if cell.support.ok else "-"
        note = cell.support.note if cell.support.ok else f"unsupported: {cell.support.note}"
        table.add_row(*(Text(str(text)) for text in (cell.task.spec.name, cell.method, cell.supervision, amount, note)))
    return table
