"""Training on waveforms: mixtures made anew, levels, losses, orders, the falling rate, resuming, separation row by row."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from sound_toys import sound_task
from torch import nn
from wave_toys import LoadedRows, RowsView

from baselines.training import waveform
from baselines.training.config import batch_indices, derived_seed, generator
from baselines.training.loop import resume, run
from baselines.training.waveform import (
    Remixes,
    WaveformRecipe,
    WaveformTraining,
    absolute_errors,
    in_best_order,
    in_order,
    levels_of,
    load_network,
    negative_sdr,
    new_network,
    remix_training,
    save_network,
    separated_parts,
    waveform_orders,
)
from sepbench.errors import SepbenchError
from sepbench.protocols import Support


class Shares(nn.Module):
    """Part k is the mixture times a_k."""

    def __init__(self, sources: int = 2, start: float = 0.0) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.full((sources,), start))

    def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
        return mixtures.unsqueeze(1) * self.a[:, None, None]


def recipe(**changed: Any) -> WaveformRecipe:
    standard: Mapping[str, Any] = {
        "errors": absolute_errors,
        "any_order": False,
        "steps": 20,
        "batch": 4,
        "segment": 30,
        "lr": 0.1,
        "decay": 0.5,
        "clip": 5.0,
        "precision": "float32",
    }
    return WaveformRecipe(**{**standard, **changed})


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def ramps(count: int, first: float, samples: int = 100) -> LoadedRows:
    """Row i is ``first + i`` in thousands, and rises by one per sample."""
    return LoadedRows(1000.0 * (first + torch.arange(count)).reshape(-1, 1, 1) + torch.arange(float(samples)))


# ---- mixtures --------------------------------------------------------------------------------------------------------------------------


def test_a_part_is_a_segment_with_a_sign_and_a_gain_of_its_own() -> None:
    make = Remixes([ramps(9, 1), ramps(7, 20)], (0.5, 0.25), recipe(batch=64))
    parts = make(3)
    assert parts.shape == (64, 2, 1, 30)
    slopes = (parts[..., 1:] - parts[..., :-1]).squeeze(2)
    torch.testing.assert_close(slopes, slopes[..., :1].expand_as(slopes), atol=2e-2, rtol=0)
    gains = slopes.mean(-1) / torch.tensor([0.5, 0.25])
    assert 0.25 <= float(gains.abs().min()) < 0.3 < 1.2 < float(gains.abs().max()) <= 1.2501
    assert 20 < int((gains > 0).sum()) < 108
    places = parts[:, 0, 0, 0] / slopes[:, 0].mean(-1) % 1000  # where the segment began
    assert float(places.min()) > -0.5
    assert float(places.max()) < 70.5
    assert len(places.round().unique()) > 20


def test_every_row_of_a_source_comes_once_before_any_comes_again() -> None:
    make = Remixes([ramps(8, 1), ramps(8, 1)], (1.0, 1.0), recipe(gains=(1.0, 1.0)))
    orders = []
    for slot in range(2):
        seen = [(make(step)[:, slot, 0, 0].abs() / 1000).int().tolist() for step in (0, 1)]
        assert sorted([*seen[0], *seen[1]]) == list(range(1, 9))
        orders.append(seen)
    assert orders[0] != orders[1]


def test_mixtures_depend_on_seed_and_step_alone() -> None:
    sources = [ramps(8, 1), ramps(8, 20)]
    one, again, other = (Remixes(sources, (1.0, 1.0), recipe(seed=seed)) for seed in (1, 1, 2))
    one(0)
    assert torch.equal(one(5), again(5))
    assert not torch.equal(one(5), one(6))
    assert not torch.equal(one(5), other(5))


def test_without_weights_all_parts_have_the_first_ones_energy() -> None:
    sources = [LoadedRows(3.0 * numbers(0, 5, 1, 30)), LoadedRows(0.1 * numbers(1, 6, 1, 30))]
    parts = Remixes(sources, None, recipe(gains=(1.0, 1.0)))(0)
    energies = parts.square().sum((2, 3))
    torch.testing.assert_close(energies[:, 1], energies[:, 0])
    assert bool(Remixes([sources[0], LoadedRows(torch.zeros(4, 1, 30))], None, recipe())(0).isfinite().all())


# ---- losses ----------------------------------------------------------------------------------------------------------------------------


def test_the_losses_by_hand() -> None:
    truth, parts = torch.tensor([[[[1.0, 1.0]], [[2.0, -2.0]]]]), torch.tensor([[[[1.0, 0.0]], [[2.0, -1.0]]]])
    torch.testing.assert_close(absolute_errors(parts, truth), torch.tensor([[0.5, 0.5]]))
    expected = [[-10 * math.log10(2.02 / 1.02), -10 * math.log10(8.02 / 1.02)]]
    torch.testing.assert_close(negative_sdr(parts, truth, floor=0.01), torch.tensor(expected))


def test_what_is_below_the_floor_does_not_count() -> None:
    silent = torch.zeros(1, 2, 1, 100)
    faint = 1e-3 * numbers(0, 1, 2, 1, 100)
    assert float(negative_sdr(faint, silent).abs().max()) < 0.01
    assert bool(negative_sdr(silent, silent).eq(0).all())


def test_the_best_order_is_that_of_each_mixture() -> None:
    truth = numbers(0, 3, 3, 1, 40)
    shuffled = torch.stack([truth[0, [2, 0, 1]], truth[1], truth[2, [1, 0, 2]]])
    for errors in (absolute_errors, negative_sdr):
        perfect = in_order(errors, truth, truth)
        torch.testing.assert_close(in_best_order(errors, shuffled, truth), perfect)
        assert float(in_order(errors, shuffled, truth)) > float(perfect) + 0.1


@pytest.mark.parametrize(
    ("classes", "assignment", "taken"),
    [
        (("a", "b"), "ordered", True),
        (("a", "b"), "permutation", True),
        (("a", "a"), "permutation", True),
        (("a", "b", "a"), "permutation", True),
        (("a", "a"), "ordered", False),
        (("a",) * 6, "permutation", False),
    ],
)
def test_orders_that_can_be_told_apart(classes: tuple[str, ...], assignment: Any, taken: bool) -> None:
    support = waveform_orders(sound_task(classes=classes, assignment=assignment), "demucs")
    assert support.ok is taken
    assert bool(support.note) is not taken


# ---- training --------------------------------------------------------------------------------------------------------------------------


def test_a_step_by_hand() -> None:
    """Adam's first step is its rate against the sign of the gradient; shares of nothing are too small for a source that is the mixture's half."""
    network = Shares()
    training = WaveformTraining(network, recipe(lr=0.01), lambda step: numbers(step, 4, 1, 1, 30).expand(-1, 2, -1, -1))
    training.advance()
    torch.testing.assert_close(network.a.detach(), torch.tensor([0.01, 0.01]))


def test_shares_are_learnt_whatever_the_level() -> None:
    network = Shares()
    parts = numbers(0, 4, 1, 1, 30) * torch.tensor([0.3, 0.7])[:, None, None] * torch.tensor([1.0, 10.0, 100.0, 1000.0])[:, None, None, None]
    run(WaveformTraining(network, recipe(steps=200), lambda step: parts), None)
    torch.testing.assert_close(network.a.detach(), torch.tensor([0.3, 0.7]), atol=5e-3, rtol=0)


def test_the_rate_falls_to_zero() -> None:
    training = WaveformTraining(Shares(), recipe(steps=10), lambda step: numbers(step, 4, 2, 1, 30))
    rates = []
    while not training.finished:
        training.advance()
        rates.append(training.optimiser.param_groups[0]["lr"])
    assert rates == pytest.approx([0.1] * 6 + [0.08, 0.06, 0.04, 0.02])


@pytest.mark.parametrize(("any_order", "learnt"), [(True, [0.2, 0.8]), (False, [0.8, 0.2])])
def test_sources_of_one_class_may_come_in_any_order(any_order: bool, learnt: list[float]) -> None:
    """The network begins with the right shares in the wrong order, which is right where any order is."""
    parts = numbers(0, 4, 1, 1, 30) * torch.tensor([0.8, 0.2])[:, None, None]
    network = Shares()
    with torch.no_grad():
        network.a.copy_(torch.tensor([0.2, 0.8]))
    run(WaveformTraining(network, recipe(steps=100, any_order=any_order), lambda step: parts), None)
    torch.testing.assert_close(network.a.detach(), torch.tensor(learnt), atol=0.02, rtol=0)


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    training = WaveformTraining(Shares(), recipe(), lambda step: torch.full((4, 2, 1, 30), torch.nan))
    with pytest.raises(SepbenchError, match="lower lr"):
        run(training, None)


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path: Path) -> None:
    signals = numbers(3, 9, 1, 80)
    view = RowsView(sound_task(80), "sources", (signals, 2 * signals))

    def begin() -> WaveformTraining:
        network = new_network(lambda: nn.Sequential(nn.Conv1d(1, 2, 3, padding=1), nn.Unflatten(1, (2, 1))), seed=4)
        return remix_training(network, view, recipe(precision="bfloat16", seed=4), (0.5, 0.5))

    whole, killed, resumed = begin(), begin(), begin()
    run(whole, None)
    advance = killed.advance

    def until() -> None:
        if killed.step == 13:
            raise KeyboardInterrupt
        advance()

    killed.advance = until  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(killed, tmp_path, checkpoint_seconds=0.0)
    assert resume(resumed, tmp_path)
    assert resumed.step == 13
    run(resumed, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(whole.network.parameters(), resumed.network.parameters(), strict=True))


# ---- separation ------------------------------------------------------------------------------------------------------------------------


def test_parts_come_back_at_the_mixtures_level() -> None:
    class AtItsLevel(Shares):
        def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
            torch.testing.assert_close(mixtures.square().mean((1, 2)), torch.ones(len(mixtures)))
            return super().forward(mixtures)

    mixtures = numbers(0, 3, 1, 50) * torch.tensor([0.01, 1.0, 100.0])[:, None, None]
    torch.testing.assert_close(separated_parts(AtItsLevel(start=0.5), mixtures), 0.5 * mixtures.unsqueeze(1).expand(-1, 2, -1, -1))


def test_silence_stays_silent_and_what_is_not_finite_stays_in_its_row() -> None:
    class Offset(Shares):
        def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
            return super().forward(mixtures) + 1.0

    mixtures = numbers(0, 4, 1, 50)
    mixtures[1] = 0.0
    mixtures[2, 0, 7], mixtures[3, 0, 7] = torch.nan, torch.inf
    parts = separated_parts(Offset(start=0.5), mixtures)
    assert torch.equal(parts[:1], separated_parts(Offset(start=0.5), mixtures[:1]))
    assert torch.equal(parts[1], torch.zeros(2, 1, 50))
    assert bool(parts[2:].isnan().all())


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_an_empty_batch_has_no_parts_on_any_device(device: str) -> None:
    assert separated_parts(Shares(start=0.5).to(device), torch.zeros(0, 1, 50, device=device)).shape == (0, 2, 1, 50)


def test_weights_are_read_as_they_were_written(tmp_path: Path) -> None:
    one = Shares(start=0.25)
    save_network(one, tmp_path / "weights.safetensors")
    before = torch.random.get_rng_state()
    assert torch.equal(load_network(lambda: Shares(start=float(torch.rand(()))), tmp_path / "weights.safetensors", "cpu").a, one.a)
    assert torch.equal(before, torch.random.get_rng_state())


def test_first_weights_depend_on_the_seed_alone() -> None:
    before = torch.random.get_rng_state()
    one, again, other = (new_network(lambda: nn.Linear(4, 4), seed).weight for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_what_is_barely_heard_is_scaled_and_what_is_not_is_left_alone() -> None:
    mixtures = torch.tensor([2e-5, 1e-5, 5e-6, 0.0])[:, None, None] * torch.tensor([1.0, -1.0])
    assert levels_of(mixtures).flatten().tolist() == pytest.approx([2e-5, 1.0, 1.0, 1.0])
    assert levels_of(torch.tensor([[[3.0, 3.0], [0.0, 0.0]]])).flatten().tolist() == pytest.approx([4.5**0.5])


def test_a_processor_separates_one_at_a_time_without_a_graph_in_use_mode() -> None:
    sizes: list[int] = []

    class Watched(Shares):
        def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
            sizes.append(len(mixtures))
            assert not self.training
            return super().forward(mixtures)

    found = separated_parts(Watched(start=0.5).train(), numbers(0, 3, 1, 8))
    assert sizes == [1, 1, 1]
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("classes", "assignment", "note"),
    [
        (
            ("a", "a"),
            "ordered",
            "own tells sources by their classes, and this task wants two of one class in order; choose a task under the best assignment",
        ),
        (("a",) * 5, "permutation", ""),
        (("a",) * 6, "permutation", "6 sources have too many orders"),
        (tuple("abcdef"), "permutation", ""),
    ],
)
def test_words_for_orders(classes: tuple[str, ...], assignment: Any, note: str) -> None:
    assert waveform_orders(sound_task(classes=classes, assignment=assignment), "own") == Support(not note, note)


def test_segments_are_no_longer_than_asked_for_and_short_signals_are_whole() -> None:
    for samples, length in ((29, 29), (30, 30), (31, 30)):
        assert Remixes([ramps(3, 1, samples)], (1.0,), recipe(batch=40))(0).shape == (40, 1, 1, length)
    starts = Remixes([ramps(3, 1, 31)], (1.0,), recipe(batch=40, gains=(1.0, 1.0)))(0)[:, 0, 0, 0].abs() % 1000
    assert sorted(starts.unique().tolist()) == [0.0, 1.0]


def test_energies_are_those_of_whole_signals() -> None:
    """The first source's signal has a loud half that a segment may miss: the other is scaled by all of it."""
    loud = torch.cat([torch.zeros(1, 1, 30), torch.full((1, 1, 30), 2.0)], 2)
    parts = Remixes([LoadedRows(loud), LoadedRows(torch.ones(1, 1, 60))], None, recipe(batch=50, gains=(1.0, 1.0)))(0)
    assert parts[:, 1].abs().unique().tolist() == pytest.approx([2**0.5])


