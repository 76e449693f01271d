"""What functions take where a caller says nothing, and the constants of modules, in the rooms that read data, run, sum up, report and take commands.

Records, tables and pages depend on them, and nobody sees one change. Change one knowingly: ``PYTHONPATH=tests python tests/test_frozen_defaults.py``
writes what is frozen; read that diff.
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path

import pytest
from frozen_numbers import constants, write

import sepbench

FILE = Path(__file__).parent / "golden" / "defaults.json"
ROOMS = ("api", "cli", "data", "report", "results", "run")


def modules(room: str) -> list[str]:
    names = (info.name for info in pkgutil.walk_packages(sepbench.__path__, "sepbench.") if not info.ispkg)
    return sorted(name for name in names if name.startswith(f"sepbench.{room}."))


@pytest.mark.parametrize("room", ROOMS)
def test_defaults_and_constants_are_those_that_are_frozen(room: str) -> None:
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    found = {name: constants(name, nothing=True) for name in modules(room)}
    assert {name: held for name, held in found.items() if held} == {name: held for name, held in frozen.items() if name.startswith(f"sepbench.{room}.")}


if __name__ == "__main__":
    write(FILE, [name for room in ROOMS for name in modules(room)], nothing=True)
