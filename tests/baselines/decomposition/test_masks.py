"""Masks become estimates that mix to the mixture, in bounded pieces; parts go into the slots that their names say."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context
from sound_toys import RATE, mixed, sound_task, sounds

from baselines.decomposition.masks import (
    CHUNK_BINS,
    background_mask,
    channel_mean,
    chunk_rows,
    estimates_from_masks,
    first_bin_from,
    magnitudes_of,
    mask_support,
    mixture_spectra,
    separate_by_masks,
    share_of_mixture,
)
from baselines.decomposition.roles import VOICES, in_slots, role_support, slot_of_role
from sepbench.protocols import Support, TaskSpec
from sepbench.stft import Stft


@settings(max_examples=20, deadline=None)
@given(operator=st.sampled_from(["sum", "mean", "gain"]), parts=st.integers(2, 3), length=st.integers(1, 900), seed=st.integers(0, 99))
def test_any_masks_give_estimates_that_mix_to_the_mixture(operator: str, parts: int, length: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    mixtures = mixed(torch.randn(2, parts, 2, length, generator=generator), operator)
    ctx = context(sound_task(length, ("a",) * parts, operator, channels=2))
    stft, spectra = mixture_spectra(mixtures, ctx)
    masks = torch.rand(2, parts, *spectra.shape[1:], generator=generator).softmax(1)
    estimates = estimates_from_masks(masks, spectra, mixtures, stft)
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=2e-5, rtol=0)
    # The last part may be left out: it is what the others leave.
    torch.testing.assert_close(estimates_from_masks(masks[:, :-1], spectra, mixtures, stft), estimates, atol=2e-4, rtol=1e-3)


def test_masks_of_ones_and_zeros_give_the_mixture_and_nothing() -> None:
    mixtures, ctx = mixed(sounds(2), "sum"), context(sound_task(operator="sum"))
    stft, spectra = mixture_spectra(mixtures, ctx)
    assert stft == Stft.at(RATE)
    assert spectra.dtype == torch.complex64
    ones = torch.ones_like(spectra.real)
    estimates = estimates_from_masks(torch.stack([ones, 0 * ones], 1), spectra, mixtures, stft)
    torch.testing.assert_close(estimates[:, 0], mixtures.values, atol=1e-6, rtol=0)
    assert float(estimates[:, 1].abs().max()) < 1e-6


def test_masks_are_asked_for_a_few_mixtures_at_a_time() -> None:
    mixtures, ctx = mixed(sounds(5)), context(sound_task())
    sizes: list[int] = []

    def masks(magnitudes: torch.Tensor, rate: int) -> torch.Tensor:
        sizes.append(len(magnitudes))
        assert rate == RATE
        assert magnitudes.is_contiguous()
        return magnitudes.clamp(max=1.0).unsqueeze(1)

    found = separate_by_masks(mixtures, ctx, masks, chunk_bins=2 * 129 * Stft.at(RATE).frames(8_000))
    assert sizes == [2, 2, 1]
    assert found.shape == (5, 2, 1, 8_000)


def test_tasks_without_a_sample_rate_are_refused() -> None:
    with pytest.raises(ValueError, match="sample rate"):
        mixture_spectra(mixed(sounds(1)), context(sound_task(rate=None)))
    assert "audio" in mask_support(sound_task(rate=None), "it").note
    assert mask_support(sound_task(classes=("a", "b", "c")), "it").ok
    assert "3 sources" in mask_support(sound_task(classes=("a", "b", "c")), "it", parts=2).note


@pytest.mark.parametrize(
    ("cutoff", "rate", "window", "first"), [(100.0, 22_050, 1024, 5), (100.0, 8_000, 256, 3), (0.0, 8_000, 256, 0), (1e6, 8_000, 256, 128)]
)
def test_first_bin_is_the_nearest_one(cutoff: float, rate: int, window: int, first: int) -> None:
    """22,050 Hz: bins are 21.53 Hz apart, 5 x 21.53 = 107.7 is nearer to 100 than 86.1; 8,000 Hz: 31.25 apart, 93.75 is nearest."""
    assert first_bin_from(cutoff, rate, window // 2 + 1) == first


def test_low_bins_are_background_and_binary_masks_are_binary() -> None:
    share = torch.rand(2, 1, 129, 5, generator=torch.Generator().manual_seed(0))
    before = share.clone()
    soft, binary = background_mask(share, 100.0, RATE), background_mask(share, 100.0, RATE, "binary")
    assert soft.shape == (2, 1, 1, 129, 5)
    assert torch.equal(soft[:, 0, :, 3:], share[..., 3:, :])
    assert bool((soft[..., :3, :] == 1).all())
    assert torch.equal(binary[:, 0, :, 3:], (share[..., 3:, :] >= 0.5).float())
    assert torch.equal(share, before)


def test_shares() -> None:
    part, mixture = torch.tensor([0.5, 2.0, 0.0, 0.0, torch.inf, 3e-12]), torch.tensor([1.0, 1.0, 1.0, 0.0, 4.0, 6e-12])
    torch.testing.assert_close(share_of_mixture(part, mixture), torch.tensor([0.5, 1.0, 0.0, 1.0, 1.0, 0.5]))


def test_magnitudes_and_channel_means() -> None:
    spectra = torch.randn(2, 3, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(magnitudes_of(spectra), spectra.abs())
    for channels in (1, 3):
        torch.testing.assert_close(channel_mean(spectra.real[:, :channels], 1), spectra.real[:, :channels].mean(1))


# --- roles ------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "slot"),
    [
        (("speech", "white"), 0),
        (("babble", "speech"), 1),
        (("vocals", "accompaniment"), 0),
        (("speech", "speech"), None),
        (("speech", "vocals"), None),
        (("drums", "bass"), None),
        (("speech", "a", "b"), None),
    ],
)
def test_a_role_is_known_where_exactly_one_class_has_its_name(classes: tuple[str, ...], slot: int | None) -> None:
    assert slot_of_role(sound_task(classes=classes), VOICES) == slot


def test_ordered_tasks_without_roles_are_refused_with_the_reason() -> None:
    refused = role_support(sound_task(classes=("drums", "bass"), assignment="ordered"), VOICES, "It", "foreground")
    assert not refused.ok
    assert "drums, bass" in refused.note
    assert "speech" in refused.note
    assert role_support(sound_task(classes=("drums", "bass")), VOICES, "It", "foreground").ok
    taken = role_support(sound_task(classes=("pink", "speech"), assignment="ordered"), VOICES, "It", "foreground")
    assert taken.ok
    assert "source 1 (speech)" in taken.note


def test_parts_go_into_their_slots() -> None:
    parts = torch.arange(6.0).reshape(1, 2, 3)
    for slot in (0, 1):
        assert torch.equal(in_slots(parts, 1, slot)[:, slot], parts[:, 1])
    assert torch.equal(in_slots(parts, 1, None), parts)


def test_a_bin_that_is_shared_evenly_is_the_backgrounds() -> None:
    share = torch.tensor([0.5, 0.49999997, 0.50000006, 0.0, 1.0]).expand(2, 3, 129, 5)
    mask = background_mask(share, 0.0, RATE, "binary")
    assert mask.shape == (2, 1, 3, 129, 5)
    assert mask.dtype == share.dtype
    assert mask.unique(dim=-2).flatten(0, 3)[0].tolist() == [1.0, 0.0, 1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("task", "parts", "reason"),
    [
        (sound_task(rate=None), None, "It masks spectrograms of audio; the task is of domain 'audio'"),
        (sound_task(operator="channel-mean"), None, "It cuts a mixture into parts that add up to it; operator 'channel-mean' does not add sources"),
        (sound_task(classes=("a",)), None, "It gives at least two parts, the task has 1 sources"),
        (sound_task(classes=("a", "b", "c")), 2, "It gives 2 parts, the task has 3 sources"),
        (sound_task(classes=("a", "b")), 2, ""),
        (sound_task(operator="gain"), 2, ""),
    ],
)
def test_tasks_that_masks_can_serve(task: TaskSpec, parts: int | None, reason: str) -> None:
    assert mask_support(task, "It", parts) == Support(not reason, reason)


@pytest.mark.parametrize(
    ("bins", "device", "chunk_bins", "rows"),
    [
        (CHUNK_BINS, "cpu", None, 1),
        (CHUNK_BINS // 4, "cpu", None, 4),
        (CHUNK_BINS + 1, "cpu", None, 1),
        (10, "cpu", 39, 3),
        (10, "cpu", 0, 1),
        (CHUNK_BINS, "cuda", None, 64),
        (CHUNK_BINS, "cuda", 1, 64),
    ],
)
def test_how_many_mixtures_are_masked_at_a_time(bins: int, device: str, chunk_bins: int | None, rows: int) -> None:
    assert chunk_rows(bins, device, chunk_bins) == rows


def test_progress_is_the_share_of_mixtures_that_are_done() -> None:
    told: list[tuple[float, str]] = []
    ctx = context(sound_task(), progress=lambda done, text: told.append((done, text)))
    separate_by_masks(
        mixed(sounds(4)), ctx, lambda magnitudes, rate: torch.ones_like(magnitudes).unsqueeze(1), chunk_bins=3 * 129 * Stft.at(RATE).frames(8_000)
    )
    assert told == [(0.75, "spectra"), (1.0, "spectra")]