def test_a_training_on_a_view_takes_every_slot_and_hands_on_the_weights() -> None:
    signals = (numbers(0, 3, 1, 80), numbers(1, 4, 1, 80))
    made = remix_training(Shares(), RowsView(sound_task(80), "sources", signals), recipe(), (0.5, 0.25))
    assert [len(rows) for rows in made.remixes.sources] == [3, 4]  # type: ignore[attr-defined]
    assert made.remixes.weights == (0.5, 0.25)  # type: ignore[attr-defined]
    assert made.remixes.recipe is made.recipe  # type: ignore[attr-defined]


def test_rate_clip_and_mode_of_a_step() -> None:
    """A decay of less than one step leaves the last step its whole rate."""
    seen: list[bool] = []

    class Watched(Shares):
        def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
            seen.append(self.training)
            return super().forward(mixtures)

    training = WaveformTraining(Watched().eval(), recipe(steps=4, decay=0.1, clip=0.0625), lambda step: numbers(step, 4, 2, 1, 30))
    for _ in range(4):
        training.advance()
        gradient = training.network.a.grad
        assert isinstance(gradient, torch.Tensor)
        assert float(gradient.norm()) == pytest.approx(0.0625, rel=1e-3)
        assert training.optimiser.param_groups[0]["lr"] == 0.1
    assert seen == [True] * 4
    assert list(training.row()) == ["loss"]


