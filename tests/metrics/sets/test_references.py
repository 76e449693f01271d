"""Features of estimates and of the images that they are held against: which images, which key, kept once, told where they cannot be."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from estimate_cases import DIGIT
from third_parties import install

from sepbench.data.mixtures import Transform
from sepbench.data.signals import ArraySignals
from sepbench.errors import DataError, MetricError
from sepbench.metrics.sets import references
from sepbench.metrics.sets.extraction import extractors_of, features_of
from sepbench.metrics.sets.extractors import BATCH, ExtractorInfo, extracted
from sepbench.metrics.sets.references import keep_reference, read_reference
from sepbench.registry import EXTRACTOR_GROUP

CODE = """
import torch
from sepbench.metrics.sets.extractors import ExtractorInfo

class Sums:
    info = ExtractorInfo("sums", 2, 1, (), "sum and largest of all pixels; their number as logit")
    def digest(self): return "sums 1"
    def extract(self, images, device):
        flat = images.float().flatten(1)
        return torch.stack([flat.sum(1), flat.amax(1)], 1), torch.full((len(images), 1), float(flat.shape[1]))

SUMS = Sums()
"""


@pytest.fixture
def sums(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    from sepbench.metrics.sets.extractors import get_extractor

    install(monkeypatch, tmp_path, "sums", {EXTRACTOR_GROUP: {"sums": "sums_of_pixels:SUMS"}}, {"sums_of_pixels": CODE})
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    return get_extractor("sums")


# --- estimates ------------------------------------------------------------------------------------------------------------------------


def test_features_are_of_the_scored_sources_and_lost_ones_are_not_numbers(sums: Any) -> None:
    spec = replace(DIGIT, n_sources=3, source_classes=("a", "b", "c"), scored_sources=(2, 0))
    levels = torch.tensor([[0.0, 1.0, 0.2], [0.4, 1.0, 0.6], [0.8, 1.0, 2.0]])
    estimates = levels[:, :, None, None, None].repeat(1, 1, 1, 8, 8)
    estimates[0, 1, 0, 0, 0] = torch.nan  # of a source that is not scored
    estimates[1, 2, 0, 3, 3] = torch.inf
    found = features_of("sums", estimates, spec, "cpu", "the key")
    assert (found.features.shape, found.logits.shape, found.reference) == ((3, 2, 2), (3, 2, 1), "the key")
    assert found.features[..., 1].nan_to_num(-1).tolist() == [[51, 0], [-1, 102], [255, 204]]
    assert found.features[0, 0].tolist() == [64 * 51, 51]
    assert found.features.isnan().any(2).tolist() == found.logits.isnan().any(2).tolist() == [[False, False], [True, False], [False, False]]
    assert found.logits[0].tolist() == [[64.0], [64.0]]
    assert features_of("sums", estimates[:0], spec, "cpu").features.shape == (0, 2, 2)
    assert features_of("sums", estimates[:0], spec, "cpu").reference == ""


def test_an_extractor_may_give_no_logits(sums: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = SimpleNamespace(info=ExtractorInfo("sums", 2, 0, (), ""), extract=lambda images, device: (sums.extract(images, device)[0], torch.empty(BATCH, 0)))
    monkeypatch.setattr("sepbench.metrics.sets.extraction.get_extractor", lambda name: silent)
    found = features_of("sums", torch.ones(3, 2, 1, 8, 8), DIGIT, "cpu")
    assert (found.features.shape, found.logits.shape) == ((3, 2, 2), (3, 2, 0))


def test_each_extractor_of_some_metrics_is_named_once() -> None:
    assert extractors_of(["psnr", "fid_mnistnet", "kid_cifarnet", "is_mnistnet", "mixture_error"]) == ["mnistnet", "cifarnet"]
    assert extractors_of(["psnr"]) == []


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ((torch.zeros(BATCH, 3), torch.zeros(BATCH, 1)), f"features ({BATCH}, 2) float32 on the CPU, got torch.float32 ({BATCH}, 3)"),
        ((torch.zeros(1, 2), torch.zeros(BATCH, 1)), f"features ({BATCH}, 2) float32 on the CPU, got torch.float32 (1, 2)"),
        ((torch.zeros(BATCH, 2), torch.zeros(BATCH, 0)), f"logits ({BATCH}, 1) float32 on the CPU, got torch.float32 ({BATCH}, 0)"),
        ((torch.zeros(BATCH, 2).double(), torch.zeros(BATCH, 1)), f"features ({BATCH}, 2) float32 on the CPU, got torch.float64 ({BATCH}, 2)"),
        ((torch.zeros(BATCH, 2, device="meta"), torch.zeros(BATCH, 1)), f"features ({BATCH}, 2) float32 on the CPU, got torch.float32 ({BATCH}, 2)"),
    ],
)
def test_what_an_extractor_returns_is_held_against_what_it_says(found: tuple[torch.Tensor, torch.Tensor], told: str) -> None:
    broken: Any = SimpleNamespace(info=ExtractorInfo("broken", 2, 1, (), ""), extract=lambda images, device: found)
    with pytest.raises(MetricError) as caught:
        extracted(broken, torch.zeros(3, 1, 4, 4, dtype=torch.uint8), "cpu")
    assert str(caught.value) == f"extractor 'broken' must return {told}"


def test_why_an_extractor_does_not_take_images() -> None:
    some, any_size = ExtractorInfo("x", 2, 0, (1, 4, 4), ""), ExtractorInfo("y", 2, 0, (), "")
    assert (some.supports((1, 4, 4)).ok, any_size.supports((1, 9, 4)).ok, any_size.supports((3, 9, 4)).ok) == (True, True, True)
    assert some.supports((1, 4, 5)).note == "has features of images of shape (1, 4, 4), the task has (1, 4, 5)"
    for shape in ((2, 4, 4), (1, 16), (3,), (1, 1, 4, 4)):
        told = f"takes images of one or three channels, the task has signals of shape {shape}"
        assert some.supports(shape).note == any_size.supports(shape).note == told


# --- references -----------------------------------------------------------------------------------------------------------------------

FIRST = torch.arange(5).float().mul(0.1).reshape(5, 1, 1, 1).repeat(1, 1, 2, 2)


def task(*rows: list[int], pad: int = 0) -> Any:
    """Held against these rows of a data set, again and again."""
    signals = ArraySignals("toy", "train", "image", FIRST, torch.zeros(5, dtype=torch.int64))
    return SimpleNamespace(reference=lambda: [(signals, torch.tensor(one), Transform(pad)) for one in rows])


def test_a_reference_is_kept_by_what_it_was_made_of(sums: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_reference(task([1, 3], [4]), sums, "cpu")
    pixels = np.repeat(np.array([26, 77, 102], np.uint8), 4)  # floor(25.5 + 0.5), floor(76.5 + 0.5), 102
    wanted = hashlib.sha256(b"sums 1" + pixels.tobytes()).hexdigest()[:16]
    assert (kept.key, kept.path) == (f"sums-{wanted}", tmp_path / "cache" / "references" / f"sums-{wanted}.safetensors")
    found = read_reference(kept.path)
    assert found.features.tolist() == [[104, 26], [308, 77], [408, 102]]
    assert found.features.dtype == np.float32
    moments = found.frechet.moments
    assert (moments.count, moments.mean.tolist()) == (3, pytest.approx(found.features.mean(0).tolist()))
    np.testing.assert_allclose(moments.covariance, np.cov(found.features.T), rtol=1e-9)
    monkeypatch.setattr(references, "_IMAGES_AT_ONCE", 1)  # in other parts it is the same
    before = kept.path.stat().st_mtime_ns
    assert keep_reference(task([1, 3], [4]), sums, "cpu") == kept
    assert kept.path.stat().st_mtime_ns == before
    kept.path.unlink()
    assert keep_reference(task([1, 3, 4]), sums, "cpu") == kept
    np.testing.assert_allclose(read_reference(kept.path).frechet.moments.scatter, moments.scatter)
    others = [task([3, 1], [4]), task([1, 3]), task([1, 3], [4], pad=1)]
    assert len({kept.key, *(keep_reference(other, sums, "cpu").key for other in others)}) == 4


def test_references_that_cannot_be_written_or_read(sums: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = keep_reference(task([1, 3]), sums, "cpu")
    whole = kept.path.read_bytes()
    for content in (whole[: len(whole) // 2], b"", whole.replace(b"scatter", b"scattre")):
        kept.path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_reference(kept.path)
        assert str(caught.value).startswith(f"the reference features {kept.path} cannot be read (")
        assert str(caught.value).endswith("); `sepbench score` of the run makes them again")
    with pytest.raises(DataError, match=r"none\.safetensors cannot be read"):
        read_reference(tmp_path / "none.safetensors")
    (tmp_path / "file").touch()
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError) as caught:
        keep_reference(task([1, 3]), sums, "cpu")
    where = tmp_path / "file" / "references" / kept.path.name
    assert str(caught.value) == f"cannot write {where}: Not a directory; choose a writable cache folder with SEPBENCH_CACHE"
