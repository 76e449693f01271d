"""Numbers that stand in the code of baselines, outside of settings: constants of modules, and what arguments are where a caller says nothing.

Estimates, weights that ship and figures of the documentation were made with them. Change one knowingly: run this file, which writes what is frozen
(``PYTHONPATH=tests python tests/baselines/test_frozen_constants.py``).
"""

from __future__ import annotations

import json
import pkgutil
from pathlib import Path

import pytest
from frozen_numbers import constants, write

import baselines

FILE = Path(__file__).parents[1] / "golden" / "constants.json"
FREE = {"baselines.networks.norm_kernel"}
"""Modules that want a package which is not everywhere."""


def modules() -> list[str]:
    return sorted(info.name for info in pkgutil.walk_packages(baselines.__path__, "baselines.") if not info.ispkg and info.name not in FREE)


@pytest.mark.parametrize("name", modules())
def test_constants_are_those_that_results_were_made_with(name: str) -> None:
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    assert constants(name) == frozen.get(name, {})


if __name__ == "__main__":
    write(FILE, modules())
