"""What is handed out of one cell: shards sized by what earlier ones cost, and what becomes of jobs whose worker dies."""

from __future__ import annotations

from dataclasses import replace

import pytest
from agenda_desk import Desk, Planned, cell_shard
from fake_pool import GROUP, MemorySink, report

from sepbench.run.backends import agenda as module
from sepbench.run.records import CellRecord
from sepbench.run.sink import ShardTotals

# -- how large


def test_the_first_shard_is_one_batch_and_nobody_joins_before_it_is_measured(planned: Planned) -> None:
    desk = Desk(planned, workers=2)
    assert desk.take() == ("separate", 0, 4)
    first = desk.last
    assert first is not None
    assert desk.take() is None
    assert not desk.agenda.over
    desk.done(first)
    assert desk.take() is not None


@pytest.mark.parametrize(("cost", "length"), [(1.0, 28), (2.0, 12), (7.4, 4), (300.0, 4), (0.001, 96)])
def test_later_shards_take_about_half_a_minute_in_whole_batches(planned: Planned, cost: float, length: int) -> None:
    desk = Desk(planned)
    desk.take()
    desk.do(cost=cost)
    assert desk.take(resident=True) == ("separate", 4, 4 + length)
    assert length * cost <= module.SHARD_SECONDS or length == 4


def test_the_size_follows_what_the_last_ones_cost(planned: Planned) -> None:
    desk = Desk(planned, limit=400)
    lengths = []
    for cost in (10.0, 1.0, 1.0, 1.0, 1.0):
        _, start, stop = desk.take(resident=True) or ("", 0, 0)
        lengths.append(stop - start)
        desk.do(cost=cost)
    assert lengths == sorted(lengths)
    assert lengths[0] == 4
    assert lengths[-1] >= 12


@pytest.mark.parametrize(("name", "value", "length"), [("MAX_SHARD", 50, 48), ("MAX_SHARD_BYTES", 20 * 2 * 64 * 4, 20), ("MAX_SHARD_BYTES", 1, 4)])
def test_no_shard_is_larger_than_what_a_file_should_hold(planned: Planned, monkeypatch: pytest.MonkeyPatch, name: str, value: int, length: int) -> None:
    monkeypatch.setattr(module, name, value)
    desk = Desk(planned, limit=1000)
    desk.take()
    desk.do(cost=1e-6)
    assert desk.take(resident=True) == ("separate", 4, 4 + length)


@pytest.mark.parametrize("workers", [2, 3, 8])
def test_several_workers_share_what_is_left_in_smaller_and_smaller_shards(planned: Planned, workers: int) -> None:
    desk = Desk(planned, limit=1000, workers=workers)
    desk.take()
    desk.do(cost=1e-6)
    lengths, end = [], 4
    while (taken := desk.take(resident=True)) is not None:
        kind, start, stop = taken
        assert (kind, start) == ("separate", end)
        assert stop % 4 == 0
        lengths.append(stop - start)
        end = stop
    assert end == 1000
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] <= 1000 / (2 * workers) + 4
    assert lengths[-1] == 4
    assert len(lengths) >= 2 * workers


def test_a_shard_size_that_was_asked_for_is_kept_to(planned: Planned) -> None:
    desk = Desk(planned, limit=20, shard_size=6, workers=2)
    found = []
    while (taken := desk.take(resident=True)) is not None:
        found.append(taken[1:])
        desk.do(cost=1e-6)
    assert found == [(0, 6), (6, 12), (12, 18), (18, 20)]


def test_what_is_there_is_left_out_and_pieces_end_at_whole_batches(planned: Planned) -> None:
    sink = MemorySink()
    for start, stop in ((0, 6), (40, 44)):
        sink.separated(cell_shard(start, stop))
        sink.scored(cell_shard(start, stop))
    desk = Desk(planned, sink, limit=60)
    assert desk.progress.mixtures == {("class-split", "halves"): 10}
    found = []
    while (taken := desk.take(resident=True)) is not None:
        found.append(taken[1:])
        desk.do(cost=1e-6)
    assert found == [(6, 8), (8, 40), (44, 60)]
    assert sink.covered() == list(range(60))


