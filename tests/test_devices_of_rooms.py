"""Everything is computed where its tensors lie. The meta device stands in for a GPU: it refuses whatever was left on the processor."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource, noise_levels, philox4x32
from sepbench.operators import make_operator
from sepbench.protocols import Mixtures
from sepbench.selection import by_denoising_loss, by_log_prior, by_mixture_error, denoising_losses, select, weighted_mean
from sepbench.stft import Stft

META = torch.device("meta")
IDS = torch.arange(3)


def prior(components: int = 2, dimension: int = 4) -> GaussianMixture:
    weights = torch.full((components,), 1 / components, dtype=torch.float64)
    covariances = torch.eye(dimension, dtype=torch.float64).repeat(components, 1, 1)
    return GaussianMixture(weights, torch.zeros(components, dimension, dtype=torch.float64), covariances)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sigma", [0.3, torch.tensor([0.1, 0.2, 0.3]), torch.ones(3, device=META)], ids=["number", "on the processor", "there"])
def test_a_mixture_of_gaussians_answers_where_it_is_asked(dtype: torch.dtype, sigma: Any) -> None:
    one, x = prior(), torch.zeros(3, 4, dtype=dtype, device=META)
    for function, shape, kind in ((one.denoise, (3, 4), dtype), (one.score, (3, 4), dtype), (one.log_prob, (3,), torch.float64)):
        found: torch.Tensor = function(x, sigma)
        assert (found.device, found.shape, found.dtype) == (META, shape, kind)
    assert one.means.device.type == "cpu"  # and is itself as it was


@pytest.mark.parametrize("shared", [False, True])
def test_operators_mix_where_the_sources_are(shared: bool) -> None:
    """Weights are taken along, those of every example and those of all."""
    operators = [make_operator("sum", 2), make_operator("mean", 2)] if shared else [make_operator("gain", 2, gains=[[1.0, 2.0]] * 3)]
    for operator in operators:
        sources, mixtures = torch.zeros(3, 2, 5, device=META), torch.zeros(3, 5, device=META)
        for one in (operator, operator.to(META)):
            assert one.forward(sources).device == one.adjoint(mixtures).device == one.pseudo_inverse(mixtures).device == META
            assert one.select(torch.tensor([2, 0])).forward(sources[:2]).device == META
        assert operator.to(META).gram().device == operator.to(META).matrix().device == META
    colours = make_operator("channel-mean", 1)
    assert colours.forward(torch.zeros(2, 1, 3, 4, 4, device=META)).device == META


def test_noise_is_drawn_where_it_is_wanted() -> None:
    noise = NoiseSource(3)
    streams = torch.tensor([4, 5, 6])
    assert noise.words(IDS, 0, 0, 5, META, streams).device == META
    for draw, shape in ((noise.uniform, (3, 2)), (noise.normal, (3, 2)), (noise.uniforms, (3, 4, 2)), (noise.normals, (3, 4, 2))):
        for on in (META, "meta"):
            found = draw(IDS, 7, 4, (2,), on, streams)
            assert (found.device, found.shape, found.dtype) == (META, shape, torch.float32)
        assert draw(IDS, 7, 4, (2,)).device.type == "cpu"
    rows = noise.counters(IDS, range(2), META, streams)
    assert (rows.ids.device, rows.last_words.device) == (META, META)
    assert all(word.device == META for word in philox4x32([torch.zeros(2, dtype=torch.int64, device=META)] * 4, (1, 2)))
    for sigma in (0.3, torch.ones(3)):
        levels = noise_levels(sigma, torch.float64, META)
        assert (levels.device, levels.dtype) == (META, torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_transforms_are_made_where_the_signals_are(dtype: torch.dtype) -> None:
    spectra = Stft(8, 2).forward(torch.zeros(2, 1, 20, dtype=dtype, device=META))
    assert (spectra.device, spectra.dtype) == (META, torch.complex64 if dtype == torch.float32 else torch.complex128)
    signals = Stft(8, 2).inverse(spectra, 20)
    assert (signals.device, signals.dtype, signals.shape) == (META, dtype, (2, 1, 20))


def test_draws_are_chosen_and_averaged_where_they_are() -> None:
    """Criteria may lie on the processor."""
    draws, criterion = torch.zeros(3, 5, 2, 4, device=META), torch.rand(3, 5, dtype=torch.float64)
    for given in (criterion, criterion.to(META)):
        assert select(draws, given).device == META
        mean = weighted_mean(draws, given, 1.0, exchangeable=False)
        assert (mean.device, mean.dtype, mean.shape) == (META, torch.float32, (3, 2, 4))


def test_criteria_are_computed_where_the_draws_are() -> None:
    draws = torch.zeros(3, 5, 2, 4, device=META)
    mixtures = Mixtures(torch.zeros(3, 4, device=META), IDS, make_operator("gain", 2, gains=[[1.0, 2.0]] * 3))
    losses = denoising_losses(prior(), draws[:, 0, 0], IDS, NoiseSource(0), (0.1, 0.2))
    assert (losses.device, losses.dtype, losses.shape) == (META, torch.float64, (3,))
    found = [by_mixture_error(draws, mixtures), by_log_prior(draws, lambda sources: sources.sum(2))]
    assert [(one.device, one.dtype, one.shape) for one in found] == [(META, torch.float64, (3, 5))] * 2


@pytest.mark.parametrize(("device", "rows"), [("cpu", [128, 128, 44]), ("meta", [300])])
def test_a_processor_takes_128_candidates_at_a_time_and_a_gpu_what_its_memory_allows(monkeypatch: pytest.MonkeyPatch, device: str, rows: list[int]) -> None:
    seen: list[int] = []
    asked: list[Any] = []

    class Prior:
        def score(self, x: torch.Tensor, sigma: Any) -> torch.Tensor:
            raise AssertionError

        def denoise(self, x: torch.Tensor, sigma: Any) -> torch.Tensor:
            seen.append(len(x))
            return x

    monkeypatch.setattr("sepbench.selection.scaled", lambda most, on: asked.append((most, on)) or most)
    draws, ids = torch.zeros(100, 3, 1, 2, device=device), torch.arange(100)
    by_denoising_loss(draws, [Prior()], Mixtures(draws[:, 0, 0], ids, make_operator("sum", 1)), NoiseSource(0), (0.1,))
    assert seen == rows
    assert asked == ([] if device == "cpu" else [(4096, META)])
