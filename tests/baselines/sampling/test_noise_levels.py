from __future__ import annotations

from itertools import pairwise

import pytest

from baselines.sampling.noise_levels import karras_levels, ncsn_levels


def test_karras_levels_golden() -> None:
    """By hand: the middle of three levels from 2 to 0.01 is ((2^(1/7) + 0.01^(1/7)) / 2)^7."""
    assert karras_levels(3, 2.0, 0.01) == pytest.approx([2.0, ((2 ** (1 / 7) + 0.01 ** (1 / 7)) / 2) ** 7, 0.01])
    assert karras_levels(2, 1.0, 0.1, rho=1.0) == pytest.approx([1.0, 0.1])


def test_ncsn_levels_are_geometric() -> None:
    levels = ncsn_levels()
    assert (levels[0], levels[-1]) == pytest.approx((1.0, 0.01))
    assert [after / before for before, after in pairwise(levels)] == pytest.approx([0.01 ** (1 / 9)] * 9)


def test_one_level_is_the_highest_and_three_fall_by_tens() -> None:
    assert ncsn_levels(1, 0.7, 0.1) == pytest.approx([0.7])
    assert karras_levels(1, 0.7, 0.1) == pytest.approx([0.7])
    assert ncsn_levels(3, 2.0, 0.02) == pytest.approx([2.0, 0.2, 0.02])
