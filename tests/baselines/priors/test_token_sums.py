"""Counts of token sums: exact whatever the batches, symmetric, mergeable, kept with a digest; likelihoods, tokens never seen, smoothing, damage."""

from __future__ import annotations

import hashlib
import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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


def test_the_digest_is_of_format_codes_codec_keys_and_counts() -> None:
    counts = SumCounts(K, torch.tensor([3, 9]), torch.tensor([1, 70_000]), "abc")
    told = b"token-sums-1 5 abc\n" + struct.pack("<4q", 3, 9, 1, 70_000)
    assert counts.digest == hashlib.sha256(told).hexdigest()


@pytest.mark.parametrize(("largest", "kind"), [(2**31 - 1, torch.int32), (2**31, torch.int64)])
def test_numbers_are_written_in_32_bits_where_they_fit(largest: int, kind: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "sums.safetensors"
    SumCounts(K, torch.tensor([1, 7]), torch.tensor([5, largest]), "abc").save(path)
    assert (load_file(path)["keys"].dtype, load_file(path)["counts"].dtype) == (torch.int32, kind)
    assert load_counts(path).counts.tolist() == [5, largest]
    SumCounts(K, torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)).save(path)
    assert load_file(path)["keys"].dtype == torch.int32


@pytest.mark.parametrize("symmetric", [True, False])
def test_a_file_says_what_is_in_it(symmetric: bool, tmp_path: Path) -> None:
    counts = counted([[(0, 1, 2), (3, 3, 4)]], symmetric=symmetric)
    counts = SumCounts(K, counts.keys, counts.counts, "abc")
    counts.save(tmp_path / "sums.safetensors")
    with safe_open(tmp_path / "sums.safetensors", framework="pt") as file:
        assert file.metadata() == {"format": "token-sums-1", "codes": "5", "codec": "abc", "sha256": counts.digest, "orders": "1" if symmetric else "2"}


def test_counts_that_are_symmetric_in_keys_alone_are_written_whole(tmp_path: Path) -> None:
    counts = counted([[(0, 1, 2), (0, 1, 2), (1, 0, 2)]])
    counts.save(tmp_path / "sums.safetensors")
    assert as_dict(load_counts(tmp_path / "sums.safetensors")) == {(0, 1, 2): 2, (1, 0, 2): 1}


def test_words_for_files_that_are_wrong(tmp_path: Path) -> None:
    path = tmp_path / "sums.safetensors"

    def says(**wanted: Any) -> str:
        with pytest.raises(DataError) as refused:
            load_counts(path, **wanted)
        return str(refused.value)

    assert says() == f"{path} is missing; count the sums of tokens first"
    made = counted([[(0, 1, 2)]])
    made.save(path)
    assert says(codec="0123456789abcdef") == f"{path} counts tokens of another codec (unnamed, not 0123456789ab); count again with this codec"
    SumCounts(K, made.keys, made.counts, "fedcba9876543210").save(path)
    assert says(codec="") == f"{path} counts tokens of another codec (fedcba987654, not ); count again with this codec"
    assert says(codes=4) == f"{path} counts tokens of 5 codes, the codec has 4; count again with this codec"
    assert load_counts(path).codec == "fedcba9876543210"
    facts = {"format": "token-sums-1", "codes": "5", "sha256": "0"}
    save_file({"keys": made.keys, "counts": made.counts}, path, metadata=facts)
    assert says() == f"{path} is damaged: its counts do not have the digest that they were written with; delete it and count again"
    save_file({"keys": made.keys}, path, metadata=facts)
    assert says() == f"{path} holds no counts of token sums as this version of sepbench writes them; count again"
    save_file({"keys": made.keys, "counts": made.counts}, path, metadata={"format": "token-sums-1", "codes": "many"})
    assert says() == f"{path} cannot be read as counts of token sums (ValueError); delete it and count again"
    save_file({"keys": made.keys, "counts": made.counts}, path, metadata={"format": "token-sums-1"})
    assert says() == f"{path} cannot be read as counts of token sums (KeyError); delete it and count again"


def test_merged_counts_are_of_the_same_codec_and_a_counter_goes_on() -> None:
    one = SumCounts(K, torch.tensor([3]), torch.tensor([2]), "abc")
    assert merged([one, one]).digest == SumCounts(K, torch.tensor([3]), torch.tensor([4]), "abc").digest
    assert SumCounts(K, torch.tensor([1, 5]), torch.tensor([2, 1]), "abc").symmetric().codec == "abc"
    counter = SumCounter(K)
    counter.add(*torch.tensor([[0], [1], [2]]))
    counter.restore(SumCounts(K, torch.tensor([3]), torch.tensor([2])))
    counter.add(*torch.tensor([[0], [3], [0]]))
    assert as_dict(counter.counts(symmetric=False)) == {(0, 3, 0): 3}


def test_words_for_tokens_that_cannot_be_counted() -> None:
    zeros = torch.zeros(2, 3, dtype=torch.int64)
    with pytest.raises(ValueError, match="one shape") as refused:
        SumCounter(K).add(zeros, zeros[0], zeros)
    assert str(refused.value) == "tokens of one shape are counted together, got (2, 3), (3,) and (2, 3)"
    with pytest.raises(ValueError, match=r"^tokens must lie in \[0, 5\)$"):
        SumCounter(K).add(zeros, zeros, zeros + K)
    counter = SumCounter(K)
    counter.add(zeros[:0], zeros[:0], zeros[:0])
    counter.add(zeros, zeros + K - 1, zeros)
    assert as_dict(counter.counts(symmetric=False)) == {(0, 4, 0): 6}


def test_as_many_codes_as_smoothing_takes() -> None:
    one = torch.tensor([0])
    like = SumLikelihood(SumCounts(1024, one, one + 1), torch.zeros(1024, 1), 0.5)
    assert like.smoothing == 0.5
    assert SumLikelihood(SumCounts(1025, one, one + 1), torch.zeros(1025, 1)).pairs(0).logs.tolist() == [0.0]
    with pytest.raises(SepbenchError) as refused:
        SumLikelihood(SumCounts(1025, one, one + 1), torch.zeros(1025, 1), 1e-9)
    assert str(refused.value) == "smoothing keeps all 1025^2 pairs of every token, which is for at most 1024 codes; set smoothing to 0"


def test_pairs_are_looked_up_once_and_are_float32_in_order() -> None:
    like = likelihood([(4, 1, 2), (0, 3, 2), (0, 1, 2)])
    found = like.pairs(2)
    assert like.pairs(2) is found
    assert [(int(a), int(b)) for a, b in zip(found.first, found.second, strict=True)] == [(0, 1), (0, 3), (4, 1)]
    assert (found.first.dtype, found.logs.dtype) == (torch.int64, torch.float32)
    assert like.seen.tolist() == [False, False, True, False, False]
