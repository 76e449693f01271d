"""HPSS: clicks are percussive and tones harmonic, by the medians that librosa takes; drums come where drums are wanted."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from method_toys import context, mix
from sound_toys import RATE, correlation, sound_task

from baselines.hpss import HPSS, harmonic_share
from sepbench.protocols import TaskSpec

LENGTH = 16_384


def clicks_and_tones() -> torch.Tensor:
    """``(1, 2, 1, T)``: a click every quarter of a second, and a chord."""
    time = torch.arange(LENGTH) / RATE
    clicks = torch.zeros(LENGTH)
    clicks[500 :: RATE // 4] = 0.9
    chord = sum(0.1 * torch.sin(2 * torch.pi * f * time) for f in (500.0, 1210.0, 2345.0))
    return torch.stack([clicks, chord]).reshape(1, 2, 1, LENGTH).float()


def separate(task: TaskSpec, method: HPSS | None = None) -> torch.Tensor:
    return (method or HPSS()).separate(mix(clicks_and_tones(), task.operator), context(task))[0]


@pytest.mark.parametrize(("frames", "bins"), [(31, 31), (17, 5)])
def test_shares_are_wiener_s_rule_on_scipy_s_medians(frames: int, bins: int) -> None:
    magnitudes = torch.rand(2, 1, 129, 60, generator=torch.Generator().manual_seed(0))
    magnitudes[1, :, :, 20:] = 0.0
    harmonic, percussive = (
        scipy.ndimage.median_filter(magnitudes.double().numpy(), size=size, mode="reflect") for size in ((1, 1, 1, frames), (1, 1, bins, 1))
    )
    total = harmonic**2 + percussive**2
    expected = np.where(total > 0, harmonic**2 / np.where(total > 0, total, 1), 0.5)
    np.testing.assert_allclose(harmonic_share(magnitudes, frames, bins).numpy(), expected, atol=1e-6)


def test_clicks_and_tones_come_apart() -> None:
    harmonic, percussive = separate(sound_task(LENGTH, operator="sum"))
    clicks, chord = clicks_and_tones()[0]
    assert correlation(percussive, clicks) > 0.95
    assert correlation(harmonic, chord) > 0.95
    assert abs(correlation(harmonic, clicks)) < 0.2


@pytest.mark.parametrize("mask", ["soft", "binary"])
def test_drums_come_in_the_slot_of_the_drums(mask: str) -> None:
    method = HPSS(mask=mask)  # type: ignore[arg-type]
    first = separate(sound_task(LENGTH, ("drums", "bass"), "mean", assignment="ordered"), method)
    second = separate(sound_task(LENGTH, ("accompaniment", "drums"), "mean", assignment="ordered"), method)
    torch.testing.assert_close(first, second.flip(0))
    assert correlation(first[0], clicks_and_tones()[0, 0]) > 0.93
    named = separate(sound_task(LENGTH, ("a", "clicks"), "mean", assignment="ordered"), HPSS(mask=mask, percussive_class="clicks"))  # type: ignore[arg-type]
    torch.testing.assert_close(named, second)


def test_what_it_takes() -> None:
    assert HPSS().supports(sound_task(classes=("bass", "drums"), assignment="ordered")).ok
    assert HPSS().supports(sound_task(classes=("speech", "white"))).ok
    refused = HPSS().supports(sound_task(classes=("speech", "white"), assignment="ordered"))
    assert not refused.ok
    assert "percussive" in refused.note
    assert "3 sources" in HPSS().supports(sound_task(classes=("a", "b", "c"))).note


def test_binary_masks_give_every_bin_to_one_part() -> None:
    method, magnitudes = HPSS(mask="binary"), torch.rand(1, 1, 129, 40, generator=torch.Generator().manual_seed(1))
    assert torch.equal(method._masks(magnitudes, RATE), (harmonic_share(magnitudes, 31, 31) >= 0.5).float().unsqueeze(1))


@pytest.mark.parametrize("wrong", [{"frames": 30}, {"bins": 0}, {"mask": "hard"}])
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        HPSS(**wrong)  # type: ignore[arg-type]
