"""How long a run still takes, by a clock that moves only when told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sepbench.report.progress import spelled
from sepbench.report.time_left import TimeLeft


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Told:
    """A run of cells named ``a``, ``b``, ...: key -> (method, mixtures); time passes with ``wait``."""

    def __init__(self, **cells: tuple[str, int]) -> None:
        self.clock = Clock()
        self.left = TimeLeft(self.clock)
        self.left.start(dict(cells))

    def wait(self, seconds: float) -> Told:
        self.clock.now += seconds
        return self

    def stage(self, key: str, text: str, fraction: float | None = None) -> Told:
        self.left.stage(key, text, fraction)
        return self

    def separate(self, key: str, seconds: float, mixtures: float) -> Told:
        """So many mixtures, and the time that they took."""
        self.left.stage(key, "separate", None)
        self.wait(seconds)
        self.left.advance(key, mixtures)
        return self

    @property
    def seconds(self) -> float | None:
        return self.left.seconds()


def test_nothing_is_known_before_anything_is_measured() -> None:
    told = Told(a=("nmf", 100))
    assert told.seconds is None
    told.left.begin("a", 0)
    assert told.stage("a", "fit").wait(5.0).seconds is None
    assert told.stage("a", "separate").wait(5.0).seconds is None


def test_a_fit_takes_what_its_fraction_says() -> None:
    told = Told(a=("nmf", 100)).stage("a", "fit").wait(10.0)
    assert told.stage("a", "fit 25% step 250", 0.25).seconds == pytest.approx(30.0)
    assert told.wait(30.0).stage("a", "fit 80% step 800", 0.8).seconds == pytest.approx(10.0)


def test_a_warm_up_is_no_part_of_the_fit_before_it() -> None:
    told = Told(a=("nmf", 100)).stage("a", "fit").wait(3600.0).stage("a", "fit 100%", 1.0)
    assert told.stage("a", "warm up").wait(1.0).stage("a", "warm up 50%", 0.5).seconds == pytest.approx(1.0)


def test_separating_goes_on_at_its_rate_scoring_included_and_the_fit_left_out() -> None:
    told = Told(a=("nmf", 100)).stage("a", "fit").wait(1000.0).stage("a", "warm up").wait(50.0)
    told.separate("a", 8.0, 10)
    told.stage("a", "score").wait(2.0)
    assert told.seconds == pytest.approx(90.0)
    told.separate("a", 25.0, 25)
    assert told.seconds == pytest.approx(65.0)


def test_parts_of_a_batch_count() -> None:
    told = Told(a=("basis", 10)).separate("a", 6.0, 0.5).separate("a", 6.0, 0.25)
    assert told.seconds == pytest.approx(12.0 / 0.75 * 9.25)


def test_time_that_passes_without_news_makes_it_longer() -> None:
    told = Told(a=("nmf", 100)).separate("a", 10.0, 10)
    before = told.seconds
    assert before is not None
    later = told.wait(10.0).seconds
    assert later is not None
    assert later > before


def test_mixtures_that_are_there_already_cost_nothing() -> None:
    told = Told(a=("nmf", 100))
    told.left.begin("a", 60)
    assert told.separate("a", 10.0, 10).seconds == pytest.approx(30.0)


def test_another_task_of_the_same_method_takes_its_fit_and_its_rate() -> None:
    told = Told(a=("nmf", 100), b=("nmf", 50), c=("ica", 10))
    told.stage("a", "fit").wait(30.0).separate("a", 100.0, 100)
    told.left.end("a")
    assert told.seconds == pytest.approx((30.0 + 50.0) + 10.0)  # ica, of which nothing is known, at the others' rate
    told.stage("b", "fit").wait(10.0)
    assert told.seconds == pytest.approx((20.0 + 50.0) + 10.0)
    told.wait(100.0)  # longer than the other fit
    assert told.seconds == pytest.approx((0.0 + 50.0) + 10.0)
    told.stage("b", "fit 50% step 5", 0.5)
    assert told.seconds == pytest.approx((110.0 + 50.0) + 10.0)  # what the fit says of itself counts more


def test_a_method_with_a_rate_of_its_own_is_not_taken_for_the_others() -> None:
    told = Told(a=("quick", 10), b=("slow", 10), c=("quick", 10), d=("slow", 10))
    told.separate("a", 1.0, 10).left.end("a")
    told.separate("b", 100.0, 10).left.end("b")
    assert told.seconds == pytest.approx(1.0 + 100.0)


def test_cells_side_by_side() -> None:
    told = Told(a=("quick", 10), b=("slow", 10))
    told.stage("a", "separate").stage("b", "separate").wait(5.0)
    told.left.advance("a", 5)
    told.left.advance("b", 1)
    assert told.seconds == pytest.approx(5.0 + 45.0)


def test_a_second_worker_that_fits_the_method_does_not_stop_the_clock_of_the_first() -> None:
    told = Told(a=("nmf", 100)).separate("a", 10.0, 10)
    told.stage("a", "fit").wait(5.0).stage("a", "fit 10%", 0.1).wait(5.0)
    told.left.advance("a", 10)
    assert told.seconds == pytest.approx(80.0)


def test_mixtures_of_a_worker_that_died_are_left_again() -> None:
    told = Told(a=("nmf", 100)).separate("a", 20.0, 20)
    told.left.advance("a", -10)
    assert told.seconds == pytest.approx(2.0 * 90)


def test_nothing_is_left_at_the_end_or_where_nothing_runs() -> None:
    told = Told(a=("nmf", 10), b=("picky", 0)).separate("a", 10.0, 10)
    told.left.begin("b", 10)
    told.left.end("a")
    told.left.end("b")
    assert told.seconds is None


def test_a_cell_that_failed_is_over() -> None:
    told = Told(a=("nmf", 10), b=("ica", 10)).stage("a", "fit").wait(3.0)
    told.left.advance("a", 10)
    told.left.end("a")
    assert told.separate("b", 5.0, 5).seconds == pytest.approx(5.0)


@pytest.mark.parametrize("last", ["separate", "score", "warm up"])
def test_what_a_cell_did_last_counts_until_it_ended_and_no_longer(last: str) -> None:
    """Another task of the method goes by the rate of the one that is over, with its last stage and without what came after."""
    told = Told(a=("nmf", 10), b=("nmf", 4)).separate("a", 10.0, 10).stage("a", last).wait(5.0)
    told.left.end("a")
    assert told.wait(1000.0).seconds == pytest.approx(1.5 * 4)
    assert told.stage("b", "separate").wait(3.0).seconds == pytest.approx(1.5 * 4)


def test_a_cell_that_is_over_stays_over() -> None:
    told = Told(a=("nmf", 10), b=("nmf", 4)).separate("a", 5.0, 5)
    told.left.end("a")
    assert told.seconds == pytest.approx(4.0)  # nothing of the five that nobody separates any more
    told.left.advance("a", -3)  # a worker that is told dead too late
    told.left.end("b")
    assert told.seconds is None


def test_a_cell_that_ends_in_its_fit_says_nothing_of_others() -> None:
    told = Told(a=("nmf", 10), b=("nmf", 4)).stage("a", "fit").wait(50.0)
    told.left.end("a")
    assert told.wait(7.0).seconds is None


def test_a_fit_elsewhere_includes_its_warm_up_and_is_used_up_stage_by_stage() -> None:
    told = Told(a=("nmf", 10), b=("nmf", 4)).stage("a", "fit").wait(20.0).stage("a", "warm up").wait(10.0).separate("a", 10.0, 10)
    told.left.end("a")
    assert told.stage("b", "fit").wait(12.0).seconds == pytest.approx(18.0 + 4.0)
    assert told.stage("b", "warm up").wait(8.0).seconds == pytest.approx(10.0 + 4.0)
    assert told.stage("b", "warm up 0%", 0.0).seconds == pytest.approx(10.0 + 4.0)  # a fraction of nothing says nothing
    assert told.stage("b", "separate").wait(0.5).seconds == pytest.approx(4.0)


def test_fits_and_rates_of_several_tasks_are_averaged() -> None:
    told = Told(a=("nmf", 10), b=("nmf", 10), c=("nmf", 10))
    for key, fit, rate in (("a", 10.0, 1.0), ("b", 30.0, 2.0)):
        told.stage(key, "fit").wait(fit).separate(key, 10 * rate, 10).left.end(key)
    assert told.seconds == pytest.approx(20.0 + 15.0)


def test_a_worker_that_dies_takes_no_more_than_was_done() -> None:
    told = Told(a=("nmf", 10)).separate("a", 4.0, 1)
    told.left.advance("a", -3)  # of earlier sessions too
    told.left.advance("a", 4)
    assert told.seconds == pytest.approx(1.0 * 8)


def test_a_cell_of_which_nothing_is_left_is_not_fitted_again() -> None:
    told = Told(a=("nmf", 10), b=("nmf", 10)).stage("a", "fit").wait(20.0).separate("a", 10.0, 10)
    told.left.end("a")
    assert told.seconds == pytest.approx(20.0 + 10.0)
    told.left.begin("b", 10)
    assert told.seconds is None


def test_what_is_known_of_one_cell_counts_though_nothing_is_known_of_the_next() -> None:
    told = Told(a=("nmf", 10), b=("ica", 10)).stage("a", "fit").wait(10.0)
    assert told.stage("a", "fit 50%", 0.5).seconds == pytest.approx(10.0)


def test_what_is_found_done_before_any_stage_is_no_rate() -> None:
    told = Told(a=("nmf", 10))
    told.left.advance("a", 4)
    assert told.wait(4.0).seconds is None
    assert told.separate("a", 3.0, 1).seconds == pytest.approx(3.0 * 5)


@given(steps=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["fit", "warm up", "separate", "score"]), st.floats(0.01, 100.0), st.floats(0.0, 3.0))))
def test_it_is_never_negative(steps: list[tuple[str, str, float, float]]) -> None:
    told = Told(a=("nmf", 10), b=("nmf", 10))
    for key, stage, seconds, mixtures in steps:
        told.stage(key, stage, 0.5 if stage == "fit" else None).wait(seconds)
        told.left.advance(key, mixtures)
        left = told.seconds
        assert left is None or left >= 0.0


@pytest.mark.parametrize(("seconds", "text"), [(None, "-:--:--"), (0.4, "0:00:00"), (59.6, "0:01:00"), (3723.0, "1:02:03"), (360000.0, "100:00:00")])
def test_spelled(seconds: Any, text: str) -> None:
    assert spelled(seconds) == text
