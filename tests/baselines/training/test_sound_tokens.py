"""The fit of LASS on sound: its stages, what each learns from, pairs that are counted, resuming, files that do not go together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from killed_fits import killed_and_resumed
from method_toys import ToyView, context
from sound_toys import sound_task, sounds

from baselines.priors.token_sums import SumCounts
from baselines.training import loop, stages
from baselines.training.band_spectrogram import BandSpectrogram
from baselines.training.codec import VQVAERecipe, VQVAETraining, network_digest, new_vqvae, tokens_of
from baselines.training.epochs import epoch_rows
from baselines.training.sound_tokens import LearntSoundTokens, SoundModels, SoundSums, pictures_of
from baselines.training.token_models import frozen
from baselines.training.tokens import TokenRecipe, TokenTraining, new_transformer
from sepbench.errors import DataError, SepbenchError
from sepbench.protocols import TaskSpec

TASK = sound_task(4_000, assignment="ordered")
ALIKE = sound_task(4_000, classes=("any", "any"))
TRAIN = sounds(30, 4_000, seed=5)
FRONT = BandSpectrogram(8_000, 16)
_CODEC: Mapping[str, Any] = {"bands": 16, "codes": 10, "width": 8, "codec_epochs": 2, "codec_batch": 16, "restart_every": 4}
_PRIOR: Mapping[str, Any] = {"prior_width": 8, "prior_layers": 1, "prior_epochs": 2, "prior_batch": 8, "passes": 2}
TINY: Mapping[str, Any] = {**_CODEC, **_PRIOR}


def view(task: TaskSpec = TASK, count: int = 30) -> ToyView:
    of = TRAIN[:count]
    return ToyView(task, "prior" if task.class_agnostic else "sources", (of[:, 0], of[: count - 5, 1]), of.flatten(0, 1))


def fitted(task: TaskSpec = TASK, cache: Path | None = None, seed: int = 0, **settings: Any) -> LearntSoundTokens:
    method = LearntSoundTokens(**{**TINY, **settings})
    method.fit(view(task), context(task, seed, cache=cache))
    return method


def test_a_fit_follows_from_seed_and_settings(tmp_path: Path) -> None:
    first = fitted()
    assert first.weights_sha256 == fitted(cache=tmp_path).weights_sha256
    assert first.weights_sha256 != fitted(seed=1).weights_sha256
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec", "prior-0", "prior-1", "sums"]
    models = first.fitted()
    assert models.priors[0] is not models.priors[1]
    assert int(models.sums.counts.sum()) == 2 * 23 * 12, "two passes of 23 pairs, as the smaller class has, at 12 positions"
    assert first.prior_label == f"VQ-VAE and 2 transformers, 0.0 M, {first.weights_sha256[:8]}"


def test_one_class_has_one_prior_and_counts_both_orders() -> None:
    one = fitted(ALIKE)
    models = one.fitted()
    assert models.priors[0] is models.priors[1]
    assert models.sums.symmetric().counts.equal(2 * models.sums.counts)
    assert one.prior_label.startswith("VQ-VAE and transformer, ")


def test_what_each_stage_learns_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stages, "resume", lambda one, folder, device: None)
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append((one, folder)))
    more = {"codec_epochs": 21, "prior_epochs": 31, "passes": 41, "decay": 0.5, "commitment": 0.75, "reconstruction": 2.0, "restart_every": 6, "means": 0.25}
    more |= {"dropout": 0.3, "prior_width": 12, "prior_layers": 2, "prior_heads": 3, "held_out": 2, "symmetric": True, "every_triple": False}
    task = sound_task(4_000, assignment="ordered", operator="sum")
    method = LearntSoundTokens(**{**TINY, "codec_batch": 7, "prior_batch": 5, "codec_lr": 0.5, "prior_lr": 0.25, "fit_precision": "float32", **more})
    method.fit(view(task), context(task, 4, cache=tmp_path, budget="quick"))
    assert [folder.name for _, folder in seen] == ["codec", "prior-0", "prior-1", "sums"]
    codec, first, second, sums = (one for one, _ in seen)
    assert codec.recipe == VQVAERecipe(3, 7, 0.5, 0.5, 0.75, 2.0, 6, "float32", 4, 0.25)
    assert first.recipe == second.recipe == TokenRecipe(4, 5, 0.25, 0.5, 0.3, "float32", 4)
    assert (sums.steps / sums.batches, sums.seed, sums.symmetric, sums.counter.every_triple) == (5, 4, True, False)
    clean = [FRONT.pictures(TRAIN[:28, 0]), FRONT.pictures(TRAIN[:23, 1])]
    assert len(codec.images) == 28 + 23 + 17, "mixtures are a quarter"
    torch.testing.assert_close(codec.images[:51], torch.cat(clean))
    torch.testing.assert_close(codec.held_out, torch.cat([FRONT.pictures(TRAIN[28:30, 0]), FRONT.pictures(TRAIN[23:25, 1])]))
    assert [len(one.held_out) for one in (first, second)] == [2, 2]
    for one, of in zip((first, second), clean, strict=True):
        assert torch.equal(one.tokens, tokens_of(codec.network, of))
    shape = FRONT.shape(4_000)
    assert network_digest(codec.network) == network_digest(new_vqvae(shape, 10, 8, 4, "cpu"))
    assert [network_digest(one.network) for one in (first, second)] == [network_digest(new_transformer(10, 12, 12, 2, 3, seed, "cpu")) for seed in (4, 5)]


@pytest.mark.parametrize(("operator", "weight"), [("mean", 0.5), ("sum", 1.0)])
def test_parts_have_their_weight_in_a_mixture(monkeypatch: pytest.MonkeyPatch, operator: str, weight: float) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append(one))
    for task in (sound_task(4_000, operator=operator), sound_task(4_000, classes=("any", "any"), operator=operator)):
        LearntSoundTokens(**TINY, held_out=0).fit(view(task), context(task))
    of_classes, of_one = seen[0], seen[4]
    torch.testing.assert_close(of_classes.images[:30], FRONT.pictures(weight * TRAIN[:, 0]))
    torch.testing.assert_close(of_one.images[:60], FRONT.pictures(weight * TRAIN.flatten(0, 1)))
    assert len(of_classes.held_out) == len(of_one.held_out) == 0


def test_the_mixtures_of_the_codec_are_of_one_sound_of_each_class() -> None:
    parts = [torch.tensor([1.0, 2.0, 4.0])[:, None, None], torch.tensor([10.0, 20.0])[:, None, None]]
    made = LearntSoundTokens(**TINY | {"means": 0.9})._mixtures(parts, 3)
    assert len(made) == 45
    assert set(made.flatten().tolist()) == {11.0, 12.0, 14.0, 21.0, 22.0, 24.0}
    assert torch.equal(made, LearntSoundTokens(**TINY | {"means": 0.9})._mixtures(parts, 3))
    assert not torch.equal(made, LearntSoundTokens(**TINY | {"means": 0.9})._mixtures(parts, 4))
    assert len(LearntSoundTokens(**TINY | {"means": 0.0})._mixtures(parts, 3)) == 0


def test_pairs_are_of_one_sound_of_each_class_in_their_order() -> None:
    codec = frozen(new_vqvae(FRONT.shape(4_000), 10, 8, 0, "cpu"))
    parts = [TRAIN[:7, 0], TRAIN[:5, 1]]
    tokens = [tokens_of(codec, FRONT.pictures(part)) for part in parts]
    counting = SoundSums(codec, FRONT, parts, tokens, 3, 8, batch=2)
    assert (counting.batch, counting.batches, counting.steps) == (2, 2, 6)
    for turn, batch in ((0, 0), (2, 1)):
        rows = [epoch_rows(8, f"sound-pairs-{which}", turn, batch, 2, count) for which, count in enumerate((7, 5))]
        first, second, mixed = counting.pairs(turn, batch)
        assert torch.equal(first, tokens[0][rows[0]])
        assert torch.equal(second, tokens[1][rows[1]])
        torch.testing.assert_close(mixed, FRONT.pictures(parts[0][rows[0]] + parts[1][rows[1]]))
    while not counting.finished:
        counting.advance()
    assert isinstance(counting.counts(), SumCounts)
    assert counting.counts().codec == network_digest(codec)
    assert int(counting.counts().counts.sum()) == 6 * 2 * 12
    assert SoundSums(codec, FRONT, parts, tokens, 3, 8).batch == 5, "at most as many as the smaller class has"


def test_pictures_are_made_some_at_a_time() -> None:
    many = torch.cat([TRAIN[:, 0]] * 3)
    torch.testing.assert_close(pictures_of(FRONT, many), FRONT.pictures(many))
    assert pictures_of(FRONT, many[:0]).shape == (0, 1, 12, 16)


@pytest.mark.parametrize("stage", [VQVAETraining, TokenTraining, SoundSums])
def test_a_fit_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: type[loop.Training]) -> None:
    resumed = killed_and_resumed(lambda: fitted(cache=tmp_path), stage, monkeypatch)
    assert isinstance(resumed, LearntSoundTokens)
    assert resumed.weights_sha256 == fitted().weights_sha256


@pytest.mark.parametrize("task", [TASK, ALIKE])
def test_a_kept_fit_is_the_fit(tmp_path: Path, task: TaskSpec) -> None:
    method, loaded = fitted(task), LearntSoundTokens(**TINY)
    assert loaded.weights_sha256 == loaded.prior_label == ""
    with pytest.raises(ValueError, match="fit"):
        loaded.fitted()
    method.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 4 - task.class_agnostic
    loaded.load(tmp_path, context(task))
    assert loaded.weights_sha256 == method.weights_sha256
    models = loaded.fitted()
    assert models.front == method.fitted().front == FRONT
    assert (models.priors[0] is models.priors[1]) == task.class_agnostic
    assert not any(p.requires_grad for network in (models.codec, *models.priors) for p in network.parameters())


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    """Another codec, another number of codes, damage: one line each."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, seed in ((one, 0), (other, 1)):
        folder.mkdir()
        fitted(seed=seed).save(folder)

    def told(settings: Mapping[str, Any] = TINY) -> str:
        with pytest.raises(DataError) as error:
            LearntSoundTokens(**settings).load(one, context(TASK))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "layout" in told({**TINY, "codes": 11})
    for name in ("prior-0", "prior-1", "sums"):
        right = (one / f"{name}.safetensors").read_bytes()
        (one / f"{name}.safetensors").write_bytes((other / f"{name}.safetensors").read_bytes())
        assert "another codec" in told()
        (one / f"{name}.safetensors").write_bytes(right[:100])
        assert "cannot be read" in told()
        (one / f"{name}.safetensors").unlink()
        assert "is missing" in told()
        (one / f"{name}.safetensors").write_bytes(right)
    LearntSoundTokens(**TINY).load(one, context(TASK))


