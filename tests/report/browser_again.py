"""A browser that draws no more frames, and the test that needs them once more in another one.

Twice in three minutes of a busy machine scripts of a page ran, but charts that are drawn when they come into sight never came, and Playwright found nothing
stable. Both look as if no animation frame came. Why, we do not know. So a failed test asks its pages for frames, and only where none comes it is run again.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

MOST = 3
"""How often a test is run in all."""
FRAME = "new Promise(done => { requestAnimationFrame(() => requestAnimationFrame(() => done(true))); setTimeout(() => done(false), 20000); })"
"""Whether a page gets two frames within twenty seconds."""


class Chromium:
    """A browser of Playwright's that can be started again.

    Args:
        launch: starts one.
    """

    def __init__(self, launch: Callable[[], Any]) -> None:
        self._launch, self._browser = launch, launch()

    @property
    def browser_type(self) -> Any:
        return self._browser.browser_type

    def new_context(self, **options: Any) -> Any:
        return self._browser.new_context(**options)

    def draws(self) -> bool:
        """Whether all its open pages get frames."""
        return all(page.evaluate(FRAME) for context in self._browser.contexts for page in context.pages)

    def start_again(self) -> None:
        self.close()
        self._browser = self._launch()

    def close(self) -> None:
        self._browser.close()


def in_a_browser_that_draws(test: Callable[..., object], given: Mapping[str, Any]) -> None:
    """Call a test with its fixtures; if it fails and its browser draws no more, start another and call it again.

    A test that fails in a browser that draws has failed, and so has one that fails in ``MOST`` browsers. Each attempt has an empty ``tmp_path``.
    """
    browser: Chromium = given["browser"]
    for attempt in range(1, MOST + 1):
        own = dict(given)
        if attempt > 1 and "tmp_path" in own:
            own["tmp_path"] = Path(own["tmp_path"]) / f"attempt-{attempt}"
            own["tmp_path"].mkdir()
        try:
            test(**own)
        except Exception as error:
            if attempt == MOST or browser.draws():
                raise
            warnings.warn(f"the browser drew no more frames ({type(error).__name__}); the test runs again in another", RuntimeWarning, stacklevel=2)
            browser.start_again()
        else:
            return
