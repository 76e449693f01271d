"""Blind NMF: its parts against scikit-learn and librosa, the whole against nussl, groups of bins against sounds of two timbres."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_toys import context
from sklearn.cluster import KMeans
from sklearn.decomposition import NMF
from sound_toys import RATE, best_sdr, correlation, mixed, nussl, nussl_estimates, nussl_signal, sound_task, sounds

from baselines import nmf_blind
from baselines.average import Average
from baselines.decomposition.cepstrum import cepstrum, cosine_basis, mel_filters
from baselines.nmf_blind import BlindNMF, bin_features, cluster_centres, descend, double_svd
from sepbench.stft import Stft


def low_and_high(batch: int = 2, length: int = 8_000) -> torch.Tensor:
    """Brown-like noise and whistles: two timbres nobody confuses."""
    g = torch.Generator().manual_seed(4)
    brown = torch.randn(batch, length, generator=g).cumsum(1)
    brown = brown - torch.nn.functional.avg_pool1d(brown.unsqueeze(1), 401, 1, 200, count_include_pad=False).squeeze(1)
    time = torch.arange(length) / RATE
    notes = 1_200 + 400 * torch.randint(0, 3, (batch, 8), generator=g).repeat_interleave(length // 8, 1)
    whistle = torch.sin(2 * math.pi * (notes / RATE).cumsum(1)) * (1.2 + torch.sin(2 * math.pi * 3 * time))
    sources = torch.stack([brown / brown.square().mean(1, keepdim=True).sqrt(), whistle], 1).unsqueeze(2)
    return 0.1 * sources


# --- the parts --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "columns"), [(20, 12), (12, 20)])
def test_start_and_descent_are_scikit_learn_s(rows: int, columns: int) -> None:
    """NNDSVDa and coordinate descent in the same order: the product after 200 rounds is the same."""
    matrix = np.random.default_rng(0).random((rows, columns)) ** 3
    model = NMF(4, init="nndsvda", max_iter=200, tol=0.0, random_state=0)
    expected = model.fit_transform(matrix.T) @ model.components_
    batch = torch.from_numpy(matrix).unsqueeze(0)
    left, right = descend(batch, *double_svd(batch, 4, (rows, columns)), 200)
    np.testing.assert_allclose((left.mT @ right)[0].numpy(), expected.T, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.integers(1, 3), st.integers(1, 5))
def test_descent_never_gets_worse(seed: int, batch: int, count: int) -> None:
    matrices = torch.rand(batch, 12, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    factors = double_svd(matrices, count, (12, 8))
    assert factors[0].shape == (batch, count + -count % 4, 12)
    assert bool((factors[0][:, count:] == 0).all())
    last = torch.full((batch,), torch.inf, dtype=torch.float64)
    for _ in range(5):
        factors = descend(matrices, *factors, 1)
        assert min(float(factor.min()) for factor in factors) >= 0
        now = (matrices - factors[0].mT @ factors[1]).square().sum((1, 2))
        assert bool((now <= last + 1e-9).all())
        last = now


def test_padding_changes_nothing() -> None:
    matrices = torch.rand(1, 12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wide = torch.nn.functional.pad(matrices, (0, 4, 0, 8))
    plain, padded = double_svd(matrices, 4, (12, 8)), double_svd(wide, 4, (12, 8))
    torch.testing.assert_close(padded[0][:, :, :12].mT @ padded[1][:, :, :8], plain[0].mT @ plain[1])
    assert bool((padded[0][:, :, 12:] == 0).all())
    assert bool((padded[1][:, :, 8:] == 0).all())


@pytest.mark.parametrize(("rate", "bins"), [(8_000, 129), (22_050, 513), (44_100, 1_025)])
@pytest.mark.slow  # librosa compiles for half a minute when it is first imported
def test_mel_filters_are_librosa_s(rate: int, bins: int) -> None:
    librosa = pytest.importorskip("librosa")
    np.testing.assert_allclose(mel_filters(rate, bins).numpy(), librosa.filters.mel(sr=rate, n_fft=2 * (bins - 1)), atol=1e-7)
    power = np.random.default_rng(0).random((bins, 4))
    expected = librosa.feature.mfcc(S=librosa.feature.melspectrogram(S=power, sr=rate), n_mfcc=13)
    np.testing.assert_allclose(cepstrum(rate, bins).numpy() @ power, expected, rtol=1e-5, atol=1e-9)


@given(st.integers(2, 40))
def test_the_cosine_basis_is_orthonormal(size: int) -> None:
    basis = cosine_basis(size, size)
    torch.testing.assert_close(basis @ basis.T, torch.eye(size, dtype=torch.float64))


def test_a_bin_has_the_timbre_of_what_it_consists_of() -> None:
    """Two templates without overlap: every bin's feature is its template's timbre, of length 1."""
    templates = torch.tensor([[[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 1.0]]])
    activations = torch.ones(1, 2, 5)
    features = bin_features(templates, activations, torch.tensor([[[2.0, 0.0], [0.0, 5.0]]]))[0]
    torch.testing.assert_close(features[:, 0, 0], torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(features[:, 3, 4], torch.tensor([0.0, 1.0]))


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_centres_are_those_of_k_means(groups: int) -> None:
    """On clusters that are there, scikit-learn's best of ten starts; every set of the batch by itself."""
    rng = np.random.default_rng(groups)
    sets = [np.concatenate([rng.normal(4 * rng.normal(size=5), 0.3, (20, 5)) for _ in range(groups)]) for _ in range(3)]
    found = cluster_centres(torch.from_numpy(np.stack(sets)), groups)
    for points, centres in zip(sets, found, strict=True):
        expected = KMeans(groups, n_init=10, random_state=0).fit(points)
        inertia = torch.cdist(torch.from_numpy(points), centres).amin(1).square().sum()
        assert float(inertia) <= expected.inertia_ * 1.001


