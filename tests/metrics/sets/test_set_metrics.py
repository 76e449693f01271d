"""Metrics of sets as they are joined, lines through distances by an independent fit, and InceptionV3 around a network that stands in."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from metric_cases import image_task

from sepbench.errors import DataError, MetricError
from sepbench.metrics.catalogue import get_metric
from sepbench.metrics.sets import catalogue, extractors, inception, kernel
from sepbench.metrics.sets.catalogue import fid, fid_limit, inception_score, kid
from sepbench.metrics.sets.extraction import features_of
from sepbench.metrics.sets.extractors import BATCH, ExtractorInfo, _loaded, extracted
from sepbench.metrics.sets.features import SetFeatures, SetReference, SetValue, order_of
from sepbench.metrics.sets.frechet import FrechetReference, frechet_distance, frechet_limit_values, frechet_values, limit_counts, smallest_for_limit
from sepbench.metrics.sets.inception import INCEPTION, InceptionV3
from sepbench.metrics.sets.inception_score import inception_values
from sepbench.metrics.sets.kernel import kernel_values
from sepbench.metrics.sets.moments import Array, Moments
from sepbench.metrics.sets.references import keep_reference

BLOCK = 50
"""Images of a block of the kernel distance, in place of 1,000."""


def rows(count: int, width: int, seed: int) -> Array:
    return np.random.default_rng(seed).normal(size=(count, width))


def features_of_rows(values: Array, logits: Array | None = None) -> SetFeatures:
    shown = np.zeros((len(values), 0)) if logits is None else logits
    return SetFeatures(len(values), lambda: iter([values[:7], values[7:]]), lambda: iter([shown]), order_of(np.arange(len(values))))


# --- statistics joined to extractors


def test_each_name_leads_to_its_statistic_of_its_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "BLOCK", BLOCK)
    values, against = rows(2 * BLOCK, 2, 0), rows(BLOCK, 2, 1).astype(np.float32)
    logits = rows(2 * BLOCK, 3, 2).astype(np.float32)
    given, reference = features_of_rows(values, logits), SetReference(FrechetReference(Moments.of(against)), against)
    found = {make: make("mnistnet").pool(given, reference) for make in (fid, fid_limit, kid, inception_score)}
    np.testing.assert_array_equal(found[fid].values, frechet_values(given.features, reference.frechet))
    np.testing.assert_array_equal(found[fid_limit].values, frechet_limit_values(given.features, reference.frechet, given.order))
    blocks, scores = kernel_values(given.features, against), inception_values(given.logits)
    np.testing.assert_array_equal(found[kid].values, blocks.values)
    np.testing.assert_array_equal(found[inception_score].values, scores.values)
    assert len(blocks.blocks) == 2
    assert found[kid].std == pytest.approx(abs(blocks.blocks[0] - blocks.blocks[1]) / 2)
    assert found[inception_score].std == pytest.approx(np.sqrt(((scores.splits - scores.splits.mean()) ** 2).mean()))
    assert np.isnan([found[fid].std, found[fid_limit].std, SetValue(np.zeros(1)).std]).all()
    one_block = kid("mnistnet").pool(features_of_rows(values[:BLOCK]), reference)
    assert np.isnan(one_block.std)


def test_what_a_set_s_metric_says_of_itself() -> None:
    for net in ("inception", "mnistnet", "cifarnet"):
        for name in ("fid", "fid_inf", "kid", "is"):
            metric: Any = get_metric(f"{name}_{net}")
            assert (metric.extractor, metric.spread, metric.needs_classes) == (net, "influence function", name == "is")
            assert metric.info.domains == {"image"}


def test_a_score_of_classes_wants_an_extractor_that_gives_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "get_extractor", lambda name: SimpleNamespace(info=ExtractorInfo(name, 2, 0, (1, 8, 8), "")))
    support = inception_score("toy").supports(image_task(2))
    assert (support.ok, support.note) == (False, "needs class probabilities, which extractor 'toy' does not give")
    assert fid("toy").supports(image_task(2)).ok
    other = kid("toy").supports(image_task(2, (1, 8, 9)))
    assert (other.ok, other.note) == (False, "has features of images of shape (1, 8, 8), the task has (1, 8, 9)")


# --- the line through the distances of several numbers of images


def test_the_limit_is_where_the_line_through_the_distances_of_the_first_images_in_order_meets_the_axis() -> None:
    values, reference = rows(60, 3, 0), FrechetReference(Moments.of(rows(500, 3, 1)))
    order = order_of(np.arange(60))
    first = np.argsort(order)
    counts = [round(6 + n * 54 / 14) for n in range(15)]
    assert limit_counts(60) == counts
    distances = [frechet_distance(Moments.of(values[first[:count]]), reference) for count in counts]
    _, intercept = np.polyfit([1 / count for count in counts], distances, 1)
    found = frechet_limit_values(lambda: iter([values[:11], values[11:]]), reference, order)
    assert found.mean() == pytest.approx(intercept, rel=1e-9)
    inverse = np.array([1 / count for count in counts])
    centred = inverse - inverse.mean()
    influence = np.zeros(60)
    for count, x in zip(counts, centred, strict=True):
        chosen = np.sort(first[:count])
        own = frechet_values(lambda chosen=chosen: iter([values[chosen]]), reference)
        influence[chosen] += (1 / 15 - inverse.mean() * x / (centred @ centred)) * 60 / count * (own - own.mean())
    np.testing.assert_allclose(found - found.mean(), influence, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("count", "finite"), [(39, False), (40, True), (0, True)])
def test_a_line_is_drawn_from_twenty_images_per_feature_on(count: int, finite: bool) -> None:
    assert smallest_for_limit(2) == 40
    values, reference = rows(count, 2, 0), FrechetReference(Moments.of(rows(50, 2, 1)))
    found = frechet_limit_values(lambda: iter([values]), reference, order_of(np.arange(count))) if count else np.zeros(0)
    assert len(found) == count
    assert np.isfinite(found).all() == finite


def test_a_reference_with_what_is_not_finite_or_of_one_image_gives_no_distance() -> None:
    good, one = Moments.of(rows(9, 2, 0)), Moments.of(rows(1, 2, 0))
    broken = Moments(9, good.mean, np.full((2, 2), np.inf))
    assert np.isfinite(frechet_distance(good, FrechetReference(good)))
    assert np.isnan([frechet_distance(good, FrechetReference(broken)), frechet_distance(broken, FrechetReference(good))]).all()
    assert np.isnan([frechet_distance(good, FrechetReference(one)), frechet_distance(one, FrechetReference(good))]).all()
    assert frechet_distance(Moments.of(rows(2, 2, 0)), FrechetReference(Moments.of(rows(2, 2, 0)))) == pytest.approx(0.0, abs=1e-9)


# --- extractors


class _Told:
    """Remembers which device it was asked to compute on."""

    info: ClassVar[ExtractorInfo] = ExtractorInfo("told", 1, 1, (), "")

    def __init__(self) -> None:
        self.devices: list[str] = []
        self.images: list[torch.Tensor] = []

    def digest(self) -> str:
        return "told"

    def extract(self, images: torch.Tensor, device: str) -> tuple[torch.Tensor, torch.Tensor]:
        self.devices.append(device)
        self.images.append(images.clone())
        return images.float().flatten(1).mean(1, keepdim=True), torch.zeros(BATCH, 1)


def test_features_are_computed_where_they_are_asked_for_and_batches_are_filled_with_black(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path))
    told = _Told()
    monkeypatch.setattr("sepbench.metrics.sets.extraction.get_extractor", lambda name: told)
    features_of("told", torch.ones(1, 2, 1, 8, 8), image_task(2), "cuda:1")
    signals = SimpleNamespace(load=lambda part: torch.ones(len(part), 1, 4, 4))
    task: Any = SimpleNamespace(reference=lambda: [(signals, torch.arange(3), lambda values: values)])
    keep_reference(task, told, "cuda:2")
    assert told.devices == ["cuda:1", "cuda:2"]
    assert told.images[0][:2].unique().tolist() == [255]
    assert told.images[0][2:].unique().tolist() == [0]
    assert BATCH == 64


def test_results_of_a_second_batch_stand_behind_those_of_the_first() -> None:
    images = torch.arange(BATCH + 3, dtype=torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    assert extracted(_Told(), images, "cpu")[0][:, 0].tolist() == list(range(BATCH + 3))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (_Told, "extractor 'told' (type) must be an object with info, digest and extract; see sepbench.metrics.sets.extractors"),
        (3, "extractor 'told' (int) must be an object with info, digest and extract; see sepbench.metrics.sets.extractors"),
        (SimpleNamespace(info={}, digest=str, extract=str), "extractor 'told' must have an ExtractorInfo of that name as info"),
        (
            SimpleNamespace(info=ExtractorInfo("other", 1, 1, (), ""), digest=str, extract=str),
            "extractor 'told' must have an ExtractorInfo of that name as info",
        ),
    ],
)
def test_the_whole_line_about_what_is_no_extractor(monkeypatch: pytest.MonkeyPatch, entry: Any, told: str) -> None:
    monkeypatch.setattr(extractors, "load_entry", lambda group, name: entry)
    with pytest.raises(MetricError) as caught:
        _loaded.__wrapped__("told", "")
    assert str(caught.value) == told
    monkeypatch.setattr(extractors, "load_entry", lambda group, name: _Told())
    assert _loaded.__wrapped__("told", "").info.name == "told"


# --- InceptionV3


class _Network:
    """Features and logits are sums over the channels of what it is given; remembers how it was made."""

    made: ClassVar[list[tuple[Any, ...]]] = []

    def __init__(self, name: str, layers: list[str], feature_extractor_weights_path: str) -> None:
        if feature_extractor_weights_path.endswith("wrong"):
            raise RuntimeError("size mismatch")
        self.made.append((name, layers, feature_extractor_weights_path))

    def to(self, device: str) -> _Network:
        self.made.append(("to", device))
        return self

    def __call__(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert images.shape[1] == 3
        assert images.is_contiguous()
        assert not torch.is_grad_enabled()
        return images.double().flatten(1).mean(1, keepdim=True), images.double().flatten(2).amax(2)


def test_inception_is_made_once_per_device_with_the_layers_of_published_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(inception, "import_torch_fidelity", lambda module: (asked.append(module), SimpleNamespace(FeatureExtractorInceptionV3=_Network))[1])
    monkeypatch.setattr(_Network, "made", [])
    extractor = InceptionV3()
    monkeypatch.setattr(InceptionV3, "_weights", "/w/right")
    grey = torch.tensor([[[[3, 5]]]], dtype=torch.uint8)
    for images in (grey, torch.cat([grey, grey, 2 * grey], dim=1)):
        features, logits = extractor.extract(images, "cpu")
        assert (features.dtype, logits.dtype) == (torch.float32, torch.float32)
        assert logits.tolist() == ([[5.0, 5.0, 5.0]] if images is grey else [[5.0, 5.0, 10.0]])
    assert asked == ["feature_extractor_inceptionv3"]
    assert _Network.made == [("inception-v3-compat", ["2048", "logits_unbiased"], "/w/right"), ("to", "cpu")]
    info = INCEPTION.info
    assert (info.name, info.features, info.classes, info.shape) == ("inception", 2048, 1008, ())
    assert info.source == "InceptionV3 of 2015 by torch-fidelity: 299 x 299 as TensorFlow 1 resizes, grey three times"


def test_weights_that_do_not_fit_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inception, "import_torch_fidelity", lambda module: SimpleNamespace(FeatureExtractorInceptionV3=_Network))
    monkeypatch.setattr(InceptionV3, "_weights", "/w/wrong")
    with pytest.raises(DataError) as caught:
        InceptionV3().extract(torch.zeros(1, 3, 2, 2, dtype=torch.uint8), "cpu")
    assert str(caught.value) == "/w/wrong does not fit torch-fidelity's InceptionV3 (RuntimeError); install torch-fidelity 0.3 or later"


def test_features_of_other_weights_or_of_other_code_are_kept_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digests = set()
    for content, version in (("a", "1"), ("b", "1"), ("a", "2")):
        (tmp_path / "weights").write_text(content)
        monkeypatch.setattr(InceptionV3, "_weights", str(tmp_path / "weights"))
        monkeypatch.setattr(inception, "_CODE_VERSION", version)
        digests.add(InceptionV3().digest())
    assert len(digests) == 3
