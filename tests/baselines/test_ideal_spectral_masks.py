"""Ideal masks of spectrograms: nussl's estimates, bounds for other masks, the references only through the context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_estimates, nussl_signal, sound_task, sounds

from baselines.average import Average
from baselines.ideal_binary_mask import IdealBinaryMask
from baselines.ideal_ratio_mask import IdealRatioMask, in_phase, shares
from baselines.rpca_audio import AudioRobustPCA
from sepbench.errors import SupervisionError
from sepbench.protocols import Separator
from sepbench.stft import Stft


def separate(method: Separator, sources: torch.Tensor, operator: str = "mean") -> torch.Tensor:
    task = sound_task(sources.shape[-1], ("any",) * sources.shape[1], operator)
    return method.separate(mixed(sources, operator), context(task, references=lambda ids: sources[ids]))


@pytest.mark.parametrize(
    ("method", "name", "options"),
    [
        (IdealRatioMask(), "IdealRatioMask", {}),
        (IdealRatioMask("msa"), "IdealRatioMask", {"approach": "msa"}),
        (IdealBinaryMask(), "IdealBinaryMask", {}),
    ],
)
@pytest.mark.parametrize("operator", ["mean", "gain"])
def test_estimates_are_nussl_s(method: Separator, name: str, options: dict[str, str], operator: str) -> None:
    """With the weighted sources as nussl's sources; its default is ``psa``."""
    sources = sounds(2)
    mixtures = mixed(sources, operator)
    estimates = separate(method, sources, operator)
    reference: Callable[..., Any] = getattr(nussl().separation.benchmark, name)
    weights = mixtures.operator.matrix().float().expand(2, 1, -1)
    for row in range(2):
        parts = [nussl_signal(weights[row, 0, k] * sources[row, k]) for k in range(2)]
        wanted = nussl_estimates(reference(nussl_signal(mixtures.values[row]), parts, **options))
        for k in range(2):
            assert correlation(estimates[row, k], wanted[k]) >= 0.9999
            torch.testing.assert_close(weights[row, 0, k] * estimates[row, k], wanted[k].float(), atol=2e-3, rtol=0)


def test_a_bound_for_masks() -> None:
    """Above a blind method with masks of the same kind, which is above nothing; the ratio is the better one, its phases count."""
    sources = sounds(4)
    levels = [
        best_sdr(separate(method, sources), sources) for method in (IdealRatioMask(), IdealRatioMask("msa"), IdealBinaryMask(), AudioRobustPCA(), Average())
    ]
    assert levels[0] > levels[1] > levels[3] > levels[4] - 3
    assert levels[0] > levels[2] > levels[3]


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 4), st.integers(0, 99))
def test_no_other_shares_in_phase_are_nearer_bin_by_bin(n_sources: int, seed: int) -> None:
    """For two sources the truncated projection is the least-squares real mask in [0, 1]: no random mask leaves a smaller error."""
    g = torch.Generator().manual_seed(seed)
    sources = torch.randn(1, n_sources, 1, 5, 7, generator=g, dtype=torch.complex128)
    mixture = sources.sum(1)
    parts = in_phase(sources, mixture)
    best = (sources - parts / mixture.abs().unsqueeze(1) * mixture.unsqueeze(1)).abs()
    other = torch.rand(parts.shape, generator=g, dtype=torch.float64)
    assert bool((best <= (sources - other * mixture.unsqueeze(1)).abs() + 1e-12).all())
    torch.testing.assert_close(shares(parts).sum(1), torch.ones_like(parts[:, 0]))


def test_shares_of_nothing_are_even() -> None:
    assert shares(torch.tensor([[[0.0, 3.0]], [[0.0, 1.0]]]).transpose(0, 1)).flatten().tolist() == [0.5, 0.75, 0.5, 0.25]
    zeros = torch.zeros(1, 2, 1, 3, 3, dtype=torch.complex64)
    assert torch.equal(in_phase(zeros, zeros[:, 0]), torch.zeros(1, 2, 1, 3, 3))


def test_sources_that_never_meet_are_recovered() -> None:
    """One source per half of the signal, with a gap wider than a window between them."""
    sources = torch.zeros(1, 2, 1, 4_000)
    noise = torch.randn(2, 1_500, generator=torch.Generator().manual_seed(0))
    sources[0, 0, 0, :1_500], sources[0, 1, 0, 2_500:] = noise[0], noise[1]
    for method in (IdealRatioMask(), IdealBinaryMask()):
        torch.testing.assert_close(separate(method, sources), sources, atol=1e-5, rtol=0)


def test_many_channels_and_sources() -> None:
    sources = torch.randn(2, 3, 2, 3_000, generator=torch.Generator().manual_seed(1))
    task = sound_task(3_000, ("any",) * 3, "sum", channels=2)
    mixtures = mixed(sources, "sum")
    for method in (IdealRatioMask(), IdealBinaryMask()):
        estimates = method.separate(mixtures, context(task, references=lambda ids: sources[ids]))
        assert estimates.shape == sources.shape
        torch.testing.assert_close(estimates.sum(1), mixtures.values, atol=1e-4, rtol=0)


@pytest.mark.parametrize("method", [IdealRatioMask(), IdealBinaryMask()])
def test_without_references_it_cannot_work(method: Separator) -> None:
    assert (method.info.supervision, method.info.bound) == ("bound", "upper")
    with pytest.raises(SupervisionError):
        method.separate(mixed(sounds(1)), context(sound_task()))


def test_what_it_refuses() -> None:
    with pytest.raises(ValueError, match="approach"):
        IdealRatioMask(approach="wiener")  # type: ignore[arg-type]
    for method in (IdealRatioMask(), IdealBinaryMask()):
        assert not method.supports(sound_task(operator="channel-mean", classes=("a",))).ok
        assert "domain" in method.supports(sound_task(rate=None)).note


def test_the_first_bins_are_those_of_the_suite_s_transform() -> None:
    assert (Stft.at(RATE).window_length, Stft.at(RATE).hop) == (256, 64)
