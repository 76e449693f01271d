"""Single-channel ICA: the FastICA kernel does what FastICA does, patches lose nothing, spectra that are disjoint come apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits
from sklearn.decomposition import FastICA

from baselines.decomposition.patches import fold_patches, positions, unfold_patches
from baselines.ica import SingleChannelICA, decorrelate, envelope_similarity, fast_ica, group_components, whiten
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import MixingOperator, Mixtures, RunContext, Separator, TaskSpec


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def task(shape: tuple[int, ...] = (1, 8, 8), operator: str = "sum", n_sources: int = 2, domain: str = "image") -> TaskSpec:
    return TaskSpec("suite", "task", domain, n_sources, shape, operator, ("any",) * n_sources, "permutation", tuple(range(n_sources)))


def separate(method: SingleChannelICA, values: torch.Tensor, operator: MixingOperator) -> torch.Tensor:
    ctx = RunContext(task(tuple(values.shape[1:]), operator.name, operator.n_sources), "cpu", NoiseSource(0), 0)
    return method.separate(Mixtures(values, torch.arange(len(values)), operator), ctx)


def operator_named(name: str, batch: int, n_sources: int) -> MixingOperator:
    gains = torch.rand(batch, n_sources, generator=generator(5)) + 0.25
    return make_operator(name, n_sources, gains=gains if name == "gain" else None)


def digit_mixtures(count: int) -> torch.Tensor:
    images = torch.from_numpy(load_digits().images / 16.0).float().unsqueeze(1)
    return images[:count] + images[count : 2 * count]


def planted(batch: int, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Observations ``(B, 4, n)`` of four independent sources (two peaked, two flat) through a random mixing matrix ``(B, 4, 4)``."""
    g = generator(seed)
    peaked = torch.randn(batch, 2, samples, generator=g, dtype=torch.float64) ** 3
    flat = torch.rand(batch, 2, samples, generator=g, dtype=torch.float64) - 0.5
    mixing = torch.randn(batch, 4, 4, generator=g, dtype=torch.float64)
    return mixing @ torch.cat([peaked / peaked.std(-1, keepdim=True), flat / flat.std(-1, keepdim=True)], 1), mixing


def amari(gain: torch.Tensor) -> float:
    """Amari, Cichocki and Yang (1996): 0 if the matrix is a scaled permutation, at most 1."""
    gain = gain.abs()
    size = gain.shape[-1]
    rows = (gain.sum(1) / gain.amax(1) - 1).sum()
    columns = (gain.sum(0) / gain.amax(0) - 1).sum()
    return float((rows + columns) / (2 * size * (size - 1)))


# --- FastICA --------------------------------------------------------------------------------------------------------------------


def test_planted_sources_are_found() -> None:
    observations, mixing = planted(5, 8000, seed=1)
    whitening = whiten(observations)
    found = fast_ica(whitening.white)
    assert bool(found.converged.all())
    for b in range(5):
        assert amari(found.matrix[b] @ whitening.matrix[b] @ mixing[b]) < 0.02
        assert amari(whitening.matrix[b] @ mixing[b]) > 0.1  # whitening alone does not do it


@pytest.mark.parametrize("plain_steps", [500, 5])
def test_agrees_with_scikit_learn(plain_steps: int) -> None:
    """Stabilised steps lead to the same answer as plain ones."""
    observations, _ = planted(3, 3000, seed=2)
    white = whiten(observations).white
    found = fast_ica(white, plain_steps=plain_steps, tolerance=1e-14, max_iterations=500)
    assert bool(found.converged.all())
    for b in range(3):
        theirs = FastICA(whiten=False, algorithm="parallel", fun="logcosh", w_init=np.eye(4), tol=1e-12, max_iter=500)
        wanted = theirs.fit_transform(white[b].numpy().T).T
        correlation = np.abs(np.corrcoef(wanted, (found.matrix[b] @ white[b]).numpy())[:4, 4:])
        np.testing.assert_allclose(correlation.max(0), 1.0, atol=1e-8)
        assert sorted(correlation.argmax(0)) == [0, 1, 2, 3]


def test_equals_scikit_learn_step_by_step_on_images() -> None:
    """On patches of digits too, after equally many steps; there the problem has no planted answer."""
    white = whiten(unfold_patches(digit_mixtures(3).double(), 4), 6).white
    found = fast_ica(white, plain_steps=5, max_iterations=5, tolerance=1e-15)
    for b in range(3):
        theirs = FastICA(whiten=False, algorithm="parallel", fun="logcosh", w_init=np.eye(6), tol=1e-15, max_iter=5)
        with pytest.warns(Warning, match="did not converge"):
            theirs.fit(white[b].numpy().T)
        np.testing.assert_allclose(found.matrix[b].abs().numpy(), np.abs(theirs.components_), atol=1e-7)


def test_unmixing_matrices_are_orthogonal_and_a_start_can_be_given() -> None:
    white = whiten(planted(3, 500, seed=3)[0]).white
    start = torch.randn(3, 4, 4, generator=generator(4), dtype=torch.float64)
    for found in (fast_ica(white).matrix, fast_ica(white, start, max_iterations=2).matrix, decorrelate(start)):
        torch.testing.assert_close(found @ found.mT, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-10, rtol=0)


def test_each_example_stops_by_itself() -> None:
    observations, _ = planted(6, 1000, seed=5)
    observations[3] = torch.randn(4, 1000, generator=generator(6), dtype=torch.float64)  # Gaussian: nothing to find, slow
    white = whiten(observations).white
    together = fast_ica(white, max_iterations=60)
    assert len(together.iterations.unique()) > 1
    for b in range(6):
        alone = fast_ica(white[b : b + 1], max_iterations=60)
        assert int(alone.iterations[0]) == int(together.iterations[b])
        torch.testing.assert_close(alone.matrix[0], together.matrix[b], atol=1e-8, rtol=0)


