"""Lists made by rules: laws on made-up levels, and that nothing but the rule and the data decides them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.lists.pairs import pairs_csv, read_pairs
from sepbench.data.lists.rules import SILENT_RMS, PairRule, Slot, derive
from sepbench.errors import DataError, SuiteError


class Levels:
    """Signals ``(1, 4)`` of given RMS; remembers which rows were loaded."""

    domain, split, shape = "audio", "test", (1, 4)

    def __init__(self, levels: Sequence[float], name: str = "toy") -> None:
        self.name = name
        self.levels = torch.tensor(levels, dtype=torch.float32)
        self.labels = torch.zeros(len(levels), dtype=torch.int64)
        self.loaded: list[int] = []

    def __len__(self) -> int:
        return len(self.levels)

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        rows = torch.as_tensor(indices)
        self.loaded += rows.tolist()
        return self.levels[rows][:, None, None] * torch.tensor([1.0, -1.0, 1.0, -1.0])


def slots(*sets: Levels) -> list[Slot]:
    return [(signals, torch.arange(len(signals))) for signals in sets]


def test_silence_is_lasss() -> None:
    """L2 norm / samples < 1.5e-5 at 131,072 samples; -45.3 dBFS."""
    assert pytest.approx(1.5e-5) == SILENT_RMS * 131_072**0.5 / 131_072
    assert 20 * np.log10(SILENT_RMS) == pytest.approx(-45.3, abs=0.05)


class Halves(Levels):
    """Signals ``(1, 4)`` that sound in their first or second half alone: a level below 0 means the second."""

    def load(self, indices: torch.Tensor | Sequence[int]) -> torch.Tensor:
        values = self.levels[torch.as_tensor(indices)]
        return torch.where((values < 0)[:, None], torch.tensor([0.0, 0, 1, 1]), torch.tensor([1.0, 1, 0, 0]))[:, None] * values.abs()[:, None, None]


def test_sources_that_never_sound_in_the_same_window_are_left_out() -> None:
    """Both are loud by their RMS, and yet no window would have an SDR."""
    pair = slots(Halves([0.1, 0.1, -0.1]), Halves([0.1, -0.1, -0.1]))
    free = derive(PairRule("aligned-chunks", "toy.test", 3), pair)
    assert sorted(free.indices[:, 0].tolist()) == [0, 1, 2]
    bound = derive(PairRule("aligned-chunks", "toy.test", 2, window=2), pair)
    assert sorted(bound.indices[:, 0].tolist()) == [0, 2]
    assert derive(PairRule("aligned-chunks", "toy.test", 3, window=4), pair).indices.tolist() == free.indices.tolist()
    with pytest.raises(DataError, match="hold 2 signals"):
        derive(PairRule("aligned-chunks", "toy.test", 3, window=2), pair)


levels = st.lists(st.sampled_from([0.0, 0.005, 0.006, 0.1, 1.0]), min_size=1, max_size=60)


@settings(max_examples=60, deadline=None)
@given(levels=st.lists(st.tuples(*[st.sampled_from([0.0, 0.005, 0.006, 0.1])] * 2), min_size=1, max_size=60), skip=st.integers(0, 5), count=st.integers(1, 10))
def test_aligned_lists_take_loud_places_once(levels: list[tuple[float, float]], skip: int, count: int) -> None:
    first, second = (Levels(column) for column in zip(*levels, strict=True))
    loud = [row for row, pair in enumerate(levels) if min(pair) > SILENT_RMS]
    rule = PairRule("aligned-chunks", "toy.test", count, skip)
    if len(loud) < skip + count:
        with pytest.raises(DataError, match=f"hold {len(loud)} signals that are not silent, the suite needs {skip + count}"):
            derive(rule, slots(first, second))
        return
    pairs = derive(rule, slots(first, second))
    rows = pairs.indices[:, 0].tolist()
    assert torch.equal(pairs.indices[:, 0], pairs.indices[:, 1])
    assert len(set(rows)) == count
    assert set(rows) <= set(loud)
    assert pairs.gains is None
    whole = derive(replace(rule, count=skip + count, skip=0), slots(first, second)).indices[:, 0].tolist()
    assert whole[skip:] == rows  # what one rule skips is what another takes


@settings(max_examples=60, deadline=None)
@given(x=levels, b=levels, snr=st.integers(-10, 10), count=st.integers(1, 8))
def test_gains_set_the_level_of_the_second_source(x: list[float], b: list[float], snr: int, count: int) -> None:
    speech, noise = Levels(x), Levels(b)
    rule = PairRule("independent-at-snr", "toy.test", count, 0, snr)
    if min(sum(level > SILENT_RMS for level in column) for column in (x, b)) < count:
        with pytest.raises(DataError, match="that are not silent"):
            derive(rule, slots(speech, noise))
        return
    pairs = derive(rule, slots(speech, noise))
    assert pairs.gains is not None
    energies = [
        (gain * source.load(rows).flatten(1)[:, 0]).square() for source, rows, gain in zip((speech, noise), pairs.indices.T, pairs.gains.T, strict=True)
    ]
    torch.testing.assert_close(10 * torch.log10(energies[0] / energies[1]), torch.full((count,), float(snr)), rtol=0, atol=1e-4)
    assert (pairs.gains[:, 0] == 1).all()
    assert all(len(set(column.tolist())) == count for column in pairs.indices.T)


def test_the_list_depends_on_its_order_and_on_nothing_else() -> None:
    loud = [0.1] * 200
    rule = PairRule("aligned-chunks", "toy.test", 50)
    first = derive(rule, slots(Levels(loud), Levels(loud)))
    assert first.sha256 == derive(rule, slots(Levels(loud, "other"), Levels(loud))).sha256
    assert first.sha256 != derive(replace(rule, order="toy.validation"), slots(Levels(loud), Levels(loud))).sha256
    assert first.indices[:5, 0].tolist() == [160, 130, 123, 92, 187]  # frozen: Philox keyed by the order's name


def test_only_as_much_is_read_as_is_needed() -> None:
    signals = Levels([0.1] * 5000)
    derive(PairRule("aligned-chunks", "toy.test", 20), slots(signals))
    assert len(signals.loaded) == 32


def test_rows_outside_the_pool_are_not_taken() -> None:
    pools = [(Levels([0.1] * 40), torch.arange(10, 30)), (Levels([0.1] * 40), torch.arange(0, 20))]
    assert set(derive(PairRule("aligned-chunks", "toy.test", 10), pools).indices.flatten().tolist()) == set(range(10, 20))


def test_data_sets_of_different_length_are_not_aligned() -> None:
    with pytest.raises(SuiteError, match="needs aligned data sets, got toy with 3 signals, toy with 4 signals"):
        derive(PairRule("aligned-chunks", "toy.test", 2), slots(Levels([0.1] * 3), Levels([0.1] * 4)))


def test_the_digest_is_that_of_the_file_it_would_be(tmp_path: Path) -> None:
    pairs = derive(PairRule("independent-at-snr", "toy.test", 7, 2, 3), slots(Levels([0.1, 0.2, 0.3] * 5), Levels([0.7, 0.11] * 6)))
    assert pairs.gains is not None
    path = tmp_path / "list.csv"
    path.write_bytes(pairs_csv(pairs.indices.numpy(), pairs.gains.numpy()))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == pairs.sha256
    again = read_pairs(path)
    assert torch.equal(again.indices, pairs.indices)
    assert again.gains is not None
    assert torch.equal(again.gains, pairs.gains)


def test_every_slot_has_an_order_of_its_own() -> None:
    """Sets alike in everything: a shuffle that the slots share would pair each signal with itself."""
    sets = slots(*(Levels([0.1] * 60, name) for name in ("a", "b", "c")))
    found = derive(PairRule("independent-at-snr", "toy.test", 50), sets).indices
    for first, second in ((0, 1), (1, 2), (0, 2)):
        assert int((found[:, first] == found[:, second]).sum()) < 10
    assert all(len(set(found[:, slot].tolist())) == 50 for slot in range(3))


def test_a_list_is_frozen() -> None:
    """The first rows of a rule, which other generators, orders or streams would not give."""
    found = derive(PairRule("independent-at-snr", "toy.test", 5, 2, 6.0), slots(Levels([0.1] * 20), Levels([0.2] * 20)))
    assert found.indices.tolist() == [[18, 11], [0, 10], [11, 7], [8, 1], [15, 14]]
    assert found.gains is not None
    assert found.gains[:, 0].tolist() == [1.0] * 5
    assert found.gains[:, 1].tolist() == pytest.approx([0.5 * 10 ** (-0.3)] * 5)
