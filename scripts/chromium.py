"""Debian's chromium (``apt-get install chromium``) as the tests, the pictures and the benchmark of the HTML report drive it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
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
def browser() -> Iterator[Any]:
    """A headless browser of Playwright's; it asks nothing of the outside by itself."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=PATH, args=list(SWITCHES))
        try:
            yield started
        finally:
            started.close()
