"""Weights of priors on disk: ``NAME.safetensors`` and, beside it, the card ``NAME.json`` that says where they come from.

A card holds: format, kind (``edm-unet`` or ``ncsn-refinenet``), name, network (layout), shape, sigma_range, sigma_data and mean (``edm-unet``),
stored (dtype), weights_sha256, and whatever the caller tells of data, training and losses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from baselines.networks.ncsn_refinenet import CondRefineNetDilated, from_checkpoint
from baselines.networks.unet import ScoreUNet, UNetConfig
from baselines.priors.edm import EDMDenoiser
from baselines.priors.score_prior import EDMPrior, NCSNPrior
from sepbench.errors import DataError
from sepbench.files import file_sha256, write_atomically
from sepbench.precision import Precision

CARD_FORMAT = 1
KINDS = ("edm-unet", "ncsn-refinenet")
MAX_BYTES = 8_000_000
_REQUIRED = ("format", "kind", "name", "network", "shape", "sigma_range", "weights_sha256")


def images_sha256(images: torch.Tensor) -> str:
    """Digest of an array of images: dtype, shape and bytes in C order."""
    array = images.detach().cpu().contiguous().numpy()
    head = f"{array.dtype.str}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()


def write_weights(path: Path, tensors: Mapping[str, torch.Tensor], card: dict[str, Any], dtype: torch.dtype) -> Path:
    """Write tensors as ``dtype`` and, beside them, the card, to which dtype, digest and size are added. Returns ``path``."""
    stored = {name: value.detach().cpu().to(dtype).contiguous() for name, value in tensors.items()}
    write_atomically(path, lambda temporary: save_file(stored, temporary))
    whole = {**card, "stored": str(dtype).removeprefix("torch."), "weights_sha256": file_sha256(path), "bytes": path.stat().st_size}
    write_atomically(path.with_suffix(".json"), lambda temporary: temporary.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8"))
    return path


def save_prior(path: Path, prior: EDMPrior | NCSNPrior, facts: Mapping[str, Any] | None = None, dtype: torch.dtype = torch.float16) -> Path:
    """Write weights and card.

    Args:
        path: ``.../NAME.safetensors``; the card goes to ``.../NAME.json``.
        prior: what to write.
        facts: JSON-able entries of the card about data, training and losses; they may not replace the required ones.
        dtype: type of the stored numbers; they are computed with in float32.

    Returns:
        ``path``.
    """
    card: dict[str, Any] = {"format": CARD_FORMAT, "kind": "", "name": path.stem, "shape": list(prior.shape)}
    if isinstance(prior, EDMPrior):
        network = prior.denoiser.network
        if not isinstance(network, ScoreUNet):
            raise TypeError(f"only a ScoreUNet can be written, got {type(network).__name__}")
        card |= {"kind": "edm-unet", "network": asdict(network.config), "sigma_range": list(prior.sigma_range)}
        card |= {"sigma_data": prior.denoiser.sigma_data, "mean": prior.denoiser.mean}
    else:
        network = prior.network
        card |= {"kind": "ncsn-refinenet", "network": {"features": network.begin_conv.out_channels}, "sigma_range": [0.01, 1.0]}
    card["parameters"] = sum(p.numel() for p in network.parameters())
    clash = sorted(set(card) & set(facts or {}))
    if clash:
        raise ValueError(f"facts may not replace the card's own entries {clash}")
    return write_weights(path, network.state_dict(), {**card, **(facts or {})}, dtype)


def read_card(path: Path) -> dict[str, Any]:
    """The card of the weights at ``path``.

    Raises:
        DataError: it is missing, no JSON, of another format or incomplete.
    """
    card_path = path.with_suffix(".json")
    try:
        card: dict[str, Any] = json.loads(card_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{card_path} is missing: the card must lie beside the weights; copy both files") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{card_path} is not readable as JSON ({error}); fetch the weights again") from None
    missing = [key for key in _REQUIRED if not isinstance(card, dict) or key not in card]
    if missing or card["format"] != CARD_FORMAT:
        what = f"lacks {', '.join(missing)}" if missing else f"has format {card['format']}, this version reads {CARD_FORMAT}"
        raise DataError(f"{card_path} {what}; fetch weights made for this version of sepbench")
    _check_entries(card_path, card)
    return card


def _check_entries(card_path: Path, card: Mapping[str, Any]) -> None:
    """A card that was written by hand, or half, is refused by the entry that is wrong."""

    def numbers(key: str, count: int | None) -> bool:
        value = card.get(key)
        return isinstance(value, list) and len(value) == (count or len(value)) > 0 and all(isinstance(n, (int, float)) and n > 0 for n in value)

    if card["kind"] not in KINDS:
        raise DataError(f"{card_path} tells of a prior of kind {card['kind']!r}, this version knows {' and '.join(KINDS)}")
    right = {
        "network": isinstance(card["network"], dict),
        "shape": numbers("shape", None) and all(isinstance(n, int) for n in card["shape"]),
        "sigma_range": numbers("sigma_range", 2),
    }
    if card["kind"] == "edm-unet":
        right |= {key: isinstance(card.get(key), (int, float)) for key in ("sigma_data", "mean")}
    for key, fits in right.items():
        if not fits:
            raise DataError(f"{card_path}: {key} cannot be {card.get(key)!r}; fetch the weights and their card again")


def check_weights(path: Path, sha256: str | None = None) -> dict[str, Any]:
    """The card of the weights at ``path``, once the file is known to be the one that the card, and ``sha256`` if given, speaks of.

    Raises:
        DataError: weights or card are missing, the card cannot be used, or the file is another one.
    """
    if not path.is_file():
        raise DataError(f"no weights at {path}; give the path of a .safetensors file or train one with `sepbench train`")
    card = read_card(path)
    found = file_sha256(path)
    for wanted, origin in ((sha256, "the manifest of weights"), (card["weights_sha256"], "its card")):
        if wanted is not None and found != wanted:
            raise DataError(f"{path} has sha256 {found[:16]}..., {origin} says {str(wanted)[:16]}...: the file is damaged or another one; fetch it again")
    return card


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except SafetensorError as error:
        raise DataError(f"{path} is no safetensors file ({error}); fetch it again") from None
    for name, value in tensors.items():
        if not bool(torch.isfinite(value).all()):
            raise DataError(f"{path}: {name} holds values that are not finite; train or fetch the weights again")
    return {name: value.to(torch.float32) for name, value in tensors.items()}


def load_prior(path: Path, sha256: str | None = None, precision: Precision = "float32", device: str = "cpu") -> EDMPrior | NCSNPrior:
    """A prior from ``NAME.safetensors`` and its card.

    Args:
        path: the weights; the card lies beside them.
        sha256: digest that the file must have (from ``data_manifests/weights.toml``); the card's own digest is always checked.
        precision: of the network's arithmetic, for ``edm-unet``.
        device: where the weights go.

    Raises:
        DataError: a file is missing, damaged, not the one that was asked for, or does not fit its card.
    """
    card = check_weights(path, sha256)
    tensors = _read_tensors(path)
    with torch.random.fork_rng(devices=[]):  # a layer draws its first weights from the global state when it is made
        return _assemble(path, card, tensors, precision).to(device)


def _assemble(path: Path, card: Mapping[str, Any], tensors: dict[str, torch.Tensor], precision: Precision) -> EDMPrior | NCSNPrior:
    shape = tuple(card["shape"])
    try:
        if card["kind"] == "ncsn-refinenet":
            return NCSNPrior(from_checkpoint(tensors).requires_grad_(False), shape, name=card["name"])
        layout: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in card["network"].items()}
        network = ScoreUNet(UNetConfig(**layout))
        network.load_state_dict(tensors)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} does not fit the layout on its card ({reason}); weights and card belong to different priors") from None
    denoiser = EDMDenoiser(network.eval().requires_grad_(False), float(card["sigma_data"]), float(card["mean"]))
    low, high = card["sigma_range"]
    return EDMPrior(denoiser, shape, (float(low), float(high)), precision, str(card["name"]))


def load_ncsn_checkpoint(path: Path, image_size: tuple[int, int]) -> NCSNPrior:
    """A checkpoint of the authors' trainer (``torch.save`` of a list whose first element is the state dict), read without running its code.

    Raises:
        DataError: the file is missing, no such checkpoint, or its tensors do not fit the layout.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise DataError(f"no checkpoint at {path}") from None
    except Exception as error:
        raise DataError(f"{path} is not readable as a torch checkpoint ({str(error).splitlines()[0]}); save its state dict alone and try again") from None
    state = content[0] if isinstance(content, (list, tuple)) and content else content
    if not isinstance(state, Mapping):
        raise DataError(f"{path} holds no state dict; save the network's state dict alone and try again")
    try:
        with torch.random.fork_rng(devices=[]):
            network: CondRefineNetDilated = from_checkpoint(state)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None
    return NCSNPrior(network.requires_grad_(False), (network.begin_conv.in_channels, *image_size), name=path.stem)
