"""Where files of a run's folder lie, and which files there are shards."""

from __future__ import annotations

from pathlib import Path

import pytest

from sepbench.results.layout import BUCKET, REPETITIONS, Layout
from sepbench.results.repeats import KINDS
from sepbench.results.store import RunStore
from sepbench.run.plan import Shard


@pytest.mark.parametrize(
    ("start", "stop", "place"),
    [(0, 500, "00000/00000000-00000500"), (9_999, 10_000, "00000/00009999-00010000"), (10_000, 10_500, "00001/00010000-00010500")],
)
def test_the_place_of_a_shard_s_files(start: int, stop: int, place: str) -> None:
    layout, shard = Layout(Path("R")), Shard("t", "m.x", start, stop)
    assert layout.estimates(shard) == Path(f"R/estimates/t--m.x/{place}.safetensors")
    assert layout.scores(shard) == Path(f"R/scores/t--m.x/{place}.parquet")
    assert layout.features(shard) == Path(f"R/features/t--m.x/{place}.safetensors")
    assert BUCKET == 10_000


def test_other_files_of_a_run() -> None:
    layout = Layout(Path("R"))
    assert layout.cell("t", "m") == Path("R/cells/t--m.json")
    assert layout.reference("mnistnet-feed") == Path("R/references/mnistnet-feed.safetensors")


def test_what_is_a_shard_by_its_name(tmp_path: Path) -> None:
    cell = tmp_path / "scores" / "t--m"
    names = ("00000/0-5.parquet", "00000/00000005-00000010.parquet", "00000/7-9.safetensors")
    others = (
        "00000/5.parquet",
        "00000/5-6.csv",
        "00000/5-6.parquet.host-1-1.tmp",
        "00000/x5-6.parquet",
        "00000/5-6xparquet",
        "loose-5-6.parquet",
        "9-10.parquet",
    )
    for name in (*names, *others):
        (cell / name).parent.mkdir(parents=True, exist_ok=True)
        (cell / name).touch()
    found = Layout(tmp_path).shards("scores", "t", "m")
    assert found == {Shard("t", "m", *span): cell / name for span, name in zip(((0, 5), (5, 10), (7, 9)), names, strict=True)}
    assert Layout(tmp_path).shards("estimates", "t", "m") == {}


def test_unfinished_files_are_the_run_s_own(tmp_path: Path) -> None:
    """Repetitions have locks of their own: whoever holds one may be writing there now."""
    own = ("run.json.x.tmp", "cells/t--m.json.x.tmp", "scores/t--m/00000/0-3.parquet.x.tmp", "audio/seeds/1.wav.x.tmp")
    others = ("run.json", "cells/t--m.json", "seeds/1/run.json.x.tmp", "seeds/1/estimates/t--m/00000/0-3.safetensors.x.tmp", "fits/2/cells/t--m.json.x.tmp")
    for name in (*own, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert {path.relative_to(tmp_path).as_posix() for path in Layout(tmp_path).leftovers()} == set(own)
    assert KINDS == REPETITIONS


def test_scores_of_the_first_format_are_those_of_the_cell_alone(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    for name in ("t--m--1.parquet", "t--m--0.parquet", "t--m2--0.parquet", "t--m--0.csv", "t2--m--0.parquet"):
        (scores / name).touch()
    assert [path.name for path in Layout(tmp_path).old_scores("t", "m")] == ["t--m--0.parquet", "t--m--1.parquet"]


@pytest.mark.parametrize("backwards", [False, True])
def test_shards_are_in_the_order_of_their_mixtures_whatever_the_file_system_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
    """Buckets and files come as the folder lists them; 9,999 is before 10,000, which lies in the next bucket."""
    spans = [(0, 500), (500, 9_999), (9_999, 10_000), (10_000, 10_001)]
    layout, shards = Layout(tmp_path), [Shard("t", "m", *span) for span in spans]
    for of in (layout.estimates, layout.scores, layout.features):
        for path in map(of, shards):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    monkeypatch.setattr("sepbench.results.layout._entries", lambda folder: sorted(folder.iterdir(), reverse=backwards))
    monkeypatch.setattr("sepbench.results.store.CellFeatures", lambda files, reference: files)
    store = RunStore(tmp_path)
    assert store.estimates_of("t", "m") == shards
    assert store.score_files("t", "m") == [layout.scores(shard) for shard in shards]
    assert store.features("t", "m") == [layout.features(shard) for shard in shards]
    monkeypatch.setattr(store, "_damaged", lambda shard, path: False)
    monkeypatch.setattr(store, "_facts", lambda shard, path: None)
    assert [item.shard for item in store.find("t", "m", ())] == shards


@pytest.mark.parametrize("backwards", [False, True])
def test_scores_of_the_first_format_are_in_the_order_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backwards: bool) -> None:
    files = [tmp_path / "scores" / f"t--m--{number:05d}.parquet" for number in range(3)]
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter(files[::-1] if backwards else files))
    assert Layout(tmp_path).old_scores("t", "m") == files
