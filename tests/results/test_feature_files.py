"""Features of a cell on disk: large ones are read anew every time, small ones once, and what does not belong together is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from sepbench.metrics.sets.extraction import ShardFeatures
from sepbench.results import feature_files
from sepbench.results.feature_files import CellFeatures, save_features
from sepbench.results.score_files import StoreError


def saved(path: Path, examples: list[int], references: dict[str, str]) -> Path:
    """Two sources an example, three features and two logits an image, numbered by the example."""
    of_example = torch.tensor(examples, dtype=torch.float32)[:, None, None] + torch.tensor([0.0, 0.5])[:, None]
    found = {name: ShardFeatures(of_example.expand(-1, -1, 3), -of_example.expand(-1, -1, 2), key) for name, key in references.items()}
    save_features(path, np.array(examples), found)
    return path


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [saved(tmp_path / "a.safetensors", [1, 2], {"toy": "key", "other": "key"}), saved(tmp_path / "b.safetensors", [5], {"toy": "key"})]


def cell(files: list[Path]) -> CellFeatures:
    return CellFeatures(files, lambda key: files[0].parent / f"{key}.safetensors")


@pytest.mark.parametrize("held", [True, False])
def test_features_and_logits_in_the_order_of_the_files(files: list[Path], monkeypatch: pytest.MonkeyPatch, held: bool) -> None:
    """Three features of three examples and two sources are 72 bytes: held if so many may be, and read anew if one less may."""
    monkeypatch.setattr(feature_files, "_HELD_BYTES", 72 if held else 71)
    found = cell(files).of("toy", np.array([2, 5]))
    assert found.count == 4
    for stream, sign, width in ((found.features, 1, 3), (found.logits, -1, 2)):
        for _ in range(2):
            rows = np.concatenate(list(stream()))
            assert rows.tolist() == [[sign * value] * width for value in (2.0, 2.5, 5.0, 5.5)]
    list(found.features())
    for path in files:
        path.write_bytes(b"gone")
    if held:
        assert len(next(iter(found.features()))) == 4
    else:
        with pytest.raises(StoreError, match=r"^the features .*a\.safetensors cannot be read \(.*\); run `sepbench score` of the run again$"):
            list(found.features())


def test_no_example_has_no_features(files: list[Path]) -> None:
    found = cell(files).of("toy", np.array([], np.int64))
    assert found.count == 0
    assert sum(len(part) for part in found.features()) == 0
    assert cell([]).of("toy", np.array([], np.int64)).count == 0


@pytest.mark.parametrize("missing", [[0, 1, 2], [1, 3, 5], [5, 6]])
def test_the_first_example_without_features_is_named(files: list[Path], missing: list[int]) -> None:
    first = next(example for example in missing if example not in (1, 2, 5))
    with pytest.raises(StoreError) as caught:
        cell(files).of("toy", np.array(missing))
    assert str(caught.value) == f"example {first} has scores and no features of extractor 'toy'; run `sepbench score` of the run again"


def test_all_files_name_one_reference(files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_files, "_reference", lambda path: path)
    found: Any = cell(files).reference("toy")
    assert found == tmp_path / "key.safetensors"
    for chosen, extractor, count in ((files, "other", 2), (files[1:], "other", 1), ([], "toy", 0)):
        with pytest.raises(StoreError) as caught:
            cell(chosen).reference(extractor)
        assert str(caught.value) == f"the features of extractor {extractor!r} belong to {count} references; run `sepbench score` of the run again"


def test_what_a_file_holds(files: list[Path]) -> None:
    with safe_open(files[0], "np") as file:
        assert sorted(file.keys()) == ["examples", "other.features", "other.logits", "toy.features", "toy.logits"]
        assert file.metadata() == {"toy": "key", "other": "key"}
        assert file.get_tensor("examples").tolist() == [1, 2]
