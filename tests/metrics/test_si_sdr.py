"""Scale-invariant SDR: by hand, by its geometry, and above the mixture."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from audio_cases import audio_task, mixtures_of, random_audio
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.metrics.catalogue import defined_for
from sepbench.metrics.energy_ratio import RATIO_CAP_DB
from sepbench.metrics.kinds import MixtureMetric, PairMetric
from sepbench.metrics.si_sdr import SI_SDR, SI_SDR_IMPROVEMENT
from sepbench.protocols import Mixtures


def signal(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).reshape(1, 1, 1, -1)


def test_by_hand() -> None:
    # e = (3, 1), s = (2, 0): a s = (3, 0), error (0, -1): 10 log10 9. The mean stays in: without means both would be (1, -1) up to scale.
    assert float(SI_SDR.pairwise(signal(3, 1), signal(2, 0))) == pytest.approx(10 * math.log10(9), abs=1e-12)
    # The reference is scaled, so below 0 dB is possible: e = (1, 3).
    assert float(SI_SDR.pairwise(signal(1, 3), signal(2, 0))) == pytest.approx(-10 * math.log10(9), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 2), st.integers(2, 50), st.integers(0, 2**31), st.sampled_from([-7.0, -1.0, 1e-3, 0.5, 1e4]))
def test_is_the_cotangent_of_the_angle_whatever_the_scales(k: int, channels: int, length: int, seed: int, scale: float) -> None:
    estimates, references, _ = random_audio(3, k, (channels, length), seed)
    got = SI_SDR.pairwise(estimates, references)
    x, y = (side.double().flatten(2) / side.double().flatten(2).norm(dim=2, keepdim=True) for side in (estimates, references))
    cosine = torch.einsum("bit,bjt->bij", x, y)
    sine = (x[:, :, None] - cosine[..., None] * y[:, None]).norm(dim=3)
    torch.testing.assert_close(got, 20 * (cosine.abs() / sine).log10(), rtol=0, atol=1e-8)
    torch.testing.assert_close(SI_SDR.pairwise(scale * estimates.double(), references.double()), got, rtol=0, atol=1e-8)
    torch.testing.assert_close(SI_SDR.pairwise(estimates.double(), scale * references.double()), got, rtol=0, atol=1e-8)


def test_limits() -> None:
    assert float(SI_SDR.pairwise(signal(2, 4), signal(1, 2))) == RATIO_CAP_DB
    assert float(SI_SDR.pairwise(signal(0, 4), signal(1, 0))) == -RATIO_CAP_DB
    assert math.isnan(float(SI_SDR.pairwise(signal(0, 0), signal(1, 0))))
    assert math.isnan(float(SI_SDR.pairwise(signal(1, 0), signal(0, 0))))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_one_bad_sample_makes_its_pairs_undefined_and_no_others(bad: float) -> None:
    estimates, references, mixtures = random_audio(2, 3)
    kept = SI_SDR.pairwise(estimates, references)
    estimates[1, 2, 0, 7] = bad
    got = SI_SDR.pairwise(estimates, references)
    hit = torch.zeros(2, 3, 3, dtype=torch.bool)
    hit[1, 2] = True
    assert torch.equal(got.isnan(), hit)
    assert torch.equal(got[~hit], kept[~hit])
    improvement = SI_SDR_IMPROVEMENT.mixture_scores(estimates, references, mixtures)["si_sdr_improvement"]
    assert torch.equal(improvement.isnan(), hit.diagonal(dim1=1, dim2=2))


def test_improvement_is_over_the_mixture() -> None:
    estimates, references, mixtures = random_audio(4, 3)
    got = SI_SDR_IMPROVEMENT.mixture_scores(estimates, references, mixtures)["si_sdr_improvement"]
    unchanged = mixtures.values.unsqueeze(1).expand_as(references)
    before = SI_SDR.pairwise(unchanged, references).diagonal(dim1=1, dim2=2)
    np.testing.assert_allclose(got + before, SI_SDR.pairwise(estimates, references).diagonal(dim1=1, dim2=2), rtol=0, atol=1e-12)
    assert SI_SDR_IMPROVEMENT.mixture_scores(unchanged, references, mixtures)["si_sdr_improvement"].abs().max() == 0.0
    assert float(got.min()) > 0


def test_misuse_is_refused() -> None:
    x, y, mixtures = random_audio(2)
    for bad, other in ((x[..., :-1], y), (x[:, :, 0], y[:, :, 0])):
        with pytest.raises(ValueError, match="one shape"):
            SI_SDR.pairwise(bad, other)
        with pytest.raises(ValueError, match="one shape"):
            SI_SDR_IMPROVEMENT.mixture_scores(bad, other, mixtures)
    with pytest.raises(ValueError, match="shaped like one source"):
        SI_SDR_IMPROVEMENT.mixture_scores(x, y, Mixtures(mixtures.values[..., :-1], mixtures.example_ids, mixtures.operator))
    assert not isinstance(SI_SDR_IMPROVEMENT, PairMetric)
    assert not isinstance(SI_SDR, MixtureMetric)
    for metric in (SI_SDR, SI_SDR_IMPROVEMENT):
        assert defined_for(metric, audio_task(rate=None)).ok


def test_empty_batch() -> None:
    x, y, _ = random_audio(1)
    assert SI_SDR.pairwise(x[:0], y[:0]).shape == (0, 2, 2)
    assert SI_SDR_IMPROVEMENT.mixture_scores(x[:0], y[:0], mixtures_of(y[:0]))["si_sdr_improvement"].shape == (0, 2)
