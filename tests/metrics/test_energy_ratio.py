"""Ratios of energies: their limits."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from sepbench.metrics.energy_ratio import energy_ratio_db

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("signal", "error", "decibels"),
    [
        *[(100.0, 1.0, 20.0), (1.0, 1.0, 0.0), (1.0, 0.0, 200.0), (1e300, 1e-300, 200.0), (0.0, 1.0, -200.0), (1.0, 1e25, -200.0)],
        *[(0.0, 0.0, NAN), (INF, 1.0, NAN), (1.0, INF, NAN), (INF, INF, NAN), (NAN, 1.0, NAN), (1.0, NAN, NAN), (NAN, 0.0, NAN)],
    ],
)
def test_limits(signal: float, error: float, decibels: float) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is defined is no warning
        found = energy_ratio_db(np.array([signal]), np.array([error]))
    np.testing.assert_allclose(found, [decibels], rtol=1e-12)
