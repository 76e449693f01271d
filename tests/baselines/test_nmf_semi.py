"""Semi-supervised NMF: the other source is learnt from mixtures, either slot may be the observed one, the contract."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import torch
from method_toys import Digits, ToyView, context, mean_psnr, mix, rows_of, toy_task

from baselines.average import Average
from baselines.nmf_semi import SemiSupervisedNMF
from sepbench.errors import MethodError
from sepbench.protocols import Separator, TaskSpec


def planted(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observed and other ``(count, 1, 4, 8)``: sparse sums of four patterns each; the patterns overlap in half of their pixels."""
    g = torch.Generator().manual_seed(seed)
    patterns = torch.zeros(2, 4, 32)
    for kind in range(2):
        for part in range(4):
            patterns[kind, part, part * 8 + kind * 2 : part * 8 + kind * 2 + 4] = 1.0
    used = torch.rand(2, count, 4, generator=g) < 0.5
    codes = used * (0.3 + 0.7 * torch.rand(2, count, 4, generator=g))
    both = (codes @ patterns).reshape(2, count, 1, 4, 8)
    return both[0], both[1]


def fitted(task: TaskSpec, view: ToyView, seed: int = 0, **kwargs: object) -> SemiSupervisedNMF:
    method = SemiSupervisedNMF(**kwargs)  # type: ignore[arg-type]
    method.fit(view, context(task, seed))
    return method


@pytest.mark.parametrize("observed", [0, 1])
@pytest.mark.parametrize("operator", ["sum", "mean"])
def test_planted_sources_come_apart_in_their_slots(observed: int, operator: str) -> None:
    known, other = planted(900, seed=0)
    task = toy_task((1, 4, 8), operator=operator, observed=observed)
    ordered = [known[400:], other[400:]] if observed == 0 else [other[400:], known[400:]]
    sources = torch.stack(ordered, 1)
    mixtures = mix(sources, operator)
    view = ToyView(task, "mixtures+one", mixed=mixtures.values[:400], one=known[:400])
    method = fitted(task, view, atoms=4, sparsity=0.05)
    estimates = method.separate(rows_of(mixtures, torch.arange(400, 500)), context(task))
    average = Average().separate(rows_of(mixtures, torch.arange(400, 500)), context(task))
    assert (estimates - sources[400:]).square().mean() < 0.1 * (average - sources[400:]).square().mean()


def test_estimates_are_the_products_not_a_mask(digits: Digits) -> None:
    """Each estimate lies in its own atoms' cone; together they need not be the mixture."""
    task = toy_task(observed=1)
    method = fitted(task, digits.view("mixtures+one", task), atoms=5, iterations=20)
    mixtures = mix(digits.pairs)
    estimates = method.separate(mixtures, context(task))
    for k in range(2):
        assert torch.linalg.matrix_rank(estimates[:, k].flatten(1), rtol=1e-4) <= 5
    assert (mixtures.operator.forward(estimates) - mixtures.values).abs().max() > 0.1


def test_digits_the_observed_source_is_found(digits: Digits) -> None:
    """The roles are known: estimate 1 is nearer to the observed source than to the other."""
    task = toy_task(observed=1)
    method = fitted(task, digits.view("mixtures+one", task))
    estimates = method.separate(mix(digits.pairs), context(task))
    straight = (estimates - digits.pairs).square().mean()
    exchanged = (estimates - digits.pairs.flip(1)).square().mean()
    assert straight < 0.8 * exchanged
    assert mean_psnr(estimates, digits.pairs) > 12.5


def test_asks_for_mixtures_and_one_source_only(digits: Digits) -> None:
    task = toy_task(observed=1)
    view = digits.view("mixtures+one", task)
    fitted(task, view, iterations=2, samples=77)
    assert view.asked == [("observed", 77), ("mixtures", 77)]


def test_quick_learns_from_a_quarter(digits: Digits) -> None:
    task = toy_task(observed=1)
    asked = {}
    fractions: list[float] = []
    for budget in ("paper", "quick"):
        view = digits.view("mixtures+one", task)
        SemiSupervisedNMF(iterations=8, samples=400).fit(view, context(task, budget=budget, progress=lambda done, text: fractions.append(done)))
        asked[budget] = [limit for _, limit in view.asked]
    assert asked == {"paper": [400, 400], "quick": [100, 100]}
    assert len(fractions) == 2 * 8 + 2 * 2
    assert fractions[:16] == sorted(fractions[:16])
    assert fractions[15] == pytest.approx(1.0)


