"""Folders of shards in which links, files and other names stand in the way."""

from __future__ import annotations

from pathlib import Path

from sepbench.results.layout import Layout
from sepbench.run.plan import Shard


def test_folders_that_lead_nowhere_hold_no_shards(tmp_path: Path) -> None:
    """A link to nowhere, a file in a folder's place and other names are passed over, and what comes after them is found."""
    cell = tmp_path / "scores" / "t--m"
    (cell / "00001").mkdir(parents=True)
    (cell / "00000").symlink_to(tmp_path / "gone")
    (cell / "00002").write_text("a file")
    (cell / "00001" / "notes.txt").write_text("")
    (cell / "00001" / "00010000-00010005.parquet").write_text("")
    (cell / "00001" / "00010005-00010009.parquet").symlink_to(tmp_path / "gone too")
    layout = Layout(tmp_path)
    found = layout.shards("scores", "t", "m")
    assert {(shard.start, shard.stop): path.name for shard, path in found.items()} == {
        (10_000, 10_005): "00010000-00010005.parquet",
        (10_005, 10_009): "00010005-00010009.parquet",  # by its name: it is opened by nobody here
    }
    assert {(shard.task, shard.method) for shard in found} == {("t", "m")}
    assert found[Shard("t", "m", 10_000, 10_005)] == layout.scores(Shard("t", "m", 10_000, 10_005))
    assert layout.shards("estimates", "t", "m") == layout.shards("scores", "t", "n") == layout.shards("scores", "m", "t") == {}
