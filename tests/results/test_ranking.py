"""Which methods the best one does not beat, and how repetitions and pairs are found, in the cases at the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepbench.data.lists.clusters import Clusters, independent
from sepbench.results.pairing import Pairs, difference
from sepbench.results.ranking import LEVEL, Evidence
from sepbench.results.statistics import Designs, TaskDesigns
from sepbench.results.values import MetricValues, Values

N = 40
NOISE = np.random.Generator(np.random.Philox(3)).normal(size=(4, N))


def evidence(levels: dict[str, float], clusters: Clusters | None = None, n: int = N) -> Evidence:
    """Methods whose values lie so far apart, by the noise of each mixture."""
    cells = {name: MetricValues(np.arange(n), level + NOISE[place, :n]) for place, (name, level) in enumerate(levels.items())}
    values = Values(lambda task, method: {"m": cells[method]} if method in cells and task == "t" else {})
    return Evidence(values, TaskDesigns(lambda task: clusters or independent(n)))


@pytest.mark.parametrize(
    ("levels", "higher", "equal"),
    [
        ({"a": 5.0, "b": 4.9, "c": 0.0}, True, {"b"}),
        ({"a": 5.0, "b": 0.0, "c": 0.0}, True, set()),
        ({"a": 0.0, "b": 0.1, "c": 5.0}, False, {"b"}),
        ({"a": 0.0, "b": 5.0, "c": 0.1}, False, {"c"}),
        ({"a": 0.0, "b": 5.0}, True, {"b"}),  # ranked first and yet worse: not beaten
        ({"a": 5.0}, True, set()),
    ],
)
def test_who_is_not_beaten_by_the_best(levels: dict[str, float], higher: bool, equal: set[str]) -> None:
    assert evidence(levels).equals("t", "m", list(levels), higher) == equal


def test_methods_without_values_are_left_out_and_a_best_without_any_beats_nobody() -> None:
    there = evidence({"a": 5.0, "b": 4.9, "c": 0.0})
    assert there.equals("t", "m", ["a", "nothing", "b", "c"], True) == {"b"}
    assert there.equals("t", "m", ["nothing", "a", "b"], True) == frozenset()
    assert there.equals("other", "m", ["a", "b"], True) == frozenset()
    assert there.equals("t", "other", ["a", "b"], True) == frozenset()


def test_too_few_clusters_beat_nobody() -> None:
    for count, equal in ((9, {"b"}), (10, set())):
        songs = Clusters("song", (np.arange(N) % count)[:, None])
        assert evidence({"a": 50.0, "b": 0.0}, songs).equals("t", "m", ["a", "b"], True) == equal


def test_the_level_is_that_of_all_methods_together() -> None:
    """One of p = 0.03 is beaten alone, and not beside a second one like it: Holm makes 0.06 of it."""
    paired = np.linspace(-1, 1, N)
    paired -= paired.mean()
    error = paired.std(ddof=1) / math.sqrt(N)
    from scipy import stats

    shift = float(stats.t.isf(0.03, N - 1)) * error
    cells = {"best": np.zeros(N), "one": paired - shift, "two": paired - shift}
    values = Values(lambda task, method: {"m": MetricValues(np.arange(N), cells[method])})
    there = Evidence(values, TaskDesigns(lambda task: independent(N)))
    assert LEVEL == 0.05
    assert there.equals("t", "m", ["best", "one"], True) == frozenset()
    assert there.equals("t", "m", ["best", "one", "two"], True) == {"one", "two"}


def test_shares_mean_nothing_for_values_of_a_pool() -> None:
    examples = np.arange(12)
    for pooled in (False, True):
        found = difference(Pairs(examples, np.ones(12), np.zeros(12), pooled), Designs(independent(12)))
        assert found.mean == 1.0
        assert math.isnan(found.share_a_higher) is math.isnan(found.share_b_higher) is pooled