def test_a_group_of_one_point_is_that_point_and_an_empty_one_the_mean_of_all() -> None:
    points = torch.tensor([[[0.0, 0.0], [2.0, 0.0], [10.0, 6.0]]])
    means, spread = nmf_blind._centres(points, torch.tensor([[0, 0, 1]]), 3)
    assert means.tolist() == [[[1.0, 0.0], [10.0, 6.0], [4.0, 2.0]]]
    assert spread.tolist() == [[2.0, 0.0, 0.0]]


def test_points_that_are_all_the_same_give_one_centre_many_times() -> None:
    points = torch.ones(1, 9, 3)
    assert torch.equal(cluster_centres(points, 3), torch.ones(1, 3, 3))


# --- the separator ----------------------------------------------------------------------------------------------------------------


def loud_features(separator: Any) -> torch.Tensor:
    """What a nussl separator that has run clustered, ``(n, 13)``."""
    return torch.from_numpy(separator.features.reshape(-1, 13)[(np.abs(separator.stft) >= separator.cutoff).reshape(-1)])


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("sources", [low_and_high(), sounds(2)], ids=["timbres", "sounds"])
def test_estimates_are_nussl_s_where_k_means_starts_from_our_centres(sources: torch.Tensor) -> None:
    """Everything else is nussl's: factors, timbres, features, masks. Started at random, its k-means may find another optimum: the next test."""
    reference = nussl().separation.primitive.TimbreClustering
    mixtures = mixed(sources)
    estimates = BlindNMF(components=10).separate(mixtures, context(sound_task()))
    for row in range(2):
        first = reference(nussl_signal(mixtures.values[row]), 2, 10, random_state=0)
        first.run()
        start = cluster_centres(loud_features(first).unsqueeze(0), 2)[0].numpy()
        wanted = 2 * nussl_estimates(reference(nussl_signal(mixtures.values[row]), 2, 10, init=start, n_init=1))
        louder = int(wanted.square().sum((1, 2)).argmax())  # the order of groups here; in nussl that of the start
        for part, other in enumerate((louder, 1 - louder)):
            assert correlation(estimates[row, part], wanted[other]) >= 0.999


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_nussl_s_one_random_start_may_end_elsewhere() -> None:
    """The documented difference, on nussl's own features: here its optimum is never better than ours, and worse in some."""
    reference = nussl().separation.primitive.TimbreClustering
    ratios = []
    for values in mixed(low_and_high(4)).values:
        separator = reference(nussl_signal(values), 2, 10, random_state=0)
        separator.run()
        points = loud_features(separator)
        ours = torch.cdist(points, cluster_centres(points.unsqueeze(0), 2)[0]).amin(1).square().sum()
        ratios.append(float(ours) / separator.clusterer.inertia_)
    assert max(ratios) < 1.001
    assert min(ratios) < 0.99


