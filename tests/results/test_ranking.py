"""Which methods the best one does not beat, and how repetitions and pairs are found, in the cases at the edge."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sepbench.data.lists.clusters import Clusters, independent
from sepbench.results.pairing import Pairs, difference
from sepbench.results.ranking import LEVEL, AgainstBest, Evidence
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
    assert evidence(levels).against_best("t", "m", list(levels), higher).equal == equal


def test_methods_without_values_are_left_out_and_a_best_without_any_beats_nobody() -> None:
    there = evidence({"a": 5.0, "b": 4.9, "c": 0.0})
    assert there.against_best("t", "m", ["a", "nothing", "b", "c"], True).equal == {"b"}
    assert there.against_best("t", "m", ["nothing", "a", "b"], True).equal == frozenset()
    assert there.against_best("other", "m", ["a", "b"], True).equal == frozenset()
    assert there.against_best("t", "other", ["a", "b"], True).equal == frozenset()


def test_who_cannot_be_paired_with_the_best_is_not_tested_and_makes_no_test_harder() -> None:
    """One of p = 0.03 is beaten, whoever else has other mixtures, or the value of a larger set alone."""
    paired = np.linspace(-1, 1, N)
    shift = 1.95 * paired.std(ddof=1) / math.sqrt(N)  # t of 39 degrees: 0.029
    cells = {
        "best": MetricValues(np.arange(N), np.zeros(N)),
        "one": MetricValues(np.arange(N), paired - shift),
        "apart": MetricValues(np.arange(N, 2 * N), np.full(N, -50.0)),
        "larger": MetricValues(np.arange(2 * N), np.full(2 * N, -50.0), whole_only=True),
    }
    there = Evidence(Values(lambda task, method: {"m": cells[method]} if method in cells else {}), TaskDesigns(lambda task: independent(2 * N)))
    found = there.against_best("t", "m", ["best", "one", "apart", "larger", "nothing"], True)
    assert (found.equal, found.untested) == (frozenset(), {"apart", "larger", "nothing"})
    assert there.against_best("t", "m", ["nothing", "best"], True) == there.against_best("t", "m", [], True) == AgainstBest()


def test_too_few_clusters_beat_nobody() -> None:
    for count, equal in ((9, {"b"}), (10, set())):
        songs = Clusters("song", (np.arange(N) % count)[:, None])
        assert evidence({"a": 50.0, "b": 0.0}, songs).against_best("t", "m", ["a", "b"], True).equal == equal


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
    assert there.against_best("t", "m", ["best", "one"], True).equal == frozenset()
    assert there.against_best("t", "m", ["best", "one", "two"], True).equal == {"one", "two"}


def test_shares_mean_nothing_for_values_of_a_pool() -> None:
    examples = np.arange(12)
    for pooled in (False, True):
        found = difference(Pairs(examples, np.ones(12), np.zeros(12), pooled), Designs(independent(12)))
        assert found.mean == 1.0
        assert math.isnan(found.share_a_higher) is math.isnan(found.share_b_higher) is pooled