# -- who takes part


@pytest.mark.parametrize(("fit_seconds", "kept", "joins"), [(41.0, False, True), (43.0, False, False), (3600.0, False, False), (3600.0, True, True)])
def test_nobody_joins_a_cell_whose_fit_is_dearer_than_what_is_left(planned: Planned, fit_seconds: float, kept: bool, joins: bool) -> None:
    """Unless the fit is kept, and thus read in no time."""
    desk = Desk(planned, workers=4)
    desk.take()
    desk.do(cost=1.0, fit_seconds=fit_seconds, kept=kept)
    assert desk.take(resident=True) == ("separate", 4, 16)  # 84 s are left, for two of them 42
    assert (desk.take(resident=False) is not None) == joins
    assert desk.take(resident=True) is not None  # who has it fitted goes on


def test_somebody_goes_on_where_nobody_is_at_work(planned: Planned) -> None:
    desk = Desk(planned)
    desk.take()
    desk.do(cost=0.001, fit_seconds=3600.0)
    assert desk.take(resident=False) == ("separate", 4, 100)


def test_shards_that_lack_only_scores_need_no_fit(planned: Planned) -> None:
    sink = MemorySink()
    sink.separated(cell_shard(0, 8))
    desk = Desk(planned, sink, limit=12)
    assert desk.take() == ("score", 0, 8)
    desk.do()
    assert desk.take() == ("separate", 8, 12)
    desk.do()
    assert desk.agenda.over
    assert desk.agenda.end().state == "done"


# -- deaths