def test_two_timbres_come_apart() -> None:
    sources, task = low_and_high(3), sound_task()
    mixtures = mixed(sources)
    estimates = BlindNMF(components=10).separate(mixtures, context(task))
    assert best_sdr(estimates, sources) > best_sdr(Average().separate(mixtures, context(task)), sources) + 5


@pytest.mark.parametrize("span", [pytest.param(4, marks=pytest.mark.slow), pytest.param(20, marks=pytest.mark.slow), 64])
def test_long_signals_are_grouped_span_by_span(monkeypatch: pytest.MonkeyPatch, span: int) -> None:
    sources = low_and_high()
    whole = BlindNMF().separate(mixed(sources), context(sound_task(sources)))
    monkeypatch.setattr("baselines.nmf_blind._SPAN", span)
    assert Stft.at(RATE).frames(sources.shape[-1]) > span
    torch.testing.assert_close(BlindNMF().separate(mixed(sources), context(sound_task(sources))), whole, rtol=0, atol=1e-5)


def test_group_0_is_the_louder_one() -> None:
    estimates = BlindNMF(components=8, iterations=30).separate(mixed(sounds(4)), context(sound_task()))
    energies = estimates.square().sum((2, 3))
    assert bool((energies[:, 0] >= energies[:, 1]).all())


def test_three_groups() -> None:
    sources = torch.cat([low_and_high(), sounds(2)[:, :1]], 1)
    estimates = BlindNMF(components=8, iterations=20).separate(mixed(sources), context(sound_task(classes=("a", "b", "c"))))
    assert estimates.shape == sources.shape
    assert bool(estimates.isfinite().all())


def test_what_it_refuses() -> None:
    assert "best assignment" in BlindNMF().supports(sound_task(assignment="ordered")).note
    assert "2 components" in BlindNMF(components=2).supports(sound_task(classes=("a", "b", "c"))).note
    for wrong in ({"components": 1}, {"iterations": 0}, {"coefficients": 0}, {"coefficients": 129}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            BlindNMF(**wrong)


@pytest.mark.parametrize("last", [1, 2, 5])
def test_a_group_of_few_points_is_centred_on_them_and_not_on_all(last: int) -> None:
    """Two clouds far apart, the second of one point or more: both centres are the means of their own clouds."""
    near = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    far = 100 + torch.randn(last, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    (centres,) = cluster_centres(torch.cat([near, far]).unsqueeze(0), 2)
    centres = centres[centres[:, 0].argsort()]
    torch.testing.assert_close(centres, torch.stack([near.mean(0), far.mean(0)]))


def test_every_point_may_be_a_group_of_its_own() -> None:
    points = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 30.0], [70.0, 70.0]], dtype=torch.float64)
    (centres,) = cluster_centres(points.unsqueeze(0), 4)
    assert {tuple(row) for row in centres.tolist()} == {tuple(row) for row in points.tolist()}
