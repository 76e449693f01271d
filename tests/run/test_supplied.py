"""Estimates that somebody else made: names, levels, what is advised and warned of, and the record and the shards of their row."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from estimate_cases import COLOUR, DIGIT, SOUND

from sepbench.data.estimates.problems import EXTRA, MISNAMED, MISSING, EstimatesError, Problems
from sepbench.data.estimates.supplied import Inspection
from sepbench.protocols import TaskSpec
from sepbench.run import supplied
from sepbench.run.records import CellRecord, MethodRecord
from sepbench.run.request import RequestError
from sepbench.run.sink import FoundShard, ShardTotals
from sepbench.run.supplied import Said, SuppliedCell, check_same, checked_name, checked_supervision, inspect_estimates, score_supplied, supplied_record
from sepbench.suites.loader import load_suite

SUITE = load_suite("digits-pairs")
TASK = SUITE.tasks["class-split"]


def _inspection(*examples: int, **facts: Any) -> Inspection:
    return Inspection(np.array(examples, np.int64), "ab" * 32, **facts)


def _cell(*examples: int, planned: int = 5, task: Any = TASK) -> SuppliedCell:
    loaded: Any = SimpleNamespace(load=lambda ids: torch.stack([torch.full((*_draws(task.spec), 2, *task.spec.source_shape), float(n)) for n in ids]))
    return SuppliedCell(task, "mine", planned, loaded, _inspection(*examples))


def _draws(spec: TaskSpec) -> tuple[int, ...]:
    return (spec.posterior_draws,) if spec.posterior_draws else ()


@pytest.mark.parametrize("name", ["a", "9", "A.b_c+d-e", "x" * 64])
def test_names_that_do(name: str) -> None:
    assert checked_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "-a", ".a", "_a", "a b", "a/b", "a--b", "ä", "a\n"])
def test_names_that_do_not(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        checked_name(name)
    assert str(caught.value).endswith("must be up to 64 letters, digits and single . _ + - and begin with a letter or a digit")


def test_the_name_of_a_registered_method_is_taken() -> None:
    with pytest.raises(RequestError) as caught:
        checked_name("nmf")
    assert str(caught.value) == "--name nmf is a registered method, whose rows these estimates would replace; choose another name, as in nmf-theirs"


def test_levels_that_may_be_stated() -> None:
    levels = ["", "unstated", "blind", "mixtures+one", "sources", "prior", "bound"]
    assert [checked_supervision(level) for level in levels] == levels
    with pytest.raises(RequestError) as caught:
        checked_supervision("some")
    assert str(caught.value) == "--supervision must be one of blind, mixtures+one, sources, prior, bound, got 'some'; leave it out if you do not know"


NAMING = "name files MIXTURE_SOURCE.{0} or MIXTURE/SOURCE.{0}, where SOURCE is {1}, as in 000012_1.{0}"
GENERAL = Problems()._advice[MISSING]


@pytest.mark.parametrize(
    ("spec", "named", "there", "planned", "naming", "missing"),
    [
        (DIGIT, True, (), 4, NAMING.format("png", "0-4, 5-9, 1 or 2"), GENERAL),
        (SOUND, True, (), 4, NAMING.format("wav", "drums, bass, 1 or 2"), GENERAL),
        (replace(SOUND, domain="vector"), True, (), 4, None, GENERAL),
        (COLOUR, False, (), 4, None, GENERAL),
        (COLOUR, False, (0,), 4, None, "add them, or score the first 1 mixtures with --limit 1, or what is there with --partial"),
        (COLOUR, False, (0, 1, 2), 4, None, "add them, or score the first 3 mixtures with --limit 3, or what is there with --partial"),
        (COLOUR, False, (0, 1, 3), 4, None, GENERAL),
        (COLOUR, False, (1, 2), 4, None, GENERAL),
        (COLOUR, False, (0, 1, 2, 3), 4, None, GENERAL),
    ],
)
def test_what_is_advised(spec: TaskSpec, named: bool, there: tuple[int, ...], planned: int, naming: str | None, missing: str) -> None:
    problems = Problems()
    supplied._advise(problems, spec, _inspection(*there), planned, named=named)
    assert (problems._advice.get(EXTRA), problems._advice.get(MISNAMED), problems._advice[MISSING]) == (naming, naming, missing)


def test_clipped_sounds_count_where_no_source_of_the_mixture_is_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The truth of mixture 1 stays at the full scale of floats, that of 2 at the full scale of 16 bits, in one of its sources."""
    asked: list[Any] = []
    tops = {0: (0.9, 0.5), 1: (1.0, 0.5), 2: (0.2, 32_767 / 32_768), 3: (0.1, 0.1)}

    def sources(examples: list[int]) -> torch.Tensor:
        asked.append(examples)
        return torch.stack([torch.full((1, 400), top) for top in tops[examples[0]]])[None]

    clipped = ((0, 0, "a"), (0, 1, "b"), (1, 0, "c"), (2, 0, "d"), (3, 1, "e"))
    found = supplied._more_than_the_truth(_inspection(0, clipped=clipped), SimpleNamespace(sources=sources))  # type: ignore[arg-type]
    assert list(found) == ["a", "b", "e"]
    assert asked == [[0], [1], [2], [3]]  # each once


