"""Supervised NMF of images: planted parts come apart, digits do better than the average, the class-agnostic groups, the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from method_toys import Digits, ToyView, context, mean_psnr, mix, rows_of, toy_task

from baselines.average import Average
from baselines.nmf import SupervisedNMF
from sepbench.errors import MethodError, SupervisionError
from sepbench.protocols import Separator, TaskSpec

AGNOSTIC = ("any", "any")


def planted(count: int, kinds: int, seed: int) -> torch.Tensor:
    """``(kinds, count, 1, 4, 8)``: kind k lights its own four bars of three pixels, at random levels; neighbouring bars share a pixel."""
    g = torch.Generator().manual_seed(seed)
    atoms = torch.zeros(kinds, 4, 32)
    for kind in range(kinds):
        for part in range(4):
            atoms[kind, part, (kind * 8 + part * 2) % 32 : (kind * 8 + part * 2) % 32 + 3] = 1.0
    codes = 0.2 + 0.8 * torch.rand(kinds, count, 4, generator=g)
    return (codes @ atoms).clamp(max=1.0).reshape(kinds, count, 1, 4, 8)


def fitted(task: TaskSpec, view: ToyView, seed: int = 0, **kwargs: object) -> SupervisedNMF:
    method = SupervisedNMF(**kwargs)  # type: ignore[arg-type]
    method.fit(view, context(task, seed))
    return method


# --- class split ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("kinds", [2, 3])
def test_planted_classes_come_apart_in_their_slots(operator: str, mask: bool, kinds: int) -> None:
    data = planted(240, kinds, seed=0)
    task = toy_task((1, 4, 8), tuple("abc"[:kinds]), operator)
    method = fitted(task, ToyView(task, "sources", tuple(data[:, :200])), mask=mask, atoms=6, coding_iterations=300)
    sources = data[:, 200:].transpose(0, 1)
    mixtures = mix(sources, operator)
    estimates = method.separate(mixtures, context(task))
    error = (estimates - sources).square().mean()
    trivial = (Average().separate(mixtures, context(task)) - sources).square().mean()
    assert error < 0.05 * trivial


def test_digits_beat_the_average(digits: Digits) -> None:
    task = toy_task()
    mixtures = mix(digits.pairs)
    method = fitted(task, digits.view("sources", task))
    level = mean_psnr(method.separate(mixtures, context(task)), digits.pairs)
    assert level > mean_psnr(Average().separate(mixtures, context(task)), digits.pairs) + 0.5


def test_slots_keep_their_class(digits: Digits) -> None:
    """Without the freedom of a permutation: exchanging the classes exchanges the estimates."""
    task = toy_task()
    view = digits.view("sources", task)
    straight = fitted(task, view).separate(mix(digits.pairs), context(task))
    errors = [(straight - digits.pairs.flip(1)).square().mean(), (straight - digits.pairs).square().mean()]
    assert errors[1] < 0.8 * errors[0]


# --- class-agnostic ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kinds", [2, 3, 4])
def test_planted_kinds_come_apart_without_classes(kinds: int) -> None:
    """No labels: which atoms belong together is seen from their working together. Sharp groups, disjoint kinds."""
    data = planted(400, 4, seed=1)[:kinds]
    pooled = data[:, :360].flatten(0, 1)[torch.randperm(360 * kinds, generator=torch.Generator().manual_seed(0))]
    task = toy_task((1, 4, 8), ("any",) * kinds)
    method = fitted(task, ToyView(task, "prior", pooled=pooled), shared_atoms=4 * kinds, sharpness=50.0, coding_iterations=200)
    sources = data[:, 360:].transpose(0, 1)
    level = mean_psnr(method.separate(mix(sources), context(task)), sources)
    average = mean_psnr(mix(sources).values.unsqueeze(1).expand_as(sources) / kinds, sources)
    assert level > average + 5.0


def test_digits_beat_the_average_without_classes(digits: Digits) -> None:
    task = toy_task(classes=AGNOSTIC)
    mixtures = mix(digits.pairs)
    method = fitted(task, digits.view("prior", task))
    level = mean_psnr(method.separate(mixtures, context(task)), digits.pairs)
    assert level > mean_psnr(Average().separate(mixtures, context(task)), digits.pairs) + 0.2


def test_classless_tasks_ask_for_no_classes(digits: Digits) -> None:
    task = toy_task(classes=AGNOSTIC)
    view = digits.view("prior", task)
    fitted(task, view)
    assert {accessor for accessor, _ in view.asked} == {"clean"}
    with pytest.raises(SupervisionError):
        fitted(task, ToyView(task, "blind", pooled=digits.pooled))


def test_black_mixtures_stay_finite(digits: Digits) -> None:
    black = torch.zeros(3, 2, 1, 8, 8)
    for task, level in ((toy_task(), "sources"), (toy_task(classes=AGNOSTIC), "prior")):
        method = fitted(task, digits.view(level, task), iterations=5)  # type: ignore[arg-type]
        torch.testing.assert_close(method.separate(mix(black), context(task)), black, atol=1e-6, rtol=0)


# --- both -------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "level"), [(("a", "b"), "sources"), (AGNOSTIC, "prior"), (("any",) * 4, "prior")])
@pytest.mark.parametrize("operator", ["sum", "mean", "gain"])
def test_masked_estimates_mix_to_the_mixture(classes: tuple[str, ...], level: str, operator: str, digits: Digits) -> None:
    task = toy_task(classes=classes, operator=operator)
    method = fitted(task, digits.view(level, task), iterations=20)  # type: ignore[arg-type]
    mixtures = mix(digits.pairs if len(classes) == 2 else digits.pairs.reshape(100, 4, 1, 8, 8), operator)
    estimates = method.separate(mixtures, context(task))
    assert estimates.shape == (len(mixtures), len(classes), 1, 8, 8)
    assert estimates.dtype == torch.float32
    assert (estimates > -1e-5).all()
    torch.testing.assert_close(mixtures.operator.forward(estimates), mixtures.values, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("classes", "level"), [(("a", "b"), "sources"), (AGNOSTIC, "prior")])
def test_a_row_depends_on_its_mixture_alone(classes: tuple[str, ...], level: str, digits: Digits) -> None:
    task = toy_task(classes=classes)
    method = fitted(task, digits.view(level, task))  # type: ignore[arg-type]
    mixtures = mix(digits.pairs)
    whole = method.separate(mixtures, context(task))
    order = torch.randperm(len(mixtures), generator=torch.Generator().manual_seed(1))
    shuffled = method.separate(rows_of(mixtures, order), context(task))
    torch.testing.assert_close(shuffled, whole[order], atol=1e-5, rtol=0)
    singly = torch.cat([method.separate(rows_of(mixtures, torch.tensor([row])), context(task)) for row in range(0, 200, 4)])
    torch.testing.assert_close(singly, whole[::4], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("classes", "level"), [(("a", "b"), "sources"), (AGNOSTIC, "prior")])
def test_the_fit_depends_on_the_seed_alone(classes: tuple[str, ...], level: str, digits: Digits) -> None:
    task = toy_task(classes=classes)
    estimates = [fitted(task, digits.view(level, task), seed).separate(mix(digits.pairs), context(task)) for seed in (0, 0, 1)]  # type: ignore[arg-type]
    assert torch.equal(estimates[0], estimates[1])
    assert not torch.equal(estimates[0], estimates[2])


def test_quick_learns_from_a_quarter(digits: Digits) -> None:
    task = toy_task()
    asked = {}
    fractions: list[float] = []
    for budget in ("paper", "quick"):
        view = digits.view("sources", task)
        SupervisedNMF(iterations=40, samples=400).fit(view, context(task, budget=budget, progress=lambda done, text: fractions.append(done)))
        asked[budget] = [limit for _, limit in view.asked]
    assert asked == {"paper": [400, 400], "quick": [100, 100]}
    assert len(fractions) == 2 * 40 + 2 * 10
    assert fractions[:80] == sorted(fractions[:80])
    assert fractions[79] == pytest.approx(1.0)


def test_fewer_samples_than_atoms(digits: Digits) -> None:
    task = toy_task()
    method = fitted(task, ToyView(task, "sources", (digits.low[:3], digits.high[:3])), iterations=5)
    assert torch.isfinite(method.separate(mix(digits.pairs), context(task))).all()


def test_negative_samples_are_refused() -> None:
    task = toy_task()
    with pytest.raises(MethodError, match="negative"):
        fitted(task, ToyView(task, "sources", (torch.randn(9, 1, 8, 8), torch.rand(9, 1, 8, 8))))


def test_separate_wants_a_fit(digits: Digits) -> None:
    with pytest.raises(ValueError, match="before fit"):
        SupervisedNMF().separate(mix(digits.pairs), context(toy_task()))


def test_what_it_takes() -> None:
    method = SupervisedNMF()
    assert isinstance(method, Separator)
    assert method.info.supervision == "sources"
    for classes in (("a", "b"), AGNOSTIC, ("a", "b", "c"), ("any",) * 4):
        assert method.supports(toy_task(classes=classes)).ok
    assert not method.supports(toy_task(classes=("a", "a", "b"))).ok
    assert not method.supports(toy_task((1, 99), domain="audio")).ok
    colour = method.supports(toy_task((3, 4, 4), ("any",), "channel-mean"))
    assert not colour.ok
    assert "channel-mean" in colour.note
    assert not SupervisedNMF(shared_atoms=3).supports(toy_task(classes=("any",) * 4)).ok


@pytest.mark.parametrize("wrong", [{"atoms": 0}, {"shared_atoms": 0}, {"iterations": 0}, {"coding_iterations": 0}, {"samples": 0}, {"sharpness": -1.0}])
def test_bad_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        SupervisedNMF(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("task", ["class-split", "class-agnostic"])
def test_keeps_the_contract(task: str, broken_rules: Callable[..., list[str]]) -> None:
    assert broken_rules("nmf", task) == []
