"""Semi-supervised NMF as printed: the penalty's form, exact steps, planted sources, the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import Digits, ToyView, context, mix, rows_of, toy_task
from scipy.optimize import minimize

from baselines.average import Average
from baselines.nmf_semi_printed import PrintedSemiSupervisedNMF, alternate
from sepbench.errors import MethodError
from sepbench.protocols import Separator, TaskSpec


def planted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observed and other ``(count, 1, 4, 8)``: sparse sums of four patterns each; the patterns overlap in half of their pixels."""
    g = torch.Generator().manual_seed(seed)
    patterns = torch.zeros(2, 4, 32)
    for kind in range(2):
        for part in range(4):
            patterns[kind, part, part * 8 + kind * 2 : part * 8 + kind * 2 + 4] = 1.0
    codes = (torch.rand(2, count, 4, generator=g) < 0.5) * (0.3 + 0.7 * torch.rand(2, count, 4, generator=g))
    both = (codes @ patterns).reshape(2, count, 1, 4, 8)
    return both[0], both[1]


def fitted(task: TaskSpec, view: ToyView, seed: int = 0, **kwargs: object) -> PrintedSemiSupervisedNMF:
    method = PrintedSemiSupervisedNMF(**kwargs)  # type: ignore[arg-type]
    method.fit(view, context(task, seed))
    return method


def test_the_step_for_the_bases_minimises_the_printed_objective() -> None:
    """One base, so that the codes after one round are known in closed form: W must minimise ``||X - z w||^2 + alpha sum w^2`` pixel by pixel."""
    g = torch.Generator().manual_seed(0)
    signals, start = torch.rand(30, 5, generator=g).double(), torch.rand(1, 5, generator=g).double()
    codes = (signals @ start.T) / (start @ start.T)
    wanted = (signals.T @ codes) / (codes.T @ codes + 7.0)
    torch.testing.assert_close(alternate(signals, start, 7.0, 1), wanted.T, atol=1e-3, rtol=0)


def test_the_penalty_couples_the_bases_of_a_pixel() -> None:
    """Two bases: the squared L1 norm of a pixel's weights, not the sum of their squares, held against a general solver."""
    g = torch.Generator().manual_seed(1)
    signals, start = torch.rand(40, 3, generator=g).double(), torch.rand(2, 3, generator=g).double()
    from baselines.decomposition.nnls import nnls

    codes = nnls(start @ start.T, signals @ start.T)
    found = alternate(signals, start, 20.0, 1)
    for pixel in range(3):

        def objective(w: torch.Tensor, pixel: int = pixel) -> float:
            weights = torch.as_tensor(w)
            return float((signals[:, pixel] - codes @ weights).square().sum() + 20.0 * weights.sum() ** 2)

        best = minimize(objective, [0.1, 0.1], bounds=[(0, None)] * 2, tol=1e-12)
        assert objective(found[:, pixel]) == pytest.approx(best.fun, rel=1e-4)


def test_rounds_end_where_the_objective_stands(digits: Digits) -> None:
    signals = mix(digits.pairs).values.flatten(1)
    ends = [alternate(signals, signals[:8], 1.0, rounds) for rounds in (5, 300, 3_000)]
    assert torch.equal(ends[1], ends[2])
    assert not torch.equal(ends[0], ends[1])


@pytest.mark.slow
def test_the_printed_objective_has_no_minimum() -> None:
    """Data that the bases explain exactly: all that is left is the penalty, and it falls for ever as W shrinks and Z grows."""
    signals = planted(200, seed=3)[0].flatten(1)
    lengths = [float(alternate(signals, signals[:4], 1.0, rounds, change=0.0).sum()) for rounds in (30, 300, 3_000)]
    assert lengths[0] > 1.5 * lengths[1] > 2.25 * lengths[2]


def test_known_bases_are_kept_and_explain_their_share() -> None:
    known, other = planted(300, seed=4)
    bases = alternate(known.flatten(1), known.flatten(1)[:4], 0.0, 100)
    mixed = (known + other).flatten(1)
    found = alternate(mixed, mixed[:4], 0.0, 200, known=bases)
    alone = alternate(mixed, mixed[:4], 0.0, 200)
    assert found.shape == (4, 32)

    def error(atoms: torch.Tensor) -> float:
        from baselines.decomposition.nnls import nnls

        return float((mixed - nnls(atoms @ atoms.T, mixed @ atoms.T) @ atoms).square().mean())

    assert error(torch.cat([bases, found])) < 0.1 * error(alone)


