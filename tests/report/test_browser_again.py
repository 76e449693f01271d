"""A test in a browser that stopped drawing is run again in another; one that fails in a browser that draws has failed at once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from browser_again import MOST, Chromium, in_a_browser_that_draws


class Fake:
    """A browser whose single page gets frames or not."""

    def __init__(self, draws: bool) -> None:
        self.draws, self.closed, self.browser_type = draws, False, "chromium"
        page = SimpleNamespace(evaluate=lambda script: self.draws and "requestAnimationFrame" in script)
        self.contexts = [SimpleNamespace(pages=[page])]

    def new_context(self, **options: Any) -> tuple[Fake, dict[str, Any]]:
        return self, options

    def close(self) -> None:
        self.closed = True


def of(*draws: bool) -> tuple[Chromium, list[Fake]]:
    """A browser that is one after the other of these."""
    started: list[Fake] = []

    def launch() -> Fake:
        started.append(Fake(draws[len(started)]))
        return started[-1]

    return Chromium(launch), started


def test_a_browser_that_draws_no_more_is_replaced(tmp_path: Path) -> None:
    browser, started = of(False, True)
    places: list[Path] = []

    def test(browser: Chromium, tmp_path: Path, word: str) -> None:
        places.append(tmp_path)
        assert word == "as given"
        assert not list(tmp_path.iterdir())
        (tmp_path / "report").mkdir()
        assert len(started) == 2, "this one is stuck"

    with pytest.warns(RuntimeWarning, match=r"drew no more frames \(AssertionError\)"):
        in_a_browser_that_draws(test, {"browser": browser, "tmp_path": tmp_path, "word": "as given"})
    assert len(places) == len(set(places)) == 2
    assert [one.closed for one in started] == [True, False]
    assert browser.new_context(width=3) == (started[1], {"width": 3})


def test_a_fault_in_a_browser_that_draws_is_told_at_once() -> None:
    browser, started = of(True)
    calls: list[int] = []

    def test(browser: Chromium) -> None:
        calls.append(1)
        raise AssertionError("wrong colour")

    with pytest.raises(AssertionError, match="wrong colour"):
        in_a_browser_that_draws(test, {"browser": browser})
    assert (len(calls), len(started)) == (1, 1)


@pytest.mark.filterwarnings("ignore:the browser drew no more frames")
def test_a_fault_in_every_browser_is_told() -> None:
    browser, started = of(*[False] * MOST)

    def test(browser: Chromium) -> None:
        raise AssertionError(f"attempt {len(started)}")

    with pytest.raises(AssertionError, match=f"attempt {MOST}"):
        in_a_browser_that_draws(test, {"browser": browser})
    assert len(started) == MOST
