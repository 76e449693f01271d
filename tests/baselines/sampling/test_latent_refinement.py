"""Refinement of latents by LASS' equations and by the released code's Adam."""

from __future__ import annotations

import pytest
import torch

from baselines.sampling.latent_refinement import Refinement, refined


def decode(latents: torch.Tensor) -> torch.Tensor:
    """Two numbers at each place to one pixel."""
    return torch.sigmoid(latents.sum(1, keepdim=True) - 0.5 * latents[:, :1])


def _problem(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    truth = torch.rand(count, 2, 1, 3, 3, generator=random)
    return torch.randn(count, 2, 2, 3, 3, generator=random), truth.mean(1)


def _errors(images: torch.Tensor, means: torch.Tensor) -> torch.Tensor:
    return (images.mean(1) - means).flatten(1).norm(dim=1)


@pytest.mark.parametrize("how", ["descent", "adam"])
def test_the_mixture_is_explained_better(how: Refinement) -> None:
    start, means = _problem()
    before, after = (_errors(refined(decode, start, means, steps, 0.1, how), means) for steps in (0, 300))
    assert (after < 0.2 * before).all()


@pytest.mark.parametrize("how", ["descent", "adam"])
def test_each_mixture_is_refined_by_itself(how: Refinement) -> None:
    start, means = _problem()
    whole = refined(decode, start, means, 20, 0.1, how)
    singly = torch.cat([refined(decode, start[row : row + 1], means[row : row + 1], 20, 0.1, how) for row in range(5)])
    torch.testing.assert_close(singly, whole, atol=1e-5, rtol=0)


def test_a_step_of_descent_is_the_equations() -> None:
    start, means = _problem(1)
    leaf = start.clone().requires_grad_(True)
    distance = (decode(leaf[:, 0]) + decode(leaf[:, 1]) - 2 * means).norm()
    distance.backward()
    assert leaf.grad is not None
    moved = start - 0.1 * leaf.grad
    torch.testing.assert_close(refined(decode, start, means, 1, 0.1), decode(moved[0])[None], atol=1e-5, rtol=0)


def test_the_best_images_are_kept() -> None:
    """A rate so large that every step makes it worse leaves the start."""
    start, _ = _problem(2)
    means = decode(start.flatten(0, 1)).unflatten(0, (2, 2)).mean(1) + 1e-3
    torch.testing.assert_close(refined(decode, start, means, 5, 1e4), decode(start.flatten(0, 1)).unflatten(0, (2, 2)))


def test_none_decodes_the_start_and_progress_ends() -> None:
    start, means = _problem()
    told: list[float] = []
    assert torch.equal(refined(decode, start, means, 50, 0.1, "none", progress=told.append), decode(start.flatten(0, 1)).unflatten(0, (5, 2)))
    refined(decode, start, means, 4, progress=told.append)
    assert told == [1.0, 0.0, 0.25, 0.5, 0.75, 1.0]


def test_adam_stays_near_its_start() -> None:
    """Of a mixture that says nothing, the pull alone moves latents: nowhere."""
    start, means = _problem()
    same = refined(lambda latents: 0.0 * latents[:, :1], start, 0.0 * means, 10, 0.1, "adam")
    assert torch.equal(same, torch.zeros_like(same))


@pytest.mark.parametrize("how", ["descent", "adam"])
def test_many_steps_are_those_of_torch_s_optimisers(how: Refinement) -> None:
    """The images of least loss on the way; Adam at a rate that halves every 100 steps, with a pull of 1e-3 on the mean square that latents have moved by."""
    start, means = (one.double() for one in _problem(1))
    leaf = start.clone().requires_grad_(True)
    optimiser: torch.optim.Optimizer = torch.optim.Adam([leaf], lr=0.3) if how == "adam" else torch.optim.SGD([leaf], lr=0.3)
    halved = torch.optim.lr_scheduler.StepLR(optimiser, 100, 0.5)
    least, wanted = float("inf"), start
    for step in range(206):
        images = decode(leaf[0])[None]
        residual = images.sum(1) - 2 * means
        loss = residual.square().sum().sqrt() if how == "descent" else (residual / 2).square().mean() + 1e-3 * (leaf - start).square().mean()
        if float(loss) < least:
            least, wanted = float(loss), images.detach()
        if step == 205:
            break
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if how == "adam":
            halved.step()
    torch.testing.assert_close(refined(decode, start, means, 205, 0.3, how), wanted, atol=1e-7, rtol=0)


def test_a_start_that_explains_the_mixture_exactly_has_a_gradient() -> None:
    start, _ = _problem(2)
    exact = decode(start.flatten(0, 1)).unflatten(0, (2, 2))
    seen: list[bool] = []
    found = refined(lambda latents: (seen.append(bool(latents.isfinite().all())), decode(latents))[1], start, exact.mean(1), 2, 0.1)
    assert seen == [True] * 3
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("how", "steps"), [("none", 7), ("descent", 0), ("adam", 0)])
def test_without_a_step_the_start_is_decoded_once(how: Refinement, steps: int) -> None:
    start, means = _problem(2)
    calls: list[int] = []
    told: list[float] = []
    found = refined(lambda latents: (calls.append(len(latents)), decode(latents))[1], start, means, steps, 5.0, how, progress=told.append)
    assert (calls, told) == ([4], [1.0])
    assert torch.equal(found, decode(start.flatten(0, 1)).unflatten(0, (2, 2)))


def test_of_steps_of_one_loss_the_first_is_kept() -> None:
    """What is decoded moves, but its sum over the sources stays, and with it the loss."""
    start, seen = torch.zeros(1, 2, 1, 1, 1), []

    def apart(latents: torch.Tensor) -> torch.Tensor:
        seen.append(len(seen))
        return torch.stack([0 * latents[0] + len(seen), 0 * latents[1] - len(seen)])

    found = refined(apart, start, torch.ones(1, 1, 1, 1), 3, 0.1)
    assert len(seen) == 4
    assert found.flatten().tolist() == [1.0, -1.0]
