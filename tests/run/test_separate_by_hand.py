"""Separating without a method: what becomes of a shard's rows, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from told_places import without_place

from sepbench.errors import SepbenchError
from sepbench.run import separate
from sepbench.run.plan import Shard
from sepbench.run.separate import ContractError, Separated, checked_call, measure_latency, separate_batch, separate_shard
from sepbench.suites.loader import load_suite

SUITE = load_suite("digits-pairs")
NO_ROOM = separate._Failure(torch.cuda.OutOfMemoryError(), "no room")
SPEC = replace(SUITE.task("class-split").spec, source_shape=(2,), n_sources=3)


class Teller:
    def __init__(self) -> None:
        self.said: list[Any] = []

    def enter(self, stage: str) -> None:
        self.said.append(stage)

    def begin(self, batch: int) -> None:
        self.said.append(batch)

    def end(self) -> None:
        self.said.append("end")


def opened(draws: int = 0, batch: int = 4, warm: float | None = 1.0, device: str = "cpu") -> Any:
    task = replace(SPEC, posterior_draws=draws)
    cell = SimpleNamespace(task=SimpleNamespace(spec=task), unit=batch, batch=batch, method="m")
    ctx = SimpleNamespace(task=task, device=device)
    return SimpleNamespace(cell=cell, ctx=ctx, teller=Teller(), most=None, warm_up_seconds=warm, first_traceback="", references=None, separator=None)


# ---- a shard's rows --------------------------------------------------------------------------------------------------------------------


def of(ids: torch.Tensor, seconds: float, counted: bool = True) -> Separated:
    """Estimates that hold their mixture's number; that of mixture 7 is not finite."""
    values = torch.stack([torch.full((3, 2), float(number)) for number in ids])
    values[ids == 7, 1, 0] = torch.inf
    return Separated(values, seconds, ids.double() * 10 if counted else None)


