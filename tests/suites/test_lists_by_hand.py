"""Pair lists, mixtures, signals and frozen digests on tiny inputs, by hand."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.data.lists.pairs import PairList, list_sha256, pairs_csv, read_pairs
from sepbench.data.mixtures import MixtureSet, Transform
from sepbench.data.signals import ArraySignals
from sepbench.errors import SuiteError
from sepbench.suites.freeze import render
from sepbench.suites.published import COLUMNS, find_published, published_row

# ---- lists -----------------------------------------------------------------------------------------------------------------------------


def test_a_list_on_disk(tmp_path: Path) -> None:
    path, gains = tmp_path / "x.csv", np.array([[1.0, 0.1], [0.5, 1 / 3]], np.float32)
    raw = pairs_csv(np.array([[3, 0], [2, 9]]), gains)
    path.write_bytes(raw)
    assert raw.startswith(b"example,source_0,source_1,gain_0,gain_1\n0,3,0,1.0,")
    assert raw.endswith(b"\n")
    found = read_pairs(path)
    assert found.indices.tolist() == [[3, 0], [2, 9]]
    assert found.gains is not None
    assert np.array_equal(found.gains.numpy(), gains)
    assert (len(found), found.n_sources, found.sha256) == (2, 2, hashlib.sha256(raw).hexdigest())
    assert list_sha256(path) == found.sha256
    path.write_bytes(pairs_csv(np.array([[3]])))
    assert path.read_bytes() == b"example,source_0\n0,3\n"
    assert read_pairs(path).gains is None
    with pytest.raises(ValueError):
        pairs_csv(np.array([[1], [2]]), np.ones((1, 1)))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("example,source_0\n", "has no examples"),
        ("example,source_0\n0,1\n2,1\n", "line 3: examples must be numbered"),
        ("example,source_0\n0,1\n1,-1\n", "line 3: examples must be numbered"),
        ("example,source_0,gain_0\n0,1,inf\n", "gain that is not finite"),
        ("example,source_0,source_1,gain_0\n0,1,1,1\n", "must start with .* found 'example,source_0,source_1,gain_0'"),
        ("example,source_1\n0,1\n", "must start with"),
        ("source_0,example\n0,1\n", "must start with"),
        ("example\n0\n", "must start with"),
        ("example,source_0\n0,1.5\n", "x.csv: "),
        ("example,source_0\n0\n", "x.csv: "),
    ],
)
def test_damaged_lists(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / "x.csv").write_text(content)
    with pytest.raises(SuiteError, match=told) as caught:
        read_pairs(tmp_path / "x.csv")
    assert str(tmp_path / "x.csv") in str(caught.value)
    with pytest.raises(SuiteError, match="cannot be read: No such file"):
        read_pairs(tmp_path / "none.csv")


# ---- signals and mixtures --------------------------------------------------------------------------------------------------------------


def _signals(values: Any, dtype: torch.dtype, name: str = "toy") -> ArraySignals:
    tensor = torch.tensor(values, dtype=dtype)
    return ArraySignals(name, "test", "image", tensor, torch.zeros(len(tensor), dtype=torch.int64))


@pytest.mark.parametrize(("dtype", "scale"), [(torch.uint8, 255.0), (torch.int16, 32_768.0), (torch.float32, 1.0), (torch.float64, 1.0)])
def test_stored_numbers_to_signals(dtype: torch.dtype, scale: float) -> None:
    signals = _signals([[[[1]]], [[[100]]], [[[7]]]], dtype)
    found = signals.load([2, 0])
    assert found.dtype == torch.float32
    assert found.flatten().tolist() == pytest.approx([7 / scale, 1 / scale])
    assert signals.load(torch.tensor([1, 1], dtype=torch.uint8)).shape == (2, 1, 1, 1)  # numbers of rows, not a mask
    assert (signals.shape, len(signals)) == ((1, 1, 1), 3)


def _mixed(operator: str = "sum", pad: int = 0, shared: bool = True, gains: Any = None) -> MixtureSet:
    first = _signals([[[[float(n)]]] for n in range(5)], torch.float32)
    second = first if shared else _signals([[[[10.0 * n]]] for n in range(5)], torch.float32)
    pairs = PairList(torch.tensor([[0, 3], [4, 1], [2, 2]]), "digest", None if gains is None else torch.tensor(gains))
    return MixtureSet([first, second], pairs, operator, Transform(pad))


@pytest.mark.parametrize(("shared", "values"), [(True, [[2, 2], [0, 3]]), (False, [[2, 20], [0, 30]])])
def test_sources_are_those_of_the_list(shared: bool, values: list[list[int]]) -> None:
    mixed = _mixed(shared=shared)
    assert mixed.sources([2, 0]).squeeze().tolist() == values
    assert mixed.mixtures([2, 0]).values.flatten().tolist() == [sum(row) for row in values]
    assert mixed.mixtures([2, 0]).example_ids.tolist() == [2, 0]
    assert (len(mixed), mixed.n_sources, mixed.pairs_sha256, mixed.source_shape) == (3, 2, "digest", (1, 1, 1))
    for bad in ([3], [-1], [[0]]):
        with pytest.raises(ValueError, match=r"\[0, 3\)"):
            mixed.sources(bad)


def test_operators_pads_and_gains() -> None:
    assert _mixed("mean").mixtures([1]).values.flatten().tolist() == [2.5]
    gained = _mixed("gain", gains=[[1.0, 2.0], [3.0, 0.5], [1.0, 1.0]])
    assert gained.mixtures([1, 0]).values.flatten().tolist() == [12.5, 6.0]
    padded = _mixed(pad=2)
    assert padded.source_shape == (1, 5, 5)
    assert padded.sources([1])[0, 0, 0].sum() == padded.sources([1])[0, 0, 0, 2, 2] == 4
    assert Transform(2).shape((1, 28, 30)) == (1, 32, 34)
    assert Transform().shape((1, 28, 30)) == (1, 28, 30)


def test_digests_are_of_the_mixtures_in_their_order() -> None:
    values = np.array([3.0, 5.0, 4.0], "<f4")
    assert _mixed().digest() == hashlib.sha256(values.tobytes()).hexdigest()
    assert _mixed().content(torch.tensor([2, 0])) == hashlib.sha256(values[[2, 0]].tobytes()).digest()


def test_lists_that_do_not_fit_their_signals() -> None:
    one = _signals([[[[0.0]]]] * 3, torch.float32)
    wide = _signals([[[[0.0, 1.0]]]] * 3, torch.float32)
    with pytest.raises(SuiteError, match="has 2 sources per mixture, the task 1"):
        MixtureSet([one], PairList(torch.tensor([[0, 1]]), ""), "sum")
    with pytest.raises(SuiteError, match=r"share a shape, got \(1, 1, 1\), \(1, 1, 2\)"):
        MixtureSet([one, wide], PairList(torch.tensor([[0, 1]]), ""), "sum")
    with pytest.raises(SuiteError, match="asks for signal 3 of toy test, which holds 3"):
        MixtureSet([one, one], PairList(torch.tensor([[0, 3]]), ""), "sum")
    MixtureSet([one, one], PairList(torch.tensor([[0, 2]]), ""), "sum")


# ---- digests and published numbers -----------------------------------------------------------------------------------------------------


def test_frozen_digests_as_text() -> None:
    text = render({"b": {"z": {"n": 3, "pairs_sha256": "x"}, "a": {"n": 4, "mixtures_sha256": ""}}, "a": {"t": {"n": 1}}})
    import tomllib

    assert tomllib.loads(text) == {"b": {"z": {"n": 3, "pairs_sha256": "x"}, "a": {"n": 4, "mixtures_sha256": ""}}, "a": {"t": {"n": 1}}}
    assert [line for line in text.splitlines() if line.startswith("[")] == ["[a.t]", "[b.z]", "[b.a]"]
    assert [line for line in text.splitlines() if "were not on the machine" in line] == [line for line in text.splitlines() if 'sha256 = ""' in line]


def test_published_numbers_are_found_by_one_row(tmp_path: Path) -> None:
    path = tmp_path / "published.csv"
    rows = ["P,Table 1,s,mnist,test,up,NMF,psnr,9.5,0.5,100,first", "P,Table 1,s,mnist,test,up,GLOM,psnr,10,,,", "P,Table 2,s,mnist,test,up,BAD,psnr,ten,,,"]
    path.write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    row = published_row("t", "nmf", "psnr_x", {"method": "NMF"}, "ours", path, "f.toml")
    assert (row.task, row.method, row.metric, row.value, row.std, row.n, row.source, row.title, row.notes) == (
        *("t", "nmf", "psnr_x", 9.5, 0.5, 100),
        *("P Table 1", "NMF", "first; ours"),
    )
    bare = published_row("t", "", "psnr", {"method": "GLOM"}, "", path, "f.toml")
    assert (bare.value, bare.std, bare.n, bare.notes) == (10.0, None, None, "")
    for find, told in (
        ({"table": "Table 1"}, "f.toml: {'table': 'Table 1'} matches 2 rows"),
        ({"table": "Table 9"}, "matches 0 rows"),
        ({"value": "10"}, "f.toml: 'value' is no key column of published.csv"),
    ):
        with pytest.raises(SuiteError, match=told):
            find_published(find, path, "f.toml")
    with pytest.raises(SuiteError, match="numbers cannot be read"):
        published_row("t", "", "psnr", {"method": "BAD"}, "", path, "f.toml")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SuiteError, match=r"other\.csv must have the columns source,table"):
        find_published({}, tmp_path / "other.csv", "f.toml")
