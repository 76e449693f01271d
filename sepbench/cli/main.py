"""``sepbench``: registers the commands and turns user errors into one line and exit code 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from sepbench import __version__
from sepbench.cli import cache, check, compare, data, env, new_method, panel, publish, run, score, show, threads, train, validate
from sepbench.cli import list as list_command
from sepbench.errors import SepbenchError

app = typer.Typer(
    name="sepbench",
    help="Benchmark of source separation: frozen data through any method to scores, beside the papers' published numbers.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"sepbench {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Benchmark of source separation: frozen data through any method to scores, beside the papers' published numbers."""


app.command("run", help="Run a suite: separate, score, write a leaderboard.")(run.run)
app.command("score", help="Score a run's saved estimates again, without separating.")(score.score)
app.command("show", help="Show the table of a run, a leaderboard CSV or a suite.")(show.show)
app.command("compare", help="Paired comparison of two runs or two methods.")(compare.compare)
app.command("panel", help="Pictures of a run: grids, histograms, posterior samples, gradient norms.")(panel.panel)
app.command("check", help="Regression gate: exit 0 holds, 1 regression, 2 not comparable.")(check.check)
app.command("publish", help="Merge a run into the committed leaderboards.")(publish.publish)
app.command("train", help="Train a prior on a data set's training split.")(train.train)
app.command("list", help="List suites, tasks, methods and metrics, or show one method with its settings.")(list_command.list_names)
app.command("new-method", help="Write a runnable template of a method with its test.")(new_method.new_method)
app.command("validate", help="Hold a method against the contract.")(validate.validate)
app.command("env", help="Show what decides a run's numbers and speed on this machine.")(env.env)
app.add_typer(cache.app, name="cache", help="Fits that are kept: list, clear.")
app.add_typer(data.app, name="data", help="Data sets: list, fetch, verify, path.")


def main() -> None:
    """Entry point of the ``sepbench`` command."""
    threads.set_defaults()
    try:
        app(standalone_mode=True)
    except SepbenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokenPipeError:
        # The reader (head, less) went away: no news, no traceback. Python would complain once more while flushing at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)


if __name__ == "__main__":
    main()
