"""``sepbench report``: runs and leaderboards as a page that opens from disk."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    targets: Annotated[list[str] | None, typer.Argument(help="Folders of runs, leaderboard CSVs or suites.", metavar="[RUN]...")] = None,
    leaderboards: Annotated[bool, typer.Option("--leaderboards", help="All committed leaderboards.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of the report. Default: RUN/report of a run, else ./report.")] = None,
    task: Annotated[str, typer.Option(help="Only these tasks, separated by commas.")] = "",
    examples: Annotated[str, typer.Option(help="Mixtures to show besides the usual ones, as in 0,5,7.")] = "",
    samples: Annotated[int, typer.Option(min=0, max=64, help="Also draw so many posterior samples of one mixture. Computes.")] = 0,
    device: Annotated[str, typer.Option(help="Where --samples computes: cpu, cuda, cuda:N or auto.")] = "auto",
    budget_mb: Annotated[float, typer.Option(min=0, help="Most that pictures and sounds may weigh, in MB.")] = 50.0,
    history: Annotated[int, typer.Option(min=0, max=200, help="Also show the last N states of committed leaderboards in git.")] = 0,
    serve: Annotated[bool, typer.Option("--serve", help="Show it on the loopback address, and make it anew while a run goes on.")] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of --serve; 0 takes a free one.")] = 8765,
) -> None:
    """Write one folder, index.html and what it needs, without server or network: leaderboard, distributions, examples to look at and listen to.

    Needs the extra 'html'. Reads only what was kept, unless --samples is given.
    """
    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.panel import numbers
    from sepbench.cli.run import names
    from sepbench.errors import SepbenchError, some
    from sepbench.report.html.page import Options, write_report
    from sepbench.report.numbers import size_text
    from sepbench.resources import resource_root

    if targets and leaderboards:
        raise SepbenchError(f"--leaderboards takes all that are committed; leave it out to show {some(targets)} alone")
    if not targets and not leaderboards:
        raise SepbenchError("name runs, leaderboards or suites, or give --leaderboards for all that are committed")
    wanted = targets or sorted(path.stem for path in resource_root("leaderboards").glob("*.csv") if path.stem != "published")
    folder = out or (Path(wanted[0]) / "report" if len(wanted) == 1 and (Path(wanted[0]) / "run.json").is_file() else Path("report"))
    notes = Console(stderr=True)

    def warn(text: str) -> None:
        notes.print(Text.assemble(("note:", "yellow"), f" {text}"), soft_wrap=True)

    options = Options(names(task), numbers(examples), budget_mb, samples, device, history, live=serve)
    if serve:
        from sepbench.report.html.serve import serve_report

        serve_report(wanted, folder, options, port, warn, lambda address: typer.echo(address))
        return
    with notes.status("writing the report"):
        written = write_report(wanted, folder, options, warn)
    media = f", {size_text(written.media)} of them pictures and sounds" if written.media else ""
    typer.echo(f"{written.index}: {written.files:,} files, {size_text(written.size)}{media}, {written.seconds:.0f} s")
