from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from train_until_done import tiny_trainer

from baselines.networks.ncsn_refinenet import CondRefineNetDilated
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from baselines.priors.weights_io import MAX_BYTES, check_weights, images_sha256, load_ncsn_checkpoint, load_prior, read_card, save_prior
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


def test_cards_of_both_kinds_whole(exported: tuple[Path, EDMPrior], tmp_path: Path) -> None:
    edm, ten = exported[1], NCSNPrior(CondRefineNetDilated(1, 4), (1, 8, 12))
    wanted = {
        "edm-unet": {
            "network": json.loads(json.dumps(asdict(edm.denoiser.network.config))),  # type: ignore[call-overload]
            "sigma_range": list(edm.sigma_range),
            "sigma_data": edm.denoiser.sigma_data,
            "mean": edm.denoiser.mean,
            "shape": [1, 8, 8],
        },
        "ncsn-refinenet": {"network": {"features": 4}, "sigma_range": [0.01, 1.0], "shape": [1, 8, 12]},
    }
    for kind, prior, network, dtype in (("edm-unet", edm, edm.denoiser.network, "float16"), ("ncsn-refinenet", ten, ten.network, "float32")):
        path = save_prior(tmp_path / f"{kind}.safetensors", prior, {"notes": "mine"}, getattr(torch, dtype))
        card = json.loads(path.with_suffix(".json").read_text())
        count = sum(p.numel() for p in network.parameters())
        of_file = {"stored": dtype, "weights_sha256": file_sha256(path), "bytes": path.stat().st_size}
        assert card == {"format": 1, "kind": kind, "name": kind, "parameters": count, "notes": "mine", **wanted[kind], **of_file}
        assert {value.dtype for value in load_file(path).values()} == {getattr(torch, dtype)}
        assert read_card(path) == check_weights(path) == card


def test_a_prior_is_read_with_the_name_shape_and_precision_that_it_should_have(copied: Path) -> None:
    state = torch.get_rng_state()
    loaded = load_prior(copied, precision="tf32")
    assert torch.equal(torch.get_rng_state(), state)
    assert isinstance(loaded, EDMPrior)
    assert (loaded.name, loaded.shape, loaded.precision) == ("bars", (1, 8, 8), "tf32")
    assert not loaded.denoiser.network.training
    assert not any(p.requires_grad for p in loaded.denoiser.parameters())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shape": [0, 8, 8]}, "{card}: shape cannot be [0, 8, 8]; fetch the weights and their card again"),
        ({"shape": []}, "{card}: shape cannot be []; fetch the weights and their card again"),
        ({"shape": [1, 8.5, 8]}, "{card}: shape cannot be [1, 8.5, 8]; fetch the weights and their card again"),
        ({"sigma_range": [0.0, 1.0]}, "{card}: sigma_range cannot be [0.0, 1.0]; fetch the weights and their card again"),
        ({"sigma_range": [0.1, 0.2, 0.3]}, "{card}: sigma_range cannot be [0.1, 0.2, 0.3]; fetch the weights and their card again"),
        ({"mean": "grey"}, "{card}: mean cannot be 'grey'; fetch the weights and their card again"),
        ({"kind": "glow"}, "{card} tells of a prior of kind 'glow', this version knows edm-unet and ncsn-refinenet"),
        ({"format": 9}, "{card} has format 9, this version reads 1; fetch weights made for this version of sepbench"),
    ],
    ids=str,
)
def test_words_for_cards_that_are_wrong(copied: Path, changes: dict[str, object], says: str) -> None:
    _edit_card(copied, **changes)
    with pytest.raises(DataError) as refused:
        read_card(copied)
    assert str(refused.value) == says.format(card=copied.with_suffix(".json"))


def test_words_for_files_that_are_missing_or_others(copied: Path, tmp_path: Path) -> None:
    def says(path: Path, sha256: str | None = None) -> str:
        with pytest.raises(DataError) as refused:
            check_weights(path, sha256)
        return str(refused.value)

    none, card = tmp_path / "none.safetensors", copied.with_suffix(".json")
    assert says(none) == f"no weights at {none}; give the path of a .safetensors file or train one with `sepbench train`"
    found, other = file_sha256(copied), "0123456789abcdef" * 4
    assert check_weights(copied, found)["name"] == "bars"
    advice = "the file is damaged or another one; fetch it again"
    assert says(copied, other) == f"{copied} has sha256 {found[:16]}..., the manifest of weights says 0123456789abcdef...: {advice}"
    entries = json.loads(card.read_text())
    _edit_card(copied, weights_sha256=other)
    assert says(copied) == f"{copied} has sha256 {found[:16]}..., its card says 0123456789abcdef...: {advice}"
    card.write_text(json.dumps({key: value for key, value in entries.items() if key not in ("shape", "name")}))
    assert says(copied) == f"{card} lacks name, shape; fetch weights made for this version of sepbench"
    card.unlink()
    assert says(copied) == f"{card} is missing: the card must lie beside the weights; copy both files"
    with pytest.raises(ValueError, match="replace") as clash:
        save_prior(tmp_path / "x.safetensors", load_ncsn(tmp_path), {"shape": 1, "kind": 2, "more": 3})
    assert str(clash.value) == "facts may not replace the card's own entries ['kind', 'shape']"


def load_ncsn(folder: Path) -> NCSNPrior:
    """Of a checkpoint that is the bare state dict, in a tuple, or in a list."""
    network = CondRefineNetDilated(1, 4)
    for number, content in enumerate((network.state_dict(), (network.state_dict(),), [network.state_dict(), 1])):
        torch.save(content, folder / f"own{number}.pth")
        prior = load_ncsn_checkpoint(folder / f"own{number}.pth", (8, 12))
        assert (prior.name, prior.shape) == (f"own{number}", (1, 8, 12))
        assert not any(p.requires_grad for p in prior.network.parameters())
    return prior


def test_words_for_checkpoints_that_are_none(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    for content in (None, [], [3], "text"):
        if content is not None:
            torch.save(content, path)
        with pytest.raises(DataError) as refused:
            load_ncsn_checkpoint(path, (8, 8))
        nothing = f"{path} holds no state dict; save the network's state dict alone and try again"
        assert str(refused.value) == (f"no checkpoint at {path}" if content is None else nothing)


def test_the_digest_of_images_is_of_type_shape_and_bytes() -> None:
    images = torch.arange(6, dtype=torch.uint8).reshape(2, 3)
    assert images_sha256(images) == hashlib.sha256(b"|u1(2, 3)" + bytes(range(6))).hexdigest()
    assert images_sha256(images.T) == hashlib.sha256(b"|u1(3, 2)" + bytes([0, 3, 1, 4, 2, 5])).hexdigest()


class _Touch:
    """What a file may hold that does something when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def test_a_checkpoint_of_the_authors_is_read_without_running_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save([_Touch(tmp_path / "made")], path)
    with pytest.raises(DataError) as refused:
        load_ncsn_checkpoint(path, (8, 8))
    start, end = f"{path} is not readable as a torch checkpoint (", "); save its state dict alone and try again"
    assert str(refused.value).startswith(start)
    assert str(refused.value).endswith(end)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "made").exists()
