"""Rules of lists on signals of a few samples: which mixtures count, what is left to another rule, and what is said where there are too few."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np
import pytest
import torch

from sepbench.data.lists.rules import BUILDERS, GAINED, SILENT_RMS, PairRule, Slot, _loud, derive
from sepbench.errors import DataError, SuiteError


@dataclass
class Few:
    """Signals ``(N, 1, T)`` as they are given."""

    values: Sequence[Sequence[float]]
    name: str = "few"
    split: str = "test"

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, len(self.values[0]))

    def __len__(self) -> int:
        return len(self.values)

    def load(self, indices: torch.Tensor) -> torch.Tensor:
        return torch.tensor(self.values)[indices][:, None]


@dataclass
class Grouped(Few):
    groups: tuple[str, ...] = ()


def loud(n: int, name: str = "few") -> Few:
    return Few([[0.5]] * n, name)


def slots(*sets: Few, rows: Sequence[int] | None = None) -> list[Slot]:
    return [(one, torch.arange(len(one)) if rows is None else torch.tensor(rows)) for one in sets]  # type: ignore[misc]


def listed(rule: PairRule, of: list[Slot]) -> list[tuple[int, ...]]:
    return [tuple(row) for row in derive(rule, of).indices.tolist()]


def test_a_rule_says_everything_that_decides_its_list() -> None:
    assert PairRule("aligned-chunks", "s.test", 9).text == "aligned-chunks, order s.test, 9 after 0, 0 dB"
    assert PairRule("aligned-chunks", "s.test", 9, skip=2).text == "aligned-chunks, order s.test, 9 after 2, 0 dB"
    assert PairRule("aligned-chunks", "s.test", 9, window=4).text == "aligned-chunks, order s.test, 9 after 0, 0 dB, a window of 4 samples"
    assert PairRule("any-different", "s.x", 9, 2, -3, 20_480).text == "any-different, order s.x, 9 after 2, -3 dB, a window of 20480 samples"
    assert set(BUILDERS) == {"aligned-chunks", "independent-at-snr", "one-of-each", "any-different"}
    assert {"independent-at-snr"} == GAINED


@pytest.mark.parametrize("skip", [0, 2])
def test_one_of_each_reaches_every_mixture_once_and_leaves_some_to_another_rule(skip: int) -> None:
    of = [*slots(loud(6, "x"), rows=[1, 3, 5]), *slots(loud(4, "y"), rows=[0, 2])]
    whole = listed(PairRule("one-of-each", "s", 6), of)
    assert sorted(whole) == sorted(product([1, 3, 5], [0, 2]))
    assert listed(PairRule("one-of-each", "s", 6 - skip, skip), of) == whole[skip:]
    assert derive(PairRule("one-of-each", "s", 2), of).gains is None
    with pytest.raises(DataError) as caught:
        derive(PairRule("one-of-each", "s", 5, 2), of)
    assert str(caught.value) == "x test and y test make 6 different mixtures, the suite needs 7; lower n, or add data"


def test_any_different_mixes_no_recording_with_itself_and_no_two_twice() -> None:
    one = Grouped([[0.5]] * 5, groups=("a", "a", "b", "b", "c"))
    wanted = {pair for pair in combinations(range(5), 2) if one.groups[pair[0]] != one.groups[pair[1]]}
    found = listed(PairRule("any-different", "s", 8), slots(one, one))
    assert {tuple(sorted(pair)) for pair in found} == wanted
    assert len(found) == len(wanted) == 8
    assert listed(PairRule("any-different", "s", 5, 3), slots(one, one)) == found[3:]
    with pytest.raises(DataError) as caught:
        derive(PairRule("any-different", "s", 9), slots(one, one))
    assert str(caught.value) == "few test make 8 different mixtures, the suite needs 9; lower n, or add data"
    plain = loud(5)
    assert len(listed(PairRule("any-different", "s", 10), slots(plain, plain))) == 10  # without recordings every signal is one
    assert len(listed(PairRule("any-different", "s", 4), slots(one, one, one))) == 4  # three sources: one of a, b and c each
    with pytest.raises(DataError, match="few test make 4 different mixtures, the suite needs 5; "):
        derive(PairRule("any-different", "s", 5), slots(one, one, one))


def test_any_different_is_of_one_class() -> None:
    one, other = loud(4), loud(4)
    for of in (slots(one, other), [*slots(one, rows=[0, 1, 2]), *slots(one, rows=[0, 1, 3])]):
        with pytest.raises(SuiteError) as caught:
            derive(PairRule("any-different", "s", 1), of)
        assert str(caught.value) == "builder 'any-different' mixes signals of one class; take 'one-of-each' for several"


def test_a_signal_at_the_limit_sounds_and_one_below_it_is_silent() -> None:
    least = float(np.float64(SILENT_RMS))
    assert least == pytest.approx(0.0054306, rel=1e-4)  # LASS' 1.5e-5 of 131,072 samples
    levels = Few([[0.0054307], [0.0054305], [-0.0054307], [0.0]])
    assert sorted(listed(PairRule("aligned-chunks", "s", 2), slots(levels, levels))) == [(0, 0), (2, 2)]
    with pytest.raises(DataError) as caught:
        derive(PairRule("aligned-chunks", "s", 2, 1), slots(levels, Few([[0.5]] * 4, "others", "train")))
    told = "few test and others train hold 2 signals that are not silent, the suite needs 3; check that the data set is complete"
    assert str(caught.value) == told


def test_sources_must_sound_in_one_whole_window_together() -> None:
    first = Few([[0.5, 0.5, 0, 0, 0.5], [0, 0, 0.5, 0.5, 0.5], [0.5] * 5, [0, 0, 0, 0, 0.5]])
    second = Few([[0, 0, 0.5, 0.5, 0.5], [0, 0, 0.5, 0.5, 0.5], [0, 0.5, 0, 0, 0], [0, 0, 0, 0, 0.5]])

    def rows(window: int) -> list[int]:
        count = {0: 4, 1: 4, 2: 2, 4: 3, 5: 4}[window]
        with pytest.raises(DataError, match=rf"hold {count} signals"):
            derive(PairRule("aligned-chunks", "s", count + 1, window=window), slots(first, second))
        return sorted(row for row, _ in listed(PairRule("aligned-chunks", "s", count, window=window), slots(first, second)))

    assert rows(0) == rows(1) == [0, 1, 2, 3]
    assert rows(2) == [1, 2]  # row 0 sounds in turn; the rest behind the last whole window does not count
    assert rows(4) == [0, 1, 2]
    assert rows(5) == [0, 1, 2, 3]
    soft = Few([[0.0055, 0.0055], [0.0053, 0.0053]])  # above and below the limit of a whole signal
    assert listed(PairRule("aligned-chunks", "s", 1, window=2), slots(soft, soft)) == [(0, 0)]
    uneven = Few([[0.0055, 0.0, 0.5, 0.5], [0.5, 0.5, 0.0, 0.0]])
    other = Few([[0.0055, 0.0055, 0.0, 0.0], [0.0055, 0.0055, 0.0, 0.0]])
    with pytest.raises(DataError, match="hold 0 signals"):  # as a whole the second set is too soft
        derive(PairRule("aligned-chunks", "s", 1, window=2), slots(uneven, other))


def test_levels_of_the_first_source_decide_the_gains() -> None:
    first, second, third = Few([[0.4], [0.001]]), Few([[0.1], [0.0]]), Few([[0.0], [0.8]])
    found = derive(PairRule("independent-at-snr", "s", 1, 0, 20), slots(first, second, third))
    assert found.indices.tolist() == [[0, 0, 1]]  # of each slot the one that sounds
    assert found.gains is not None
    assert found.gains.dtype == torch.float32
    assert found.gains.tolist() == [pytest.approx([1.0, 0.4, 0.05])]  # a tenth of the level of the first
    with pytest.raises(DataError, match=r"^few test hold 1 signals that are not silent, the suite needs 2; "):
        derive(PairRule("independent-at-snr", "s", 2), slots(first, second, third))


def test_levels_are_those_of_the_first_set_and_counts_have_commas() -> None:
    first, second = Few([[0.5], [0.25]]), Few([[0.1], [0.2]])
    rows, levels = _loud(PairRule("aligned-chunks", "s", 2), [first, second], np.arange(2), 0)  # type: ignore[list-item]
    assert dict(zip(rows.tolist(), levels.tolist(), strict=True)) == {0: 0.5, 1: 0.25}
    with pytest.raises(SuiteError) as caught:
        derive(PairRule("aligned-chunks", "s", 1), slots(loud(1_200, "many"), loud(3), loud(3, "more")))
    told = "many with 1,200 signals, few with 3 signals, more with 3 signals"
    assert str(caught.value) == f"builder 'aligned-chunks' needs aligned data sets, got {told}"