def test_what_becomes_of_every_row_of_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mixtures 6 to 11 in batches 6-7, 8-11: the second is taken apart, its 9 fails."""

    def attempts(session: Any, batch: torch.Tensor) -> Any:
        if batch[0] == 6:
            yield batch, of(batch, 4.0)
            return
        for single in torch.split(batch, 1):
            yield single, "no convergence" if single[0] == 9 else of(single, 0.5, counted=single[0] != 10)

    monkeypatch.setattr(separate, "_attempts", attempts)
    session = opened()
    data = separate_shard(session, Shard("t", "m", 6, 12))
    assert data.errors == {7: "the estimate holds values that are not finite", 9: "no convergence"}
    for row, number in enumerate(range(6, 12)):
        expected = torch.full((3, 2), torch.nan if number in (7, 9) else float(number))
        assert torch.equal(data.estimates[row].nan_to_num(-1.0), expected.nan_to_num(-1.0))
    assert data.seconds.nan_to_num(-1.0).tolist() == [2.0, 2.0, 0.5, -1.0, 0.5, 0.5]
    assert data.evaluations is not None
    assert data.evaluations.nan_to_num(-1.0).tolist() == [60.0, 70.0, 80.0, -1.0, -1.0, 110.0]
    assert (data.estimates.dtype, data.seconds.dtype) == (torch.float32, torch.float64)
    assert session.teller.said == ["separate", 2, "end", 4, "end"]


@pytest.mark.parametrize(("draws", "shape"), [(0, (2, 3, 2)), (5, (2, 5, 3, 2))])
def test_a_shard_of_which_nothing_came(monkeypatch: pytest.MonkeyPatch, draws: int, shape: tuple[int, ...]) -> None:
    monkeypatch.setattr(separate, "_attempts", lambda session, batch: iter([(batch, "no")]))
    data = separate_shard(opened(draws), Shard("t", "m", 2, 4))
    assert (tuple(data.estimates.shape), data.evaluations, data.errors) == (shape, None, {2: "no", 3: "no"})
    assert data.estimates.isnan().all()
    assert data.seconds.isnan().all()


def test_a_warm_up_that_took_no_time_was_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(separate, "_attempts", lambda session, batch: iter([(batch, "no")]))
    session = opened(warm=0.0)
    separate_shard(session, Shard("t", "m", 0, 1))
    assert session.teller.said == ["separate", 1, "end"]


def test_the_first_shard_of_a_session_warms_up_on_its_first_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[list[int]] = []

    def attempt(session: Any, ids: torch.Tensor) -> Any:
        tried.append(ids.tolist())
        session.first_traceback = session.first_traceback or f"of {ids.tolist()}"
        return separate._Failure(ValueError("no"), "no")

    monkeypatch.setattr(separate, "_attempt", attempt)
    session = opened(warm=None)
    separate_shard(session, Shard("t", "m", 4, 6))
    assert tried == [[4], [4, 5], [4], [5]]
    assert session.teller.said[:2] == ["warm up", "separate"]
    assert session.warm_up_seconds >= 0.0
    assert session.first_traceback == "of [4, 5]"  # that of the warm-up does not count
    separate_shard(session, Shard("t", "m", 6, 7))
    assert tried[4:] == [[6]]


@pytest.mark.parametrize(("warm", "first"), [(None, [[0]]), (1.0, []), (0.0, [])])
def test_latency_goes_round_where_there_are_few_mixtures(monkeypatch: pytest.MonkeyPatch, warm: float | None, first: list[list[int]]) -> None:
    seen: list[list[int]] = []
    monkeypatch.setattr(separate, "_mixtures", lambda session, ids: ids)
    monkeypatch.setattr(separate, "_attempt", lambda session, ids: seen.append(ids.tolist()))
    monkeypatch.setattr(separate, "separate_batch", lambda session, ids: seen.append(ids.tolist()) or of(ids, float(len(seen))))
    assert measure_latency(opened(warm=warm), 3) == 5.5 + len(first)
    assert seen == first + [[number % 3] for number in range(10)]


def test_reading_references_is_no_separating(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    mixtures: Any = [0, 1]
    monkeypatch.setattr(separate, "checked_call", lambda separator, given, ctx: (torch.zeros(2), 5.0))
    assert separate_batch(session, mixtures).seconds == 5.0
    session.references = SimpleNamespace(seconds=100.0)

    def reads(separator: Any, given: Any, ctx: Any) -> Any:
        session.references.seconds += 2.0
        return torch.zeros(2), 5.0

    monkeypatch.setattr(separate, "checked_call", reads)
    assert separate_batch(session, mixtures).seconds == 3.0


# ---- one call --------------------------------------------------------------------------------------------------------------------------


class Batch:
    """What a method is given: values and numbers of mixtures."""

    def __init__(self) -> None:
        self.values, self.example_ids = torch.ones(2, 2), torch.tensor([4, 5])

    def __len__(self) -> int:
        return 2


CHANGES: dict[str, Any] = {
    "nothing": lambda given: None,
    "values": lambda given: given.values.mul_(2.0),
    "values through numpy": lambda given: given.values.numpy().fill(2.0),
    "values and back": lambda given: given.values.add_(1.0).sub_(1.0),
    "numbers": lambda given: given.example_ids.add_(1),
    "numbers and back": lambda given: given.example_ids.add_(1).sub_(1),
    "values of both signs": lambda given: given.values.neg_(),
    "numbers through numpy": lambda given: given.example_ids.numpy().fill(9),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("draws", "called"), [(0, "separate"), (2, "sample")])
def test_a_method_that_changes_its_inputs_is_told(change: str, draws: int, called: str) -> None:
    class Method:
        def separate(self, mixtures: Any, ctx: Any) -> torch.Tensor:
            CHANGES[change](mixtures)
            return torch.zeros(2, 3, 2)

        def sample(self, mixtures: Any, n: int, ctx: Any) -> torch.Tensor:
            CHANGES[change](mixtures)
            return torch.zeros(2, n, 3, 2)

    method: Any = Method()
    if change == "nothing":
        assert checked_call(method, Batch(), opened(draws).ctx)[0].shape == ((2, 3, 2) if draws == 0 else (2, 2, 3, 2))  # type: ignore[arg-type]
        return
    with pytest.raises(ContractError) as refused:
        checked_call(method, Batch(), opened(draws).ctx)  # type: ignore[arg-type]
    assert str(refused.value) == f"{called} changed its input mixtures in place"


def test_a_method_without_draws_and_estimates_of_another_gpu_are_told() -> None:
    method: Any = SimpleNamespace(separate=lambda mixtures, ctx: torch.zeros(2, 3, 2, device="meta"))
    for session, told in (
        (opened(2), "draws no posterior samples"),
        (opened(device="cpu"), "separate returned estimates on meta instead of cpu"),
    ):
        with pytest.raises(ContractError) as refused:
            checked_call(method, Batch(), session.ctx)  # type: ignore[arg-type]
        assert str(refused.value) == told
    with pytest.raises(ContractError, match=r"^separate returned estimates on meta instead of meta:1$"):
        separate._checked(torch.zeros(2, 3, 2, device="meta"), opened(device="meta:1").ctx, 2)


def test_a_failure_is_kept_without_what_it_held_and_the_first_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened()
    errors: list[BaseException] = [ValueError("one"), SystemExit(2), KeyboardInterrupt()]

    def fails(session: Any, mixtures: Any) -> Any:
        raise errors.pop(0)

    monkeypatch.setattr(separate, "_mixtures", lambda session, ids: ids)
    monkeypatch.setattr(separate, "separate_batch", fails)
    first, second = (separate._attempt(session, torch.tensor([0])) for _ in range(2))
    assert isinstance(first, separate._Failure)
    assert isinstance(second, separate._Failure)
    assert (type(first.error), type(second.error)) == (ValueError, SystemExit)
    assert (without_place(first.line), without_place(second.line)) == ("ValueError: one", "SystemExit: 2")
    assert first.error.__traceback__ is None
    assert session.first_traceback.splitlines()[-1] == "ValueError: one"
    with pytest.raises(KeyboardInterrupt):
        separate._attempt(session, torch.tensor([0]))

    def unreadable(session: Any, ids: Any) -> Any:
        raise SepbenchError("no data")

    monkeypatch.setattr(separate, "_mixtures", unreadable)
    with pytest.raises(SepbenchError, match="no data"):  # no fault of the method's
        separate._attempt(session, torch.tensor([0]))


def test_a_method_gets_numbers_of_its_own_on_its_device() -> None:
    ids = torch.tensor([3, 4])
    session = opened(device="cuda:1")
    session.mixture_set = SimpleNamespace(mixtures=lambda given, device: (given, device))
    given, device = separate._mixtures(session, ids)  # type: ignore[misc]
    assert (given.tolist(), device) == ([3, 4], "cuda:1")
    given += 1
    assert ids.tolist() == [3, 4]


def test_a_traceback_ends_with_the_failure_and_has_forty_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    def up(left: int) -> Any:
        return down(left - 1)

    def down(left: int) -> Any:
        if not left:
            raise ValueError("at the bottom")
        return up(left - 1)

    session = opened()
    monkeypatch.setattr(separate, "_mixtures", lambda session, ids: ids)
    monkeypatch.setattr(separate, "separate_batch", lambda session, mixtures: down(50))
    separate._attempt(session, torch.tensor([0]))
    lines = session.first_traceback.splitlines()
    assert [line.rpartition(" in ")[2] for line in lines if line.startswith("  File ")] == ["up", "down"] * 20
    assert lines[-1] == "ValueError: at the bottom"


@pytest.mark.parametrize(("fits", "most", "told"), [(3, 3, ["5", "5", "10"]), (1, 1, [*["2", "3", "2", "5"] * 2, "10"])])
def test_the_largest_part_that_fits_is_remembered_and_no_failure_told(monkeypatch: pytest.MonkeyPatch, fits: int, most: int, told: list[str]) -> None:
    """Ten in parts of 3, 2, 3, 2: three from then on. What fits alone is no failure, and the memory of the session's own device is let go."""
    session, warned, released = opened(device="cuda:1"), list[str](), list[str]()
    session.cell.task.spec, session.teller.warn = SPEC, warned.append

    def attempt(session: Any, ids: torch.Tensor) -> Any:
        if len(ids) > fits:
            session.first_traceback = session.first_traceback or "out of memory"
            return NO_ROOM
        return of(ids, 1.0)

    monkeypatch.setattr(separate, "_attempt", attempt)
    monkeypatch.setattr(separate, "release", released.append)
    found = list(separate._attempts(session, torch.arange(10)))
    assert torch.cat([ids for ids, _ in found]).tolist() == list(range(10))
    assert (session.most, session.first_traceback) == (most, "")
    assert [line.split(" with ")[1].split(" mixtures")[0] for line in warned] == told
    assert warned[-1] == f"m on {SPEC.name}: out of memory with 10 mixtures at once; {most} from here on"
    assert released == ["cuda:1"] * len(warned)
    session.first_traceback = "of an earlier one"
    list(separate._attempts(session, torch.arange(10)))
    assert session.first_traceback == "of an earlier one"


def test_the_last_halving_counts_where_memory_comes_and_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first half had room for one at a time, the second as a whole."""
    session = opened()
    session.teller.warn = lambda text: None
    monkeypatch.setattr(separate, "_attempt", lambda session, ids: NO_ROOM if len(ids) > (1 if ids[0] < 4 else 4) else of(ids, 1.0))
    monkeypatch.setattr(separate, "release", lambda device: None)
    assert [ids.tolist() for ids, _ in separate._attempts(session, torch.arange(8))] == [[0], [1], [2], [3], [4, 5, 6, 7]]
    assert session.most == 4


class Special(torch.Tensor):
    """A tensor with a mind of its own."""


def test_estimates_are_plain_dense_rows_whatever_a_method_returns() -> None:
    turned = torch.arange(12.0).reshape(2, 2, 3).transpose(1, 2).as_subclass(Special)
    plain = separate._checked(turned, opened().ctx, 2)
    assert type(plain) is torch.Tensor
    assert plain.is_contiguous()
    assert plain[0].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    counted = separate._evaluations(SimpleNamespace(network_evaluations=lambda: torch.ones(2, requires_grad=True)), 2)
    assert counted is not None
    assert not counted.requires_grad