def test_limits_below_one_and_sets_without_a_mixture() -> None:
    with pytest.raises(RequestError) as caught:
        inspect_estimates(TASK, "mine", np.zeros((1, 2, 1, 8, 8), np.float32), limit=0)
    assert str(caught.value) == "--limit must be at least 1, got 0; leave it out to score every mixture"
    with pytest.raises(EstimatesError) as none:
        inspect_estimates(TASK, "mine", np.zeros((0, 2, 1, 8, 8), np.float32), limit=3, partial=True)
    assert str(none.value) == "the array has a complete estimate of none of the 3 mixtures of task class-split that were asked for"
    one = inspect_estimates(TASK, "mine", np.zeros((1, 2, 1, 8, 8), np.float32), limit=1)
    assert (one.name, one.n_planned, one.inspection.examples.tolist(), one.warnings) == ("mine", 1, [0], ())


def test_a_message_names_the_file_that_was_given(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((2, 2, 1, 8, 8), np.float32))
    for given in (tmp_path / "a.npy", f"{tmp_path}/a.npy"):
        with pytest.raises(EstimatesError) as caught:
            inspect_estimates(TASK, "mine", given, limit=3)
        assert str(caught.value) == (
            f"{tmp_path}/a.npy cannot be scored: 1 missing (mixture 2); add them, or score the first 2 mixtures with --limit 2, or what is there with --partial"
        )


@pytest.mark.parametrize("partial", [False, True])
def test_how_files_are_to_be_named_is_said_of_folders_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, partial: bool) -> None:
    """Given as a text or as a path; where a part is enough, what is missing is forgiven and nothing else."""
    seen: list[tuple[bool, int]] = []
    forgiven: list[str] = []
    monkeypatch.setattr(supplied, "_advise", lambda problems, spec, inspection, planned, *, named: seen.append((named, planned)))
    monkeypatch.setattr(supplied, "open_estimates", lambda *given: SimpleNamespace(inspect=lambda *given: _inspection(0, 1, 2)))
    monkeypatch.setattr(Problems, "forgive", lambda self, kind: forgiven.append(kind))
    (tmp_path / "a.npy").touch()
    for given in (tmp_path, str(tmp_path), tmp_path / "a.npy", str(tmp_path / "a.npy"), np.zeros(3)):
        inspect_estimates(TASK, "mine", given, limit=3, partial=partial)
    assert seen == [(True, 3), (True, 3), (False, 3), (False, 3), (False, 3)]
    assert forgiven == [MISSING] * 5 * partial


def test_a_cell_of_supplied_estimates_draws_nothing_and_supports_its_own_task() -> None:
    cell = supplied._cell(_cell(0, 1), "prior")
    assert (cell.info.name, cell.info.title, cell.info.domains, cell.info.deterministic) == ("mine", "mine", frozenset({"image"}), True)
    assert (cell.method, cell.supervision, cell.info.supervision, cell.support.ok, cell.n_planned, cell.batch, cell.unit) == (
        *("mine", "prior", "prior", True, 5),
        *(1, 1),
    )


def test_estimates_are_removed_where_they_are_and_are_scored(unscored: list[Any]) -> None:
    totals = ShardTotals(2, 0, 0.0, "")
    kinds = {0: (True, totals, False), 2: (False, totals, False), 4: (True, totals, True)}
    folder: Any = Folder(
        *(FoundShard(supplied.Shard("class-split", "mine", start, start + 2), there, False, t, bad) for start, (there, t, bad) in kinds.items())
    )
    folder.write_scores = lambda shard, scores: None
    score_supplied(_cell(*range(6), planned=6), folder, ("psnr",), Said(), keep_estimates=False)
    assert folder.removed == [0]


