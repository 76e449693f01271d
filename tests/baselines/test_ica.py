"""Single-channel ICA of images: spectra that are disjoint come apart, nothing of the mixture is lost, honest refusals."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import digit_mixtures, generator

from baselines import ica
from baselines.decomposition.component_groups import envelope_similarity
from baselines.decomposition.fast_ica import fast_ica, whiten
from baselines.decomposition.patches import fold_patches, unfold_patches
from baselines.ica import SingleChannelICA
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, RunContext, Separator, TaskSpec


def task(shape: tuple[int, ...] = (1, 8, 8), operator: str = "sum", n_sources: int = 2, domain: str = "image") -> TaskSpec:
    return TaskSpec("suite", "task", domain, n_sources, shape, operator, ("any",) * n_sources, "permutation", tuple(range(n_sources)))


def separate(method: SingleChannelICA, values: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    ctx = RunContext(task(tuple(values.shape[1:]), operator.name, operator.n_sources), "cpu", NoiseSource(0), 0)
    return method.separate(Mixtures(values, torch.arange(len(values)), operator), ctx)


def operator_named(name: str, batch: int, n_sources: int) -> MixingOperator:
    gains = torch.rand(batch, n_sources, generator=generator(5)) + 0.25
    return make_operator(name, n_sources, gains=gains if name == "gain" else None)


def texture(rows: bool, frequency: float, left: bool, seed: int) -> torch.Tensor:
    """``(1, 32, 32)`` noise in a narrow band of frequencies along rows or columns, that fades out to one side."""
    axis = torch.arange(32.0)
    spread = torch.fft.fftfreq(32).abs()
    band, constant = torch.exp(-(((spread - frequency) / 0.05) ** 2)), torch.exp(-((spread / 0.05) ** 2))
    window = band[:, None] * constant[None, :] if rows else constant[:, None] * band[None, :]
    noise = torch.fft.ifft2(torch.fft.fft2(torch.randn(32, 32, generator=generator(seed))) * window).real
    image = noise * torch.exp(-(((axis - (10 if left else 22)) / 8) ** 2))
    return (image / image.std()).unsqueeze(0)


def ratio(sources: torch.Tensor, errors: torch.Tensor) -> torch.Tensor:
    return 10 * torch.log10(sources.square().flatten(1).sum(1) / errors.square().flatten(1).sum(1))


def test_disjoint_spectra_come_apart() -> None:
    """What Davies and James prove possible: sources that a filter can tell apart, here overlapping in space."""
    sources = torch.stack([torch.stack([texture(True, 0.12, True, b), 0.8 * texture(False, 0.35, False, 100 + b)]) for b in range(8)])
    mixtures = sources.sum(1)
    estimates = separate(SingleChannelICA(), mixtures, make_operator("sum", 2))
    gain = torch.maximum(ratio(sources, estimates - sources), ratio(sources, estimates.flip(1) - sources)) - ratio(sources, mixtures.unsqueeze(1) / 2 - sources)
    assert float(gain.mean()) > 9.0
    assert float(gain.min()) > 4.0


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(["sum", "mean", "gain"]),
    st.integers(1, 3),
    st.integers(2, 4),
    st.sampled_from([1, 3]),
    st.integers(4, 10),
    st.integers(4, 10),
    st.integers(0, 100),
)
def test_estimates_mix_to_the_mixture(name: str, batch: int, n_sources: int, channels: int, height: int, width: int, seed: int) -> None:
    values = 2 * torch.rand(batch, channels, height, width, generator=generator(seed))
    operator = operator_named(name, batch, n_sources)
    estimates = separate(SingleChannelICA(patch=3, max_iterations=10), values, operator)
    assert tuple(estimates.shape) == (batch, n_sources, channels, height, width)
    assert estimates.dtype == torch.float32
    torch.testing.assert_close(operator.forward(estimates), values, atol=3e-6, rtol=0)


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (1, 32, 32), (3, 32, 32), (3, 64, 64)])
def test_the_benchmarks_image_sizes(shape: tuple[int, ...]) -> None:
    values = 2 * torch.rand(2, *shape, generator=generator(11))
    estimates = separate(SingleChannelICA(max_iterations=20), values, make_operator("sum", 2))
    torch.testing.assert_close(estimates.sum(1), values, atol=3e-6, rtol=0)
    assert float((estimates[:, 0] - estimates[:, 1]).abs().max()) > 0.05  # it does cut something


def test_images_without_content_are_shared_evenly() -> None:
    values = torch.cat([torch.zeros(1, 1, 9, 9), torch.full((1, 1, 9, 9), 0.6)])
    estimates = separate(SingleChannelICA(), values, make_operator("sum", 2))
    torch.testing.assert_close(estimates, values.unsqueeze(1).expand(2, 2, 1, 9, 9) / 2, atol=1e-6, rtol=0)


def test_batch_and_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    values = digit_mixtures(6)
    operator = operator_named("gain", 6, 2)
    together = separate(SingleChannelICA(), values, operator)
    singly = torch.cat([separate(SingleChannelICA(), values[b : b + 1], operator.select(torch.tensor([b]))) for b in range(len(values))])
    torch.testing.assert_close(singly, together, atol=1e-5, rtol=0)
    monkeypatch.setattr("baselines.ica.CHUNK_ELEMENTS", {"cpu": 4 * 64 * 225})
    torch.testing.assert_close(separate(SingleChannelICA(), values, operator), together, atol=1e-5, rtol=0)


def test_a_mixture_scaled_is_an_estimate_scaled() -> None:
    values = digit_mixtures(6)
    torch.testing.assert_close(
        separate(SingleChannelICA(), 0.5 * values, make_operator("sum", 2)),
        0.5 * separate(SingleChannelICA(), values, make_operator("sum", 2)),
        atol=1e-5,
        rtol=0,
    )


@pytest.mark.parametrize("broken", [math.nan, math.inf, -math.inf])
def test_a_mixture_that_is_not_finite_has_estimates_of_nan_and_leaves_the_others_alone(broken: float) -> None:
    values = torch.cat([digit_mixtures(3), torch.rand(1, 1, 8, 8, generator=generator(12))]).repeat(1, 3, 1, 1)
    operator = operator_named("gain", 4, 2)
    wanted = separate(SingleChannelICA(), values, operator)
    values[1, 2, 7, 0] = broken
    found = separate(SingleChannelICA(), values, operator)
    assert bool(found[1].isnan().all())
    assert float(values[1, 2, 7, 0]) == pytest.approx(broken, nan_ok=True)
    others = torch.tensor([0, 2, 3])
    torch.testing.assert_close(found[others], wanted[others], atol=1e-5, rtol=0)
    assert bool(separate(SingleChannelICA(), values[1:2], operator.select(torch.tensor([1]))).isnan().all())
    assert separate(SingleChannelICA(), values[:0], operator.select(torch.arange(0))).shape == (0, 2, 3, 8, 8)


def test_mixtures_are_left_alone() -> None:
    values = digit_mixtures(3)
    before = values.clone()
    separate(SingleChannelICA(), values, make_operator("sum", 2))
    assert torch.equal(values, before)


def test_what_it_says_of_itself() -> None:
    method = SingleChannelICA()
    assert isinstance(method, Separator)
    assert (method.info.name, method.info.supervision, method.info.deterministic) == ("ica", "blind", True)
    assert method.supports(task(n_sources=4)).ok
    assert "degenerate" in method.supports(task()).note


@pytest.mark.parametrize(
    ("method", "spec", "reason"),
    [
        (SingleChannelICA(), task(n_sources=9), "8 components"),
        (SingleChannelICA(patch=9), task(), "8 x 8"),
        (SingleChannelICA(), task(operator="channel-mean", n_sources=1), "channel-mean"),
        (SingleChannelICA(), task(n_sources=1), "two sources"),
        (SingleChannelICA(), task(shape=(8000,), domain="vector"), "vector"),
        (SingleChannelICA(), task(shape=(1, 8000), domain="audio"), "audio"),
    ],
)
def test_what_it_refuses(method: SingleChannelICA, spec: TaskSpec, reason: str) -> None:
    support = method.supports(spec)
    assert not support.ok
    assert reason in support.note


@pytest.mark.parametrize("wrong", [{"patch": 1}, {"components": 1}, {"window": 4}, {"max_iterations": 0}, {"tolerance": 0.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        SingleChannelICA(**wrong)


def test_components_are_grouped_by_envelopes_and_by_what_they_add_to_the_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The energy of a component is the mean square of its own patches; each group's patches are folded back, what is left is shared evenly."""
    asked: list[tuple[torch.Tensor, torch.Tensor, int]] = []
    labels = torch.tensor([[1, 0, 1, 0, 0, 1], [0, 1, 1, 1, 0, 0]])

    def grouped(similarity: torch.Tensor, energy: torch.Tensor, groups: int) -> torch.Tensor:
        asked.append((similarity, energy, groups))
        return labels

    monkeypatch.setattr(ica, "group_components", grouped)
    images = digit_mixtures(2).double()
    found = SingleChannelICA(patch=4, components=6, window=3, max_iterations=9, tolerance=1e-5)._parts(images, 2)
    whitening = whiten(unfold_patches(images, 4), 6)
    unmixing = fast_ica(whitening.white, max_iterations=9, tolerance=1e-5).matrix
    activations = unmixing @ whitening.white
    own = torch.stack([(whitening.inverse @ unmixing.mT)[:, :, k, None] * activations[:, None, k] for k in range(6)], 1)
    ((similarity, energy, groups),) = asked
    assert groups == 2
    torch.testing.assert_close(energy, own.square().sum(2).mean(2))
    torch.testing.assert_close(similarity, envelope_similarity(activations.unflatten(2, (11, 11)), 3))
    parts = torch.stack([fold_patches((own * (labels == k)[:, :, None, None]).sum(1), (8, 8), 4) for k in range(2)], 1)
    torch.testing.assert_close(found, parts + (images - parts.sum(1))[:, None] / 2)
