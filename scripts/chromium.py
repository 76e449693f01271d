"""Debian's chromium (``apt-get install chromium``) as the tests, the pictures and the benchmark of the HTML report drive it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATH = shutil.which("chromium") or ""
"""Empty where there is none."""
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def driver() -> Iterator[Callable[[], Any]]:
    """What starts headless browsers of Playwright's, as long as the block lasts; they ask nothing of the outside by themselves."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield lambda: playwright.chromium.launch(executable_path=PATH, args=list(SWITCHES))


@contextmanager
def browser() -> Iterator[Any]:
    """One such browser."""
    with driver() as launch:
        started = launch()
        try:
            yield started
        finally:
            started.close()
