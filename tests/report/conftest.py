"""Tests of reports. One with the fixture ``browser`` is run again where its browser has stopped drawing (``browser_again``)."""

from __future__ import annotations

from typing import Any

import pytest
from browser_again import Chromium, in_a_browser_that_draws


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: Any) -> bool | None:
    given = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if not isinstance(given.get("browser"), Chromium):
        return None
    in_a_browser_that_draws(pyfuncitem.obj, given)
    return True
