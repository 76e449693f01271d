"""Which file is which source: by the names in a folder, or by a Parquet index.

::

    FOLDER/000012_1.png             mixture 12, first source; zeros before the number do not matter
    FOLDER/000012_drums.wav         mixture 12, the source of class drums
    FOLDER/000012/drums.wav         stem folders, as museval and Slakh2100 lay them; 000012/1.wav too

Sources are counted from 1. A number is always a place, never a class that is called so; a class is a name where the task has it once. Hidden files,
``manifest.json`` and the ``mixture.wav`` of a stem folder are passed over; any other file is a problem.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from sepbench.data.estimates.problems import EXTRA, MISNAMED, MISSING, TWICE, EstimatesError, Problems
from sepbench.data.estimates.signals import SUFFIXES
from sepbench.data.readers import unreadable
from sepbench.errors import flat, reason
from sepbench.protocols import TaskSpec

MANIFEST = "manifest.json"
_MIXTURE = "mixture"
_FLAT = re.compile(r"(\d{1,12})_(.+)", re.ASCII)
_NUMBER = re.compile(r"\d{1,12}", re.ASCII)

FileTable = dict[tuple[int, int], Path]
"""(mixture, slot from 0) -> file."""


def slots_by_name(spec: TaskSpec) -> dict[str, int]:
    """What sources may be called: ``1`` to ``K``, and the classes that the task has once."""
    numbers = {str(slot + 1): slot for slot in range(spec.n_sources)}
    once = {name: slot for slot, name in enumerate(spec.source_classes) if spec.source_classes.count(name) == 1 and not name.isdecimal()}
    return once | numbers


def list_folder(folder: Path, spec: TaskSpec, n_examples: int, problems: Problems) -> FileTable:
    """The files of a folder by what their names say; nothing is opened. Problems: extra, misnamed, there twice.

    Raises:
        DataError: the folder cannot be read.
    """
    table, slots = FileTable(), slots_by_name(spec)
    try:
        for name, path in _files(folder, problems):
            parsed = _parsed(name)
            special = path.exists() and not path.is_file()  # a pipe would wait for ever
            if parsed is None or special or path.suffix.lower() not in SUFFIXES[spec.domain]:
                problems.add(MISNAMED, name)
                continue
            _enter(table, parsed[0], slots.get(parsed[1]), name, path, n_examples, problems)
    except OSError as error:
        raise unreadable(folder, error) from error
    return table


def _files(folder: Path, problems: Problems) -> Iterator[tuple[str, Path]]:
    """Files of a folder and of its stem folders with their names below it, in their order."""
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or entry.name == MANIFEST:
            continue
        if not entry.is_dir():
            yield entry.name, entry
        elif not _NUMBER.fullmatch(entry.name):
            problems.add(MISNAMED, f"{entry.name}/")
        else:
            yield from ((f"{entry.name}/{stem.name}", stem) for stem in sorted(entry.iterdir()) if not stem.name.startswith(".") and stem.stem != _MIXTURE)


def _parsed(name: str) -> tuple[int, str] | None:
    """``000012_1.png`` and ``000012/1.png`` to ``(12, "1")``."""
    folder, slash, file = name.rpartition("/")
    stem = file.removesuffix(Path(file).suffix)
    if slash:
        return int(folder), stem
    found = _FLAT.fullmatch(stem)
    return (int(found[1]), found[2]) if found else None


def _enter(table: FileTable, example: int, slot: int | None, name: str, path: Path, n_examples: int, problems: Problems) -> None:
    if slot is None or not 0 <= example < n_examples:
        problems.add(EXTRA, name)
    elif (example, slot) in table:
        problems.add(TWICE, name)
    else:
        table[example, slot] = path


def read_index(path: Path, spec: TaskSpec, n_examples: int, problems: Problems) -> FileTable:
    """The files that a Parquet file lists, one row per source.

    Its columns: ``example``, the number of the mixture; ``source``, 1 to K or a class; ``path``, absolute or from the index's own folder. Others are
    passed over. Problems: extra, misnamed (an empty cell, or a file of another kind), there twice, missing (listed, and not there).

    Raises:
        EstimatesError: no Parquet file, or without these columns.
        DataError: it cannot be opened.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["example", "source", "path"]
    try:
        with path.open("rb") as handle:
            file = pq.ParquetFile(handle, page_checksum_verification=True)
            lacking = [name for name in columns if name not in file.schema_arrow.names]
            if lacking:
                raise EstimatesError(f"{path} has no column {lacking[0]}; an index of estimates has the columns example, source and path")
            if not pa.types.is_integer(file.schema_arrow.field("example").type):
                raise EstimatesError(f"{path}: column example must hold whole numbers, the numbers of the mixtures")
            rows = file.read(columns=columns).to_pylist()
    except OSError as error:
        if error.errno is None:  # pyarrow's own, of what it reads
            raise EstimatesError(f"{path} is no readable Parquet file ({reason(error)}); write it anew") from error
        raise unreadable(path, error) from error
    except (pa.ArrowException, UnicodeDecodeError) as error:  # a damaged name is found where it is made text
        raise EstimatesError(f"{path} is no readable Parquet file ({reason(error)}); write it anew") from error
    table, slots = FileTable(), slots_by_name(spec)
    for row in rows:
        example, source, name = row["example"], row["source"], row["path"]
        if example is None or source is None or not isinstance(name, str) or Path(name).suffix.lower() not in SUFFIXES[spec.domain]:
            problems.add(MISNAMED, flat(name))
            continue
        target = path.parent / name
        if not target.is_file():
            problems.add(MISSING, name)
        else:
            _enter(table, example, slots.get(str(source)), name, target, n_examples, problems)
    return table
