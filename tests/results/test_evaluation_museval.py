"""museval and ``evaluate`` on the same 50 pairs of WAV files."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest


@pytest.mark.slow
def test_museval_and_evaluate_agree_on_fifty_wav_estimates(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    compare = runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "evaluate_museval.py"))["compare"]
    for ours, theirs in compare(tmp_path, 50).values():
        assert ours.shape == (50, 2)
        assert np.ptp(ours) > 1.0
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