def test_a_whole_signal_has_no_place_to_draw_and_then_its_gain_and_sign() -> None:
    """What is drawn of a seed and a step, in the order of the code."""
    made = Remixes([ramps(3, 1, 30)], (0.5,), recipe(batch=3, seed=6, gains=(0.5, 2.0)))(4)
    random = generator(6, "mixtures", 4)
    gains = 0.5 + 1.5 * torch.rand(3, 1, 1, generator=random)
    signs = torch.where(torch.randint(2, (3, 1, 1), generator=random) == 1, 1.0, -1.0)
    rows = batch_indices(derived_seed(6, "source", 0), 4, 3, 3)
    torch.testing.assert_close(made[:, 0], 0.5 * ramps(3, 1, 30).load(rows) * gains * signs)


@pytest.mark.parametrize(("most", "sizes"), [(20, [2, 2, 1]), (8, [1] * 5), (7, [1] * 5), (40, [5])])
def test_a_gpu_separates_as_many_samples_at_a_time_as_it_may(most: int, sizes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A device that computes nothing stands in for it."""
    seen: list[int] = []

    class Watched(Shares):
        def forward(self, mixtures: torch.Tensor) -> torch.Tensor:
            seen.append(len(mixtures))
            return super().forward(mixtures)

    monkeypatch.setattr(waveform, "_DEVICE_SAMPLES", most)
    found = separated_parts(Watched().to("meta"), torch.empty(5, 2, 4, device="meta"))
    assert (seen, found.shape) == (sizes, (5, 2, 2, 4))
