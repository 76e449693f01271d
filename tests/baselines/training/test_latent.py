"""Generative latent optimisation: the ball, cuts of images, the stages and the shares."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.training.latent import LatentRecipe, LatentTraining, first_codes, in_unit_ball, new_generators, shared_out
from baselines.training.loop import run


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
    one.generators.eval()
    torch.testing.assert_close(parts[7:8, 1], one.generators.part(1, one.codes["yx"].weight.detach()[7:8]))