@pytest.mark.parametrize("observed", [0, 1])
@pytest.mark.parametrize("operator", ["sum", "mean"])
def test_planted_sources_come_apart_in_their_slots(observed: int, operator: str) -> None:
    known, other = planted(900, seed=0)
    task = toy_task((1, 4, 8), operator=operator, observed=observed)
    ordered = [known[400:], other[400:]] if observed == 0 else [other[400:], known[400:]]
    sources = torch.stack(ordered, 1)
    mixtures = mix(sources, operator)
    view = ToyView(task, "mixtures+one", mixed=mixtures.values[:400], one=known[:400])
    method = fitted(task, view, bases=4)
    estimates = method.separate(rows_of(mixtures, torch.arange(400, 500)), context(task))
    average = Average().separate(rows_of(mixtures, torch.arange(400, 500)), context(task))
    assert (estimates - sources[400:]).square().mean() < 0.5 * (average - sources[400:]).square().mean()


def test_asks_for_mixtures_and_one_source_only(digits: Digits) -> None:
    task = toy_task(observed=1)
    asked = {}
    for budget in ("paper", "quick"):
        view = digits.view("mixtures+one", task)
        PrintedSemiSupervisedNMF(iterations=2, samples=77).fit(view, context(task, budget=budget))
        asked[budget] = view.asked
    assert asked == {"paper": [("observed", 77), ("mixtures", 77)], "quick": [("observed", 19), ("mixtures", 19)]}


def test_a_row_depends_on_its_mixture_alone(digits: Digits) -> None:
    task = toy_task(observed=1)
    method = fitted(task, digits.view("mixtures+one", task), bases=20, iterations=20)
    mixtures = mix(digits.pairs)
    whole = method.separate(mixtures, context(task))
    order = torch.randperm(len(mixtures), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(method.separate(rows_of(mixtures, order), context(task)), whole[order], atol=1e-5, rtol=0)


def test_the_fit_depends_on_the_seed_alone(digits: Digits) -> None:
    task = toy_task(observed=1)
    estimates = [fitted(task, digits.view("mixtures+one", task), seed, bases=10, iterations=5).separate(mix(digits.pairs), context(task)) for seed in (0, 0, 1)]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_black_mixtures_stay_black(digits: Digits) -> None:
    task = toy_task(observed=1)
    black = torch.zeros(3, 2, 1, 8, 8)
    assert torch.equal(fitted(task, digits.view("mixtures+one", task), iterations=2).separate(mix(black), context(task)), black)


def test_negative_data_are_refused() -> None:
    task = toy_task(observed=0)
    with pytest.raises(MethodError, match="negative"):
        fitted(task, ToyView(task, "mixtures+one", mixed=torch.randn(9, 1, 8, 8), one=torch.rand(9, 1, 8, 8)))


def test_what_it_takes(digits: Digits) -> None:
    method = PrintedSemiSupervisedNMF()
    assert isinstance(method, Separator)
    assert method.info.supervision == "mixtures+one"
    assert method.supports(toy_task(observed=0)).ok
    assert "observed" in method.supports(toy_task()).note
    assert not method.supports(toy_task((1, 99), domain="audio", observed=0)).ok
    with pytest.raises(ValueError, match="before fit"):
        method.separate(mix(digits.pairs), context(toy_task(observed=0)))


@pytest.mark.slow
def test_keeps_the_contract(broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("nmf-semi-printed", "class-split") == []


@pytest.mark.parametrize("observed", [0, 1])
def test_the_fit_tells_how_far_it_is_and_is_over_at_its_end_only(digits: Digits, observed: int) -> None:
    task = toy_task(observed=observed)
    told: list[tuple[float, str]] = []
    method = PrintedSemiSupervisedNMF(bases=4, iterations=2)
    method.fit(digits.view("mixtures+one", task), context(task, progress=lambda fraction, text: told.append((fraction, text))))
    assert told == [(1 / 3, "stage 1: the observed source"), (1.0, "stage 2: the other source")]