def test_a_row_depends_on_its_mixture_alone(digits: Digits) -> None:
    task = toy_task(observed=1)
    method = fitted(task, digits.view("mixtures+one", task))
    mixtures = mix(digits.pairs)
    whole = method.separate(mixtures, context(task))
    order = torch.randperm(len(mixtures), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(method.separate(rows_of(mixtures, order), context(task)), whole[order], atol=1e-5, rtol=0)
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(task)) for row in range(0, 200, 4)])
    torch.testing.assert_close(singly, whole[::4], atol=1e-5, rtol=0)


def test_the_fit_depends_on_the_seed_alone(digits: Digits) -> None:
    task = toy_task(observed=1)
    estimates = [fitted(task, digits.view("mixtures+one", task), seed, iterations=10).separate(mix(digits.pairs), context(task)) for seed in (0, 0, 1)]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_black_mixtures_stay_black(digits: Digits) -> None:
    task = toy_task(observed=1)
    black = torch.zeros(3, 2, 1, 8, 8)
    assert torch.equal(fitted(task, digits.view("mixtures+one", task), iterations=3).separate(mix(black), context(task)), black)


def test_colours_and_few_samples() -> None:
    colours = torch.rand(30, 2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    task = toy_task((3, 4, 4), observed=0)
    view = ToyView(task, "mixtures+one", mixed=mix(colours[10:]).values, one=colours[:10, 0])
    estimates = fitted(task, view, iterations=5).separate(mix(colours), context(task))
    assert estimates.shape == colours.shape
    assert torch.isfinite(estimates).all()


def test_negative_data_are_refused() -> None:
    task = toy_task(observed=0)
    with pytest.raises(MethodError, match="negative"):
        fitted(task, ToyView(task, "mixtures+one", mixed=torch.randn(9, 1, 8, 8), one=torch.rand(9, 1, 8, 8)))


def test_separate_wants_a_fit(digits: Digits) -> None:
    with pytest.raises(ValueError, match="before fit"):
        SemiSupervisedNMF().separate(mix(digits.pairs), context(toy_task(observed=0)))


def test_what_it_takes() -> None:
    method = SemiSupervisedNMF()
    assert isinstance(method, Separator)
    assert method.info.supervision == "mixtures+one"
    assert method.supports(toy_task(observed=0)).ok
    assert "observed" in method.supports(toy_task()).note
    assert not method.supports(toy_task(classes=("a", "b", "c"), observed=0)).ok
    assert not method.supports(toy_task((1, 99), domain="audio", observed=0)).ok
    assert not method.supports(toy_task((3, 4, 4), ("any",), "channel-mean")).ok


@pytest.mark.parametrize("wrong", [{"atoms": 0}, {"iterations": 0}, {"coding_iterations": 0}, {"samples": 0}, {"sparsity": -1.0}, {"coding_sparsity": -0.1}])
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SemiSupervisedNMF(**wrong)  # type: ignore[arg-type]


def test_keeps_the_contract(broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("nmf-semi", "class-split") == []


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("SEPBENCH_DATA"), reason="real MNIST is wanted: set SEPBENCH_DATA")
def test_mnist_at_32_by_32_is_where_the_paper_is() -> None:
    """NES, table 1, NMF, X = 5-9: 15.5 dB. Held-out training images, budget quick: within a decibel."""
    from sepbench.suites.loader import load_suite

    task = load_suite("mnist-nes").tasks["x-5-9-val"]
    method, ctx = SemiSupervisedNMF(), context(task.spec, budget="quick")
    method.fit(task.view("mixtures+one"), ctx)
    ids = torch.arange(200)
    slot = list(task.spec.scored_sources)
    estimates = method.separate(task.mixture_set().mixtures(ids), ctx)[:, slot]
    assert mean_psnr(estimates, task.mixture_set().sources(ids)[:, slot]) == pytest.approx(15.5, abs=1.0)
