"""Counter-based noise: published vectors, statistics, and independence of batch, order and shard."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sepbench.noise import Counters, NoiseSource, _kernel, _key, _normals, _uniforms, noise_levels, philox4x32, verified_kernel

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


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine; scripts/gpu_session.sh runs this where there is one")
def test_uniforms_equal_on_cpu_and_gpu() -> None:
    ids = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    noise = NoiseSource(2**63 + 11)
    assert torch.equal(noise.uniform(ids, 9, 2, (3, 32, 32)), noise.uniform(ids, 9, 2, (3, 32, 32), "cuda").cpu())
    torch.testing.assert_close(noise.normal(ids, 9, 2, (784,)), noise.normal(ids, 9, 2, (784,), "cuda").cpu(), atol=2e-6, rtol=2e-6)


@settings(max_examples=40, deadline=None)
@given(
    ids=st.lists(st.integers(0, 2**32 - 1), max_size=40),
    seed=st.integers(0, 2**64 - 1),
    step=word,
    sources=st.integers(1, 5),
    shape=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    streamed=st.booleans(),
)
@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_all_sources_in_one_call_have_the_bits_of_each(kind: str, ids: list[int], seed: int, step: int, sources: int, shape: list[int], streamed: bool) -> None:
    noise, numbers = NoiseSource(seed, 9), torch.tensor(ids, dtype=torch.int64)
    streams = torch.arange(len(ids)) % 7 if streamed else None
    single = torch.stack([getattr(noise, kind)(numbers, step, k, shape, streams=streams) for k in range(sources)], dim=1)
    together = getattr(noise, f"{kind}s")(numbers, step, sources, shape, streams=streams)
    assert together.shape == (len(ids), sources, *shape)
    assert torch.equal(together, single)


def _fake_kernel(monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    def fill(ids: torch.Tensor, last: torch.Tensor, step: int, key: tuple[int, int], count: int, normal: bool) -> torch.Tensor:
        noise = NoiseSource(key[0] | key[1] << 32)
        draw = noise.normal if normal else noise.uniform
        return draw(ids, step, 0, (count,), streams=last >> 16) + wrong * (torch.arange(count) == count - 1)

    monkeypatch.setitem(sys.modules, "sepbench.noise_kernel", SimpleNamespace(fill=fill))


def test_a_kernel_is_used_if_its_numbers_are_ours_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU stands in for the GPU, our own arithmetic for the kernel; its last words 5 and 2**32 - 1 are no multiples of 2**16."""
    monkeypatch.setattr("sepbench.noise._check_rows", lambda device: (torch.tensor([3, 77], device=device), torch.tensor([1 << 16, 5 << 16], device=device)))
    _fake_kernel(monkeypatch, wrong=0.0)
    assert verified_kernel(torch.device("cpu")) is sys.modules["sepbench.noise_kernel"].fill
    _fake_kernel(monkeypatch, wrong=2.0**-20)
    with pytest.warns(RuntimeWarning, match="goes without its kernel.*not ours"):
        assert verified_kernel(torch.device("cpu")) is None
    monkeypatch.setitem(sys.modules, "sepbench.noise_kernel", None)
    with pytest.warns(RuntimeWarning, match="goes without its kernel.*ModuleNotFoundError"):
        assert verified_kernel(torch.device("cpu")) is None


