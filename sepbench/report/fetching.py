"""Downloads with a progress bar on stderr."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from sepbench.data.files.fetch import fetch
from sepbench.data.files.manifests import Manifest


def fetch_with_progress(manifest: Manifest) -> Path:
    """Fetch one data set with a progress bar on stderr that appears only if something is downloaded.

    Raises:
        DataError: see ``sepbench.data.files.fetch.obtain``.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress(*columns, console=Console(stderr=True))
    tasks: dict[str, TaskID] = {}

    def show(name: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()  # started here and not before: even an empty bar leaves a line behind
        if name not in tasks:
            tasks[name] = bars.add_task(name, total=total)
        bars.update(tasks[name], completed=done)

    try:
        return fetch(manifest, show)
    finally:
        if tasks:
            bars.stop()
