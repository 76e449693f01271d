"""Counts of token sums: exact whatever the batches, symmetric, mergeable, kept with a digest; likelihoods, tokens never seen, smoothing, damage."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from baselines.priors import token_sums
from baselines.priors.token_sums import SumCounter, SumCounts, SumLikelihood, load_counts, merged
from sepbench.errors import DataError, SepbenchError

K = 5
TRIPLES = st.lists(st.tuples(*[st.integers(0, K - 1)] * 3), min_size=1, max_size=60)
Triples = list[tuple[int, int, int]]
"""Of (z1, z2, m)."""


def counted(batches: list[Triples], *, symmetric: bool = False, every_triple: bool = True) -> SumCounts:
    counter = SumCounter(K, every_triple=every_triple)
    for batch in batches:
        counter.add(*torch.tensor(batch, dtype=torch.int64).reshape(-1, 3).unbind(1))
    return counter.counts(symmetric=symmetric)


def as_dict(counts: SumCounts) -> dict[tuple[int, int, int], int]:
    keys = counts.keys.tolist()
    return {(key // K % K, key % K, key // K**2): count for key, count in zip(keys, counts.counts.tolist(), strict=True)}


@settings(deadline=None)
@given(TRIPLES, st.integers(1, 20))
def test_counts_are_exact_whatever_the_batches(triples: Triples, size: int) -> None:
    batches = [triples[start : start + size] for start in range(0, len(triples), size)]
    assert as_dict(counted(batches)) == Counter(triples)


def test_counts_are_added_up_in_between(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_sums, "_PENDING", 2)
    assert as_dict(counted([[(0, 1, 2), (0, 1, 2)], [(0, 1, 2), (3, 3, 3)]])) == {(0, 1, 2): 3, (3, 3, 3): 1}


@settings(deadline=None)
@given(TRIPLES)
def test_symmetric_counts(triples: Triples) -> None:
    both = as_dict(counted([triples], symmetric=True))
    assert both == Counter(triples) + Counter((z2, z1, m) for z1, z2, m in triples)


@settings(deadline=None)
@given(TRIPLES, TRIPLES)
def test_workers_count_what_one_counts(one: Triples, other: Triples) -> None:
    together, parts = counted([one + other]), merged([counted([one]), counted([other])])
    assert as_dict(parts) == as_dict(together)
    assert parts.digest == together.digest
    assert merged([counted([one], symmetric=True), counted([other], symmetric=True)]).digest == counted([one + other], symmetric=True).digest


def test_the_released_codes_counts() -> None:
    """Flag 43: equal triples of one batch count once; those of another batch count again."""
    batches = [[(0, 1, 2)] * 3 + [(1, 0, 2)], [(0, 1, 2)]]
    assert as_dict(counted(batches, every_triple=False)) == {(0, 1, 2): 2, (1, 0, 2): 1}


def test_shapes_and_codes_are_checked() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="one shape"):
        SumCounter(K).add(zeros, zeros, zeros[0])
    for wrong in (-1, K):
        with pytest.raises(ValueError, match="lie in"):
            SumCounter(K).add(zeros, zeros + wrong, zeros)


def test_counts_come_back_from_a_file(tmp_path: Path) -> None:
    counts = SumCounts(K, *(lambda c: (c.keys, c.counts))(counted([[(0, 1, 2), (3, 4, 0)]])), codec="abc")
    counts.save(tmp_path / "sums.safetensors")
    back = load_counts(tmp_path / "sums.safetensors", K, "abc")
    assert as_dict(back) == as_dict(counts)
    assert back.digest == counts.digest
    assert back.density == 2 / K**3


def test_files_that_are_wrong_are_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "sums.safetensors"
    with pytest.raises(DataError, match=r"is missing; count"):
        load_counts(path)
    counted([[(0, 1, 2)] * 300, [(3, 4, 0)]]).save(path)
    whole = path.read_bytes()
    for other, match in (({"codes": 6}, "of 5 codes, the codec has 6"), ({"codec": "abc"}, "another codec")):
        with pytest.raises(DataError, match=match):
            load_counts(path, **other)
    for damaged in (whole[:-4], b"", b"rubbish" * 20, whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="count again") as told:
            load_counts(path)
        assert "\n" not in str(told.value)


def test_counts_of_different_codecs_are_not_merged() -> None:
    one = counted([[(0, 1, 2)]])
    for other in (SumCounts(K, one.keys, one.counts, "abc"), SumCounts(K + 1, one.keys, one.counts)):
        with pytest.raises(SepbenchError, match="one codec"):
            merged([one, other])
    with pytest.raises(SepbenchError, match="one codec"):
        merged([])


def likelihood(triples: Triples, smoothing: float = 0.0, codebook: torch.Tensor | None = None) -> SumLikelihood:
    return SumLikelihood(counted([triples]), torch.arange(float(K))[:, None] if codebook is None else codebook, smoothing)


def test_likelihoods_are_shares_of_a_pair() -> None:
    found = likelihood([(0, 1, 2)] * 3 + [(0, 1, 4)] + [(2, 2, 4)]).pairs(4)
    assert found.first.tolist() == [0, 2]
    assert found.second.tolist() == [1, 2]
    assert found.logs.tolist() == pytest.approx([math.log(1 / 4), 0.0])


@settings(deadline=None)
@given(TRIPLES, st.sampled_from([0.0, 0.5]))
def test_likelihoods_of_a_pair_sum_to_one(triples: Triples, smoothing: float) -> None:
    triples = triples + [(0, 0, token) for token in range(K)]  # so that no token is looked up as another
    like, table = likelihood(triples, smoothing), torch.zeros(K, K)
    for token in range(K):
        pairs = like.pairs(token)
        table.index_put_((pairs.first, pairs.second), pairs.logs.exp(), accumulate=True)
    wanted = torch.full((K, K), float(smoothing > 0))
    for z1, z2, _ in triples:
        wanted[z1, z2] = 1.0
    torch.testing.assert_close(table, wanted)


def test_smoothing_leaves_no_pair_out() -> None:
    like = likelihood([(0, 1, 2)] * 3 + [(0, 1, 4)], 0.5)
    pairs = like.pairs(4)
    assert len(pairs.logs) == K**2
    values = pairs.logs.exp().reshape(K, K)
    assert float(values[0, 1]) == pytest.approx(1.5 / (4 + 0.5 * K))
    assert float(values[3, 3]) == pytest.approx(1 / K)


def test_a_token_never_seen_is_its_nearest_seen_one_and_counted() -> None:
    """Codes at 0, 1, 2, 3, 4 of which 0 and 3 were seen: 1 is nearer to 0, 2 and 4 to 3."""
    like = likelihood([(0, 1, 0), (1, 1, 3)])
    assert [like.pairs(token).second.tolist() for token in range(K)] == [[1]] * 5
    assert [like.pairs(token).first.tolist() for token in range(K)] == [[0], [0], [1], [1], [1]]
    assert like.unseen(torch.tensor([[0, 1], [3, 4]])) == 2


def test_nothing_counted_and_smoothing_too_large() -> None:
    with pytest.raises(SepbenchError, match="count pairs"):
        SumLikelihood(SumCounter(K).counts(), torch.zeros(K, 1))
    one = torch.tensor([0])
    with pytest.raises(SepbenchError, match="set smoothing to 0"):
        SumLikelihood(SumCounts(2048, one, one + 1), torch.zeros(2048, 1), 0.1)


@pytest.mark.parametrize("symmetric", [True, False])
def test_files_hold_one_order_of_symmetric_counts_and_all_of_others(tmp_path: Path, symmetric: bool) -> None:
    random = torch.Generator().manual_seed(3)
    counter = SumCounter(16)
    counter.add(*torch.randint(0, 16, (3, 4000), generator=random))
    counts = counter.counts(symmetric=symmetric)
    counts.save(tmp_path / "sums.safetensors")
    read = load_counts(tmp_path / "sums.safetensors")
    assert torch.equal(read.keys, counts.keys)
    assert torch.equal(read.counts, counts.counts)
    assert read.digest == counts.digest
    written = load_file(tmp_path / "sums.safetensors")["keys"]
    pairs = counts.keys % 256
    assert len(written) == (int((pairs // 16 <= pairs % 16).sum()) if symmetric else len(counts.keys))
    assert written.dtype == torch.int32