def test_the_kernel_has_our_bits() -> None:
    """In Triton's interpreter, in a process of its own: that it is to interpret is decided when Triton is imported."""
    pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for CUDA")
    code = """
import torch
from sepbench.noise import NoiseSource, _key, verified_kernel
fill = verified_kernel(torch.device("cpu"))
assert fill is not None
ids = torch.tensor([0, 5, 2**32 - 1, 77])
for seed, step, count in ((0, 0, 1), (7, 1, 3), (2**32 + 5, 16, 784), (2**63 + 11, 2**32 - 1, 1030)):
    last = torch.full_like(ids, 3) * 2**16 + 2
    assert torch.equal(fill(ids, last, step, _key(seed), count, False), NoiseSource(seed, 3).uniform(ids, step, 2, (count,)))
    assert (fill(ids, last, step, _key(seed), count, True) - NoiseSource(seed, 3).normal(ids, step, 2, (count,))).abs().max() < 2e-6
"""
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("normal", [True, False])
def test_the_kernel_compiles_for_a_gpu_that_is_not_there(normal: bool) -> None:
    """Down to machine code of sm_90; the logarithm, sine and cosine are the accurate ones."""
    triton = pytest.importorskip("triton", reason="Triton is not installed; it comes with torch for CUDA")
    from triton.backends.compiler import GPUTarget

    from sepbench.noise_kernel import _fill

    words = dict.fromkeys(("step", "key_low", "key_high"), "i64")
    signature = {"out": "*fp32", "ids": "*i64", "last_words": "*i64", **words, "count": "i32", "NORMAL": "constexpr", "BLOCK": "constexpr"}
    source = triton.compiler.ASTSource(fn=_fill, signature=signature, constexprs={"NORMAL": normal, "BLOCK": 256})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert "cubin" in compiled.asm
    assert ("__nv_cosf" in compiled.asm["ptx"]) is normal
    assert ".approx" not in compiled.asm["ptx"]


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
        (lambda: NoiseSource(0, stream=-1), r"stream must lie in \[0, 65536\), got -1"),
        (lambda: NoiseSource(0, stream=2**16), "stream"),
        (lambda: NoiseSource(0).uniform(torch.tensor([2**32]), 0, 0, (1,)), "example ids"),
        (
            lambda: NoiseSource(0).normal(torch.tensor([1, 1]), 0, 0, (1,), streams=torch.tensor([7, 2**16])),
            r"^streams must lie in \[0, 65536\), got 7 to 65536; draw less often from one example$",
        ),
        (lambda: NoiseSource(0).counters(torch.tensor([1]), range(2), streams=torch.tensor([-1])), "streams must lie in .*, got -1 to -1"),
        (lambda: NoiseSource(0).normal(torch.tensor([0]), 2**32, 0, (1,)), "step must lie in .*, got 4294967296"),
        (lambda: NoiseSource(0).words(torch.tensor([0]), 2**32, 0, 1), "step must lie in .*, got 4294967296"),
        (lambda: NoiseSource(0).words(torch.tensor([0]), -1, 0, 1), "step must lie in .*, got -1"),
        (lambda: NoiseSource(0).uniform(torch.tensor([0]), 0, -1, (1,)), "source must lie in .*, got -1 to -1"),
        (lambda: NoiseSource(0).uniforms(torch.tensor([0]), 0, 2**16 + 1, (1,)), "source must lie in .*, got 0 to 65536"),
    ],
)
def test_keys_out_of_range_are_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_the_smallest_word_is_the_largest_normal() -> None:
    """Found by search: the first radius of seed 0 whose 24 bits are all zero. Without the offset of Box and Muller's logarithm it would be infinite."""
    at = 940_458
    normals = NoiseSource(0).normal(torch.tensor([45]), 0, 0, (at + 2,))[0]
    assert bool(normals.isfinite().all())
    assert float(normals[at:].norm()) == pytest.approx(math.sqrt(48 * math.log(2)), abs=1e-5)


def test_sources_and_streams_share_no_numbers() -> None:
    """A source of one stream is none of another, however they add up."""
    ids, seen = torch.tensor([3]), set()
    for stream in range(4):
        for source in range(4):
            seen.add(float(NoiseSource(0, stream).uniform(ids, 0, source, (1,))))
            assert float(NoiseSource(0).uniform(ids, 0, source, (1,), streams=torch.tensor([stream]))) in seen
    assert len(seen) == 16
    assert len(set(NoiseSource(0, 2).uniforms(ids, 0, 4, (1,)).flatten().tolist()) & seen) == 4


def test_all_64_bits_of_a_seed_count() -> None:
    ids = torch.tensor([0])
    found = {float(NoiseSource(1 << bit).uniform(ids, 0, 0, (1,))) for bit in range(64)}
    assert len(found | {float(NoiseSource(0).uniform(ids, 0, 0, (1,)))}) == 65


def test_the_last_number_of_every_range_is_taken() -> None:
    last = NoiseSource(0, 2**16 - 1).uniform(torch.tensor([2**32 - 1]), 2**32 - 1, 2**16 - 1, (1,))
    assert last.shape == (1, 1)
    by_row = NoiseSource(0).uniform(torch.tensor([2**32 - 1]), 2**32 - 1, 2**16 - 1, (1,), streams=torch.tensor([2**16 - 1]))
    assert torch.equal(by_row, last)
    assert NoiseSource(0).normal(torch.tensor([], dtype=torch.int64), 0, 0, (1,), streams=torch.tensor([], dtype=torch.int64)).shape == (0, 1)


@pytest.mark.parametrize("normal", [True, False])
def test_a_kernel_gets_the_rows_and_its_numbers_take_the_shape_asked_for(monkeypatch: pytest.MonkeyPatch, normal: bool) -> None:
    asked: list[tuple[object, ...]] = []

    def fill(ids: torch.Tensor, last: torch.Tensor, step: int, key: tuple[int, int], count: int, as_normal: bool) -> torch.Tensor:
        asked.append((ids.tolist(), last.tolist(), step, key, count, as_normal))
        return torch.arange(float(len(ids) * count)).reshape(len(ids), count)

    monkeypatch.setattr("sepbench.noise._kernel", lambda device: fill)
    noise = NoiseSource(2**32 + 5, stream=3)
    draw = noise.normals if normal else noise.uniforms
    found = draw(torch.tensor([4, 9]), 7, 2, (2, 3))
    assert asked == [([4, 4, 9, 9], [3 * 2**16, 3 * 2**16 + 1] * 2, 7, (5, 1), 6, normal)]
    assert torch.equal(found, torch.arange(24.0).reshape(2, 2, 2, 3))


