from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from prior_toys import ZeroNetwork

from baselines.networks.ncsn_refinenet import CondRefineNetDilated, ncsn_sigmas
from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors import score_prior
from baselines.priors.edm import EDMDenoiser
from baselines.priors.probability_flow import lattice_signs
from baselines.priors.score_prior import EDMPrior, NCSNPrior, tweedie
from sepbench.errors import MethodError, UnsupportedTaskError
from sepbench.noise import NoiseSource
from sepbench.precision import Precision, float32_products
from sepbench.protocols import HasDensity, ScorePrior

SHAPE = (1, 8, 8)


def _awake(network: torch.nn.Module) -> torch.nn.Module:
    """Layers that start at zero get small weights, so that the network's output depends on everything."""
    random = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in network.parameters():
            if not bool(p.any()):
                p.normal_(0.0, 0.1, generator=random)
    return network


@pytest.fixture(scope="module")
def prior() -> EDMPrior:
    network = _awake(ScoreUNet(UNetConfig(widths=(8, 16, 16), blocks=(1, 1, 1), heads=2, embedding=16)))
    return EDMPrior(EDMDenoiser(network, 0.3, 0.2).eval().requires_grad_(False), SHAPE, (0.01, 2.0))


def _images(*leading: int) -> torch.Tensor:
    return torch.rand(*leading, *SHAPE, generator=torch.Generator().manual_seed(1))


def test_both_are_priors(prior: EDMPrior) -> None:
    assert isinstance(prior, ScorePrior)
    assert isinstance(prior, HasDensity)
    assert isinstance(NCSNPrior(CondRefineNetDilated(1, 4), SHAPE), ScorePrior)


@pytest.mark.parametrize("shape", [SHAPE, (1, 12, 12), (3, 8, 4)])
def test_log_density_of_a_gaussian(shape: tuple[int, int, int]) -> None:
    """A zero network denoises Gaussian data exactly: N(mean, sigma_data^2 + 0.01^2) per pixel. Its Jacobian is a multiple of the identity, so all signs do."""
    gaussian = EDMPrior(EDMDenoiser(ZeroNetwork(), 0.3, 0.2), shape, (0.005, 2.0))
    x = 0.2 + 0.3 * torch.randn(5, *shape, generator=torch.Generator().manual_seed(2))
    variance = 0.3**2 + 0.01**2
    dimension = math.prod(shape)
    exact = -0.5 * ((x - 0.2).double().square().flatten(1).sum(1) / variance + dimension * math.log(2 * math.pi * variance))
    found = gaussian.log_prob(x)
    torch.testing.assert_close(found, exact, atol=0.02, rtol=0)
    assert torch.equal(gaussian.log_prob(x[:1]), found[:1])
    fewer = gaussian.estimated_log_prob(x, torch.arange(5), NoiseSource(1), steps=4, spacing=1)
    assert float((fewer - exact).abs().min()) > float((found - exact).abs().max())


def test_the_density_of_an_image_does_not_depend_on_its_place(prior: EDMPrior) -> None:
    """One set of signs for all: here, where the trace is estimated, other signs would give another number."""
    same = _images(1).expand(3, *SHAPE)
    found = prior.log_prob(same)
    torch.testing.assert_close(found, found[:1].expand(3))
    others = prior.estimated_log_prob(same, torch.arange(3), NoiseSource(0))
    assert not torch.allclose(others, others[:1].expand(3), rtol=1e-6)
    torch.testing.assert_close(others[0], found[0])


def test_leading_axes_and_levels_per_example(prior: EDMPrior) -> None:
    x = _images(3, 2)
    sigma = torch.tensor([[0.1, 0.2], [0.4, 0.8], [1.0, 0.05]])
    together = prior.score(x, sigma)
    assert together.shape == x.shape
    assert together.dtype == torch.float32
    for b in range(3):
        for k in range(2):
            alone = prior.score(x[b, k][None], float(sigma[b, k]))[0]
            torch.testing.assert_close(together[b, k], alone, rtol=1e-4, atol=1e-3)


def test_large_batches_are_cut_without_trace(prior: EDMPrior) -> None:
    x = _images(130)
    whole = prior.denoise(x, 0.3)
    torch.testing.assert_close(whole[100:103], prior.denoise(x[100:103], 0.3), rtol=1e-5, atol=1e-6)


def test_bfloat16_agrees_and_differs(prior: EDMPrior) -> None:
    x = _images(4)
    exact, rough = prior.denoise(x, 0.3), prior.with_precision("bfloat16").denoise(x, 0.3)
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    assert float((exact - rough).square().mean().sqrt() / (exact - x).square().mean().sqrt()) < 0.02


def test_other_shapes_are_refused(prior: EDMPrior) -> None:
    with pytest.raises(UnsupportedTaskError, match=r"trained on images of shape \(1, 8, 8\), the task has \(3, 8, 8\)"):
        prior.score(torch.rand(2, 3, 8, 8), 0.1)
    with pytest.raises(UnsupportedTaskError, match=r"the task has \(1, 28, 28\)"):
        prior.denoise(torch.rand(2, 1, 28, 28), 0.1)
    with pytest.raises(ValueError, match="leading shape"):
        prior.denoise(_images(3, 2), torch.rand(3))


