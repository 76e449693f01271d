"""Counter-based noise: published vectors, statistics, and independence of batch, order and shard."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sepbench.noise import NoiseSource, philox4x32

# Known-answer vectors of the generator's authors (Random123, kat_vectors, philox4x32 10).
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1)),
]


def _reference_philox(counter: tuple[int, ...], key: tuple[int, int]) -> tuple[int, ...]:
    """The paper's round function in Python integers."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (p1 >> 32) ^ c1 ^ k0, p1 & 0xFFFFFFFF, (p0 >> 32) ^ c3 ^ k1, p0 & 0xFFFFFFFF
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_published_vectors(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    words = philox4x32([torch.tensor([c]) for c in counter], key)
    assert tuple(int(w) for w in words) == expected


word = st.integers(0, 2**32 - 1)


@given(st.tuples(word, word, word, word), st.tuples(word, word))
def test_equals_the_papers_rounds_in_exact_integers(counter: tuple[int, ...], key: tuple[int, int]) -> None:
    words = philox4x32([torch.tensor([c]) for c in counter], key)
    assert tuple(int(w) for w in words) == _reference_philox(counter, key)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=60, unique=True),
    seed=st.integers(0, 2**64 - 1),
    step=word,
    source=st.integers(0, 2**16 - 1),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    data=st.data(),
)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_same_bits_in_any_batch_and_order(kind: str, ids: list[int], seed: int, step: int, source: int, shape: list[int], data: st.DataObject) -> None:
    noise = NoiseSource(seed)
    draw = noise.uniform if kind == "uniform" else noise.normal
    whole = draw(torch.tensor(ids), step, source, shape)
    chosen = data.draw(st.lists(st.integers(0, len(ids) - 1), min_size=1, max_size=20))
    part = draw(torch.tensor([ids[i] for i in chosen]), step, source, shape)
    assert torch.equal(part, whole[chosen])


@pytest.mark.parametrize("kind", ["uniform", "normal"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (5,)])
def test_same_bits_one_by_one_at_real_sizes(kind: str, shape: tuple[int, ...]) -> None:
    ids = torch.arange(100)
    draw = getattr(NoiseSource(7), kind)
    whole = draw(ids, 3, 1, shape)
    assert torch.equal(whole, torch.cat([draw(ids[i : i + 1], 3, 1, shape) for i in range(100)]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_checks.sh runs this where there is one")
def test_uniforms_equal_on_cpu_and_gpu() -> None:
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    noise = NoiseSource(2**63 + 11)
    assert torch.equal(noise.uniform(ids, 9, 2, (3, 32, 32)), noise.uniform(ids, 9, 2, (3, 32, 32), "cuda").cpu())
    torch.testing.assert_close(noise.normal(ids, 9, 2, (784,)), noise.normal(ids, 9, 2, (784,), "cuda").cpu(), atol=2e-6, rtol=2e-6)


def test_each_part_of_the_key_matters() -> None:
    ids = torch.arange(4)
    base = NoiseSource(0).uniform(ids, 0, 0, (64,))
    others = [
        NoiseSource(1).uniform(ids, 0, 0, (64,)),
        NoiseSource(2**40).uniform(ids, 0, 0, (64,)),
        NoiseSource(0).uniform(ids, 1, 0, (64,)),
        NoiseSource(0).uniform(ids, 0, 1, (64,)),
        NoiseSource(0).fork(1).uniform(ids, 0, 0, (64,)),
        NoiseSource(0).uniform(ids + 4, 0, 0, (64,)),
    ]
    for other in others:
        assert float(((base - other).abs() < 1e-9).double().mean()) < 0.02


def test_uniforms_pass_kolmogorov_smirnov_and_have_no_serial_correlation() -> None:
    draws = NoiseSource(5).uniform(torch.arange(400), 0, 0, (1000,)).double().flatten().numpy()
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert stats.kstest(draws, "uniform").pvalue > 1e-3
    for lag in (1, 2, 4, 1000):
        assert abs(np.corrcoef(draws[:-lag], draws[lag:])[0, 1]) < 4 / math.sqrt(draws.size)


def test_normals_pass_kolmogorov_smirnov_and_moments() -> None:
    draws = NoiseSource(6).normal(torch.arange(500), 2, 1, (1001,)).double().flatten().numpy()
    n = draws.size
    assert np.isfinite(draws).all()
    assert stats.kstest(draws, "norm").pvalue > 1e-3
    assert abs(draws.mean()) < 4 / math.sqrt(n)
    assert abs(draws.var() - 1) < 4 * math.sqrt(2 / n)
    assert abs((draws**4).mean() - 3) < 4 * math.sqrt(96 / n)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: NoiseSource(0).uniform(torch.tensor([-1]), 0, 0, (1,)), "example ids"),
        (lambda: NoiseSource(0).uniform(torch.tensor([0]), -1, 0, (1,)), "step"),
        (lambda: NoiseSource(0).uniform(torch.tensor([0]), 0, 2**16, (1,)), "source"),
        (lambda: NoiseSource(0, stream=-1), "stream"),
    ],
)
def test_keys_out_of_range_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()
