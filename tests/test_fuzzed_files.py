"""Mutated files at every reader's boundary: one line or the content, never another exception, never another content where the format can tell.

10,500 inputs of fixed seeds, ``COUNT`` of each kind. ``python tests/test_fuzzed_files.py`` prints how they ended.
"""

from __future__ import annotations

import gzip
import io
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from sepbench.data.files.manifests import read_manifest
from sepbench.data.lists.clusters import clusters_csv, read_clusters
from sepbench.data.lists.pairs import pairs_csv, read_pairs
from sepbench.data.readers.audio_files import audio_info, read_audio
from sepbench.data.readers.idx import read_idx
from sepbench.data.readers.image_folder import read_image_folder
from sepbench.data.readers.npy import read_array
from sepbench.errors import SepbenchError
from sepbench.resources import resource_root
from sepbench.results.leaderboard_file import read_leaderboard
from sepbench.results.published_scores import merge_scores, read_scores
from sepbench.results.store import RunStore
from sepbench.results.values import MetricValues, Values
from sepbench.run.plan import Shard
from sepbench.run.provenance import FORMAT
from sepbench.run.records import CellRecord, RunRecord
from sepbench.run.sink import ShardEstimates, ShardScores
from sepbench.suites.loader import load_unfrozen

PIL_Image = pytest.importorskip("PIL.Image", reason="pillow is not installed")

