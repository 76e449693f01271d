"""``sepbench score``: score a run's estimates again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def score(
    run: Annotated[Path, typer.Argument(help="Folder of a run, with its estimates.", metavar="RUN")],
    metrics: Annotated[str, typer.Option(help="Metrics, separated by commas, instead of the suite's.")] = "",
    device: Annotated[str, typer.Option(help="Where features for FID, KID and inception score are extracted: cpu, cuda, cuda:N or auto.")] = "cpu",
) -> None:
    """Score a run's saved estimates again, without separating; its scores and leaderboard are replaced."""
    from rich.console import Console
    from rich.text import Text

    from sepbench.cli.run import finish, names
    from sepbench.results.store import RunStore
    from sepbench.run.execute import rescore
    from sepbench.run.plan import resolve_device
    from sepbench.suites.loader import recorded_suite

    console, notes = Console(), Console(stderr=True)
    store = RunStore.open(run, lambda text: notes.print(Text.assemble(("warning:", "yellow"), f" {text}"), soft_wrap=True))
    record = store.read_run()
    store.refuse_older(record)
    suite = recorded_suite(record.suite.name, record.suite.path)
    with store.session():
        with notes.status("scoring") as status:
            chosen = rescore(record, suite, names(metrics), store, lambda shard: status.update(f"scoring: {shard}"), resolve_device(device))
        store.end_session(chosen)
        finish(store, suite, console)