def test_too_few_sounds_for_a_prior_are_told_before_the_codec_trains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: pytest.fail("began"))
    with pytest.raises(SepbenchError, match="a batch of 24 cannot be filled from 23"):
        LearntSoundTokens(**TINY | {"prior_batch": 24}).fit(view(), context(TASK))


def test_at_most_a_tenth_of_each_class_is_held_out(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append(one))
    LearntSoundTokens(**TINY | {"held_out": 100}).fit(view(), context(TASK))
    assert [(len(one.tokens), len(one.held_out)) for one in seen[1:3]] == [(27, 3), (23, 2)]


@pytest.mark.parametrize("wrong", [{"bands": 0}, {"bands": 18}, {"means": 1.0}, {"codes": 1}, {"held_out": -1}, {"prior_width": 9}])
def test_bad_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        LearntSoundTokens(**wrong)


@pytest.mark.parametrize(
    ("task", "shares"),
    [(TASK, [0.225, 0.45, 0.5625, 0.675, 0.7875, 0.9, 0.95, 1.0]), (ALIKE, [0.225, 0.45, 0.675, 0.9, 0.95, 1.0])],
)
def test_progress_counts_one_prior_of_each_class(task: TaskSpec, shares: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """The codec takes 45 % of a fit, all priors together 45 %, the sums the rest."""
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: [progress(done, f"at {done}") for done in (0.5, 1.0)])
    LearntSoundTokens(**TINY).fit(view(task), context(task, progress=lambda done, text: told.append((done, text))))
    assert [done for done, _ in told] == pytest.approx(shares)
    priors = ["prior-0"] if task.class_agnostic else ["prior-0", "prior-1"]
    assert [text for _, text in told] == [f"{name}: at {done}" for name in ("codec", *priors, "sums") for done in (0.5, 1.0)]


def test_what_was_learnt_is_ready_for_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: None)
    models = fitted().fitted()
    for network in (models.codec, *models.priors):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


def test_digest_and_label_are_of_all_that_was_learnt() -> None:
    """And one prior that stands for both sources counts once."""
    codec = new_vqvae((1, 12, 16), 512, 96, 0, "cpu")
    first, second = (new_transformer(512, 12, 128, 2, 2, seed, "cpu") for seed in (0, 1))
    counts, method = SumCounts(512, torch.tensor([3]), torch.tensor([2]), "c"), LearntSoundTokens(**TINY)
    for priors, networks, name in (((first, second), (codec, first, second), "2 transformers"), ((first, first), (codec, first), "transformer")):
        method._sounds = SoundModels(FRONT, codec, priors, counts)
        digest = hashlib.sha256(" ".join([*map(network_digest, networks), counts.digest]).encode()).hexdigest()
        count = sum(p.numel() for network in networks for p in network.parameters())
        assert method.weights_sha256 == digest
        assert method.prior_label == f"VQ-VAE and {name}, {count / 1e6:.1f} M, {digest[:8]}"
