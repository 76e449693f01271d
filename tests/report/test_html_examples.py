"""Which mixtures a report shows, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from synthetic_run import SyntheticRun

from sepbench.report.html.examples import RANDOM, choose
from sepbench.report.panels.opened_run import OpenedRun

METHODS = ("nmf", "ica", "average", "ideal-mask")


@pytest.fixture
def run(tmp_path: Path) -> OpenedRun:
    """40 mixtures; on number 7 ``nmf`` and ``ica`` are 30 dB apart, on number 9 ``nmf`` and a bound are 60 dB."""
    made = SyntheticRun({"nmf": 16.0, "ica": 16.0, "average": 15.0, "ideal-mask": 16.0})
    scores = made.scores
    for example, method, value in ((7, "nmf", 33.0), (7, "ica", 3.0), (9, "ideal-mask", 76.0), (9, "nmf", 16.0)):
        where = (scores["example"] == example) & (scores["method"] == method) & (scores["metric"] == "psnr")
        assert where.any()
        scores.loc[where, "value"] = value
    made.save(tmp_path / "run")
    return OpenedRun.open(tmp_path / "run")


def test_the_largest_disagreement_is_that_of_two_methods_that_are_no_bounds(run: OpenedRun) -> None:
    reasons = choose(run, "class-split", METHODS, ())
    assert [example for example, words in reasons.items() if "largest disagreement" in words] == [7]
    assert "largest disagreement: nmf 33.00, ica 3.00" in reasons[7]


def test_best_and_worst_are_by_the_mean_of_the_methods_and_some_are_drawn_by_lot(run: OpenedRun) -> None:
    values = {method: run.values("class-split", method) for method in METHODS}
    means = {example: sum(values[method][example] for method in METHODS) / len(METHODS) for example in range(40)}
    reasons = choose(run, "class-split", METHODS, (3,))
    assert reasons[3].startswith("chosen")
    assert f"best mean psnr of the methods, {max(means.values()):.2f}" in reasons[max(means, key=means.__getitem__)]
    assert f"worst mean psnr of the methods, {min(means.values()):.2f}" in reasons[min(means, key=means.__getitem__)]
    assert sum("median" in words for words in reasons.values()) == 1
    assert sum("drawn by lot" in words for words in reasons.values()) == RANDOM
    assert choose(run, "class-split", METHODS, (3,)) == reasons


def test_one_method_disagrees_with_nobody(run: OpenedRun) -> None:
    reasons = choose(run, "class-split", ("nmf",), ())
    assert not any("disagreement" in words for words in reasons.values())
    assert any("best psnr, 33.00" in words for words in reasons.values())
