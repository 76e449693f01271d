"""Extractors: the rule for images, batches, the contract, the shipped classifiers and InceptionV3 by torch-fidelity."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from third_parties import install

from sepbench.compat import import_torch_fidelity
from sepbench.errors import DataError, MetricError, UnknownNameError
from sepbench.metrics.sets.extractors import BATCH, eight_bits, extracted, extractor_names, get_extractor
from sepbench.metrics.sets.inception import InceptionV3
from sepbench.registry import EXTRACTOR_GROUP

TOY = """
import torch
from sepbench.metrics.sets.extractors import ExtractorInfo

class Toy:
    info = ExtractorInfo("toy", 2, 0, (1, 4, 4), "sums")
    sizes = []
    def digest(self): return "toy"
    def extract(self, images, device):
        self.sizes.append(len(images))
        flat = images.float().flatten(1)
        return torch.stack([flat.sum(1), flat.amax(1)], 1), torch.empty(len(images), 0)

class Wrong(Toy):
    def extract(self, images, device): return torch.zeros(len(images), 3), torch.empty(len(images), 0)

TOY, WRONG = Toy(), Wrong()
"""


@given(st.floats(-1.0, 2.0, width=32))
def test_images_become_eight_bits_by_rounding_half_up_and_cutting(value: float) -> None:
    found = int(eight_bits(torch.full((1, 1, 1, 1), value)))
    assert abs(found - 255 * min(max(value, 0.0), 1.0)) <= 0.5 + 1e-4


def test_halves_of_a_level_go_up_to_even_and_to_odd_levels() -> None:
    levels = torch.arange(20.0)
    assert eight_bits(((levels + 0.5) / 255).reshape(1, 1, 4, 5)).flatten().tolist() == list(range(1, 21))
    assert eight_bits(((levels + 0.49) / 255).reshape(1, 1, 4, 5)).flatten().tolist() == list(range(20))


def test_eight_bits_give_back_what_was_eight_bits() -> None:
    bits = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    assert torch.equal(eight_bits(bits.float() / 255), bits)
    assert torch.equal(eight_bits(torch.tensor([[[[torch.nan, torch.inf, -torch.inf]]]])), torch.tensor([[[[0, 255, 0]]]], dtype=torch.uint8))


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tmp_path, "toys", {EXTRACTOR_GROUP: {"toy": "extractor_toys:TOY", "wrong": "extractor_toys:WRONG"}}, {"extractor_toys": TOY})


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("count", [0, 1, BATCH, BATCH + 1])
def test_calls_are_always_of_one_size(count: int) -> None:
    toy = get_extractor("toy")
    toy.sizes.clear()  # type: ignore[attr-defined]
    images = torch.randint(0, 256, (count, 1, 4, 4), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    features, logits = extracted(toy, images, "cpu")
    assert set(toy.sizes) <= {BATCH}  # type: ignore[attr-defined]
    assert (features.shape, logits.shape) == ((count, 2), (count, 0))
    torch.testing.assert_close(features[:, 0], images.float().flatten(1).sum(1))


@pytest.mark.usefixtures("toys")
def test_what_breaks_the_contract_is_one_line() -> None:
    with pytest.raises(MetricError, match="extractor 'wrong' must have an ExtractorInfo of that name"):
        get_extractor("wrong")
    with pytest.raises(UnknownNameError, match="cifarnet"):
        get_extractor("cifarnett")
    assert {"toy", "inception", "cifarnet", "mnistnet"} <= set(extractor_names())


def test_which_images_an_extractor_takes() -> None:
    inception, cifarnet = get_extractor("inception").info, get_extractor("cifarnet").info
    assert inception.supports((3, 32, 32)).ok
    assert inception.supports((1, 28, 28)).ok
    assert not inception.supports((2, 28, 28)).ok
    assert not inception.supports((1, 16384)).ok
    assert cifarnet.supports((3, 32, 32)).ok
    assert cifarnet.supports((1, 28, 28)).note == "has features of images of shape (3, 32, 32), the task has (1, 28, 28)"


def test_inception_without_weights_says_where_to_put_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SEPBENCH_OFFLINE", "1")
    monkeypatch.setenv("SEPBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("SEPBENCH_DATA", str(tmp_path))
    with pytest.raises(DataError) as refused:
        InceptionV3().digest()
    text = str(refused.value)
    assert "weights-inception-2015-12-05-6726825d.pth" in text
    assert str(tmp_path / "extractors") in text
    assert "\n" not in text


@pytest.mark.slow
def test_inception_is_torch_fidelitys_network_on_images_of_any_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With random weights: the published ones are not here. Grey images are handed over with three equal channels."""
    module = import_torch_fidelity("feature_extractor_inceptionv3")
    with monkeypatch.context() as patched, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        patched.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        torch.save({}, tmp_path / "none.pth")
        theirs = module.FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(tmp_path / "none.pth")
        )
    torch.save(theirs.state_dict(), tmp_path / "random.pth")
    extractor = InceptionV3()
    monkeypatch.setattr(InceptionV3, "_weights", str(tmp_path / "random.pth"))
    images = torch.randint(0, 256, (3, 1, 28, 28), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    features, logits = extractor.extract(images, "cpu")
    expected = theirs(images.repeat(1, 3, 1, 1))
    torch.testing.assert_close(features, expected[0])
    torch.testing.assert_close(logits, expected[1])
    assert features.shape == (3, extractor.info.features)
    assert logits.shape == (3, extractor.info.classes)
