"""``sepbench.load_suite``: frozen tasks, their mixtures and true sources."""

from __future__ import annotations

import os

from sepbench.api.arguments import public, suite_name
from sepbench.suites import loader
from sepbench.suites.model import Suite


@public
def load_suite(name: str | os.PathLike[str]) -> Suite:
    """A suite by name, or by the path of its TOML file; ``suite.task(name)`` is one of its tasks. Opens no data.

    Raises:
        UnknownNameError: no such suite; the nearest names are offered.
        SuiteError: it is malformed, or its lists are not the frozen ones.
    """
    return loader.load_suite(suite_name(name))
