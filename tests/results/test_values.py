"""One value per example: the mean over its sources, whatever the order and the files of its rows; read for the cells that are asked for."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.results.compare import compare_sides, open_side
from sepbench.results.score_files import Rows, StoreError, read_parts, read_rows, read_values
from sepbench.results.store import RunStore
from sepbench.results.values import NO_VALUES, CellValues, Values, reduce_cell
from sepbench.run.plan import Shard

METRICS = ("psnr", "ssim")
Row = tuple[int, int, str, float, bool]


def cell(*parts: Sequence[Row]) -> CellValues:
    """The values of rows (example, source, metric, value, failed) that lie in so many files."""

    def made() -> list[Rows]:
        return [
            Rows(
                example=np.array([row[0] for row in part], np.int64),
                source=np.array([row[1] for row in part], np.int64),
                metric=np.array([METRICS.index(row[2]) for row in part], np.int32),
                value=np.array([row[3] for row in part]),
                failed=np.array([row[4] for row in part], np.bool_),
                metrics=METRICS,
            )
            for part in parts
            if part
        ]

    return reduce_cell(made, "task, method")


def expected(rows: Sequence[Row]) -> dict[str, dict[int, float]]:
    """The rule in plain words: a mean over all sources, or nothing if one of them is bad or missing."""
    grouped: dict[str, dict[int, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        grouped[row[2]][row[0]].append(row)
    found: dict[str, dict[int, float]] = {}
    for metric, examples in grouped.items():
        most = max(map(len, examples.values()))
        found[metric] = {
            example: math.nan if len(of) < most or any(row[4] or not math.isfinite(row[3]) for row in of) else sum(row[3] for row in of) / most
            for example, of in sorted(examples.items())
        }
    return found


numbers = st.one_of(st.floats(-100, 100), st.sampled_from([math.nan, math.inf, -math.inf]))
keys = st.tuples(st.integers(0, 6), st.integers(-1, 2), st.sampled_from(METRICS))
scores = st.dictionaries(keys, st.tuples(numbers, st.booleans()), min_size=1, max_size=30)


@given(scores, st.randoms(use_true_random=False), st.integers(1, 4))
@settings(max_examples=300, deadline=None)
def test_the_mean_over_sources_whatever_the_order_and_the_files(chosen: dict[tuple[int, int, str], tuple[float, bool]], random, n_files: int) -> None:
    rows: list[Row] = [(*key, *value) for key, value in chosen.items()]
    random.shuffle(rows)
    found = cell(*(rows[number::n_files] for number in range(n_files)))
    wanted = expected(rows)
    assert set(found) == set(wanted)
    for metric, values in found.items():
        assert values.examples.tolist() == list(wanted[metric])
        np.testing.assert_allclose(values.values, list(wanted[metric].values()), rtol=0, atol=1e-12)


def test_files_may_come_in_any_order() -> None:
    first, second = [(0, -1, "psnr", 1.0, False), (1, -1, "psnr", 2.0, False)], [(2, -1, "psnr", 3.0, False)]
    for parts in ((first, second), (second, first)):
        assert cell(*parts)["psnr"].examples.tolist() == [0, 1, 2]
        assert cell(*parts)["psnr"].values.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("apart", [False, True], ids=["in one file", "in two files"])
def test_a_source_that_is_scored_twice_is_an_error(apart: bool) -> None:
    rows: list[Row] = [(0, 0, "psnr", 1.0, False), (0, 1, "psnr", 2.0, False), (4, 0, "psnr", 1.0, False), (4, 1, "psnr", 1.0, False)]
    again: Row = (4, 0, "psnr", 7.0, False)
    with pytest.raises(SepbenchError, match="scores of task, method contain psnr of example 4 twice"):
        cell(rows, [again]) if apart else cell([*rows, again])


def test_failing_twice_is_no_contradiction() -> None:
    found = cell([(0, -1, "psnr", 5.0, False), (3, -1, "psnr", math.nan, True), (3, -1, "psnr", math.nan, True)])["psnr"]
    assert found.examples.tolist() == [0, 3]
    assert not found.scored[1]


def test_a_run_on_disk_gives_what_it_was_written_from(tmp_path: Path) -> None:
    run = SyntheticRun(n=7).fail("nmf", 2)
    stored, made = Values.of_run(RunStore.open(Path(run.save(tmp_path / "run")))), run.values()
    for method in ("average", "nmf"):
        for metric in ("psnr", "ssim", "mixture_error"):
            a, b = stored.of("class-split", method, metric), made.of("class-split", method, metric)
            np.testing.assert_array_equal(a.examples, b.examples)
            np.testing.assert_array_equal(a.values, b.values)
    assert stored.of("class-split", "nobody", "psnr") is NO_VALUES
    assert stored.of("class-split", "nmf", "nothing") is NO_VALUES


def test_only_the_cells_that_are_asked_for_are_read(tmp_path: Path) -> None:
    name = SyntheticRun({"nmf": 16.0, "ica": 14.0, "rpca": 13.0}, n=9).save(tmp_path / "run")
    (damaged,) = RunStore.open(tmp_path / "run").score_files("class-split", "rpca")
    damaged.write_bytes(b"PAR1")
    (row,) = compare_sides(open_side(f"{name}:nmf"), open_side(f"{name}:ica")).to_dict("records")
    assert row["n"] == 9
    with pytest.raises(StoreError, match=rf"scores cannot be read \({re.escape(str(damaged))}: .*; run the run's own command again"):
        compare_sides(open_side(f"{name}:nmf"), open_side(f"{name}:rpca"))


def test_many_files_in_the_order_of_their_examples(tmp_path: Path) -> None:
    run = SyntheticRun(n=12)
    store = RunStore.open(Path(run.save(tmp_path / "run")))
    (whole,) = store.score_files("class-split", "nmf")
    whole.unlink()
    rows = run.scores[run.where("nmf")]
    for start in (10, 5, 0):
        shard = Shard("class-split", "nmf", start, min(start + 5, 12))
        store.write_scores(shard, run.as_shard(rows[rows["example"].between(shard.start, shard.stop - 1)]))
    assert len(store.score_files("class-split", "nmf")) == 3
    split = Values.of_run(store).of("class-split", "nmf", "psnr")
    np.testing.assert_array_equal(split.values, run.values().of("class-split", "nmf", "psnr").values)


def test_values_of_single_sources(tmp_path: Path) -> None:
    run = SyntheticRun(n=6).fail("nmf", 2)
    files = RunStore.open(Path(run.save(tmp_path / "run"))).score_files("class-split", "nmf")
    rows = run.scores[run.where("nmf", "psnr") & run.scores["example"].isin([1, 4])]
    wanted = dict(zip(zip(rows["example"], rows["source"], strict=True), rows["value"], strict=True))
    assert len(wanted) == 4
    assert read_values(files, "psnr", [4, 1, 2]) == wanted
    assert not read_values(files, "mixture_error", [1])
    assert not read_values([], "psnr", [1])
    files[0].write_bytes(b"PAR1")
    with pytest.raises(StoreError, match="cannot be read"):
        read_values(files, "psnr", [1])


@pytest.mark.parametrize("which", [0, 1, 2])
@pytest.mark.parametrize("reader", ["rows", "values", "parts"])
def test_a_file_that_may_not_be_read_is_named_wherever_it_stands(tmp_path: Path, forbid: Callable[[Path], None], reader: str, which: int) -> None:
    """Its owner must be asked; nothing is said of damage."""
    run = SyntheticRun({"nmf": 16.0}, n=6)
    (whole,) = RunStore.open(Path(run.save(tmp_path / "run"))).score_files("class-split", "nmf")
    files = [tmp_path / f"{number}.parquet" for number in range(3)]
    for file in files:
        file.write_bytes(whole.read_bytes())
    readers: dict[str, Callable[[], object]] = {
        "rows": lambda: list(read_rows(files)),
        "values": lambda: read_values(files, "psnr", [1]),
        "parts": lambda: read_parts(files, ("example", "metric", "value")),
    }
    assert len(readers[reader]())  # type: ignore[arg-type]
    forbid(files[which])
    with pytest.raises(StoreError, match=rf"/{which}\.parquet cannot be read: permission denied; ask its owner"):
        readers[reader]()


def test_what_rounding_takes_from_a_sum_is_given_back() -> None:
    """A one beside 10^16 is lost in a plain sum; whatever the order of the sources, two of them count."""
    for order in ([1e16, 1.0, 1.0, -1e16], [-1e16, 1.0, 1.0, 1e16]):
        found = cell([(3, source, "psnr", value, False) for source, value in enumerate(order)])["psnr"]
        assert (found.values.tolist(), found.n_sources) == ([0.5], 4)
