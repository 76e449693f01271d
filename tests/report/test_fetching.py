"""Downloads with bars: none where nothing is downloaded, one for each file else, and they are gone at the end whatever happened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sepbench.errors import DataError
from sepbench.report import fetching
from sepbench.report.fetching import fetch_with_progress

Show = Callable[[str, int, int], None]


class Bars:
    """What the bars were told."""

    def __init__(self, *columns: Any, console: Any) -> None:
        self.columns, self.console, self.calls = [type(column).__name__ for column in columns], console, list[tuple[Any, ...]]()

    def start(self) -> None:
        self.calls.append(("start",))

    def stop(self) -> None:
        self.calls.append(("stop",))

    def add_task(self, name: str, total: int) -> int:
        self.calls.append(("add", name, total))
        return len(self.calls)

    def update(self, task: int, completed: int) -> None:
        self.calls.append((self.calls[task - 1][1], completed))


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Bars, Any]]:
    """Bars and outcome of a fetch that reports so many bytes and then fails, if it is told to."""

    def run(*reports: tuple[str, int, int], error: BaseException | None = None) -> tuple[Bars, Any]:
        made: list[Bars] = []

        def bars(*columns: Any, console: Any) -> Bars:
            made.append(Bars(*columns, console=console))
            return made[-1]

        def fetch(manifest: str, show: Show) -> Path:
            for report in reports:
                show(*report)
            if error is not None:
                raise error
            return Path(manifest)

        monkeypatch.setattr(fetching, "Progress", bars)
        monkeypatch.setattr(fetching, "fetch", fetch)
        try:
            outcome: Any = fetch_with_progress("mnist")  # type: ignore[arg-type]
        except DataError as raised:
            outcome = raised
        return made[0], outcome

    return run


def test_nothing_is_drawn_where_nothing_is_downloaded(fetched: Callable[..., tuple[Bars, Any]]) -> None:
    bars, folder = fetched()
    assert (bars.calls, folder) == ([], Path("mnist"))
    assert bars.console.stderr
    assert bars.columns == ["TextColumn", "BarColumn", "DownloadColumn", "TransferSpeedColumn", "TimeRemainingColumn"]
    lost = DataError("no network")
    bars, error = fetched(error=lost)
    assert (bars.calls, error) == ([], lost)


@pytest.mark.parametrize("error", [None, DataError("broke off")])
def test_every_file_has_its_bar(fetched: Callable[..., tuple[Bars, Any]], error: DataError | None) -> None:
    bars, outcome = fetched(("a", 0, 10), ("b", 3, 7), ("a", 10, 10), error=error)
    assert bars.calls == [("start",), ("add", "a", 10), ("a", 0), ("add", "b", 7), ("b", 3), ("a", 10), ("stop",)]
    assert outcome == (error or Path("mnist"))
