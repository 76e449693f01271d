"""The fit of LASS: its three stages, resuming, what is kept, and files that do not go together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from killed_fits import killed_and_resumed
from method_toys import Digits, ToyView, context, toy_task
from safetensors.torch import save_file

from baselines.training import loop, stages, token_models
from baselines.training.codec import VQVAERecipe, VQVAETraining, network_digest, new_vqvae, tokens_of
from baselines.training.token_models import LearntTokens
from baselines.training.tokens import SumTraining, TokenRecipe, TokenTraining, new_transformer
from sepbench.errors import DataError, SepbenchError

TASK = toy_task()
_CODEC: Mapping[str, Any] = {"codes": 10, "width": 8, "codec_epochs": 2, "codec_batch": 32, "codec_lr": 3e-3, "restart_every": 4}
_PRIOR: Mapping[str, Any] = {"prior_width": 8, "prior_layers": 1, "prior_epochs": 2, "prior_batch": 32, "prior_lr": 3e-3, "passes": 2}
TINY: Mapping[str, Any] = {**_CODEC, **_PRIOR, "held_out": 20}


def fitted(digits: Digits, cache: Path | None = None, seed: int = 0, **settings: Any) -> LearntTokens:
    method = LearntTokens(**{**TINY, **settings})
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK, seed, cache=cache))
    return method


def test_a_fit_follows_from_seed_and_settings(digits: Digits, tmp_path: Path) -> None:
    first = fitted(digits)
    assert first.weights_sha256 == fitted(digits, tmp_path).weights_sha256
    assert first.weights_sha256 != fitted(digits, seed=1).weights_sha256
    assert first.fitted().sums.digest != fitted(digits, symmetric=False).fitted().sums.digest
    assert sorted(path.name for path in tmp_path.iterdir()) == ["codec", "prior", "sums"]
    assert int(first.fitted().sums.counts.sum()) == 2 * 67 * 4 * 2, "twice 67 pairs of 135 images, four positions, both orders"


@pytest.mark.parametrize("stage", [VQVAETraining, TokenTraining, SumTraining])
def test_a_fit_that_is_killed_goes_on(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: type[loop.Training]) -> None:
    resumed = killed_and_resumed(lambda: fitted(digits, tmp_path), stage, monkeypatch)
    assert isinstance(resumed, LearntTokens)
    assert resumed.weights_sha256 == fitted(digits).weights_sha256


def test_a_kept_fit_is_the_fit(digits: Digits, tmp_path: Path) -> None:
    method, loaded = fitted(digits), LearntTokens(**TINY)
    assert loaded.weights_sha256 == ""
    with pytest.raises(ValueError, match="fit"):
        loaded.fitted()
    method.save(tmp_path)
    loaded.load(tmp_path, context(TASK))
    assert loaded.weights_sha256 == method.weights_sha256
    images = digits.pooled[:4]
    assert torch.equal(loaded.fitted().codec(images).images, method.fitted().codec(images).images)
    assert not any(p.requires_grad for network in (loaded.fitted().codec, method.fitted().prior) for p in network.parameters())


def test_files_that_do_not_go_together(digits: Digits, tmp_path: Path) -> None:
    """Another codec, another number of codes, damage: one line each."""
    one, other = tmp_path / "one", tmp_path / "other"
    for folder, seed in ((one, 0), (other, 1)):
        folder.mkdir()
        fitted(digits, seed=seed).save(folder)

    def told(settings: Mapping[str, Any] = TINY) -> str:
        with pytest.raises(DataError) as error:
            LearntTokens(**settings).load(one, context(TASK))
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "layout" in told({**TINY, "codes": 11})
    for name in ("prior", "sums"):
        right = (one / f"{name}.safetensors").read_bytes()
        (one / f"{name}.safetensors").write_bytes((other / f"{name}.safetensors").read_bytes())
        assert "another codec" in told()
        (one / f"{name}.safetensors").write_bytes(right[:100])
        assert "cannot be read" in told()
        (one / f"{name}.safetensors").unlink()
        assert "is missing" in told()
        (one / f"{name}.safetensors").write_bytes(right)
    LearntTokens(**TINY).load(one, context(TASK))


def test_quick_makes_a_tenth(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[float] = []
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: steps.append(one.steps / one.batches))
    for budget in ("paper", "quick"):
        view = ToyView(TASK, "prior", pooled=digits.pooled[:200])
        LearntTokens(**{**TINY, "codec_epochs": 500, "prior_epochs": 500, "passes": 50}).fit(view, context(TASK, budget=budget))
    assert steps == [500, 500, 50, 50, 50, 5]


def test_progress_goes_up_to_all_of_it(digits: Digits) -> None:
    told: list[tuple[float, str]] = []
    method = LearntTokens(**TINY)
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK, progress=lambda done, text: told.append((done, text))))
    shares = [done for done, _ in told]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert {text.partition(":")[0] for _, text in told} == {"codec", "prior", "sums"}


def test_settings_and_the_run_are_handed_on(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stages, "resume", lambda one, folder, device: seen.append((folder, device)))
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append((one, folder)))
    more = {"codec_epochs": 21, "prior_epochs": 31, "passes": 41, "decay": 0.5, "commitment": 0.75, "reconstruction": 2.0, "restart_every": 6, "means": 0.25}
    more |= {"dropout": 0.3, "prior_width": 12, "prior_layers": 2, "prior_heads": 3, "held_out": 5, "symmetric": False, "every_triple": False}
    method = LearntTokens(**{**TINY, "codec_batch": 7, "prior_batch": 8, "codec_lr": 0.5, "prior_lr": 0.25, "fit_precision": "float32", **more})
    method.fit(ToyView(TASK, "prior", pooled=digits.pooled[:150]), context(TASK, 4, cache=tmp_path, budget="quick"))
    assert [folder for _, folder in seen[1::2]] == [tmp_path / name for name in ("codec", "prior", "sums")]
    assert seen[::2] == [(tmp_path / name, "cpu") for name in ("codec", "prior", "sums")]
    codec, prior, sums = (one for one, _ in seen[1::2])
    assert codec.recipe == VQVAERecipe(3, 7, 0.5, 0.5, 0.75, 2.0, 6, "float32", 4, 0.25)
    assert prior.recipe == TokenRecipe(4, 8, 0.25, 0.5, 0.3, "float32", 4)
    assert (len(codec.images), len(codec.held_out), len(prior.tokens), len(prior.held_out)) == (145, 5, 145, 5)
    assert torch.equal(codec.held_out, digits.pooled[145:150])
    assert torch.equal(prior.tokens, tokens_of(codec.network, digits.pooled[:145]))
    assert torch.equal(prior.held_out, tokens_of(codec.network, digits.pooled[145:150]))
    assert network_digest(codec.network) == network_digest(new_vqvae((1, 8, 8), 10, 8, 4, "cpu"))
    assert network_digest(prior.network) == network_digest(new_transformer(10, 4, 12, 2, 3, 4, "cpu"))
    assert (sums.steps / sums.batches, sums.seed, sums.symmetric, sums.counter.every_triple) == (5, 4, False, False)
    for network in (method.fitted().codec, method.fitted().prior):
        assert not network.training
        assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize(("asked", "images", "kept"), [(1000, 150, 15), (0, 150, 0), (9, 150, 9), (1000, 149, 14)])
def test_at_most_a_tenth_is_held_out(asked: int, images: int, kept: int, digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append(one))
    LearntTokens(**{**TINY, "held_out": asked}).fit(ToyView(TASK, "prior", pooled=digits.pooled[:images]), context(TASK))
    codec, prior, sums = seen
    assert (len(codec.held_out), len(prior.held_out), len(codec.images), len(sums.images)) == (kept, kept, images - kept, images - kept)


def test_too_few_images_for_the_prior_are_told_before_the_codec_trains(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: pytest.fail("began"))
    method, view = LearntTokens(**{**TINY, "prior_batch": 64, "held_out": 7}), ToyView(TASK, "prior", pooled=digits.pooled[:70])
    with pytest.raises(SepbenchError, match="a batch of 64 cannot be filled from 63"):
        method.fit(view, context(TASK))


def test_weights_that_are_named_shipped_or_learnt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the models come from: what is named; what ships, if no setting was changed; else none, so they are learnt."""
    checked: list[str] = []
    shipped = SimpleNamespace(folder=tmp_path / "shipped", check=lambda: checked.append("checked"))
    monkeypatch.setattr(token_models, "find_tokens", lambda task: shipped if task is TASK else None)
    monkeypatch.setattr(token_models, "shipped_digest", lambda: "of all that ship")
    assert LearntTokens()._ready(TASK) == tmp_path / "shipped"
    assert checked == ["checked"]
    assert LearntTokens()._ready(toy_task(operator="mean")) is None
    for changed in ({"weights": "train"}, {"codes": 9}, {"means": 0.5}, {"held_out": 999}):
        assert LearntTokens(**changed)._ready(TASK) is None
        assert LearntTokens(**changed).weights_sha256 == ""
    assert LearntTokens().weights_sha256 == "of all that ship"
    assert LearntTokens(weights=str(tmp_path))._ready(TASK) == tmp_path
    for place in (tmp_path / "none", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(DataError) as refused:
            LearntTokens(weights=str(place))._ready(TASK)
        files = "codec.safetensors, prior.safetensors, sums.safetensors"
        assert str(refused.value) == f"weights={place}: no such folder; it must hold {files}, as `sepbench train tokens` writes them"
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own").mkdir()
    assert LearntTokens(weights="~/own")._ready(TASK) == tmp_path / "own"


def test_the_digest_of_named_files_and_of_what_was_learnt(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    named = LearntTokens(**TINY, weights="~/own")
    assert named.weights_sha256 == ""
    for name in ("b.safetensors", "a.safetensors", "c.json"):
        (own / name).write_text(name)
    both = " ".join(hashlib.sha256(name.encode()).hexdigest() for name in ("a.safetensors", "b.safetensors"))
    assert named.weights_sha256 == hashlib.sha256(both.encode()).hexdigest()
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: one.advance())
    method = fitted(digits)
    known = method.fitted()
    three = f"{network_digest(known.codec)} {network_digest(known.prior)} {known.sums.digest}"
    assert method.weights_sha256 == hashlib.sha256(three.encode()).hexdigest()
    count = sum(p.numel() for network in (known.codec, known.prior) for p in network.parameters())
    assert method.prior_label == f"VQ-VAE and transformer, {count / 1e6:.1f} M, {method.weights_sha256[:8]}"


def test_a_method_that_names_a_folder_reads_it(digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[object, ...]] = []
    monkeypatch.setattr(LearntTokens, "load", lambda self, folder, ctx: read.append((folder, ctx)))
    ctx = context(TASK)
    LearntTokens(**TINY, weights=str(tmp_path)).fit(ToyView(TASK, "prior"), ctx)
    assert read == [(tmp_path, ctx)]


def test_files_name_their_codec_and_refusals_say_which(tmp_path: Path) -> None:
    network, path = torch.nn.Linear(2, 1), tmp_path / "x.safetensors"

    def says(codec: str, into: torch.nn.Module = network) -> str:
        with pytest.raises(DataError) as refused:
            token_models.load_network(into, path, codec)
        return str(refused.value)

    assert says("") == f"{path} is missing; train it again"
    token_models.save_network(network, path, "0123456789abcdef")
    other = torch.nn.Linear(2, 1)
    token_models.load_network(other, path, "0123456789abcdef")
    assert torch.equal(other.weight, network.weight)
    assert says("fedcba9876543210") == f"{path} belongs to another codec (0123456789ab, not fedcba987654); train it again with this codec"
    wrong = "cannot be read as weights of this layout"
    assert says("", torch.nn.Linear(3, 1)) == f"{path} {wrong} (RuntimeError); train with these settings, or delete it"
    path.write_bytes(b"nothing")
    assert says("") == f"{path} {wrong} (SafetensorError); train with these settings, or delete it"
    token_models.save_network(network, path)
    token_models.load_network(other, path)
    assert says("fedcba9876543210") == f"{path} belongs to another codec (unnamed, not fedcba987654); train it again with this codec"


def test_weights_that_name_no_codec_belong_to_none(tmp_path: Path) -> None:
    """Files of somebody else may have no metadata, or none of ours."""
    network = torch.nn.Linear(2, 1)
    for number, metadata in enumerate((None, {}, {"format": "pt"})):
        path = tmp_path / f"{number}.safetensors"
        save_file(dict(network.state_dict()), path, metadata=metadata)
        token_models.load_network(torch.nn.Linear(2, 1), path)
        with pytest.raises(DataError) as refused:
            token_models.load_network(torch.nn.Linear(2, 1), path, "fedcba9876543210")
        assert str(refused.value) == f"{path} belongs to another codec (unnamed, not fedcba987654); train it again with this codec"