def test_rounding_errors_do_not_decide() -> None:
    """Plain FastICA jumps about on few samples: a change of 1e-12 then changes everything, and a batch of another size would too."""
    images = digit_mixtures(80).double()
    white = whiten(unfold_patches(images, 8), 8).white
    nearby = white + 1e-12 * torch.randn(white.shape, generator=generator(10), dtype=torch.float64)

    def moved(plain_steps: int) -> torch.Tensor:
        first, second = (fast_ica(z, plain_steps=plain_steps, max_iterations=100).matrix for z in (white, nearby))
        return 1 - (first * second).sum(-1).abs().amin(-1)

    assert float(moved(plain_steps=5).max()) < 1e-9
    assert float(moved(plain_steps=100).max()) > 1e-3


def test_whitening_is_white_and_can_be_undone() -> None:
    observations, _ = planted(3, 700, seed=7)
    found = whiten(observations + 5.0, ridge=0.0)
    covariance = found.white @ found.white.mT / 700
    torch.testing.assert_close(covariance, torch.eye(4, dtype=torch.float64).expand(3, 4, 4), atol=1e-9, rtol=0)
    centred = observations - observations.mean(-1, keepdim=True)
    torch.testing.assert_close(found.inverse @ found.white, centred, atol=1e-9, rtol=0)


def test_whitening_keeps_the_directions_of_most_variance_and_survives_none() -> None:
    observations = torch.randn(1, 3, 500, generator=generator(8), dtype=torch.float64) * torch.tensor([[[1.0], [10.0], [0.0]]], dtype=torch.float64)
    found = whiten(observations, components=1)
    assert float(found.matrix[0, 0].abs().argmax()) == 1
    flat = whiten(torch.full((2, 3, 50), 0.7, dtype=torch.float64))
    assert bool(torch.isfinite(flat.white).all())
    assert bool(torch.isfinite(fast_ica(flat.white).matrix).all())


# --- patches --------------------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(1, 5), st.integers(0, 99))
def test_folding_undoes_unfolding(batch: int, channels: int, height: int, width: int, size: int, seed: int) -> None:
    size = min(size, height, width)
    images = torch.rand(batch, channels, height, width, generator=generator(seed), dtype=torch.float64)
    patches = unfold_patches(images, size)
    assert tuple(patches.shape) == (batch, channels * size**2, math.prod(positions(height, width, size)))
    torch.testing.assert_close(fold_patches(patches, (height, width), size), images)


def test_patches_larger_than_the_image_are_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        unfold_patches(torch.zeros(1, 1, 4, 9), 5)


# --- grouping -------------------------------------------------------------------------------------------------------------------


def test_components_active_in_the_same_places_are_grouped() -> None:
    """Noise that lives on the left or on the right half: correlation of envelopes tells which, the strong side is group 0."""
    g = generator(9)
    sides = torch.tensor([0, 1, 1, 0, 1, 0])
    left = (torch.arange(20) < 10).double()
    masks = torch.where(sides[:, None] == 0, left, 1 - left)[:, None, :]
    activations = torch.randn(4, 6, 20, 20, generator=g, dtype=torch.float64) * masks
    similarity = envelope_similarity(activations, 5)
    energy = torch.where(sides == 0, 1.0, 3.0).double().expand(4, 6)
    labels = group_components(similarity, energy, 2)
    assert labels.tolist() == [(1 - sides).tolist()] * 4


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(2, 8), st.integers(1, 5), st.integers(0, 999), st.booleans())
def test_no_group_is_empty_and_energies_fall(batch: int, size: int, groups: int, seed: int, silent: bool) -> None:
    groups = min(groups, size)
    g = generator(seed)
    vectors = torch.nn.functional.normalize(torch.randn(batch, size, 3, generator=g, dtype=torch.float64), dim=-1)
    energy = torch.rand(batch, size, generator=g, dtype=torch.float64) * (0.0 if silent else 1.0)
    labels = group_components(vectors @ vectors.mT, energy, groups)
    for b in range(batch):
        assert sorted(set(labels[b].tolist())) == list(range(groups))
        totals = [float(energy[b][labels[b] == k].sum()) for k in range(groups)]
        assert totals == sorted(totals, reverse=True)


def test_one_component_per_group_when_there_are_as_many() -> None:
    labels = group_components(torch.ones(1, 3, 3, dtype=torch.float64), torch.tensor([[1.0, 3.0, 2.0]], dtype=torch.float64), 3)
    assert labels.tolist() == [[2, 0, 1]]


# --- the separator --------------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr("baselines.ica._CHUNK_ELEMENTS", {"cpu": 4 * 64 * 225})
    torch.testing.assert_close(separate(SingleChannelICA(), values, operator), together, atol=1e-5, rtol=0)


def test_a_mixture_scaled_is_an_estimate_scaled() -> None:
    values = digit_mixtures(6)
    torch.testing.assert_close(
        separate(SingleChannelICA(), 0.5 * values, make_operator("sum", 2)),
        0.5 * separate(SingleChannelICA(), values, make_operator("sum", 2)),
        atol=1e-5,
        rtol=0,
    )


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
    ],
)
def test_what_it_refuses(method: SingleChannelICA, spec: TaskSpec, reason: str) -> None:
    support = method.supports(spec)
    assert not support.ok
    assert reason in support.note


@pytest.mark.parametrize("wrong", [{"patch": 1}, {"components": 1}, {"window": 4}, {"max_iterations": 0}, {"tolerance": 0.0}])
def test_settings_without_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        SingleChannelICA(**wrong)
