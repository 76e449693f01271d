"""Numbers and words that stand in the code of baselines, outside of settings: constants of modules, and the defaults of arguments.

Estimates, weights that ship and figures of the documentation were made with them. Change one knowingly: ``PYTHONPATH=tests python`` of this file
writes what is frozen.
"""

from __future__ import annotations

import pytest
from frozen_constants import constants, freeze, frozen, modules

import baselines

FILE = "constants.json"


@pytest.mark.parametrize("name", modules(baselines))
def test_constants_are_those_that_results_were_made_with(name: str) -> None:
    assert constants(name) == frozen(FILE).get(name, {})


if __name__ == "__main__":
    freeze(FILE, baselines)
