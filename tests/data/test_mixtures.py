"""Mixture sets: what is mixed, in which order, with which operator, and that nothing depends on batches."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sepbench.data.lists.pairs import PairList
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import ArraySignals
from sepbench.errors import SuiteError


def signals(n: int = 12, shape: tuple[int, ...] = (1, 4, 4), seed: int = 0, name: str = "fake") -> ArraySignals:
    values = torch.from_numpy(np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8))
    return ArraySignals(name, "test", "image", values, torch.arange(n) % 10)


def pairs(rows: list[list[int]], gains: list[list[float]] | None = None) -> PairList:
    return PairList(torch.tensor(rows), "0" * 64, None if gains is None else torch.tensor(gains))


ROWS = [[0, 1], [5, 2], [11, 11], [3, 0], [7, 8]]


def test_sources_and_mixtures_are_those_of_the_list() -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs(ROWS), "sum")
    pixels = data.signals.double() / 255
    expected = torch.stack([torch.stack([pixels[i], pixels[j]]) for i, j in ROWS])
    torch.testing.assert_close(mixed.sources(range(5)).double(), expected, rtol=0, atol=1e-7)
    batch = mixed.mixtures([4, 0])
    torch.testing.assert_close(batch.values.double(), expected[[4, 0]].sum(1), rtol=0, atol=1e-6)
    assert batch.example_ids.tolist() == [4, 0]
    assert (len(mixed), mixed.n_sources, mixed.source_shape, batch.n_sources) == (5, 2, (1, 4, 4), 2)


def test_the_mean_operator_halves_the_sum() -> None:
    data = signals()
    total = MixtureSet([data, data], pairs(ROWS), "sum").mixtures(range(5)).values
    mean = MixtureSet([data, data], pairs(ROWS), "mean").mixtures(range(5)).values
    torch.testing.assert_close(mean, total / 2, rtol=0, atol=1e-7)


def test_each_slot_may_have_its_own_signals() -> None:
    bags, shoes = signals(seed=1, name="bags"), signals(seed=2, name="shoes")
    sources = MixtureSet([bags, shoes], pairs([[3, 3], [1, 4]]), "sum").sources([0, 1])
    assert torch.equal(sources[:, 0], bags.load([3, 1]))
    assert torch.equal(sources[:, 1], shoes.load([3, 4]))


def test_gains_belong_to_their_examples() -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs([[0, 1], [2, 3], [4, 5]], [[1.0, 0.5], [2.0, 1.0], [0.25, 4.0]]), "gain")
    batch = mixed.mixtures([2, 0])
    sources = mixed.sources([2, 0])
    weights = torch.tensor([[0.25, 4.0], [1.0, 0.5]])
    torch.testing.assert_close(batch.values, (sources * weights[:, :, None, None, None]).sum(1))
    assert torch.equal(batch.operator.matrix()[:, 0].float(), weights)
    assert torch.equal(mixed.operator_for([1]).matrix()[0, 0].float(), torch.tensor([2.0, 1.0]))


def test_channel_mean_mixes_one_source() -> None:
    data = signals(shape=(3, 4, 4))
    mixed = MixtureSet([data], pairs([[2], [0]]), "channel-mean")
    assert mixed.sources([0, 1]).shape == (2, 1, 3, 4, 4)
    torch.testing.assert_close(mixed.mixtures([0, 1]).values, data.load([2, 0]).mean(1, keepdim=True))


def test_padding_surrounds_every_source_with_zeros() -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs(ROWS), "sum", Transform(pad=2))
    sources = mixed.sources(range(5))
    assert sources.shape[2:] == mixed.source_shape == (1, 8, 8)
    assert torch.equal(sources[..., 2:-2, 2:-2], MixtureSet([data, data], pairs(ROWS), "sum").sources(range(5)))
    border = sources.clone()
    border[..., 2:-2, 2:-2] = 0
    assert not border.any()


@settings(deadline=None, max_examples=40)
@given(ids=st.lists(st.integers(0, 4), min_size=1, max_size=12), operator=st.sampled_from(["sum", "mean"]), pad=st.integers(0, 1))
def test_a_mixture_depends_on_its_example_alone(ids: list[int], operator: str, pad: int) -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs(ROWS), operator, Transform(pad))
    together = mixed.mixtures(ids).values
    alone = torch.cat([mixed.mixtures([i]).values for i in ids])
    assert torch.equal(together, alone)


def test_the_digest_is_sha256_of_all_float32_mixtures_in_order() -> None:
    data = signals(n=40)
    rows = [[i % 40, (7 * i + 3) % 40] for i in range(1100)]  # more than two chunks
    mixed = MixtureSet([data, data], pairs(rows), "sum")
    assert mixed.digest() == hashlib.sha256(mixed.mixtures(range(1100)).values.numpy().astype("<f4").tobytes()).hexdigest()
    rows[700].reverse()
    rows[1099][0] = (rows[1099][0] + 1) % 40
    assert MixtureSet([data, data], pairs(rows), "sum").digest() != mixed.digest()


def test_nothing_of_the_size_of_all_mixtures_is_kept() -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs([[i % 12, (i + 1) % 12] for i in range(60_000)]), "sum")
    mixed.digest()
    kept = [value for value in vars(mixed).values() if isinstance(value, torch.Tensor)]
    assert kept == []
    assert mixed.pairs.indices.numel() == 120_000
    assert mixed.pairs_sha256 == "0" * 64


@pytest.mark.parametrize("ids", [[-1], [5], [[0, 1]]])
def test_ids_outside_the_list_are_refused(ids: list[int]) -> None:
    data = signals()
    mixed = MixtureSet([data, data], pairs(ROWS), "sum")
    for call in (mixed.sources, mixed.mixtures, mixed.operator_for):
        with pytest.raises(ValueError, match="example ids"):
            call(ids)


def test_lists_that_do_not_fit_are_refused() -> None:
    data = signals()
    with pytest.raises(SuiteError, match="2 sources per mixture, the task 1"):
        MixtureSet([data], pairs(ROWS), "sum")
    with pytest.raises(SuiteError, match=r"signal 11 of small test, which holds 6"):
        MixtureSet([signals(n=6, name="small"), data], pairs(ROWS), "sum")
    with pytest.raises(SuiteError, match="share a shape"):
        MixtureSet([data, signals(shape=(1, 5, 5))], pairs(ROWS), "sum")
    with pytest.raises(SuiteError, match="one finite gain per example"):
        MixtureSet([data, data], pairs(ROWS), "gain")
    with pytest.raises(SuiteError, match="unknown mixing operator"):
        MixtureSet([data, data], pairs(ROWS), "product")