def test_nan_is_named(prior: EDMPrior) -> None:
    x = _images(2)
    x[1, 0, 3, 3] = torch.nan
    with pytest.raises(MethodError, match="not finite"):
        prior.score(x, 0.1)


def test_ncsn_takes_its_own_levels_only() -> None:
    prior = NCSNPrior(CondRefineNetDilated(1, 4).eval().requires_grad_(False), SHAPE)
    x = _images(2, 2)
    third = float(ncsn_sigmas()[3])
    level = torch.full((4,), 3)
    torch.testing.assert_close(prior.score(x, third).flatten(0, 1), prior.network(x.flatten(0, 1), level))
    torch.testing.assert_close(prior.score(x, 0.21544), prior.score(x, third))
    torch.testing.assert_close(prior.denoise(x, third), x + third**2 * prior.score(x, third))
    with pytest.raises(UnsupportedTaskError, match="ten noise levels only"):
        prior.score(x, 0.3)


def test_tweedie_takes_levels_per_example() -> None:
    x = _images(3, 2)
    sigma = torch.rand(3, 2, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(tweedie(x, -x, sigma), x * (1 - sigma.square())[..., None, None, None])
    torch.testing.assert_close(tweedie(x, -x, 0.5), x * 0.75)


@pytest.mark.parametrize(("precision", "tf32"), [("float32", False), ("tf32", True), ("bfloat16", False)])
def test_on_a_gpu_only_tf32_rounds_float32_products(prior: EDMPrior, monkeypatch: pytest.MonkeyPatch, precision: Precision, tf32: bool) -> None:
    """The switches are looked at where the network computes; the CPU stands in for the GPU."""
    inside = []

    def network(x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        inside.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
        return torch.zeros_like(x)

    monkeypatch.setattr("baselines.priors.score_prior.float32_products", lambda device, tf32=False: float32_products("cuda", tf32))
    monkeypatch.setattr(prior.denoiser.network, "forward", network)
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    prior.with_precision(precision).denoise(_images(2), 0.3)
    assert inside == [(tf32, tf32)]
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before


class Bent(torch.nn.Module):
    """A network whose Jacobian is neither symmetric nor the same everywhere: its estimated trace depends on the probes."""

    def forward(self, x: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return torch.tanh(2 * x.roll(1, -1) * x.roll(3, -2)) + 0.1 * x.roll(2, -1)


def test_the_log_density_of_an_image_does_not_depend_on_its_place_in_the_batch() -> None:
    """All images are probed along the same signs; with other signs the estimates differ."""
    bent = EDMPrior(EDMDenoiser(Bent(), 0.3, 0.2), SHAPE, (0.01, 2.0))
    x = _images(2).clamp(0, 1)
    found = bent.log_prob(x[[1, 0, 0, 1]])
    torch.testing.assert_close(found, found[[3, 2, 1, 0]], rtol=1e-6, atol=1e-4)
    assert abs(float(found[0] - found[1])) > 0.01
    others = bent.estimated_log_prob(x[[0, 0]], torch.arange(2), NoiseSource(0), steps=4)
    assert abs(float(others[0] - others[1])) > 0.01


def test_an_output_that_is_not_finite_is_an_error_that_names_the_prior(prior: EDMPrior) -> None:
    broken = EDMPrior(EDMDenoiser(ZeroNetwork(), math.nan, 0.2).eval(), SHAPE, (0.01, 2.0), name="broken one")
    for ask in (broken.denoise, broken.score):
        with pytest.raises(MethodError, match="the output of broken one"):
            ask(_images(2), 0.5)


@pytest.mark.parametrize(("trained", "lowest"), [((0.005, 2.0), 0.01), ((0.05, 1.5), 0.05)])
def test_a_density_is_asked_for_between_the_levels_that_were_trained(trained: tuple[float, float], lowest: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float32, with the mean and variance of the data, at most so many images at a time."""
    asked: list[Any] = []

    def flow(prior: EDMPrior, x: torch.Tensor, **how: Any) -> torch.Tensor:
        asked.append((prior, x, how))
        return x.flatten(1)[:, 0].double()

    monkeypatch.setattr(score_prior, "flow_log_prob", flow)
    monkeypatch.setattr(score_prior, "CPU_CHUNK", 3)
    prior = EDMPrior(EDMDenoiser(ZeroNetwork(), 0.3, 0.2), SHAPE, trained, "bfloat16")
    x = _images(5)
    ids, noise = torch.tensor([4, 4, 1, 2, 1]), NoiseSource(6)
    found = prior.estimated_log_prob(x, ids, noise, steps=5, spacing=2)
    assert torch.equal(found, x[:, 0, 0, 0].double())
    assert [len(part) for _, part, _ in asked] == [3, 2]
    for (own, _, how), rows in zip(asked, (ids[:3], ids[3:]), strict=True):
        assert own.precision == "float32"
        assert (how["lowest"], how["highest"], how["steps"]) == (lowest, trained[1], 5)
        assert float(how["base_mean"]) == pytest.approx(0.2)
        assert how["base_variance"] == pytest.approx(0.09)
        assert torch.equal(how["probes"](3), lattice_signs(rows, noise, SHAPE, 2, torch.device("cpu"))(3))
    prior.log_prob(x[:2])
    (_, _, how) = asked[-1]
    assert how["steps"] == 24
    assert torch.equal(how["probes"](0), lattice_signs(torch.zeros(2, dtype=torch.int64), NoiseSource(0), SHAPE, 3, torch.device("cpu"))(0))


def test_what_is_made_of_a_prior_keeps_the_rest(prior: EDMPrior) -> None:
    """An engine is made anew, since its graphs belong to one precision and device."""
    made = prior.with_engine("graph")
    other = made.with_precision("tf32")
    moved = other.to("cpu")
    assert [one.engine.kind for one in (prior, made, other, moved)] == ["eager", "graph", "graph", "graph"]
    assert [one.precision for one in (prior, made, other, moved)] == ["float32", "float32", "tf32", "tf32"]
    assert len({id(one.engine) for one in (prior, made, other, moved)}) == 4
    assert all(one.denoiser is prior.denoiser and (one.shape, one.sigma_range) == (SHAPE, (0.01, 2.0)) for one in (made, other, moved))


def test_a_gradient_is_kept_only_where_it_is_wanted(prior: EDMPrior) -> None:
    x = _images(2).requires_grad_(True)
    assert prior.denoise(x, 0.3).requires_grad
    with torch.no_grad():
        assert not prior.denoise(x, 0.3).requires_grad
    assert not prior.score(x.detach(), 0.3).requires_grad


@pytest.mark.parametrize(("share", "taken"), [(1.009, True), (1 / 1.009, True), (1.0102, False), (1 / 1.0102, False)])
def test_levels_of_the_ten_within_a_hundredth_are_theirs(share: float, taken: bool) -> None:
    own = NCSNPrior(CondRefineNetDilated(1, 4).eval(), SHAPE, name="ten")
    sigma = torch.tensor([float(ncsn_sigmas()[2]), float(ncsn_sigmas()[7]) * share])
    if taken:
        assert own._levels(sigma).tolist() == [2, 7]
        return
    with pytest.raises(UnsupportedTaskError) as refused:
        own._levels(sigma)
    levels = [1.0, 0.59948, 0.35938, 0.21544, 0.12915, 0.07743, 0.04642, 0.02783, 0.01668, 0.01]
    assert str(refused.value) == f"ten knows ten noise levels only, {levels}; use them or another prior"


def test_words_for_other_shapes_and_for_levels_that_do_not_fit(prior: EDMPrior) -> None:
    for x, own in ((torch.rand(2, 3, 8, 8), (3, 8, 8)), (torch.rand(*SHAPE), SHAPE)):
        with pytest.raises(UnsupportedTaskError) as refused:
            prior.score(x, 0.1)
        assert str(refused.value) == f"this prior was trained on images of shape (1, 8, 8), the task has {own}; train one with `sepbench train`"
    with pytest.raises(ValueError, match="sigma must be") as wrong:
        prior.denoise(_images(3, 2), torch.rand(2, 3))
    assert str(wrong.value) == "sigma must be one number or have the leading shape (3, 2), got (2, 3)"
    with pytest.raises(MethodError) as odd:
        score_prior._finite(torch.tensor([torch.inf]), "this")
    advice = "the weights are damaged or the sampler diverged; check the weights file and the step size"
    assert str(odd.value) == f"this is not finite: {advice}"


def test_large_batches_of_the_ten_levels_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score_prior, "CPU_CHUNK", 2)
    own, sizes = NCSNPrior(CondRefineNetDilated(1, 4).eval().requires_grad_(False), SHAPE), list[int]()
    own.network.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    x, levels = _images(3), ncsn_sigmas()[[1, 5, 9]].float()
    found = own.score(x, levels)
    assert sizes == [2, 1]
    torch.testing.assert_close(found[2:], own.score(x[2:], 0.01))


@pytest.mark.parametrize("count", [130, 1, 0])
def test_a_gpu_takes_all_images_at_once(count: int) -> None:
    """A device that computes nothing stands in for it."""
    seen: list[int] = []

    class Watched(ZeroNetwork):
        def forward(self, x: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            seen.append(len(x))
            return super().forward(x, label)

    own = EDMPrior(EDMDenoiser(Watched(), 0.3, 0.2), SHAPE, (0.01, 2.0))
    x = torch.empty(count, *SHAPE, device="meta")
    assert own.denoise(x, torch.full((count,), 0.3, device="meta")).shape == x.shape
    assert seen == [count]