COUNT = 500
UNCHANGED = -1
"""A seed that changes nothing."""
SHARD = Shard("class-split", "average", 0, 3)
_WORDS = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\0\0\0", b"-1", b"nan", b"1e999", b"9" * 400, b"[" * 300, b'"', b"\n", b",", b"\r")


SUITE = """
format = 1
name = "own"
version = 1
title = "Own"
description = "Ours"
domain = "image"
metrics = ["psnr"]
ranking_metric = "psnr"
methods = ["average"]
[data]
shape = [1, 8, 8]
held_out = 200
[classes]
low = { dataset = "digits", labels = [0, 1, 2, 3, 4] }
[tasks.pairs]
pairs = "pairs.csv"
sources = ["low", "low"]
operator = "sum"
assignment = "permutation"
"""


def mutated(content: bytes, seed: int) -> bytes:
    """One to three faults: bits, bytes, numbers out of bounds, slices that are lost, doubled or moved, half of them near the beginning, where headers are."""
    if seed == UNCHANGED:
        return content
    random, made = np.random.default_rng(seed), bytearray(content)
    for _ in range(random.integers(1, 4)):
        if not made:
            break
        reach = len(made) if random.random() < 0.5 else min(len(made), 64)
        at, length = int(random.integers(reach)), int(random.integers(1, 9))
        match int(random.integers(7)):
            case 0:
                made[at] ^= 1 << int(random.integers(8))
            case 1:
                made[at] = int(random.integers(256))
            case 2:
                word = _WORDS[int(random.integers(len(_WORDS)))]
                made[at : at + len(word)] = word
            case 3:
                del made[at : at + length]
            case 4:
                made[at:at] = made[at : at + length]
            case 5:
                made[at:at] = random.bytes(length)
            case 6:
                del made[at:]
    return bytes(made)


@dataclass(frozen=True)
class Kind:
    """A format: its file, how it is read, and whether what is read must be the original's (``protects``) or may be anything that can be read."""

    name: str
    content: bytes
    read: Callable[[Path], Any]
    protects: bool = False
    beside: tuple[tuple[str, bytes], ...] = ()


def _written(write: Callable[[Path], object], suffix: str = "") -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        write(path)
        return path.read_bytes()


def _sound(path: Path) -> Any:
    """Length, channels and rate; the samples of a WAV file have no checksum."""
    info = audio_info(path)
    assert read_audio(path, mono=False).shape == (info.channels, info.length)
    return info.length, info.channels, info.sample_rate


def _image(path: Path) -> Any:
    return read_image_folder(path.parent)[0].tolist()


def kinds() -> list[Kind]:
    random = np.random.default_rng(0)
    sound = 0.1 * random.standard_normal(2000)
    pixels = PIL_Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    grey = random.integers(0, 256, (5, 4, 4), dtype=np.uint8)
    idx = b"\0\0\x08\x03" + b"".join(n.to_bytes(4, "big") for n in grey.shape) + grey.tobytes()
    exif = PIL_Image.Exif()
    exif[0x0112] = 6

    def picture(form: str) -> bytes:
        buffer = io.BytesIO()
        pixels.save(buffer, form, **({} if form in ("BMP", "PPM") else {"exif": exif}))
        return buffer.getvalue()

    def audio(form: str) -> bytes:
        return _written(lambda path: soundfile.write(path, sound, 8000, format=form))

    list_of_pairs = pairs_csv(random.integers(0, 99, (20, 2)))
    kept = _kept_run()
    return [
        Kind("a.png", picture("PNG"), _image, protects=True),
        Kind("b.png", picture("TIFF"), _image),
        Kind("c.png", picture("BMP"), _image),
        Kind("d.png", picture("PPM"), _image),
        Kind("e.png", picture("JPEG"), _image),
        Kind("a.wav", audio("WAV"), _sound, protects=True),
        Kind("b.wav", audio("RF64"), _sound, protects=True),
        Kind("a.flac", audio("FLAC"), _sound, protects=True),
        Kind("a.idx", idx, lambda path: len(read_idx(path, 3)), protects=True),
        Kind("a.idx.gz", gzip.compress(idx, mtime=0), lambda path: read_idx(path, 3).tolist(), protects=True),
        Kind("a.npy", _written(lambda path: np.save(path, grey), ".npy"), lambda path: read_array(path).size, protects=True),
        Kind("pairs.csv", list_of_pairs, read_pairs),
        Kind("clusters.csv", clusters_csv([(f"a{n // 2}", f"b{n}") for n in range(20)], "song", 2), read_clusters),
        Kind("leaderboard.csv", b"".join((resource_root("leaderboards") / "digits-pairs.csv").read_bytes().splitlines(True)[:6]), read_leaderboard),
        Kind("scores/a.parquet", _published_file(), lambda path: _published(path.parent), protects=True),
        Kind("suite.toml", SUITE.encode(), load_unfrozen, beside=(("pairs.csv", list_of_pairs),)),
        Kind("mnist.toml", (resource_root("data_manifests") / "mnist.toml").read_bytes(), read_manifest),
        *(
            Kind(name, content, partial(read, name=name), protects=name.endswith(".parquet"), beside=tuple(kept.items()))
            for name, content, read in _of_runs(kept)
        ),
    ]


def _kept_run() -> dict[str, bytes]:
    """The files of a small run."""
    record = RunRecord.model_validate(
        {
            "format": FORMAT,
            "sepbench_version": "0",
            "suite": {"name": "digits-pairs", "version": 1},
            "tasks": {SHARD.task: {"pairs_sha256": "a", "mixtures_sha256": "b", "n_planned": 3}},
            "methods": {SHARD.method: {"version": "1", "source": "x:Y", "source_sha256": "c"}},
            "metrics": ["psnr"],
            "seed": 0,
            "budget": "paper",
            "device": "cpu",
            "limit": 3,
            "shard_size": None,
            "timing_group": "cpu",
            "environment": {},
        }
    )
    zero = np.zeros(3, np.int32)
    scores = ShardScores(np.arange(3), np.zeros(3, np.int64), zero, np.ones(3), np.ones(3), zero, ("psnr",), ("",), False, 3, 0, 3.0)
    with tempfile.TemporaryDirectory() as folder:
        store = RunStore.create(Path(folder) / "run", record)
        with store.session(record):
            store.write_estimates(SHARD, ShardEstimates(torch.rand(3, 2, 1, 2, 2), torch.ones(3, dtype=torch.float64), {}))
            store.write_scores(SHARD, scores)
            store.write_cell(SHARD.task, SHARD.method, CellRecord(n_planned=3, n_separated=3))
        return {str(path.relative_to(store.path)): path.read_bytes() for path in store.path.rglob("*") if path.is_file()}


def _of_runs(kept: dict[str, bytes]) -> Iterator[tuple[str, bytes, Callable[..., Any]]]:
    for name, content in kept.items():
        yield name, content, _read_run


def _read_run(path: Path, name: str) -> Any:
    store = RunStore.open(Path(str(path).removesuffix(name)))
    store.read_cells()
    found = store.find(SHARD.task, SHARD.method, ("psnr",))
    if any(item.estimates for item in found):
        store.read_estimates(SHARD)
    return store.read_scores().to_dict("list")


def _published(path: Path) -> Any:
    values = read_scores(path.parent / "a.csv")
    assert values is not None
    return {metric: of_metric.values.tolist() for metric, of_metric in values.cell("t", "m").items()}


def _published_file() -> bytes:
    cell = {"psnr": MetricValues(np.arange(20), np.linspace(10, 20, 20))}
    with tempfile.TemporaryDirectory() as folder:
        merge_scores(Path(folder) / "a.csv", Values(lambda task, method: cell), [("t", "m")])
        return (Path(folder) / "scores" / "a.parquet").read_bytes()


def ended(kind: Kind, seed: int, folder: Path) -> str:
    """``refused``, ``garbled`` if not in one line, ``read``, or ``changed`` where the format protects its content and another one came out.

    Raises:
        Exception: what no user should see.
    """
    for name, content in (*kind.beside, (kind.name, mutated(kind.content, seed))):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    try:
        found = kind.read(folder / kind.name)
    except SepbenchError as error:
        return "refused" if str(error).isprintable() else "garbled"
    if kind.protects:
        (folder / kind.name).write_bytes(kind.content)
        if found != kind.read(folder / kind.name):
            return "changed"
    return "read"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.name)
def test_mutated_files_are_read_or_refused_in_one_line(tmp_path: Path, kind: Kind) -> None:
    whole = ended(Kind(kind.name, kind.content, kind.read, beside=kind.beside), UNCHANGED, tmp_path)
    assert whole == "read"
    assert {ended(kind, seed, tmp_path) for seed in range(COUNT)} <= {"refused", "read"}


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    total: Counter[str] = Counter()
    for each in kinds():
        counts: Counter[str] = Counter()
        for number in range(COUNT):
            with tempfile.TemporaryDirectory() as place:
                try:
                    counts[how := ended(each, number, Path(place))] += 1
                    if how in ("changed", "garbled"):
                        print(f"  {each.name}, seed {number}: {how}")  # noqa: T201
                except Exception as error:
                    counts["traceback"] += 1
                    print(f"  {each.name}, seed {number}: {type(error).__name__}: {ascii(str(error))[:150]}")  # noqa: T201
        total += counts
        print(f"{each.name:70} {dict(counts)}", flush=True)  # noqa: T201
    print(f"seeds 0 to {COUNT - 1} of each kind, {total.total():,} inputs: {dict(total)}")  # noqa: T201
