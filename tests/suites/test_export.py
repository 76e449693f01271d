"""Exported mixtures are the suite's, to the bit where the format can; the folder is whole or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from sepbench.data.estimates.files import FileEstimates
from sepbench.data.estimates.names import list_folder
from sepbench.data.estimates.png import read_png
from sepbench.data.estimates.problems import Problems
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
