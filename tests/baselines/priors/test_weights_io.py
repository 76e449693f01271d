from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from train_until_done import tiny_trainer

from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.weights_io import MAX_BYTES, images_sha256, load_ncsn_checkpoint, load_prior, read_card, save_prior
from baselines.training.score import export
from sepbench.errors import DataError
from sepbench.files import file_sha256

X = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EDMPrior]:
    folder = tmp_path_factory.mktemp("exported")
    trainer = tiny_trainer(folder / "run", steps=12)
    trainer.run(log_every=4)
    path = export(trainer, folder / "bars.safetensors", "bars", "python -m ...", "a note")
    return path, EDMPrior(trainer.averaged(), (1, 8, 8), trainer.config.sigma_range)


@pytest.fixture
def copied(exported: tuple[Path, EDMPrior], tmp_path: Path) -> Path:
    for suffix in (".safetensors", ".json"):
        (tmp_path / f"bars{suffix}").write_bytes(exported[0].with_suffix(suffix).read_bytes())
    return tmp_path / "bars.safetensors"


@pytest.mark.parametrize("sigma", [0.01, 0.1, 1.0])
def test_half_precision_on_disk_gives_the_same_scores(exported: tuple[Path, EDMPrior], sigma: float) -> None:
    path, original = exported
    loaded = load_prior(path, sha256=file_sha256(path))
    assert isinstance(loaded, EDMPrior)
    assert next(loaded.denoiser.parameters()).dtype == torch.float32
    assert loaded.sigma_range == original.sigma_range
    expected, found = original.score(X, sigma), loaded.score(X, sigma)
    assert float((found - expected).norm() / expected.norm()) < 2e-3
    assert path.stat().st_size < MAX_BYTES


def test_the_card_tells_the_whole_story(exported: tuple[Path, EDMPrior]) -> None:
    card = read_card(exported[0])
    assert card["weights_sha256"] == file_sha256(exported[0])
    assert card["training"]["steps"] == 12
    assert card["training"]["images_seen"] == 96
    assert card["data"]["images"] == 50
    assert len(card["held_out_loss"]) == len(card["held_out_denoising_psnr_db"]) == 10
    assert card["notes"] == "a note"
    assert {"seed", "command", "minutes", "hardware", "config"} <= set(card["training"])
    # Denoising is never worse than leaving the noise in: 20 dB at sigma = 0.1.
    assert card["held_out_denoising_psnr_db"]["1.00000"] > 0.0


def test_ncsn_travels_too(tmp_path: Path) -> None:
    prior = NCSNPrior(CondRefineNetDilated(1, 4).eval().requires_grad_(False), (1, 8, 8))
    loaded = load_prior(save_prior(tmp_path / "ncsn.safetensors", prior, dtype=torch.float32))
    assert isinstance(loaded, NCSNPrior)
    assert torch.equal(loaded.score(X, 0.01), prior.score(X, 0.01))
    torch.save([prior.network.state_dict(), {"lr": 1e-3}], tmp_path / "checkpoint.pth")
    assert torch.equal(load_ncsn_checkpoint(tmp_path / "checkpoint.pth", (8, 8)).score(X, 1.0), prior.score(X, 1.0))


def test_tensors_of_another_layout_are_one_line_that_names_the_file(exported: tuple[Path, EDMPrior], tmp_path: Path) -> None:
    state = CondRefineNetDilated(1, 4).state_dict()
    torch.save([{**state, "extra": torch.zeros(1)}, {}], tmp_path / "checkpoint.pth")
    with pytest.raises(DataError, match=r"checkpoint\.pth: NCSN checkpoint: extra is not part of the layout"):
        load_ncsn_checkpoint(tmp_path / "checkpoint.pth", (8, 8))
    path = save_prior(tmp_path / "unet.safetensors", exported[1])
    _edit_card(path, kind="ncsn-refinenet")
    with pytest.raises(DataError, match=r"unet\.safetensors does not fit the layout on its card \(this is no NCSN checkpoint: .*\)") as refused:
        load_prior(path)
    assert "\n" not in str(refused.value)


def _damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 0xFF
    path.write_bytes(bytes(content))


def _edit_card(path: Path, **changes: object) -> None:
    card = path.with_suffix(".json")
    card.write_text(json.dumps({**json.loads(card.read_text()), **changes}))


def test_every_wrong_file_is_one_clear_line(copied: Path, tmp_path: Path) -> None:
    def message(path: Path, sha256: str | None = None) -> str:
        with pytest.raises(DataError) as caught:
            load_prior(path, sha256)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no weights at" in message(tmp_path / "none.safetensors")
    assert "the manifest of weights says 0123456789abcdef" in message(copied, "0123456789abcdef" * 4)
    card = copied.with_suffix(".json")
    good = card.read_text()
    card.write_text("{")
    assert "not readable as JSON" in message(copied)
    card.write_text("[]")
    assert "lacks format" in message(copied)
    card.write_text(good)
    _edit_card(copied, format=9)
    assert "has format 9" in message(copied)
    card.write_text(good)
    _edit_card(copied, kind="glow")
    assert "kind 'glow'" in message(copied)
    card.write_text(good)
    _edit_card(copied, network={"widths": [8, 16, 24], "blocks": [1, 1, 1], "heads": 2, "embedding": 16})
    assert "does not fit the layout" in message(copied)
    for entry, wrong in (("network", ["16"]), ("shape", 8), ("shape", [1, "8", 8]), ("sigma_range", 0.5), ("sigma_range", [0.01]), ("sigma_data", None)):
        card.write_text(good)
        _edit_card(copied, **{entry: wrong})
        assert f"{entry} cannot be {wrong!r}" in message(copied)
    card.write_text(good)
    _damage(copied)
    assert "its card says" in message(copied)
    copied.write_bytes(b"no tensors here")
    _edit_card(copied, weights_sha256=file_sha256(copied))
    assert "no safetensors file" in message(copied)
    card.unlink()
    assert "card must lie beside" in message(copied)


def test_weights_with_nan_are_refused(exported: tuple[Path, EDMPrior], tmp_path: Path) -> None:
    broken = load_prior(exported[0])
    assert isinstance(broken, EDMPrior)
    next(broken.denoiser.parameters()).data[0] = torch.nan
    with pytest.raises(DataError, match="values that are not finite"):
        load_prior(save_prior(tmp_path / "nan.safetensors", broken))


def test_facts_cannot_overwrite_the_card(exported: tuple[Path, EDMPrior], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="sigma_data"):
        save_prior(tmp_path / "x.safetensors", exported[1], {"sigma_data": 1.0})


def test_digest_depends_on_values_and_shape() -> None:
    images = torch.arange(64, dtype=torch.uint8).reshape(1, 1, 8, 8)
    digests = {images_sha256(images), images_sha256(images.reshape(1, 1, 4, 16)), images_sha256(images + 1), images_sha256(images.float())}
    assert len(digests) == 4
