from __future__ import annotations

import hashlib
import json
import math
from dataclasses import MISSING, asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from baselines.networks.unet import UNetConfig
from baselines.training import classifier, score
from baselines.training.classifier import ClassifierRecipe
from baselines.training.codec import VQVAERecipe
from baselines.training.config import TrainConfig, batch_indices, derived_seed, draw_sigmas, generator, mirrored, rate_share
from baselines.training.generative import GANRecipe
from baselines.training.latent import LatentRecipe
from baselines.training.mask import MaskRecipe
from baselines.training.token_trainers import CODEC, TOKENS
from baselines.training.tokens import TokenRecipe
from baselines.training.waveform import WaveformRecipe


@settings(deadline=None, max_examples=40)
@given(batch=st.integers(1, 50), n_images=st.integers(1, 40), seed=st.integers(0, 2**40))
def test_every_epoch_shows_every_image_once(batch: int, n_images: int, seed: int) -> None:
    steps = -(-3 * n_images // batch)
    stream = torch.cat([batch_indices(seed, step, batch, n_images) for step in range(steps)])
    assert len(stream) == steps * batch
    for epoch in range(3):
        assert sorted(stream[epoch * n_images : (epoch + 1) * n_images].tolist()) == list(range(n_images))


def test_epochs_and_seeds_differ() -> None:
    first, second = (batch_indices(0, step, 50, 50) for step in (0, 1))
    assert not torch.equal(first, second)
    assert not torch.equal(first, batch_indices(1, 0, 50, 50))


def test_seeds_use_all_their_parts() -> None:
    # torch keeps 32 bits of a seed: two 64-bit seeds with equal low words must still differ.
    assert len({derived_seed(seed, "step", step) for seed in (0, 2**32, 2**33) for step in range(50)}) == 150
    a, b = (torch.rand(3, generator=generator(seed, "x")) for seed in (0, 2**32))
    assert not torch.equal(a, b)


@settings(deadline=None, max_examples=40)
@given(batch=st.integers(1, 200), focus=st.floats(0, 1))
def test_levels_are_in_range_and_stratified(batch: int, focus: float) -> None:
    config = TrainConfig(steps=1, focus=focus, workers=1)
    sigma = draw_sigmas(config, generator(1), batch)
    assert sigma.shape == (batch,)
    assert float(sigma.min()) >= 0.005 * (1 - 1e-5)
    assert float(sigma.max()) <= 2.0 * (1 + 1e-5)
    n_focus = round(focus * batch)
    slices = torch.floor(torch.log(sigma[:n_focus].double() / 0.05) / torch.log(torch.tensor(0.8 / 0.05, dtype=torch.float64)) * n_focus + 1e-4)
    assert slices.tolist() == list(range(n_focus))


@settings(deadline=None, max_examples=20)
@given(batch=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_an_image_is_mirrored_or_itself(batch: int, seed: int) -> None:
    images = torch.rand(batch, 2, 3, 4, generator=generator(seed, "images"))
    shown = mirrored(images, generator(seed))
    exchanged = (shown == images.flip(-1)).flatten(1).all(1)
    assert bool((exchanged | (shown == images).flatten(1).all(1)).all())


def test_about_half_of_the_images_are_mirrored() -> None:
    images = torch.rand(1000, 1, 1, 2, generator=generator(0))
    changed = int((mirrored(images, generator(1)) != images).flatten(1).any(1).sum())
    assert 430 < changed < 570


def test_rate_warms_up_stays_and_decays() -> None:
    config = TrainConfig(steps=100, warmup=10)
    shares = [rate_share(config, step, 78, 22) for step in range(101)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert set(shares[10:79]) == {1.0}
    assert shares[89] == pytest.approx(0.5)
    assert shares[100] == 0.0
    assert rate_share(config, 99, None, 0) == 1.0


COUNTS = "steps, batch and workers must be at least 1, and workers at most batch"
SHARES = "decay_fraction must lie in (0, 1), focus in [0, 1] and ema in [0, 1)"
LEVELS = "a range of noise levels must be positive and increasing, got "


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"steps": 0}, COUNTS),
        ({"batch": 0, "workers": 0}, COUNTS),
        ({"workers": 0}, COUNTS),
        ({"workers": 9, "batch": 8}, COUNTS),
        ({"decay_fraction": 0.0}, SHARES),
        ({"decay_fraction": 1.0}, SHARES),
        ({"focus": -0.1}, SHARES),
        ({"focus": 1.1}, SHARES),
        ({"ema": -0.1}, SHARES),
        ({"ema": 1.0}, SHARES),
        ({"sigma_range": (0.5, 0.1)}, LEVELS + "(0.5, 0.1)"),
        ({"sigma_range": (0.5, 0.5)}, LEVELS + "(0.5, 0.5)"),
        ({"focus_range": (0.0, 0.1)}, LEVELS + "(0.0, 0.1)"),
    ],
)
def test_senseless_settings_are_refused(wrong: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match="must") as refused:
        TrainConfig(**{"steps": 10, **wrong})  # type: ignore[arg-type]
    assert str(refused.value) == says


