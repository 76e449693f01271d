"""Training views: each level gets what it declared and no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from sepbench.data.lists.pairs import PairList
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import ArraySignals
from sepbench.data.views import Pool, PooledView, TrainingMaterial, content_hashes, make_view, without_duplicates
from sepbench.errors import SupervisionError
from sepbench.gmm import GaussianMixture
from sepbench.protocols import SUPERVISION_LEVELS, Supervision, TaskSpec, TrainingView

ACCESSORS: dict[str, Callable[[TrainingView], torch.Tensor]] = {
    "mixtures": lambda view: view.mixtures(),
    "observed": lambda view: view.observed(),
    "clean": lambda view: view.clean(),
    "sources": lambda view: view.sources(0),
    "prior": lambda view: view.prior(0).denoise(torch.zeros(1, 1), 1.0),
}
GRANTED = {
    "blind": set(),
    "bound": {"prior"},
    "mixtures+one": {"mixtures", "observed"},
    "prior": {"clean", "prior"},
    "sources": {"clean", "sources", "prior"},
}
PRIORS = tuple(GaussianMixture(torch.ones(1).double(), torch.full((1, 1), float(k)).double(), torch.ones(1, 1, 1).double()) for k in range(2))


def spec(observed: int | None = 1) -> TaskSpec:
    return TaskSpec("fake", "task", "image", 2, (1, 2, 2), "sum", ("a", "b"), "permutation", (0, 1), observed)


def data(n: int = 10, name: str = "fake") -> ArraySignals:
    return ArraySignals(name, "train", "image", torch.arange(n * 4, dtype=torch.uint8).reshape(n, 1, 2, 2), torch.arange(n) % 2)


def material(signals: ArraySignals | None = None) -> TrainingMaterial:
    signals = signals or data()
    mixtures = MixtureSet([signals, signals], PairList(torch.tensor([[0, 5], [2, 7], [4, 9]]), "0" * 64), "sum")
    return TrainingMaterial(
        clean=Pool(((signals, torch.arange(10)),)),
        sources=(Pool(((signals, torch.arange(0, 10, 2)),)), Pool(((signals, torch.arange(1, 10, 2)),))),
        observed=Pool(((signals, torch.tensor([3, 1])),)),
        mixtures=mixtures,
        mixture_rows=torch.tensor([0, 2]),
        transform=Transform(),
        excluded=1,
    )


def view(level: Supervision, observed: int | None = 1) -> TrainingView:
    return make_view(level, spec(observed), material, PRIORS)


@pytest.mark.parametrize("level", list(SUPERVISION_LEVELS))
@pytest.mark.parametrize("accessor", list(ACCESSORS))
def test_a_level_gets_what_the_contract_lists_and_nothing_else(level: Supervision, accessor: str) -> None:
    assert set(GRANTED) == set(SUPERVISION_LEVELS)
    if accessor in GRANTED[level]:
        assert len(ACCESSORS[accessor](view(level))) > 0
    else:
        with pytest.raises(SupervisionError, match=accessor):
            ACCESSORS[accessor](view(level))


@pytest.mark.parametrize("accessor", ["mixtures", "observed"])
def test_a_task_without_an_observed_class_says_so(accessor: str) -> None:
    with pytest.raises(SupervisionError, match="this task has no observed class"):
        ACCESSORS[accessor](view("mixtures+one", observed=None))


def test_the_values_are_those_of_the_pools() -> None:
    signals = data()
    assert torch.equal(view("prior").clean(), signals.load(range(10)))
    assert torch.equal(view("sources").sources(1), signals.load([1, 3, 5, 7, 9]))
    assert torch.equal(view("mixtures+one").observed(), signals.load([3, 1]))
    assert torch.equal(view("mixtures+one").mixtures(), signals.load([0, 4]) + signals.load([5, 9]))  # the middle mixture is left out
    assert view("prior").task == spec()
    assert view("prior").supervision == "prior"


@pytest.mark.parametrize("limit", [1, 2, 5, 99])
def test_limit_gives_the_first_so_many(limit: int) -> None:
    for level, accessors in GRANTED.items():
        for accessor in accessors - {"prior"}:
            method = getattr(view(level), accessor)  # type: ignore[arg-type]
            arguments = (0,) if accessor == "sources" else ()
            assert torch.equal(method(*arguments, limit=limit), method(*arguments)[:limit])


def test_arguments_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="limit"):
        view("prior").clean(limit=0)
    with pytest.raises(ValueError, match="slot"):
        view("sources").sources(2)


def test_the_prior_of_a_slot_is_handed_out_without_opening_data() -> None:
    def explode() -> TrainingMaterial:
        raise AssertionError("opened")

    for level in ("prior", "sources", "bound"):
        seen = make_view(level, spec(), explode, PRIORS)  # type: ignore[arg-type]
        assert [seen.prior(slot) for slot in range(2)] == list(PRIORS)
        with pytest.raises(ValueError, match="slot"):
            seen.prior(2)


def test_a_task_without_an_analytic_prior_says_so() -> None:
    with pytest.raises(SupervisionError, match="task fake/task has no analytic prior") as caught:
        make_view("prior", spec(), material).prior(0)
    assert "\n" not in str(caught.value)


def test_an_unknown_level_is_refused() -> None:
    with pytest.raises(SupervisionError, match="psychic"):
        make_view("psychic", spec(), material)  # type: ignore[arg-type]


def test_a_blind_method_opens_no_data() -> None:
    def explode() -> TrainingMaterial:
        raise AssertionError("opened")

    for level in ("blind", "bound", "prior"):
        with pytest.raises(SupervisionError):
            make_view(level, spec(), explode).mixtures()  # type: ignore[arg-type]
    with pytest.raises(AssertionError, match="opened"):
        make_view("prior", spec(), explode).clean()


def test_material_is_made_once() -> None:
    calls = []

    def counted() -> TrainingMaterial:
        calls.append(1)
        return material()

    seen = PooledView("sources", spec(), counted)
    seen.clean()
    seen.sources(0)
    assert seen.excluded_duplicates == 1
    assert len(calls) == 1


def test_the_transform_reaches_clean_samples() -> None:
    plain = material()
    padded = TrainingMaterial(plain.clean, plain.sources, plain.observed, plain.mixtures, plain.mixture_rows, Transform(pad=1), 0)
    assert make_view("sources", spec(), lambda: padded).clean().shape == (10, 1, 4, 4)
    assert make_view("sources", spec(), lambda: padded).sources(0).shape == (5, 1, 4, 4)
    assert make_view("mixtures+one", spec(), lambda: padded).observed().shape == (2, 1, 4, 4)


def test_a_pool_joins_its_parts_in_order() -> None:
    first, second = data(3), data(4)
    pool = Pool(((first, torch.tensor([2, 0])), (second, torch.tensor([3]))))
    whole = torch.cat([first.load([2, 0]), second.load([3])])
    assert len(pool) == 3
    for limit in (None, 1, 2, 3, 9):
        assert torch.equal(pool.load(limit), whole[:limit])


def test_duplicates_of_protected_signals_are_found_by_content() -> None:
    train = data(5000)  # contents repeat every 64 signals
    protected = frozenset(content_hashes(data(10), torch.tensor([0, 3])))
    kept = without_duplicates(train, torch.arange(5000), protected)
    assert kept.tolist() == [row for row in range(5000) if row % 64 not in (0, 3)]
    assert len(set(content_hashes(train, torch.arange(5000)))) == 64


@pytest.mark.parametrize("what", ["mixtures", "observed", "clean", "sources"])
def test_rows_by_index_are_what_the_accessor_hands_out(what: str) -> None:
    level: Supervision = "mixtures+one" if what in ("mixtures", "observed") else "sources"
    looked_at = view(level)
    rows, whole = looked_at.rows(what), ACCESSORS[what](looked_at)  # type: ignore[arg-type]
    assert len(rows) == len(whole)
    order = torch.tensor([len(whole) - 1, 0, len(whole) - 1])
    assert torch.equal(rows.load(order), whole[order])
    assert len(rows.load([])) == 0
    with pytest.raises(IndexError, match="positions must lie in"):
        rows.load([len(whole)])


@pytest.mark.parametrize("what", ["mixtures", "observed", "clean", "sources"])
def test_rows_are_refused_where_the_accessor_is(what: str) -> None:
    with pytest.raises(SupervisionError, match=rf"asked for {what}\(\)"):
        view("blind").rows(what)  # type: ignore[arg-type]


def test_rows_of_a_pool_of_several_sets() -> None:
    pool = Pool(((data(4, "a"), torch.tensor([3, 1])), (data(6, "b"), torch.tensor([0, 5, 2]))))
    order = torch.tensor([4, 0, 2, 1, 3, 4])
    assert torch.equal(pool.load_rows(order), pool.load()[order])