def test_the_record_of_a_run_of_supplied_estimates() -> None:
    record = supplied_record(_cell(0, 1), SUITE, "own/suite.toml", 5, "sepbench evaluate", None)
    assert (record.command, record.suite.name, record.suite.version, record.suite.path) == (
        "sepbench evaluate",
        "digits-pairs",
        SUITE.version,
        "own/suite.toml",
    )
    assert record.tasks["class-split"].model_dump() == {
        "digest": TASK.digest, "pairs_sha256": TASK.pairs_sha256, "mixtures_sha256": TASK.mixtures_sha256, "n_examples": 1000, "n_planned": 5
    }  # fmt: skip
    method = record.methods["mine"]
    assert (method.version, method.title, method.supervision, method.source, method.source_sha256) == ("", "mine", "unstated", "estimates supplied", "")
    assert (record.grid, record.metrics) == ({"class-split": ["mine"]}, list(SUITE.metrics))
    assert (record.seed, record.fit_seed, record.budget, record.device, record.limit, record.shard_size) == (0, None, "paper", "cpu", 5, None)
    assert record.timing_group.startswith("cpu:")
    assert (record.format, record.created[-6:], record.sessions[0].git_sha) == (supplied.FORMAT, "+00:00", supplied.commit(record.environment))
    assert [(one.command, one.created) for one in record.sessions] == [("sepbench evaluate", record.created)]
    there = record.model_copy(
        update={"seed": 3, "fit_seed": 4, "budget": "quick", "device": "cuda", "shard_size": 7, "timing_group": "a", "limit": 99, "command": "old"}
    )
    assert supplied_record(_cell(0, 1), SUITE, "", None, "", None).limit is None  # all that are planned, however many that are
    joined = supplied_record(_cell(0, 1), SUITE, "", 5, "new", there)
    assert (joined.seed, joined.fit_seed, joined.budget, joined.device, joined.shard_size, joined.timing_group) == (3, 4, "quick", "cuda", 7, "a")
    assert (joined.limit, joined.command) == (5, "new")


def test_a_name_means_one_thing_in_a_run() -> None:
    cell, ours, theirs = _cell(0), MethodRecord(version="", source="estimates supplied"), MethodRecord(version="1", source="a:B")
    for methods, old in (({}, None), ({"mine": ours}, None), ({"mine": ours, "other": theirs}, CellRecord()), ({}, CellRecord(estimates_sha256="ab" * 32))):
        check_same(cell, methods, old)
    with pytest.raises(EstimatesError) as method:
        check_same(cell, {"mine": theirs}, None)
    assert str(method.value) == "mine is a method of this run, which separated by itself; choose another --name or another --out"
    with pytest.raises(EstimatesError) as other:
        check_same(cell, {}, CellRecord(estimates_sha256="cd" * 32))
    assert str(other.value) == (
        "the run holds other estimates of mine on class-split (sha256 cdcdcdcdcdcd... there, abababababab... here); choose another --name or another --out"
    )


class Folder:
    """A run's folder in memory."""

    def __init__(self, *found: FoundShard, cell: CellRecord | None = None) -> None:
        self.found, self.cell = list(found), cell
        self.records: list[CellRecord] = []
        self.estimates: dict[int, Any] = {}
        self.removed: list[int] = []

    def read_cell(self, task: str, method: str) -> CellRecord | None:
        return self.cell

    def write_cell(self, task: str, method: str, record: CellRecord) -> None:
        self.records.append(record.model_copy())

    def find(self, task: str, method: str, metrics: Any) -> list[FoundShard]:
        return sorted(self.found, key=lambda item: item.shard.start)

    def write_estimates(self, shard: Any, data: Any) -> None:
        self.estimates[shard.start] = data

    def write_scores(self, shard: Any, scores: Any) -> None:
        good = len(shard) - len(scores.errors)
        self.found.append(FoundShard(shard, True, False, ShardTotals(good, len(scores.errors), 0.0, next(iter(scores.errors.values()), "")), False))

    def remove_estimates(self, shard: Any) -> None:
        self.removed.append(shard.start)