def test_where_a_kernel_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sepbench.noise.verified_kernel", lambda device: f"kernel of {device}")
    try:
        for said, found in (("", "kernel of cuda:1"), ("fast", "kernel of cuda:1"), ("eager", None)):
            monkeypatch.setenv("SEPBENCH_NOISE", said)
            _kernel.cache_clear()
            assert _kernel(torch.device("cuda:1")) == found
            assert _kernel(torch.device("cpu")) is None
    finally:
        _kernel.cache_clear()


def test_many_rows_are_drawn_part_by_part_with_the_same_bits() -> None:
    noise, ids = NoiseSource(3), torch.arange(70)
    whole = noise.draw(Counters(ids, torch.zeros_like(ids)), 0, (4_000,))
    assert torch.equal(whole[[0, 31, 32, 33, 69]], noise.normal(ids[[0, 31, 32, 33, 69]], 0, 0, (4_000,)))
    assert _key(2**64 + 2**32 + 7) == (7, 1)


def test_noise_levels_keep_their_numbers() -> None:
    cpu = torch.device("cpu")
    assert noise_levels(0.25, torch.float64, cpu).tolist() == 0.25
    levels = noise_levels(torch.tensor([0.5, 2.0]), torch.float64, cpu)
    assert (levels.tolist(), levels.dtype, noise_levels(1, torch.float32, cpu).dtype) == ([0.5, 2.0], torch.float64, torch.float32)


@pytest.mark.parametrize(("off", "used"), [(1.5e-6, True), (1e-5, False)])
def test_normals_of_a_kernel_may_differ_in_their_last_digits_and_uniforms_in_none(monkeypatch: pytest.MonkeyPatch, off: float, used: bool) -> None:
    """The last number of the last row is the one that is wrong."""
    asked: list[tuple[object, ...]] = []

    def fill(ids: torch.Tensor, last: torch.Tensor, step: int, key: tuple[int, int], count: int, normal: bool) -> torch.Tensor:
        asked.append((ids.tolist(), last.tolist(), step, key, count, normal))
        words = NoiseSource(key[0] | key[1] << 32)._words(ids, last, step, count)
        found = (_normals(words) if normal else _uniforms(words))[:, :count].clone()
        found[-1, -1] += off * normal
        return found

    monkeypatch.setitem(sys.modules, "sepbench.noise_kernel", SimpleNamespace(fill=fill))
    if used:
        assert verified_kernel(torch.device("cpu")) is fill
    else:
        with pytest.warns(RuntimeWarning) as told:
            assert verified_kernel(torch.device("cpu")) is None
        assert str(told[0].message) == "noise on cpu goes without its kernel, which is slower and changes nothing else (its numbers are not ours)"
    extremes = ([0, 1, 77, 2**32 - 1], [0, 5, 2**32 - 1, 1 << 17], 2**31 + 3, (11, 2**31), 1030)
    assert asked == [(*extremes, False), (*extremes, True)]


def test_a_kernel_that_fails_at_length_is_told_in_two_hundred_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*given: object) -> torch.Tensor:
        raise OSError("x" * 300)

    monkeypatch.setitem(sys.modules, "sepbench.noise_kernel", SimpleNamespace(fill=fill))
    with pytest.warns(RuntimeWarning) as told:
        assert verified_kernel(torch.device("cpu")) is None
    assert str(told[0].message).endswith(f"(OSError: {'x' * 191})")


def test_of_no_example_nothing_is_drawn_and_a_number_needs_no_axis() -> None:
    noise, ids = NoiseSource(1), torch.arange(3)
    assert noise.words(ids, 0, 0, 0).shape == (3, 0)
    assert noise.words(ids, 0, 0, 5).shape == (3, 8)
    assert noise.normals(ids[:0], 0, 2, (4,)).shape == (0, 2, 4)
    assert noise.uniform(ids, 0, 0, ()).shape == (3,)
    assert noise.normal(ids, 0, 0, (0, 5)).shape == (3, 0, 5)


def test_one_row_may_hold_more_than_is_worked_on_at_a_time() -> None:
    noise, ids, count = NoiseSource(2), torch.tensor([4, 9]), 4 * ((1 << 15) + 1)
    whole = noise.uniform(ids, 3, 1, (count,))
    assert whole.shape == (2, count)
    assert torch.equal(whole[1:], noise.uniform(ids[1:], 3, 1, (count,)))
    last = philox4x32([torch.tensor([1 << 15]), torch.tensor([3]), torch.tensor([4]), torch.tensor([1])], (2, 0))
    assert torch.equal(whole[0, -4:], _uniforms(torch.cat(last)))
