"""Parquet files of ours: every damage is told, other readers read them, and files without our checksums are read as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from sepbench.cli.main import app
from sepbench.errors import SepbenchError
from sepbench.results.parquet_files import _MARK, checked, open_parquet, write_parquet
from sepbench.results.published_scores import _SMALL

TABLE = pa.table({"task": ["a", "a"], "example": np.arange(2), "value": [0.25, -1.5]}).replace_schema_metadata({"facts": "n 2"})
KINDS = ({"compression": "zstd"}, {**_SMALL, "use_dictionary": ["task"]})


def read(path: Path) -> object:
    file = open_parquet(path)
    return file.read().to_pydict(), file.schema_arrow.metadata


def flipped(content: bytes) -> Iterator[bytes]:
    """The file with one bit changed, for every bit."""
    for place in range(8 * len(content)):
        made = bytearray(content)
        made[place // 8] ^= 1 << place % 8
        yield bytes(made)


@pytest.mark.parametrize("options", KINDS, ids=("shard", "published"))
def test_every_flipped_bit_is_refused_or_changes_nothing(tmp_path: Path, options: dict[str, object]) -> None:
    path, whole = tmp_path / "a.parquet", tmp_path / "whole.parquet"
    write_parquet(TABLE, whole, **options)
    there, read_on = read(whole), 0
    for content in flipped(whole.read_bytes()):
        path.write_bytes(content)
        try:
            found = read(path)
        except (pa.ArrowException, OSError, ValueError):
            continue
        read_on += 1
        assert found == there
    assert read_on <= 8 * len(_MARK)  # those of the mark itself alone


def test_pages_have_checksums_of_their_own(tmp_path: Path) -> None:
    """They tell of a damaged page where the mark of the whole file is lost too."""
    path = tmp_path / "a.parquet"
    write_parquet(TABLE, path, compression="none", use_dictionary=False)
    content = path.read_bytes()
    value = content.index(np.array([0.25, -1.5]).tobytes())
    path.write_bytes(content[:value] + np.array([0.5, -1.5]).tobytes() + content[value + 16 :].replace(_MARK, b"?" * len(_MARK)))
    with pytest.raises(OSError, match="CRC"):
        read(path)


def test_other_readers_and_files_without_checksums(tmp_path: Path) -> None:
    ours, plain, again = (tmp_path / f"{name}.parquet" for name in ("ours", "plain", "again"))
    write_parquet(TABLE, ours)
    pq.write_table(TABLE, plain)
    assert read(ours) == read(plain)
    assert pq.read_table(ours).equals(TABLE)
    assert pd.read_parquet(ours)["value"].tolist() == [0.25, -1.5]
    pq.write_table(pq.read_table(ours).slice(1), again)  # somebody else's copy is no damaged file
    assert open_parquet(again).read().num_rows == 1
    ours.write_bytes(ours.read_bytes()[:-1])
    with pytest.raises(ValueError, match="its bytes are not those that were written: the checksum differs"):
        checked(ours)


@pytest.mark.parametrize("kind", ["estimates are kept", "estimates are gone", "without checksums"])
def test_the_runs_own_command_makes_a_damaged_shard_again(tmp_path: Path, kind: str) -> None:
    arguments = ["run", "--suite", "digits-pairs", "--tasks", "class-split", "--methods", "average", "--limit", "8", "--out", str(tmp_path / "r")]
    arguments += ["--no-keep-estimates"] if kind == "estimates are gone" else []
    assert CliRunner().invoke(app, arguments).exit_code == 0
    board, (path,) = tmp_path / "r" / "leaderboard.csv", (tmp_path / "r" / "scores").rglob("*.parquet")
    means = pd.read_csv(board)["mean"].tolist()
    if kind == "without checksums":  # an earlier version's; here damage that the compression can tell
        pq.write_table(pq.read_table(path), path, compression="zstd")
    _damage(path)
    shown = CliRunner().invoke(app, ["show", str(tmp_path / "r")])
    assert isinstance(shown.exception, SepbenchError)
    assert str(shown.exception).endswith("run the run's own command again to make damaged files anew")
    again = CliRunner().invoke(app, arguments)
    assert again.exit_code == 0, again.output
    assert "is damaged" in again.output
    assert pd.read_csv(board)["mean"].tolist() == means
    assert CliRunner().invoke(app, ["show", str(tmp_path / "r")]).exit_code == 0


def _damage(path: Path) -> None:
    """Zeros in place of the values."""
    content, group = bytearray(path.read_bytes()), pq.read_metadata(path).row_group(0)
    column = next(group.column(number) for number in range(group.num_columns) if group.column(number).path_in_schema == "value")
    start = column.dictionary_page_offset or column.data_page_offset
    content[start : start + column.total_compressed_size] = bytes(column.total_compressed_size)
    path.write_bytes(content)