@pytest.fixture
def unscored(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Scoring is left out: "scores" are the data themselves; what the references of sets were asked for."""
    asked: list[Any] = []
    monkeypatch.setattr(supplied, "score_shard", lambda shard, data, *rest: data)
    monkeypatch.setattr(supplied, "prepare_sets", lambda task, metrics, device, sink: asked.append((metrics, device)) or "sets")
    monkeypatch.setattr(supplied, "_MAX_SHARD", 2)
    return asked


def test_a_row_is_scored_in_shards_and_says_what_is_lacking(unscored: list[Any]) -> None:
    folder: Any = Folder()
    told: list[tuple[int, int]] = []
    said = Said("prior", "sepbench evaluate", "abc")
    record = score_supplied(_cell(0, 3, 4), folder, ("psnr",), said, device="cuda:1", advance=lambda done, total: told.append((done, total)))
    assert told == [(2, 5), (4, 5), (5, 5)]
    assert unscored == [(("psnr",), "cuda:1")]
    assert {start: dict(data.errors) for start, data in folder.estimates.items()} == {
        0: {1: "no estimate was supplied"},
        2: {2: "no estimate was supplied"},
        4: {},
    }
    values = torch.cat([data.estimates.flatten(1)[:, 0] for data in folder.estimates.values()])
    assert [None if math.isnan(one) else one for one in values.tolist()] == [0.0, None, None, 3.0, 4.0]
    assert all(data.seconds.isnan().all() and data.seconds.dtype == torch.float64 for data in folder.estimates.values())
    assert (record.state, record.n_separated, record.n_failed, record.n_planned, record.samples) == ("partial", 3, 2, 5, 1)
    assert (record.supervision, record.command, record.git_sha, record.estimates_sha256) == ("prior", "sepbench evaluate", "abc", "ab" * 32)
    assert folder.removed == []
    assert [one.estimates_sha256 for one in folder.records] == ["ab" * 32] * 2  # whose estimates they are is said before the first is there


def test_what_is_there_is_not_scored_again(unscored: list[Any]) -> None:
    shard = replace(FoundShard(supplied.Shard("class-split", "mine", 0, 4), True, False, ShardTotals(4, 0, 0.0, ""), False))
    folder: Any = Folder(shard, cell=CellRecord(supervision="sources", n_planned=4))
    told: list[tuple[int, int]] = []
    record = score_supplied(_cell(*range(5)), folder, ("psnr",), Said(), keep_estimates=False, advance=lambda done, total: told.append((done, total)))
    assert (told, list(folder.estimates)) == ([(5, 5)], [4])
    assert folder.removed == [0, 4]
    assert (record.supervision, record.state, record.error) == ("sources", "done", "")
    whole: Any = Folder(replace(shard, shard=replace(shard.shard, stop=5), totals=ShardTotals(5, 0, 0.0, "")))
    unscored.clear()
    assert score_supplied(_cell(*range(5)), whole, ("psnr",), Said()).supervision == "unstated"
    assert (unscored, whole.estimates) == ([], {})  # nothing is prepared for nothing


def test_mixtures_that_failed_stay_failed_and_the_others_are_scored_by_what_was_asked_for(unscored: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same estimates would fail again."""
    given: list[Any] = []
    monkeypatch.setattr(supplied, "score_shard", lambda shard, data, *rest: given.append((shard.start, shard.stop, *rest[1:])) or data)
    folder: Any = Folder(FoundShard(supplied.Shard("class-split", "mine", 0, 4), True, False, ShardTotals(3, 1, 0.0, "odd"), False))
    record = score_supplied(_cell(*range(5)), folder, ("psnr", "ssim"), Said())
    assert given == [(4, 5, TASK, ("psnr", "ssim"), "sets")]
    assert (record.n_failed, record.error, record.state) == (1, "odd", "partial")


def test_draws_have_an_axis_of_their_own(unscored: list[Any]) -> None:
    exact = load_suite("gaussian-exact").tasks["d2"]
    folder: Any = Folder()
    record = score_supplied(_cell(0, planned=2, task=exact), folder, ("posterior_mean_error",), Said())
    assert tuple(folder.estimates[0].estimates.shape) == (2, 256, 2, 2)
    assert record.samples == 256


def test_a_record_that_counts_more_mixtures_than_are_asked_for_now_keeps_its_count_and_what_a_later_version_wrote(unscored: list[Any]) -> None:
    old = CellRecord.model_validate({"n_planned": 9, "supervision": "prior", "of_a_later_version": 3})
    record = score_supplied(_cell(*range(5)), Folder(cell=old), ("psnr",), Said())  # type: ignore[arg-type]
    assert (record.n_planned, record.n_separated, record.state, record.mapping()["of_a_later_version"]) == (9, 5, "partial", 3)


def test_shards_are_scored_in_the_order_of_their_mixtures(unscored: list[Any]) -> None:
    """Damaged ones, ones without scores and gaps together; estimates that are there are written again, for they are the same."""
    shards = [supplied.Shard("class-split", "mine", *span) for span in ((2, 4), (4, 5))]
    folder: Any = Folder(FoundShard(shards[0], True, False, None, False), FoundShard(shards[1], False, True, None, False))
    told: list[tuple[int, int]] = []
    score_supplied(_cell(*range(5)), folder, ("psnr",), Said(), advance=lambda done, total: told.append((done, total)))
    assert list(folder.estimates) == [0, 2, 4]
    assert told == [(2, 5), (4, 5), (5, 5)]


@pytest.mark.parametrize(("values", "size"), [(10, 1), (2 * 64, 1), (5 * 64 + 1, 2), (4 * 2 * 64, 4), (10_000 * 64, 5)])
def test_a_shard_holds_no_more_than_so_many_values(unscored: list[Any], monkeypatch: pytest.MonkeyPatch, values: int, size: int) -> None:
    """Two sources of 64 values are one mixture; at least one mixture, and at most so many of them."""
    monkeypatch.setattr(supplied, "_SHARD_VALUES", values)
    monkeypatch.setattr(supplied, "_MAX_SHARD", 5)
    folder: Any = Folder()
    score_supplied(_cell(*range(6), planned=6), folder, ("psnr",), Said())
    assert [len(data.seconds) for data in folder.estimates.values()] == [size] * (6 // size) + [6 % size] * (6 % size > 0)


def test_limits_of_shards() -> None:
    assert (supplied._SHARD_VALUES, supplied._MAX_SHARD) == (4_194_304, 1_000)


@pytest.mark.parametrize(
    ("stated", "before", "level"),
    [("prior", "sources", "prior"), ("", "sources", "sources"), ("", "", "unstated"), ("", None, "unstated"), ("unstated", "prior", "unstated")],
)
def test_what_a_method_learnt_from_is_what_was_said_last(unscored: list[Any], stated: str, before: str | None, level: str) -> None:
    old = None if before is None else CellRecord(supervision=before, n_planned=5, error="old", note="old")
    folder: Any = Folder(cell=old)
    record = score_supplied(_cell(*range(5)), folder, ("psnr",), Said(stated))
    assert [one.supervision for one in folder.records] == [level] * 2
    assert (record.error, record.note, record.state) == ("", "", "done")


def test_clipped_sounds_are_refused_unless_the_truth_is_clipped_or_they_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = _inspection(0, 1, clipped=((0, 0, "000000_1.wav"), (1, 0, "000001_1.wav")))
    asked: list[Any] = []

    def opened(estimates: Any, spec: Any, n: int, problems: Any) -> Any:
        return SimpleNamespace(inspect=lambda planned, problems, advance: asked.append((n, planned)) or seen)

    monkeypatch.setattr(supplied, "open_estimates", opened)
    monkeypatch.setattr(supplied, "_more_than_the_truth", lambda inspection, mixtures: iter(["000001_1.wav"]))
    with pytest.raises(EstimatesError) as refused:
        inspect_estimates(TASK, "mine", "a folder", limit=2)
    assert str(refused.value).startswith("a folder cannot be scored: 1 ")
    assert "000001_1.wav" in str(refused.value)
    cell = inspect_estimates(TASK, "mine", "a folder", limit=2, allow_clipped=True)
    assert (cell.task, cell.inspection, cell.n_planned) == (TASK, seen, 2)
    assert inspect_estimates(TASK, "mine", "a folder", allow_clipped=True).n_planned == 1_000
    assert asked == [(1_000, 2), (1_000, 2), (1_000, 1_000)]


def test_what_is_missing_is_forgiven_where_a_part_is_enough() -> None:
    three = np.zeros((3, 2, 1, 8, 8), np.float32)
    assert inspect_estimates(TASK, "mine", three, partial=True).inspection.examples.tolist() == [0, 1, 2]
    with pytest.raises(EstimatesError, match=r"^the array cannot be scored: 997 missing "):
        inspect_estimates(TASK, "mine", three)
    large = inspect_estimates(TASK, "mine", three + 255, limit=3)
    assert large.warnings == ("the array reaches 255, and images are in [0, 1]: if it holds numbers from 0 to 255, divide by 255 first",)
