"""``sepbench``: registers the commands and turns user errors into one line and exit code 2."""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from sepbench import __version__
from sepbench.cli import (
    cache,
    check,
    compare,
    data,
    env,
    evaluate,
    export,
    freeze,
    new_method,
    new_suite,
    panel,
    publish,
    report,
    run,
    score,
    show,
    threads,
    train,
    validate,
    verify,
)
from sepbench.cli import list as list_command
from sepbench.errors import SepbenchError, flat, nearest, plain, reason
from sepbench.places import TRACEBACK, wants_traceback

FOLDERS = ("SEPBENCH_DATA", "SEPBENCH_CACHE", "SEPBENCH_SUITES")


class _Commands(TyperGroup):
    def invoke(self, ctx: Any) -> Any:
        """Run a command.

        Raises:
            typer.Exit: 141 where the reader (head, less) went away: no news, no traceback, and not the 1 that click makes of it.
        """
        try:
            with _told_in_one_line(ctx):
                return super().invoke(ctx)
        except BrokenPipeError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python would complain once more while flushing at exit
            raise typer.Exit(141) from error
        except EOFError as error:  # click makes 1 of it
            raise RuntimeError(reason(error)) from error

    def make_context(self, *args: Any, **options: Any) -> Any:
        """Read the command line."""
        with _told_in_one_line():
            return super().make_context(*args, **options)


@contextlib.contextmanager
def _told_in_one_line(outer: Any = None) -> Iterator[None]:
    """What typer has to say of a command line is one line and a next step, like every other error. Its classes differ between versions; its words do not."""
    try:
        yield
    except Exception as error:
        context = getattr(error, "ctx", None) or outer
        if context is None or not hasattr(error, "format_message") or type(error).__name__ == "NoArgsIsHelpError":
            raise
        text = usage_error(plain(error.format_message()), context)
        error.show = lambda *args, **options: typer.echo(f"error: {text}", err=True)  # type: ignore[attr-defined]
        raise


def usage_error(message: str, context: Any) -> str:
    """A message of typer in our words: what is wrong with the command line, and where one reads what may stand there."""
    unknown = re.fullmatch(r"No such command '?([^']*)'?\.?.*", message)
    if unknown:
        names = sorted(context.command.list_commands(context))
        return str(nearest(unknown[1], names, "command", f"'{context.command_path} --help' lists them"))
    option = re.match(r"No such option:? '?(--?[^\s']*)'?", message)
    if option:
        names = [name for parameter in context.command.params for name in (*parameter.opts, *parameter.secondary_opts) if name.startswith("--")]
        otherwise = f"'{context.command_path} --help' lists them"
        return f"{context.command_path}: {nearest(option[1], names, 'option', otherwise)}"
    said = f"{message[:1].lower()}{message[1:]}".rstrip(".")
    command = " ".join(filter(None, (context.command_path, context.invoked_subcommand)))
    return f"{command}: {said}; '{command} --help' shows what it takes"


app = typer.Typer(
    cls=_Commands,
    name="sepbench",
    help="Benchmark of source separation: frozen data through any method to scores, beside the papers' published numbers.",
    no_args_is_help=True,
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
app.command("evaluate", help="Score estimates that exist already, made by any program.")(evaluate.evaluate)
app.command("export", help="Write a task's mixtures for a program in any language.")(export.export)
app.command("score", help="Score a run's saved estimates again, without separating.")(score.score)
app.command("show", help="Show the table of a run, a leaderboard CSV or a suite.")(show.show)
app.command("compare", help="Paired comparison of two runs or two methods.")(compare.compare)
app.command("panel", help="Pictures of a run: grids, histograms, posterior samples, gradient norms.")(panel.panel)
app.command("report", help="A page of runs or leaderboards that opens from disk.")(report.report)
app.command("check", help="Regression gate: exit 0 holds, 1 regression, 2 not comparable.")(check.check)
app.command("publish", help="Merge a run into the committed leaderboards.")(publish.publish)
app.command("train", help="Train a prior on a data set's training split.")(train.train)
app.command("list", help="List suites, tasks, methods and metrics, or show one method with its settings.")(list_command.list_names)
app.command("new-method", help="Write a runnable template of a method with its test.")(new_method.new_method)
app.command("new-suite", cls=new_suite.SourcesCommand, help="Make a frozen suite of your own images or sounds.")(new_suite.new_suite)
app.command("freeze", help="Write pair lists and digests into a suite that has none.")(freeze.freeze)
app.command("verify", help="Compare a suite's mixtures with its frozen digests.")(verify.verify)
app.command("validate", help="Check a method against the contract.")(validate.validate)
app.command("env", help="Show what decides a run's numbers and speed on this machine.")(env.env)
app.add_typer(cache.app, name="cache", help="Fits that are kept: list, clear.")
app.add_typer(data.app, name="data", help="Data sets: list, fetch, verify, path.")


def main() -> None:
    """Entry point of the ``sepbench`` command. What ends it otherwise than as planned is one line and code 2: 1 has a meaning, a regression for one."""
    threads.set_defaults()
    _tell_broken_pipes()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files and words of methods need not be in the terminal's characters
    try:
        _check_texts()
        _fix_folders()
        with _threads_end_in_one_line():
            app(standalone_mode=True, prog_name="sepbench")
    except SepbenchError as error:
        _end(str(error))
    except (SystemExit, KeyboardInterrupt):
        raise
    except OSError as error:
        if wants_traceback():
            raise
        where = f"{error.filename}: " if error.filename else ""
        _end(f"{flat(where)} {(error.strerror or reason(error)).lower()}; check files, permissions and the room on the disk".lstrip())
    except BaseException as error:
        if wants_traceback():
            raise
        _end(f"unexpected {reason(error)}; this is a fault of sepbench or of a plug-in: please report it with what {TRACEBACK}=1 shows")


@contextlib.contextmanager
def _threads_end_in_one_line() -> Iterator[None]:
    """A thread that a method started and left alone ends alone: the run goes on, and no traceback of it fills the screen."""

    def told(failed: threading.ExceptHookArgs) -> None:
        if wants_traceback():
            threading.__excepthook__(failed)
        elif failed.exc_value is not None:
            typer.echo(f"warning: a thread of a method ended with {reason(failed.exc_value)}; {TRACEBACK}=1 shows where", err=True)

    before, threading.excepthook = threading.excepthook, told
    try:
        yield
    finally:
        threading.excepthook = before


def _tell_broken_pipes() -> None:
    """Where a table's reader (head, less) goes away, rich would end with 1, which means a failed method."""
    from rich.console import Console

    def gone(self: Console) -> None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)

    Console.on_broken_pipe = gone  # type: ignore[method-assign]


def _end(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    sys.exit(2)


def _check_texts() -> None:
    """Names of files reach libraries and files that take UTF-8 only: better no start than a run that cannot be written or read."""
    for what, text in (*((f"argument {n}", text) for n, text in enumerate(sys.argv[1:], 1)), *((name, os.environ.get(name, "")) for name in FOLDERS)):
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise SepbenchError(f"{what}, {flat(text)}, is not UTF-8 text; rename the file or folder, or name another one") from error


def _fix_folders() -> None:
    """Relative folders of the environment are those of the folder in which the command began, wherever a method goes."""
    for name in FOLDERS:
        parts = os.environ.get(name, "").strip().split(os.pathsep if name == "SEPBENCH_SUITES" else "\0")
        if any(parts):
            os.environ[name] = os.pathsep.join(part if part.startswith("~") else os.path.abspath(part) for part in parts if part)  # noqa: PTH100 - no pathlib for it


if __name__ == "__main__":
    main()