@pytest.mark.parametrize("edge", [{"steps": 1, "batch": 1, "workers": 1}, {"focus": 0.0, "ema": 0.0}, {"focus": 1.0}])
def test_settings_at_a_bound_are_taken(edge: dict[str, Any]) -> None:
    assert TrainConfig(**{"steps": 10, **edge})


def test_a_seed_is_the_first_four_bytes_of_the_hash_of_its_parts() -> None:
    """Every training that was ever made depends on it."""
    assert derived_seed(0, "step", 3) == int.from_bytes(hashlib.sha256(b"0/step/3").digest()[:4], "little")
    assert derived_seed(1, "weights") == 266_360_463


def test_levels_of_a_batch_begin_with_those_of_the_focus() -> None:
    sigma = draw_sigmas(TrainConfig(steps=1, focus=0.25, focus_range=(0.1, 0.2), sigma_range=(1.0, 4.0)), generator(0), 8)
    place = torch.cat([(sigma[:2] / 0.1).log() / math.log(2) * 2, (sigma[2:] / 1.0).log() / math.log(4) * 6])
    assert place.floor().tolist() == [0, 1, 0, 1, 2, 3, 4, 5]


def test_a_rate_without_warm_up_and_a_decay_of_no_steps() -> None:
    config = TrainConfig(steps=9, warmup=0)
    assert [rate_share(config, step, 1, 0) for step in (0, 1, 2)] == [1.0, 1.0, 0.0]
    assert rate_share(TrainConfig(steps=9, warmup=4), 1, 0, 4) == 0.5 * 0.75


FROZEN = Path(__file__).parents[2] / "golden" / "recipes.json"


def recipes() -> dict[str, Any]:
    """What is trained with which numbers: recipes by name, and the defaults of all others."""
    of_fields = {
        cls.__name__: {f.name: f.default for f in fields(cls) if f.default is not MISSING}
        for cls in (TrainConfig, UNetConfig, MaskRecipe, LatentRecipe, GANRecipe, WaveformRecipe, VQVAERecipe, TokenRecipe, ClassifierRecipe)
    }
    named = {"score": score.RECIPES, "classifier": classifier.RECIPES, "codec": {"all": CODEC}, "tokens": {"all": TOKENS}}
    found = {"defaults": of_fields, **{kind: {name: asdict(recipe) for name, recipe in table.items()} for kind, table in named.items()}}
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


def test_recipes_are_frozen() -> None:
    """Weights that ship, and figures in the documentation, were made with these. Change one knowingly: run this file, which writes what is frozen."""
    frozen, found = json.loads(FROZEN.read_text(encoding="utf-8")), recipes()
    assert set(found) == set(frozen)
    for kind, wanted in frozen.items():
        assert found[kind] == wanted, kind


if __name__ == "__main__":
    FROZEN.write_text(json.dumps(recipes(), indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="")
