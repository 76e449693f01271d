"""``sepbench train vqvae`` and ``sepbench train tokens``: train the token models of LASS yourself.

``vqvae`` writes a codec and its card. ``tokens`` takes that codec (``--init``), trains the prior of its tokens, and
counts how they add up. It writes a folder with all three and a ``card.json``, which the setting ``weights`` takes. The
recipe is that of the shipped MNIST models and not the paper's, whose 500 epochs take days on a CPU.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.networks.vqvae import STRIDE, VQVAE
from baselines.priors.shipped_tokens import CARD, FILES
from baselines.priors.weights_io import images_sha256
from baselines.training.codec import VQVAERecipe, VQVAETraining, figures, new_vqvae, tokens_of
from baselines.training.loop import CHECKPOINT, Training, resume, run
from baselines.training.score import Material, check_writable, hardware, material
from baselines.training.token_models import TokenModels, frozen, load_network, save_models, save_network
from baselines.training.tokens import SumTraining, TokenRecipe, TokenTraining, bits_per_token, new_transformer
from sepbench.errors import SepbenchError
from sepbench.files import file_sha256, write_atomically
from sepbench.protocols import SignalSet

if TYPE_CHECKING:
    from sepbench.trainers import Trainer

CODEC = VQVAERecipe(epochs=30, batch=128, lr=1e-3, reconstruction=10.0)
TOKENS = TokenRecipe(epochs=60, batch=256, lr=1e-3)
CODES, WIDTH, PRIOR_WIDTH, PRIOR_LAYERS, PRIOR_HEADS, PASSES = 256, 128, 128, 3, 2, 30
_HELD_OUT = 1000
"""How many held-out images the figures on a card use."""


def train_vqvae(
    signals: SignalSet,
    *,
    labels: tuple[int, ...],
    folder: Path,
    out: Path,
    steps: int | None,
    minutes: float | None,
    init: Path | None,
    seed: int,
    device: str,
    command: str,
    progress: Callable[[float, str], None],
) -> Path:
    """Train a codec, or resume, and write it and its card. Returns ``out``. See ``sepbench.trainers.Trainer``.

    Raises:
        SepbenchError: the codec cannot take the images, an option has no meaning here, or a place cannot be written.
    """
    data = _material(signals, labels, minutes)
    check_writable(out, "--out")
    check_writable(folder / CHECKPOINT, "--folder")
    codec = new_vqvae(signals.shape, CODES, WIDTH, seed, device)
    if init is not None:
        load_network(codec, init)
    training = VQVAETraining(codec, replace(CODEC, seed=seed), data.images, data.held_out)
    training.steps = steps or training.steps
    _same_request(folder, {"seed": seed, "recipe": asdict(training.recipe), "data": images_sha256(data.images), "init": _digest(init), "steps": training.steps})
    _learn(training, folder, device, progress)
    save_network(frozen(codec), out)
    facts = {"figures": _codec_figures(codec, data.held_out), "recipe": asdict(training.recipe), "steps": training.step, "init": str(init or "")}
    _write_card(out.with_suffix(".json"), data, [out], facts, training.seconds, command)
    return out


def train_tokens(
    signals: SignalSet,
    *,
    labels: tuple[int, ...],
    folder: Path,
    out: Path,
    steps: int | None,
    minutes: float | None,
    init: Path | None,
    seed: int,
    device: str,
    command: str,
    progress: Callable[[float, str], None],
) -> Path:
    """Train the prior of a codec's tokens and count their sums, or resume.

    Returns the folder: ``out`` without its suffix. See ``sepbench.trainers.Trainer``.

    Raises:
        SepbenchError: ``init`` is missing, the codec cannot take the images, an option has no meaning here, or a place
            cannot be written.
        DataError: ``init`` cannot be read as a codec.
    """
    if init is None:
        raise SepbenchError("tokens are those of a codec; train one with `sepbench train vqvae` and name it with --init")
    data = _material(signals, labels, minutes)
    target = out.with_name(out.name.removesuffix(".safetensors"))
    for path, option in ((target / FILES[1], "--out"), (folder / CHECKPOINT, "--folder")):
        check_writable(path, option)
    codec = new_vqvae(signals.shape, CODES, WIDTH, seed, device)
    load_network(codec, init)
    tokens, held_out = (tokens_of(frozen(codec), images) for images in (data.images, data.held_out[:_HELD_OUT]))
    prior = new_transformer(CODES, tokens.shape[1], PRIOR_WIDTH, PRIOR_LAYERS, PRIOR_HEADS, seed, device)
    learning = TokenTraining(prior, replace(TOKENS, seed=seed), tokens, held_out)
    learning.steps = steps or learning.steps
    asked = {"seed": seed, "recipe": asdict(learning.recipe), "passes": PASSES, "data": images_sha256(data.images), "init": _digest(init)}
    _same_request(folder, {**asked, "steps": learning.steps})
    _learn(learning, folder / "prior", device, lambda done, text: progress(0.9 * done, f"prior: {text}"))
    counting = SumTraining(codec, data.images, tokens, PASSES, seed)
    _learn(counting, folder / "sums", device, lambda done, text: progress(0.9 + 0.1 * done, f"sums: {text}"))
    models = TokenModels(codec, frozen(prior), counting.counts())
    save_models(models, target)
    facts = {
        "figures": {
            **_codec_figures(codec, data.held_out),
            "bits_per_token": round(bits_per_token(prior, held_out), 4),
            "density_percent": round(100 * models.sums.density, 3),
        },
        "recipe": {**asdict(learning.recipe), "passes": PASSES},
        "steps": learning.step,
        "codec": json.loads(init.with_suffix(".json").read_text(encoding="utf-8")) if init.with_suffix(".json").exists() else str(init),
    }
    _write_card(target / CARD, data, [target / name for name in FILES], facts, learning.seconds + counting.seconds, command)
    return target


if TYPE_CHECKING:
    _: tuple[Trainer, Trainer] = (train_vqvae, train_tokens)


def _material(signals: SignalSet, labels: tuple[int, ...], minutes: float | None) -> Material:
    if minutes is not None:
        raise SepbenchError("token models are trained for a number of steps; leave out --minutes")
    if len(signals.shape) != 3 or any(side % STRIDE for side in signals.shape[1:]):
        raise SepbenchError(f"data set {signals.name!r} holds signals of shape {signals.shape}; the codec takes images whose sides are multiples of {STRIDE}")
    data = material(signals, labels)
    return replace(data, images=_as_float(data.images), held_out=_as_float(data.held_out))


def _as_float(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 255.0 if images.dtype == torch.uint8 else images


def _same_request(folder: Path, asked: Mapping[str, Any]) -> None:
    """Check that a folder's checkpoints belong to this request. The first request is written down.

    Raises:
        SepbenchError: they belong to another request.
    """
    path, text = folder / "request.json", json.dumps(asked, sort_keys=True)
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SepbenchError(f"{path} cannot be read ({type(error).__name__}); give another --folder") from error
    changed = [name for name, value in json.loads(text).items() if before.get(name) != value]
    if changed:
        raise SepbenchError(f"{folder} holds a training of another request ({', '.join(changed)}); ask for the same, or give another --folder")


def _digest(path: Path | None) -> str:
    return file_sha256(path) if path is not None and path.is_file() else ""


def _learn(training: Training, folder: Path, device: str, progress: Callable[[float, str], None]) -> None:
    resume(training, folder, device)
    run(training, folder, progress=progress)


def _codec_figures(codec: VQVAE, held_out: torch.Tensor) -> dict[str, float]:
    """Figures of held-out images, and the PSNR of their means in pairs."""
    images = held_out[:_HELD_OUT]
    half = len(images) // 2
    return {
        **figures(codec, images),
        "psnr_of_means": figures(codec, 0.5 * (images[:half] + images[half : 2 * half])).get("psnr", 0.0),
        "held_out": len(images),
    }


def _write_card(path: Path, data: Material, files: list[Path], facts: Mapping[str, Any], seconds: float, command: str) -> None:
    card = {
        "dataset": data.name.partition(" ")[0],
        "shape": list(data.images.shape[1:]),
        "files": {file.name: file_sha256(file) for file in files},
        "data": {"name": data.name, "images": len(data.images), "sha256": images_sha256(data.images)},
        **facts,
        "minutes": round(seconds / 60, 1),
        "command": command,
        "hardware": hardware(),
        "packages": {"torch": torch.__version__, "python": platform.python_version()},
    }
    write_atomically(path, lambda temporary: temporary.write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8"))
