"""Random numbers of songs: keyed by text, in range, and as likely as they should be."""

from __future__ import annotations

import numpy as np
import pytest

from sepbench.data.synthesis.dice import Dice


def test_a_key_decides_everything() -> None:
    first, second, other = Dice("a"), Dice("a"), Dice("b")
    numbers = [first.uniform() for _ in range(1000)]
    assert numbers == [second.uniform() for _ in range(1000)]
    assert numbers != [other.uniform() for _ in range(1000)]
    assert len(set(numbers)) == 1000


def test_numbers_and_noise_do_not_disturb_one_another() -> None:
    plain, mixed = Dice("a"), Dice("a")
    noise = mixed.noise(20_000)
    assert [plain.uniform() for _ in range(5)] == [mixed.uniform() for _ in range(5)]
    np.testing.assert_array_equal(np.concatenate([plain.noise(7), plain.noise(19_993)]), noise)


def test_noise_is_white_and_uniform() -> None:
    noise = Dice("noise").noise(100_000)
    assert -1.0 <= noise.min() < -0.999
    assert 0.999 < noise.max() < 1.0
    assert noise.mean() == pytest.approx(0.0, abs=4 * 3**-0.5 / 100_000**0.5)
    assert noise.var() == pytest.approx(1 / 3, abs=0.01)
    assert np.corrcoef(noise[1:], noise[:-1])[0, 1] == pytest.approx(0.0, abs=4 / 100_000**0.5)


def test_choices_follow_their_weights() -> None:
    dice = Dice("weights")
    picks = [dice.pick("abc", (5, 3, 2)) for _ in range(4000)]
    for letter, share in (("a", 0.5), ("b", 0.3), ("c", 0.2)):
        assert picks.count(letter) / 4000 == pytest.approx(share, abs=0.035)
    plain = [dice.pick((1, 2, 3, 4)) for _ in range(4000)]
    assert all(plain.count(n) / 4000 == pytest.approx(0.25, abs=0.03) for n in (1, 2, 3, 4))
    assert sum(dice.flip(0.2) for _ in range(4000)) / 4000 == pytest.approx(0.2, abs=0.03)
    assert not dice.flip(0.0)
    assert dice.flip(1.0)


def test_deviations_stay_inside_and_are_centred() -> None:
    dice = Dice("around")
    found = np.array([dice.around(2.0) for _ in range(4000)])
    assert np.abs(found).max() < 2.0
    assert found.mean() == pytest.approx(0.0, abs=0.06)
    assert np.mean(np.abs(found) < 1.0) == pytest.approx(0.75, abs=0.03)  # triangular


def test_impossible_choices_are_refused() -> None:
    with pytest.raises(ValueError, match="0 options and no weights"):
        Dice("a").pick(())
    with pytest.raises(ValueError, match="2 options and 1 weights"):
        Dice("a").pick("ab", (1,))
