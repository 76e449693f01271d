"""Signals of mask networks: segments of spectra, levels, parts that add up, estimates in their slots; masks of sounds by `supervised` and `nes`."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_toys import ToyView, context, mix, operator_for, toy_task
from sound_toys import RATE, sound_task, sounds

from baselines import nes, supervised
from baselines.decomposition import mask_signals
from baselines.decomposition.mask_signals import FRAMES, ImageParts, SpectrogramParts, parts_of
from baselines.nes import NeuralEggSeparation
from baselines.networks.mask_autoencoder import MaskConfig
from baselines.supervised import SupervisedMask
from baselines.training.mask import masks_for, new_network
from sepbench.protocols import Fitted, Mixtures, Separator

SMALL = MaskConfig(layers=4, filters=8)


def bands(count: int, seed: int = 0, length: int = 8_320) -> torch.Tensor:
    """``(N, 2, 1, T)`` at 8 kHz: noise below 800 Hz, and from 1,600 to 2,400 Hz; 66 frames, one segment and two frames."""
    g = torch.Generator().manual_seed(seed)
    spectra = torch.fft.rfft(torch.randn(count, 2, 1, length, generator=g))
    hertz = torch.linspace(0.0, RATE / 2, spectra.shape[-1])
    heard = torch.stack([hertz < 800, (hertz > 1_600) & (hertz < 2_400)]).unsqueeze(1)
    return 0.5 * torch.fft.irfft(spectra * heard, length)


def sdr(estimates: torch.Tensor, sources: torch.Tensor) -> float:
    return float(10 * (sources.square().sum() / (estimates - sources).square().sum()).log10())


def test_windows_are_about_25_ms() -> None:
    windows = {rate: SpectrogramParts(sound_task(rate=rate)).stft for rate in (8_000, 16_000, 20_480, 22_050, 44_100)}
    assert {rate: stft.window_length for rate, stft in windows.items()} == {8_000: 256, 16_000: 512, 20_480: 512, 22_050: 512, 44_100: 1_024}
    assert SpectrogramParts(sound_task(rate=22_050)).shape == (1, 257, FRAMES)
    with pytest.raises(ValueError, match="no sample rate"):
        SpectrogramParts(sound_task(rate=None))


def test_images_stay_images() -> None:
    parts = parts_of(toy_task(operator="mean"))
    images = torch.rand(3, 1, 8, 8)
    assert isinstance(parts, ImageParts)
    assert torch.equal(parts.mixture(images), images)
    assert torch.equal(parts.source(images, 0), 0.5 * images)
    assert torch.equal(parts.as_sources(parts.source(images, 0), 0), images)


@pytest.mark.parametrize("operator", ["sum", "mean"])
def test_parts_add_up_to_the_mixture(operator: str) -> None:
    parts, sources = parts_of(sound_task(operator=operator)), sounds(3)
    mixture = parts.mixture(mix(sources, operator).values)
    assert mixture.is_complex()
    torch.testing.assert_close(parts.source(sources[:, 0], 0) + parts.source(sources[:, 1], 1), mixture)
    assert 0.02 < float(mixture.abs().max()) < 2.0


def test_under_gain_levels_count_and_not_loudness() -> None:
    parts, noise = parts_of(sound_task(operator="gain")), torch.randn(2, 1, 64 * 128, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(parts.source(7.0 * noise, 0), parts.source(noise, 0))
    torch.testing.assert_close(parts.mixture(noise), parts.source(noise, 1) * 2**0.5)
    both = parts.source(noise[:1], 0) + parts.source(noise[1:], 1)
    assert float(both.abs().square().mean().sqrt()) == pytest.approx(1.0, abs=0.05)  # as a mixture of the same noises at 0 dB


@pytest.mark.parametrize("operator", ["gain", "mean", "sum"])
def test_parts_of_sounds_become_what_they_were_and_silence_stays_silence(operator: str) -> None:
    parts, sound = parts_of(sound_task(operator=operator)), torch.cat([sounds(1)[:, 0], torch.zeros_like(sounds(1)[:, 0])])
    torch.testing.assert_close(parts.as_sources(parts.source(sound, 1), 1), parts.mixture(sound))
    assert float(parts.mixture(sound)[len(parts.mixture(sound)) // 2 :].abs().max()) == 0


@pytest.mark.parametrize("operator", ["gain", "mean"])
def test_recordings_are_taken_so_many_at_a_time_each_at_its_own_level(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = sounds(5)[:, 0] * torch.tensor([1.0, 0.1, 2.0, 0.5, 3.0]).reshape(5, 1, 1)
    parts = parts_of(sound_task(operator=operator))
    alone = torch.cat([parts.source(signal[None], 0) for signal in signals])
    monkeypatch.setattr(mask_signals, "_AT_ONCE", 2)
    torch.testing.assert_close(parts.source(signals, 0), alone)


def test_under_gain_a_network_sees_all_mixtures_at_one_level() -> None:
    seen: list[torch.Tensor] = []

    def masks(magnitudes: torch.Tensor) -> torch.Tensor:
        seen.append(magnitudes)
        return torch.full_like(magnitudes, 0.25).unsqueeze(1)

    task, mixtures = sound_task(operator="gain"), mix(sounds(3) * torch.tensor([1.0, 20.0, 0.0]).reshape(3, 1, 1, 1), operator_for("gain", 3, 2))
    assert bool(parts_of(task).estimates(masks, mixtures, [0, 1], context(task)).isfinite().all())
    levels = torch.cat(seen).square().mean((1, 2, 3)).sqrt()
    torch.testing.assert_close(levels, torch.tensor([1.0, 1.0, 0.0]))


def test_recordings_are_cut_into_whole_segments_of_one_channel() -> None:
    parts = SpectrogramParts(sound_task(channels=2))
    signals = torch.randn(2, 2, 128 * 150, generator=torch.Generator().manual_seed(0))
    spectra, segments = parts.stft.forward(signals), parts.mixture(signals)
    assert segments.shape == (2 * 2 * 2, 1, 129, FRAMES)  # 151 frames are two segments and a rest
    for number, (row, channel, part) in enumerate((row, channel, part) for row in range(2) for channel in range(2) for part in range(2)):
        torch.testing.assert_close(segments[number, 0], spectra[row, channel, :, FRAMES * part : FRAMES * (part + 1)] / 128)


def test_a_short_recording_ends_in_silence() -> None:
    segments = parts_of(sound_task()).mixture(torch.ones(1, 1, 1_000))
    assert segments.shape == (1, 1, 129, FRAMES)
    assert float(segments[..., :8].abs().sum()) > 0
    assert float(segments[..., 9:].abs().max()) == 0


@pytest.mark.parametrize(("operator", "masks", "channels"), [("mean", 1, 1), ("sum", 2, 2), ("gain", 1, 1)])
def test_estimates_explain_the_mixture_and_do_not_depend_on_neighbours(operator: str, masks: int, channels: int) -> None:
    sources = sounds(3).expand(-1, -1, channels, -1)
    task = sound_task(operator=operator, channels=channels)
    network = new_network(MaskConfig(layers=4, filters=4, masks=masks), 0)
    mixtures = mix(sources, operator_for(operator, 3, 2))
    estimates = parts_of(task).estimates(masks_for(network), mixtures, [1, 0], context(task))
    assert estimates.shape == sources.shape
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=1e-5, rtol=1e-4)
    alone = Mixtures(mixtures.values[1:2], mixtures.example_ids[1:2], mixtures.operator.select(torch.tensor([1])))
    torch.testing.assert_close(parts_of(task).estimates(masks_for(network), alone, [1, 0], context(task))[0], estimates[1], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("order", [[0, 1], [1, 0], [2, 0, 1]])
def test_a_mask_goes_to_its_slot(order: list[int]) -> None:
    """The first part is shown all of the mixture, the others nothing; of two parts also by one mask."""
    sources = sounds(2)[:, [0, 1, 0][: len(order)]]
    task = sound_task(classes=("a", "b", "c")[: len(order)])
    mixtures = mix(sources, "mean")

    def masks(magnitudes: torch.Tensor, count: int) -> torch.Tensor:
        whole = torch.zeros(len(magnitudes), count, *magnitudes.shape[1:])
        whole[:, 0] = 1.0
        return whole

    for count in {len(order), len(order) - 1 if len(order) == 2 else len(order)}:
        estimates = parts_of(task).estimates(lambda magnitudes, count=count: masks(magnitudes, count), mixtures, order, context(task))
        loud = estimates.abs().amax((0, 2, 3))
        assert float(loud[order[0]]) > 0.1
        assert float(loud[order[1:]].max()) < 1e-5


@pytest.mark.parametrize(("observed", "operator"), [(0, "mean"), (1, "gain")])
@pytest.mark.parametrize("name", ["supervised", pytest.param("nes", marks=pytest.mark.slow)])
def test_bands_come_apart_in_their_slots(name: str, observed: int, operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (supervised, nes):
        monkeypatch.setattr(module, "mask_layout", lambda network, shape, masks=1, running_statistics=True: SMALL)
    task = sound_task(8_320, operator=operator, observed=observed)
    pool, hidden, test = bands(32), bands(32, seed=1), bands(4, seed=2)
    mixtures = mix(test, operator_for(operator, 4, 2))
    method: SupervisedMask | NeuralEggSeparation
    if name == "supervised":
        method, view = SupervisedMask(epochs=40, batch=8, lr=3e-3), ToyView(task, "sources", (pool[:, 0], pool[:, 1]))
    else:
        method = NeuralEggSeparation(iterations=4, epochs=12, batch=8, lr=3e-3)
        view = ToyView(task, "mixtures+one", mixed=mix(hidden, operator_for(operator, 32, 2)).values, one=pool[:, observed])
    method.fit(view, context(task))
    estimates = method.separate(mixtures, context(task))
    assert sdr(estimates, test) > 10.0
    assert sdr(mixtures.values.unsqueeze(1).expand_as(test), test) < 4.0


def test_a_fit_of_sounds_is_kept_with_its_eggs(tmp_path: Any) -> None:
    task, pool = sound_task(8_320, observed=1), bands(4)
    view = ToyView(task, "mixtures+one", mixed=mix(pool, "mean").values, one=pool[:, 1])
    method, read = NeuralEggSeparation(iterations=1, epochs=1, batch=2), NeuralEggSeparation(iterations=1, epochs=1, batch=2)
    assert isinstance(method, Separator)
    assert isinstance(method, Fitted)
    method.fit(view, context(task))
    method.save(tmp_path)
    read.load(tmp_path, context(task))
    mixtures = mix(bands(2, seed=1), "mean")
    assert torch.equal(read.separate(mixtures, context(task)), method.separate(mixtures, context(task)))
    assert method.eggs is not None
    assert read.eggs is not None
    assert torch.equal(read.eggs, method.eggs)
    assert method.eggs.shape == (2, 4, 1, 129, FRAMES)


def test_what_audio_tasks_are_taken() -> None:
    task = sound_task(observed=1)
    assert NeuralEggSeparation().supports(task).ok
    assert SupervisedMask().supports(task).ok
    refused = NeuralEggSeparation(init="glom").supports(task)
    assert not refused.ok
    assert "init=constant" in refused.note
    assert not SupervisedMask().supports(sound_task(rate=None)).ok