def test_a_worker_s_death_has_its_shard_done_again_batch_by_batch(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    desk.take()
    desk.do(cost=1.0)
    assert desk.take(resident=True) == ("separate", 4, 20)
    desk.die()
    assert desk.progress.warnings == ["a worker died (signal SIGKILL) at class-split, halves, mixtures 4 to 19; it is done again"]
    found = []
    while (taken := desk.take()) is not None:
        found.append(taken[1:])
        desk.do(cost=1.0)
    assert found == [(4, 8), (8, 12), (12, 16), (16, 20)]
    record = desk.agenda.end()
    assert (record.state, record.n_separated) == ("done", 20)


def test_a_batch_at_which_two_workers_die_counts_as_failed_and_the_others_go_on(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    desk.take()
    desk.do(cost=1.0)
    desk.take()
    desk.die()
    while (taken := desk.take()) is not None:
        if taken[1:] == (8, 12):
            desk.die()
        else:
            desk.do(cost=1.0)
    assert desk.progress.warnings[-1] == "a worker died (signal SIGKILL) at class-split, halves, mixtures 8 to 11; its mixtures count as failed"
    record = desk.agenda.end()
    assert (record.state, record.n_separated, record.n_failed) == ("partial", 16, 4)
    assert record.error == "the worker process died 2 times (signal SIGKILL)"
    assert desk.sink.covered() == list(range(20))
    assert not desk.sink.void  # it was no fault of the fit: only --retry-failed tries them again


def test_a_method_that_kills_two_workers_before_it_gave_anything_is_given_up(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    for _ in range(2):
        assert desk.take() == ("separate", 0, 4)
        desk.die()
    assert desk.agenda.over
    record = desk.agenda.end()
    assert (record.state, record.n_separated, record.n_failed) == ("failed", 0, 20)
    assert desk.sink.covered() == list(range(20))
    assert desk.sink.void == set(desk.sink.scores)  # the next session tries again
    assert desk.progress.mixtures == {("class-split", "halves"): 20}


def test_a_worker_that_died_between_separating_and_scoring_leaves_scoring_only(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    desk.take()
    desk.die(unscored=True)
    assert desk.take() == ("score", 0, 4)
    desk.do()
    assert desk.take() == ("separate", 4, 8)  # nothing is measured yet
    assert desk.progress.mixtures == {("class-split", "halves"): 4}


def test_two_deaths_at_scoring_do_not_give_the_method_up(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    desk.take()
    desk.die(unscored=True)
    assert desk.take() == ("score", 0, 4)
    desk.die()
    assert desk.progress.mixtures == {("class-split", "halves"): 4}  # they counted as separated with the first death, and do not count again
    while desk.take() is not None:
        desk.do(cost=1.0)
    record = desk.agenda.end()
    assert (record.state, record.n_separated, record.n_failed) == ("partial", 16, 4)
    assert desk.sink.covered() == list(range(20))


def test_a_shard_that_takes_the_place_of_a_damaged_one_stays_whole(planned: Planned) -> None:
    sink = MemorySink()
    sink.damaged.add(cell_shard(0, 20))
    desk = Desk(planned, sink, limit=20)
    assert desk.take() == ("separate", 0, 20)
    desk.die()
    assert desk.take() == ("separate", 0, 20)  # smaller ones would lie beside the damaged file
    desk.do()
    assert sink.covered() == list(range(20))
    assert not sink.damaged


# -- failed fits, latency, weights


def test_a_fit_that_fails_gives_every_missing_mixture_a_row_and_makes_room_for_the_next_try(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    desk.take()
    assert desk.last is not None
    failed = module.Report(desk.last, fit_error="ValueError: singular", timing_group=GROUP)
    desk.agenda.take_in(failed)
    assert desk.agenda.over
    record = desk.agenda.end()
    assert (record.state, record.n_failed, record.error) == ("failed", 20, "ValueError: singular")
    assert desk.sink.covered() == list(range(20))

    again = Desk(planned, desk.sink, limit=24)  # and the run grows meanwhile
    assert again.progress.mixtures == {("class-split", "halves"): 0}
    assert desk.sink.covered() == list(range(20))  # nothing goes away before something is tried
    while again.take(resident=True) is not None:
        again.do(cost=1.0)
    assert desk.sink.covered() == list(range(24))
    assert not desk.sink.void
    assert again.agenda.end().state == "done"


def test_a_fit_that_fails_takes_away_nothing_that_is_there(planned: Planned) -> None:
    sink = MemorySink()
    sink.separated(cell_shard(0, 8))
    sink.scored(cell_shard(0, 8))
    desk = Desk(planned, sink, limit=20)
    assert desk.take() == ("separate", 8, 12)
    assert desk.last is not None
    desk.agenda.take_in(module.Report(desk.last, fit_error="ValueError: singular", timing_group=GROUP))
    record = desk.agenda.end()
    assert (record.state, record.n_separated, record.n_failed) == ("failed", 8, 12)
    assert sink.scores[cell_shard(0, 8)].n_failed == 0


def test_latency_comes_last_and_alone(planned: Planned) -> None:
    desk = Desk(planned, limit=8, latency=True)
    desk.take()
    assert not desk.agenda.wants_latency
    desk.do()
    desk.take()
    assert desk.agenda.exhausted
    assert not desk.agenda.wants_latency  # somebody is still at it
    desk.do()
    assert desk.agenda.wants_latency
    assert not desk.agenda.over
    job = desk.agenda.latency_job()
    desk.agenda.take_in(report(job, latency=0.25))
    assert desk.agenda.over
    assert desk.agenda.end().latency_seconds == 0.25


def test_a_fit_that_fails_for_the_latency_alone_leaves_the_cell_done(planned: Planned) -> None:
    desk = Desk(planned, limit=4)
    desk.take()
    desk.do()
    desk.agenda.end()
    again = Desk(planned, desk.sink, limit=4, latency=True)
    assert again.take() is None
    job = again.agenda.latency_job()
    again.agenda.take_in(module.Report(job, fit_error="MemoryError", timing_group=GROUP))
    assert again.agenda.over
    assert again.agenda.end().state == "done"
    assert again.progress.warnings == ["halves on class-split: no latency, MemoryError"]


def test_a_record_is_there_before_anything_that_it_speaks_of(planned: Planned) -> None:
    desk = Desk(planned, limit=20)
    assert desk.sink.cells == {}
    desk.take()
    assert desk.sink.cells["class-split", "halves"] == CellRecord(n_planned=20, supervision="blind")


def test_a_folder_that_lacks_nothing_is_not_written(planned: Planned) -> None:
    desk = Desk(planned, limit=4)
    desk.take()
    desk.do()
    desk.agenda.end()
    before = desk.sink.cells["class-split", "halves"]
    again = Desk(planned, desk.sink, limit=4)
    assert again.take() is None
    assert desk.sink.cells["class-split", "halves"] is before


def test_a_cell_stays_done_while_its_latency_is_measured(planned: Planned) -> None:
    desk = Desk(planned, limit=4)
    desk.take()
    desk.do()
    desk.agenda.end()
    again = Desk(planned, desk.sink, limit=4, latency=True)
    again.agenda.latency_job()
    assert desk.sink.cells["class-split", "halves"].state == "done"  # whatever happens to it now


def test_what_a_worker_noted_of_its_fit_outlives_it(planned: Planned) -> None:
    """It dies between separating and scoring what was all there was to do: nobody fits again."""
    desk = Desk(planned, limit=4)
    desk.take()
    noted = desk.sink.cells["class-split", "halves"].model_copy(update={"weights_sha256": "ab", "fit_seconds": 7.0})
    desk.sink.write_cell("class-split", "halves", noted)
    desk.die(unscored=True)
    assert desk.take() == ("score", 0, 4)
    desk.do()
    assert desk.agenda.over
    record = desk.agenda.end()
    assert (record.state, record.weights_sha256, record.fit_seconds) == ("done", "ab", 7.0)


# -- numbers that decide


def test_what_a_mixture_costs_is_the_mean_of_the_last_shard_and_all_before(planned: Planned) -> None:
    desk = Desk(planned, limit=400)
    lengths = []
    for cost in (1.0, 3.0, 6.0, 4.0):  # 1, 2, 4, 4 seconds: 30, 15, 7 mixtures in whole batches of 4
        _, start, stop = desk.take(resident=True) or ("", 0, 0)
        lengths.append(stop - start)
        desk.do(cost=cost)
    assert lengths == [4, 28, 12, 4]


def test_a_share_of_what_is_left_is_rounded_up(planned: Planned) -> None:
    desk = Desk(planned, limit=33, workers=2)
    desk.take()
    desk.do(cost=1e-6)
    assert desk.take(resident=True) == ("separate", 4, 12)  # of 29 for twice two workers


@pytest.mark.parametrize(("seconds", "load", "joins"), [(40.0, 1.0, True), (40.0, 3.0, False), (1.0, 42.0, False)])
def test_reading_training_data_is_a_part_of_what_a_fit_costs(planned: Planned, seconds: float, load: float, joins: bool) -> None:
    desk = Desk(planned, workers=4)
    desk.take()
    assert desk.last is not None
    made = report(desk.last)
    assert made.fit is not None
    desk.sink.scored(desk.last.shard)
    desk.agenda.take_in(replace(made, fit=replace(made.fit, facts=replace(made.fit.facts, seconds=seconds, load_seconds=load))))
    desk.take(resident=True)
    assert (desk.take(resident=False) is not None) == joins  # 84 s are left, for two of them 42


def test_estimates_of_an_earlier_session_are_none_of_the_worker_s_that_died(planned: Planned) -> None:
    """Failed mixtures are tried again: what lies there is what failed, and its scores stay until there are new ones."""
    sink = MemorySink()
    sink.separated(cell_shard(0, 8))
    sink.scores[cell_shard(0, 8)] = ShardTotals(7, 1, 0.5, "ValueError: odd")
    desk = Desk(planned, sink, limit=8, retry_failed=True)
    for _ in range(2):
        assert desk.take() == ("separate", 0, 8)
        desk.die()
    assert desk.agenda.over
    assert sink.scores[cell_shard(0, 8)].n_failed == 1
    assert desk.progress.mixtures == {("class-split", "halves"): 8}
