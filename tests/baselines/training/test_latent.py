"""Generative latent optimisation: the ball, cuts of images, the stages and the shares."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import ToyView, context, toy_task

from baselines.training import latent
from baselines.training.latent import LatentRecipe, LatentTraining, LearntGenerators, first_codes, in_unit_ball, new_generators, shared_out
from baselines.training.loop import run
from sepbench.errors import SepbenchError


@settings(deadline=None)
@given(st.lists(st.floats(-10, 10), min_size=3, max_size=3))
def test_the_nearest_point_of_the_ball(values: list[float]) -> None:
    code = torch.tensor(values, dtype=torch.float64)
    moved = in_unit_ball(code)
    length = float(code.norm())
    torch.testing.assert_close(moved, code if length <= 1 else code / length)


def test_first_codes_lie_in_the_ball_and_depend_on_their_key_alone() -> None:
    codes = first_codes(100, 16, 3, "b")
    assert float(codes.norm(dim=1).max()) <= 1 + 1e-6
    assert float(codes.norm(dim=1).mean()) > 0.8
    assert torch.equal(codes, first_codes(100, 16, 3, "b"))
    assert not torch.equal(codes, first_codes(100, 16, 3, "x"))


def test_images_are_cut_out_of_the_middle_and_weighed() -> None:
    small, large = new_generators(8, (1, 6, 8), (0.25, 1.0), 0, "cpu").eval(), new_generators(8, (1, 8, 8), (1.0, 1.0), 0, "cpu").eval()
    codes = torch.rand(3, 8)
    torch.testing.assert_close(small.part(0, codes), 0.25 * large.part(0, codes)[..., 1:7, :])
    assert not torch.equal(large.part(0, codes), large.part(1, codes))


def test_a_mixture_is_shared_out_in_proportion() -> None:
    parts, mixtures = torch.tensor([3.0, 1.0, 0.0, 0.0]).reshape(2, 2, 1, 1, 1), torch.tensor([2.0, 5.0]).reshape(2, 1, 1, 1)
    shares = shared_out(parts, mixtures)
    torch.testing.assert_close(shares.flatten(1), torch.tensor([[1.5, 0.5], [2.5, 2.5]]), atol=1e-3, rtol=0)
    torch.testing.assert_close(shares.sum(1), mixtures)


def training(**recipe: Any) -> LatentTraining:
    g = torch.Generator().manual_seed(0)
    clean, mixed = torch.rand(10, 1, 8, 8, generator=g), 2 * torch.rand(13, 1, 8, 8, generator=g)
    made = LatentRecipe(**{"latent": 8, "epochs": 2, "batch": 4, "precision": "float32", **recipe})
    return LatentTraining(new_generators(8, (1, 8, 8), (1.0, 1.0), 0, "cpu"), made, clean, mixed)


def snapshot(one: LatentTraining) -> dict[str, torch.Tensor]:
    codes = {f"codes {name}": table.weight.detach().clone() for name, table in one.codes.items()}
    weights = [{name: value.detach().clone() for name, value in network.state_dict().items()} for network in one.generators.both]
    return {**codes, **{f"{number} {name}": value for number, named in enumerate(weights) for name, value in named.items()}}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """The beginnings of names of what differs."""
    return {" ".join(name.split()[:2]) if name.startswith("codes") else name[0] for name in before if not torch.equal(before[name], after[name])}


def test_the_first_stage_learns_the_observed_source_and_the_second_the_other() -> None:
    one = training()
    assert (one.first, one.steps) == (2 * 2, 2 * 2 + 2 * 3)
    stages = []
    while not one.finished:
        before = snapshot(one)
        one.advance()
        stages.append(changed(before, snapshot(one)))
    assert stages[:4] == [{"0", "codes b"}] * 4
    assert stages[4:] == [{"1", "codes yb", "codes yx"}] * 6


def test_jointly_everything_is_learnt_at_once_and_codes_of_other_batches_rest() -> None:
    one = training(joint=True)
    assert one.steps == 2 * 2
    before = snapshot(one)
    one.advance()
    after = snapshot(one)
    assert changed(before, after) == {"0", "1", "codes b", "codes yb", "codes yx"}
    moved = (before["codes yx"] != after["codes yx"]).any(1)
    assert int(moved.sum()) == 4
    run(one, None)
    assert all(float(table.weight.detach().norm(dim=1).max()) <= 1 + 1e-6 for table in one.codes.values())


def test_parts_of_training_mixtures_come_from_their_own_codes() -> None:
    one = training()
    run(one, None)
    parts = one.training_parts()
    assert parts.shape == (13, 2, 1, 8, 8)
    assert not one.generators.training
    assert not parts.requires_grad
    with torch.no_grad():
        for which, name in enumerate(("yb", "yx")):
            torch.testing.assert_close(parts[:, which], one.generators.part(which, one.codes[name].weight))


def test_rows_name_the_stage() -> None:
    one = training()
    stages = []
    while not one.finished:
        one.advance()
        row = one.row()
        assert set(row) == {"stage", "loss"}
        stages.append(row["stage"])
    assert stages == [1] * 4 + [2] * 6
    together = training(joint=True)
    assert together.row() == {"stage": "joint"}


@pytest.mark.parametrize("joint", [False, True])
def test_errors_know_the_largest_value_of_a_part_and_of_a_mixture(joint: bool) -> None:
    """And the weight of mixtures counts only if both lines are minimised at once."""
    g = torch.Generator().manual_seed(0)
    clean, mixed = torch.rand(4, 1, 8, 8, generator=g), torch.rand(4, 1, 8, 8, generator=g)
    recipe = LatentRecipe(latent=5, epochs=1, batch=4, joint=joint, weight=0.25, precision="float32")
    one = LatentTraining(new_generators(5, (1, 8, 8), (0.75, 0.5), 0, "cpu"), recipe, clean, mixed)
    largest: list[float] = []

    def error(made: torch.Tensor, true: torch.Tensor, most: float = 1.0) -> torch.Tensor:
        largest.append(most)
        return 0.0 * made.flatten(1).sum(1) + (8.0 if most == 0.75 else 1.0)

    one.error = error  # type: ignore[assignment]
    losses = []
    while not one.finished:
        one.advance()
        losses.append(one.row()["loss"])
    assert sorted(largest) == [0.75, 1.25]
    assert losses == ([8.25] if joint else [8.0, 1.0])


def test_the_classifier_of_the_error_has_the_weight_of_the_recipe() -> None:
    images = torch.rand(2, 3, 18, 18, generator=torch.Generator().manual_seed(0))
    generators = new_generators(3, (3, 18, 18), (1.0, 1.0), 0, "cpu")
    for weight in (0.0, 0.5):
        one = LatentTraining(generators, LatentRecipe(latent=3, batch=2, perceptual=weight), images, images)
        assert one.error.weight == weight
        assert (one.error.network is None) is (weight == 0.0)


def test_sets_that_do_not_fill_a_batch_are_refused_in_both_stages() -> None:
    g = torch.Generator().manual_seed(0)
    for clean, mixed in ((3, 9), (9, 3)):
        with pytest.raises(SepbenchError, match="a batch of 4 cannot be filled from 3"):
            LatentTraining(
                new_generators(2, (1, 8, 8), (1, 1), 0, "cpu"), LatentRecipe(2, batch=4), *(torch.rand(n, 1, 8, 8, generator=g) for n in (clean, mixed))
            )


@pytest.mark.parametrize(
    ("operator", "observed", "expected"), [("sum", 0, (1.0, 1.0)), ("mean", 1, (0.5, 0.5)), ("uneven", 0, (0.8, 0.2)), ("uneven", 1, (0.2, 0.8))]
)
def test_the_observed_source_s_weight_comes_first(operator: str, observed: int, expected: tuple[float, float], monkeypatch: pytest.MonkeyPatch) -> None:
    def uneven(name: str, sources: int) -> object:
        assert sources == 2
        return SimpleNamespace(matrix=lambda: torch.tensor([[0.8, 0.2]]))

    if operator == "uneven":
        monkeypatch.setattr(latent, "make_operator", uneven)
    assert latent._weights(toy_task(operator=operator, observed=observed)) == pytest.approx(expected)


def test_settings_and_the_run_are_handed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = toy_task(operator="mean", observed=1)
    seen: list[tuple[object, ...]] = []
    monkeypatch.setattr(latent, "resume", lambda one, folder, device: seen.append((folder, device)))
    monkeypatch.setattr(latent, "run", lambda one, folder, progress: seen.append((one.recipe, one.generators.weights, folder, progress)))
    method = LearntGenerators(3, 25, 0.5, 0.25, True, 0.125, 0.0, 7, 4, "float32")
    told = lambda fraction, text: None  # noqa: E731
    images = torch.rand(9, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    view = ToyView(task, "mixtures+one", mixed=images, one=images)
    method.fit(view, context(task, 6, cache=tmp_path, progress=told, budget="quick"))
    recipe = LatentRecipe(3, 3, 0.5, 0.25, (0.5, 0.999), 4, True, 0.125, 0.0, "float32", 6)
    assert seen == [(tmp_path, "cpu"), (recipe, (0.5, 0.5), tmp_path, told)]
    assert view.asked == [("observed", 7), ("mixtures", 7)]
    made = method.fitted()
    wanted = new_generators(3, (1, 8, 8), (0.5, 0.5), 6, "cpu").state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in made.state_dict().items())
    method.save(tmp_path)
    loaded = LearntGenerators(latent=3)
    with pytest.raises(ValueError, match=r"^fit\(\) or load\(\) first$"):
        loaded.fitted()
    loaded.load(tmp_path, context(task))
    codes = torch.rand(2, 3, generator=torch.Generator().manual_seed(1))
    for one in (made, loaded.fitted()):
        assert not one.training
        assert not any(p.requires_grad for p in one.parameters())
        torch.testing.assert_close(one.part(1, codes), made.part(1, codes))
