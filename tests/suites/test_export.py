"""Exported mixtures are the suite's, to the bit where the format can; the folder is whole or absent."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from suite_toys import NumberedSignals, Opener, ToyFolder

import sepbench
from sepbench.data.estimates.files import FileEstimates
from sepbench.data.estimates.names import list_folder
from sepbench.data.estimates.png import read_png
from sepbench.data.estimates.problems import Problems
from sepbench.data.lists.pairs import pairs_csv
from sepbench.files import file_sha256
from sepbench.suites import export
from sepbench.suites.export import ExportError, export_task
from sepbench.suites.loader import load_suite
from sepbench.suites.model import Suite, Task

N = 5


@pytest.fixture(scope="module")
def digits() -> tuple[Suite, Task]:
    suite = load_suite("digits-pairs")
    return suite, suite.tasks["class-split"]


def _manifest(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


_READERS: dict[str, Callable[[Path, str], np.ndarray]] = {
    "npy": lambda folder, what: np.load(folder / f"{what}.npy"),
    "npz": lambda folder, what: np.load(folder / f"{what}.npz")[what],
    "safetensors": lambda folder, what: load_file(folder / f"{what}.safetensors")[what],
}


@pytest.mark.parametrize("form", ["npy", "npz", "safetensors"])
def test_arrays_hold_every_bit(digits: tuple[Suite, Task], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_STRETCH", 300)  # two mixtures at a time
    suite, task = digits
    assert export_task(suite, task, tmp_path / "out", form=form, references=True, limit=N)  # type: ignore[arg-type]
    truth, manifest = task.mixture_set(), _manifest(tmp_path / "out")
    np.testing.assert_array_equal(_READERS[form](tmp_path / "out", "mixtures"), truth.mixtures(list(range(N))).values.numpy())
    np.testing.assert_array_equal(_READERS[form](tmp_path / "out", "references"), truth.sources(list(range(N))).numpy())
    for what in ("mixtures", "references"):
        assert manifest["files"][what]["sha256"] == file_sha256(tmp_path / "out" / f"{what}.{form}")
        assert manifest["files"][what]["shape"][0] == N


def test_pictures_are_whole_numbers_by_the_rule_of_the_manifest(digits: tuple[Suite, Task], tmp_path: Path) -> None:
    suite, task = digits
    export_task(suite, task, tmp_path / "out", form="png", references=True, limit=N)
    truth, manifest = task.mixture_set(), _manifest(tmp_path / "out")
    for what, values in (("mixtures", truth.mixtures(list(range(N))).values), ("references", truth.sources(list(range(N))).flatten(0, 1))):
        low, high = manifest["value_range"][what]
        pixels = np.stack([read_png(path.read_bytes()) for path in sorted((tmp_path / "out" / what).iterdir())])
        np.testing.assert_allclose(low + pixels / 65_535 * (high - low), values.numpy(), rtol=0, atol=0.51 * (high - low) / 65_535)
    assert manifest["value_range"] == {"mixtures": [0.0, 2.0], "references": [0.0, 1.0]}
    assert sorted(path.name for path in (tmp_path / "out" / "references").iterdir())[:3] == ["000000_1.png", "000000_2.png", "000001_1.png"]
    # The digest of the folder is the one that evaluate gives it.
    folder = tmp_path / "out" / "references"
    estimates = FileEstimates(list_folder(folder, task.spec, task.n_examples, Problems()), folder, task.spec)
    assert estimates.inspect(N, Problems(), lambda done, total: None).sha256 == manifest["files"]["references"]["sha256"]


def test_the_manifest_says_what_a_program_must_know(digits: tuple[Suite, Task], tmp_path: Path) -> None:
    suite, task = digits
    export_task(suite, task, tmp_path / "out", limit=N)
    manifest = _manifest(tmp_path / "out")
    wanted = {
        "suite": "digits-pairs",
        "suite_version": suite.version,
        "task": "class-split",
        "task_digest": task.digest,
        "example_ids": [0, 1, 2, 3, 4],
        "operator": {"name": "sum", "mixes": "the sources", "weights": [1.0, 1.0]},
        "source_classes": ["0-4", "5-9"],
        "source_shape": [1, 8, 8],
        "sample_rate": None,
        "holds": ["mixtures"],
        "estimates_shape": ["M", 2, 1, 8, 8],
    }
    assert {key: manifest[key] for key in wanted} == wanted
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["manifest.json", "mixtures.npy"]


def test_weights_of_every_mixture_stand_in_the_manifest(real_data: Callable[[str], Path], tmp_path: Path) -> None:
    real_data("fsdd")
    suite = load_suite("fsdd-noise")
    (name, task) = next((name, task) for name, task in suite.tasks.items() if task.split == "test")
    export_task(suite, task, tmp_path / name, form="wav", references=True, limit=2)
    manifest, truth = _manifest(tmp_path / name), task.mixture_set()
    weights = np.array(manifest["operator"]["weights"])
    soundfile = pytest.importorskip("soundfile")
    mixture, rate = soundfile.read(tmp_path / name / "mixtures" / "000001.wav", dtype="float32")
    assert rate == manifest["sample_rate"] == 8000
    np.testing.assert_array_equal(mixture, truth.mixtures([1]).values[0, 0].numpy())
    sources = np.stack([soundfile.read(tmp_path / name / "references" / f"000001_{k}.wav")[0] for k in (1, 2)])
    np.testing.assert_allclose(np.broadcast_to(weights, (2, 2))[1] @ sources, mixture, rtol=0, atol=1e-6)


def test_the_same_again_is_there_already_and_anything_else_is_refused(digits: tuple[Suite, Task], tmp_path: Path) -> None:
    suite, task = digits
    folder = tmp_path / "out"
    folder.mkdir()  # an empty folder may be there
    assert export_task(suite, task, folder, limit=N)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert not export_task(suite, task, folder, limit=N)
    for options in ({"limit": 4}, {"limit": N, "references": True}, {"limit": N, "form": "npz"}):
        with pytest.raises(ExportError, match="has something other than this export in it"):
            export_task(suite, task, folder, **options)  # type: ignore[arg-type]
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    with pytest.raises(ExportError, match="has something other"):
        export_task(suite, task, tmp_path / "other", limit=N)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["letter.txt"]


@pytest.mark.parametrize("form", ["npy", "png"])
def test_an_attempt_that_is_killed_leaves_nothing_that_looks_complete(
    digits: tuple[Suite, Task], tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, task = digits
    monkeypatch.setattr(export, "_STRETCH", 300)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_task(suite, task, tmp_path / "out", form=form, limit=N, advance=stop)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.tmp").mkdir()  # as SIGKILL leaves it
    (tmp_path / ".out.tmp" / "manifest.json").write_text("{}")
    assert export_task(suite, task, tmp_path / "out", form=form, limit=N)  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert _manifest(tmp_path / "out")["n_examples"] == task.n_examples


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "wav"}, "image signals cannot be written as wav; choose --format npy, npz, safetensors, png"),
        ({"form": "tiff"}, "--format must be one of npy, npz, safetensors, png, wav"),
        ({"limit": 0}, "--limit must be at least 1"),
    ],
)
def test_what_cannot_be_exported(digits: tuple[Suite, Task], tmp_path: Path, options: dict[str, Any], words: str) -> None:
    suite, task = digits
    with pytest.raises(ExportError, match=words):
        export_task(suite, task, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written(digits: tuple[Suite, Task], tmp_path: Path) -> None:
    suite, task = digits
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"choose a writable folder|something other"):
        export_task(suite, task, tmp_path / "file" / "out", limit=N)


# --- the manifest, to the letter ------------------------------------------------------------------------------------------------------


def test_the_whole_manifest_of_pictures(digits: tuple[Suite, Task], tmp_path: Path) -> None:
    suite, task = digits
    told = list[tuple[int, int]]()
    export_task(suite, task, tmp_path / "out", form="png", references=True, limit=2, advance=lambda done, total: told.append((done, total)))
    manifest = _manifest(tmp_path / "out")
    files = manifest.pop("files")
    assert manifest == {
        "format": 1,
        "sepbench_version": sepbench.__version__,
        "suite": "digits-pairs",
        "suite_version": 1,
        "task": "class-split",
        "task_digest": task.digest,
        "pairs_sha256": task.pairs_sha256,
        "mixtures_sha256": task.mixtures_sha256,
        "domain": "image",
        "n_examples": 1000,
        "example_ids": [0, 1],
        "n_sources": 2,
        "source_classes": ["0-4", "5-9"],
        "scored_sources": [0, 1],
        "assignment": "permutation",
        "source_shape": [1, 8, 8],
        "mixture_shape": [1, 8, 8],
        "sample_rate": None,
        "operator": {"name": "sum", "mixes": "the sources", "weights": [1.0, 1.0]},
        "value_range": {"mixtures": [0.0, 2.0], "references": [0.0, 1.0]},
        "file_format": "png",
        "encoding": "16 bits per channel: value = low + pixel / 65535 * (high - low), with the value_range of mixtures or references",
        "holds": ["mixtures", "references"],
        "estimates_shape": ["M", 2, 1, 8, 8],
    }
    names = {"mixtures": ["000000.png", "000001.png"], "references": ["000000_1.png", "000000_2.png", "000001_1.png", "000001_2.png"]}
    for what, wanted in names.items():
        assert sorted(path.name for path in (tmp_path / "out" / what).iterdir()) == wanted
        lines = "".join(f"{file_sha256(tmp_path / 'out' / what / name)}  {name}\n" for name in wanted)
        assert files[what] == {"path": f"{what}/", "sha256": hashlib.sha256(lines.encode()).hexdigest()}
    assert list(files) == ["mixtures", "references"]
    assert told == [(2, 4), (4, 4)]
    lines = (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8").splitlines()
    assert (lines[0], lines[-1], lines[1], len(lines)) == ("{", "}", ' "format": 1,', len(manifest) + 3)


def test_draws_of_sources_that_are_no_pictures(tmp_path: Path) -> None:
    suite = load_suite("gaussian-exact")
    task = suite.tasks["d2"]
    export_task(suite, task, tmp_path / "out", limit=10**6)
    manifest = _manifest(tmp_path / "out")
    assert (manifest["n_examples"], manifest["example_ids"]) == (100, list(range(100)))
    assert (manifest["value_range"], manifest["estimates_shape"], manifest["mixture_shape"]) == (None, ["M", 256, 2, 2], [2])
    assert (manifest["encoding"], manifest["file_format"], manifest["holds"]) == ("little-endian float32, as they are", "npy", ["mixtures"])
    file = tmp_path / "out" / "mixtures.npy"
    assert manifest["files"] == {"mixtures": {"path": "mixtures.npy", "sha256": file_sha256(file), "shape": [100, 2], "dtype": "float32"}}
    for form in ("png", "wav"):
        with pytest.raises(ExportError, match=rf"^vector signals cannot be written as {form}; choose --format npy, npz, safetensors$"):
            export_task(suite, task, tmp_path / "no", form=form)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        *((form, "little-endian float32, as they are") for form in ("npy", "npz", "safetensors")),
        ("png", "16 bits per channel: value = low + pixel / 65535 * (high - low), with the value_range of mixtures or references"),
        ("wav", "32-bit float samples, as they are"),
    ],
)
def test_how_numbers_are_written_is_said_of_every_format(form: Any, told: str) -> None:
    assert export._encoding(form) == told
    assert form in export.FORMATS


def test_sounds_and_channels_that_are_mixed(toy: ToyFolder, opener: Opener, tmp_path: Path) -> None:
    """A suite of sounds has no range of values; ``channel-mean`` mixes the channels of one source."""
    toy.edit("pad = 1\nheld_out = 20\n", "sample_rate = 8000\n")
    toy.toml.write_text(toy.toml.read_text().split("[tasks.split]")[0].replace('"image"', '"audio"'))
    task = '[tasks.split]\npairs = "split.csv"\nsources = ["low", "high"]\noperator = "gain"\nassignment = "ordered"\n'
    toy.toml.write_text(toy.toml.read_text() + task)

    def loaded() -> tuple[Suite, Task]:
        toy.freeze()
        suite = load_suite(str(toy.toml), toy.opener)
        return suite, suite.tasks["split"]

    labels = opener("toy", "test").labels.numpy()
    low, high = ToyFolder.pick(labels, 0, 40, low=True), ToyFolder.pick(labels, 0, 40, low=False)
    (toy.folder / "split.csv").write_bytes(pairs_csv(np.stack([low[:2], high[:2]], 1), np.array([[1.0, 0.5], [1.0, 0.25]])))
    export_task(*loaded(), tmp_path / "out", references=True)
    manifest = _manifest(tmp_path / "out")
    assert (manifest["value_range"], manifest["sample_rate"], manifest["domain"]) == (None, 8000, "audio")
    assert manifest["operator"] == {"name": "gain", "mixes": "the sources", "weights": [[1.0, 0.5], [1.0, 0.25]]}
    with pytest.raises(ExportError, match=r"^audio signals cannot be written as png; choose --format npy, npz, safetensors, wav$"):
        export_task(*loaded(), tmp_path / "no", form="png")
    toy.edit('sources = ["low", "high"]', 'sources = ["low"]')
    toy.edit('"gain"', '"channel-mean"')
    toy.edit('"audio"', '"image"')
    toy.write("split", low[:3, None])
    toy.edit("shape = [1, 2, 2]", "shape = [3, 2, 2]")

    def colour(name: str, split: str) -> Any:
        found = opener(name, split)
        return NumberedSignals(name, split, found.labels, (3, 2, 2))  # type: ignore[arg-type]

    toy.opener = colour
    export_task(*loaded(), tmp_path / "colour")
    manifest = _manifest(tmp_path / "colour")
    assert manifest["operator"] == {"name": "channel-mean", "mixes": "the channels of one source", "weights": [pytest.approx(1 / 3)] * 3}
    assert (manifest["mixture_shape"], manifest["source_shape"], manifest["value_range"]["mixtures"]) == ([1, 2, 2], [3, 2, 2], [0.0, 1.0])


# --- folders that hold something --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b'"x"', b"{}"])
def test_a_manifest_that_is_none_is_something_else(digits: tuple[Suite, Task], tmp_path: Path, content: bytes) -> None:
    suite, task = digits
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(ExportError) as caught:
        export_task(suite, task, tmp_path, limit=1)
    assert str(caught.value) == f"{tmp_path} has something other than this export in it; choose a new or empty folder with --out"
    assert (tmp_path / "manifest.json").read_bytes() == content


def test_a_file_in_the_way_and_a_full_disk(digits: tuple[Suite, Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite, task = digits
    (tmp_path / "file").touch()
    with pytest.raises(ExportError, match=r"file has something other than this export in it"):
        export_task(suite, task, tmp_path / "file", limit=1)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export, "write_array", full)
    with pytest.raises(ExportError) as caught:
        export_task(suite, task, tmp_path / "out", limit=1)
    assert str(caught.value) == f"cannot write {tmp_path / 'out'}: No space left on device; choose a writable folder with --out"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(ExportError) as caught:
        export_task(suite, task, tmp_path / "out", limit=-1)
    assert str(caught.value) == "--limit must be at least 1, got -1; leave it out to export every mixture"
