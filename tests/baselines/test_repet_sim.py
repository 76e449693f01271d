"""REPET-SIM: peaks are those of a plain search, similar frames are found wherever they are, rows in pieces give the same."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context, mix
from sound_toys import RATE, correlation, sound_task, sounds

from baselines.repet_sim import REPETSim, peaks, similar_share


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def plain_peaks(row: list[float], own: int, distance: float, most: int) -> list[int]:
    """One peak after the other, over the whole row each time."""
    values, position, found = list(row), own, []
    while True:
        for n in range(max(0, math.floor(position - distance)), min(len(values), math.floor(position + distance + 1))):
            values[n] = 0.0
        if len(found) == most or max(values) <= 0:
            return found
        position = values.index(max(values))
        found.append(position)


@settings(max_examples=60, deadline=None)
@given(length=st.integers(1, 300), distance=st.floats(0.3, 90), most=st.integers(1, 12), seed=st.integers(0, 999))
def test_peaks_are_those_of_a_plain_search(length: int, distance: float, most: int, seed: int) -> None:
    rows = torch.rand(4, length, generator=generator(seed)).masked_fill_(torch.rand(4, length, generator=generator(seed + 1)) < 0.2, 0.0)
    own = torch.randint(0, length, (4,), generator=generator(seed))
    positions, counts = peaks(rows.clone(), own, distance, most)
    for row in range(4):
        expected = plain_peaks(rows[row].tolist(), int(own[row]), distance, most)
        assert positions[: counts[row], row].tolist() == expected
        assert int(counts[row]) == len(expected)


def plain_share(magnitudes: torch.Tensor, distance: float, most: int, threshold: float) -> torch.Tensor:
    frames = magnitudes.shape[-1]
    mean = magnitudes.mean(0)
    unit = mean / mean.norm(dim=0)
    result = torch.empty_like(magnitudes)
    for frame in range(frames):
        row = unit[:, frame] @ unit
        row = (row - row.min()) / (row.max() - row.min())
        near = plain_peaks(torch.where(row >= threshold, row, 0.0).tolist(), frame, distance, most)
        chosen = magnitudes[..., near].quantile(0.5, dim=-1) if near else torch.full_like(magnitudes[..., 0], math.inf)
        result[..., frame] = torch.minimum(chosen, magnitudes[..., frame]) / magnitudes[..., frame]
    return result


@pytest.mark.parametrize(("distance", "most", "threshold"), [(4.3, 99, 0.0), (2.0, 3, 0.0), (4.3, 99, 0.6), (500.0, 9, 0.0)])
@pytest.mark.parametrize("channels", [1, 2])
def test_shares_are_the_medians_of_similar_frames(distance: float, most: int, threshold: float, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    magnitudes = torch.rand(channels, 20, 70, generator=generator(3), dtype=torch.float64) + 0.01
    found = similar_share(magnitudes, distance, most, threshold)
    torch.testing.assert_close(found, plain_share(magnitudes, distance, most, threshold))
    monkeypatch.setattr("baselines.repet_sim._CHUNK_ELEMENTS", 150)  # two rows, and a few columns of medians, at a time
    torch.testing.assert_close(similar_share(magnitudes, distance, most, threshold), found)


def test_what_comes_again_at_odd_times_is_the_background() -> None:
    """The same chord at 0, 1.3, 2.9 and 4.2 s, which has no period, and a glide over it."""
    length = 5 * RATE
    time = torch.arange(length) / RATE
    chord = torch.zeros(length)
    for start in (0.0, 1.3, 2.9, 4.2):
        since = time - start
        chord += (since >= 0) * (since < 0.7) * torch.exp(-3 * since.clamp(min=0)) * sum(torch.sin(2 * torch.pi * f * since) for f in (330.0, 550.0, 870.0))
    glide = 0.5 * torch.sin(2 * torch.pi * (1_000 * time + 150 * time.square()))
    sources = torch.stack([chord, glide]).reshape(1, 2, 1, length)
    background, foreground = REPETSim().separate(mix(sources, "sum"), context(sound_task(length, operator="sum")))[0]
    assert correlation(background, sources[0, 0]) > 0.9
    assert correlation(foreground, sources[0, 1]) > 0.9


def test_a_silent_frame_is_similar_to_none_and_all_of_a_short_signal_is_background() -> None:
    magnitudes = torch.rand(1, 9, 30, generator=generator(4))
    magnitudes[..., 10] = 0.0
    share = similar_share(magnitudes, 5.0, 99, 0.0)
    assert bool(share.isfinite().all())
    assert bool((share[..., 10] == 1).all())
    assert "background" in REPETSim().supports(sound_task(4_000)).note
    estimates = REPETSim().separate(mix(sounds(1, 4_000), "sum"), context(sound_task(4_000, operator="sum")))
    torch.testing.assert_close(estimates[:, 0], sounds(1, 4_000).sum(1), atol=1e-5, rtol=0)


def test_a_voice_comes_in_its_slot() -> None:
    sources, length = sounds(1, 24_000), 24_000
    unknown = REPETSim().separate(mix(sources, "sum"), context(sound_task(length, operator="sum")))
    known = REPETSim().separate(mix(sources, "sum"), context(sound_task(length, ("vocals", "accompaniment"), "sum", assignment="ordered")))
    assert torch.equal(known, unknown.flip(1))
    assert not REPETSim().supports(sound_task(length, ("drums", "bass"), assignment="ordered")).ok


@pytest.mark.parametrize("wrong", [{"apart": 0.0}, {"most": 0}, {"threshold": 1.0}, {"high_pass": -1.0}, {"mask": "hard"}])
def test_settings_without_sense_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        REPETSim(**wrong)  # type: ignore[arg-type]


def test_the_note_says_how_short_the_signal_is() -> None:
    role = "no roles: the foreground may be either source, the best assignment counts"
    short = REPETSim().supports(sound_task(4_000)).note
    assert short == f"{role}; no two frames of 0.50 s are 1.0 s apart: everything is background"
    assert REPETSim(apart=0.5).supports(sound_task(4_000)).note == role
