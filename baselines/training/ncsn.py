"""The recipe of ``sepbench train ncsn``: the published network of BASIS, trained as Song and Ermon published it.

See NeurIPS 2019, sec. 4.2 and app. B. The loss is denoising score matching at ten levels. One level is drawn for each
image, and its weight is sigma^2 (eq. 6):

    loss = 1/2 || sigma s(x + sigma n, sigma) + n ||^2,  summed over pixels, mean over the batch

Training takes Adam at 1e-3, batches of 128 and 200,000 steps, without an average of weights. Images are dequantised,
``x 255/256 + U[0, 1)/256``, and colour images are mirrored at random. The width is 64 for grey images (7.6 M
parameters on MNIST) and 128 for colour (30.1 M). It needs a GPU in practice. The last weights count, as in the
released code. A run that ends early is badly under-trained, see docs/priors.md. Runs resume bit for bit, like
``score``.
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from baselines.networks.ncsn_refinenet import N_LEVELS, CondRefineNetDilated, ncsn_sigmas
from baselines.priors.score_prior import NCSNPrior
from baselines.priors.weights_io import images_sha256, load_prior, save_prior
from baselines.training import loop
from baselines.training.config import batch_indices, derived_seed, generator, mirrored
from baselines.training.edm_loss import as_float, fixed_noise
from baselines.training.loop import CHECKPOINT
from baselines.training.score import check_writable, hardware, material, weights_digest
from sepbench.errors import SepbenchError
from sepbench.protocols import SignalSet
from sepbench.trainers import Trainer

_HELD_OUT = 512
_CPU_CHUNK = 16
"""Images per pass on the CPU. The network normalises each image by itself, so parts of a batch add up to the batch."""


@dataclass(frozen=True, slots=True)
class NCSNConfig:
    """Everything that the result depends on besides the data. The defaults are the paper's.

    Attributes:
        steps: length of the run.
        batch: images per step.
        lr, betas: of Adam.
        features: width of the network's first stage.
        mirror: exchange left and right of half of the images.
        seed: of weights, order, levels and noise.
    """

    steps: int = 200_000
    batch: int = 128
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    features: int = 64
    mirror: bool = False
    seed: int = 0


def ncsn_losses(network: CondRefineNetDilated, clean: torch.Tensor, noise: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
    """The loss above, ``(B,)``.

    Args:
        network: scores ``(B, C, H, W)`` of noisy images and levels.
        clean: images ``(B, C, H, W)`` in [0, 1].
        noise: standard normals, the same shape.
        level: ``(B,)`` int64, from 0 for sigma = 1 to 9 for sigma = 0.01.
    """
    sigma = ncsn_sigmas().to(device=clean.device, dtype=clean.dtype)[level][:, None, None, None]
    losses: torch.Tensor = 0.5 * (sigma * network(clean + sigma * noise, level) + noise).square().flatten(1).sum(1)
    return losses


class NCSNTraining:
    """A run in a folder, for ``baselines.training.loop``.

    Args:
        images: ``(N, C, H, W)`` in [0, 1], float32 or uint8.
        held_out: images of the same kind that validate. The first 512 are used.
        config: settings. They must equal those of a checkpoint in the folder, except ``steps``.
        folder: checkpoints and log.
        init: weights to start from.
        minutes: training time after which the run ends; None: after its steps.
        device: where to train.

    Raises:
        SepbenchError: the folder has a run with other settings, images or weights to start from, or ``init`` has
            another width.
    """

    def __init__(
        self,
        images: torch.Tensor,
        held_out: torch.Tensor,
        config: NCSNConfig,
        folder: Path,
        *,
        init: NCSNPrior | None = None,
        minutes: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.images, self.held_out, self.config, self.folder, self.device, self.minutes = images, held_out[:_HELD_OUT], config, folder, device, minutes
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(derived_seed(config.seed, "weights"))
            network = CondRefineNetDilated(images.shape[1], config.features)
        self.origin = {"images": images_sha256(images), "init": None if init is None else weights_digest(init.network)}
        if init is not None:
            try:
                network.load_state_dict(init.network.state_dict())
            except RuntimeError:
                raise SepbenchError(f"the weights to start from ({init.name}) are of another width than this data set's; start from others, or none") from None
        self.network = network.to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=config.lr, betas=config.betas)
        self.step, self.seconds = 0, 0.0
        self.loss, self.counted = torch.zeros((), dtype=torch.float64), 0
        loop.resume(self, folder, device)

    @property
    def finished(self) -> bool:
        return self.step >= self.config.steps or (self.minutes is not None and self.seconds >= 60 * self.minutes)

    @property
    def fraction(self) -> float:
        """Share of the steps, or of the minutes, that is done, in [0, 1]."""
        return min(1.0, max(self.step / self.config.steps, self.seconds / (60 * self.minutes) if self.minutes else 0.0))

    def advance(self) -> None:
        """Make one step.

        Raises:
            SepbenchError: the loss is not finite.
        """
        config, random = self.config, generator(self.config.seed, "step", self.step)
        clean = as_float(self.images[batch_indices(config.seed, self.step, config.batch, len(self.images))])
        clean = clean * (255 / 256) + torch.rand(clean.shape, generator=random) / 256
        if config.mirror:
            clean = mirrored(clean, random)
        level = torch.randint(N_LEVELS, (config.batch,), generator=random)
        noise = torch.randn(clean.shape, generator=random)
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros((), device=self.device)
        size = _CPU_CHUNK if self.device == "cpu" else config.batch
        for parts in zip(*(tensor.split(size) for tensor in (clean, noise, level)), strict=True):
            loss = ncsn_losses(self.network, *(part.to(self.device) for part in parts)).sum() / config.batch
            loss.backward()
            total += loss.detach()
        self.optimiser.step()
        self.step += 1
        self.loss, self.counted = self.loss + total.double().cpu(), self.counted + 1
        if not math.isfinite(float(self.loss)):
            raise SepbenchError(f"training diverged at step {self.step}: the loss is not finite; start again with another --seed")

    def row(self) -> Mapping[str, Any]:
        """Mean loss since the last row."""
        mean, self.loss, self.counted = float(self.loss) / max(1, self.counted), torch.zeros((), dtype=torch.float64), 0
        return {"loss": round(mean, 4)}

    def state(self) -> Mapping[str, Any]:
        """See ``baselines.training.loop.Training``."""
        return {
            "config": asdict(self.config),
            "origin": self.origin,
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "window": (self.loss, self.counted),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint.

        Raises:
            SepbenchError: it belongs to another run.
        """
        own, found = (json.loads(json.dumps(config)) for config in (asdict(self.config), state["config"]))
        changed = sorted(key for key in own if key != "steps" and own[key] != found.get(key))
        changed += [{"images": "images", "init": "--init"}[key] for key, value in self.origin.items() if value != state["origin"][key]]
        if changed:
            raise SepbenchError(f"{self.folder / CHECKPOINT} is of another run ({', '.join(changed)}); ask for the same, or use another --folder")
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.loss, self.counted = state["window"][0].cpu(), state["window"][1]

    @torch.no_grad()
    def held_out_loss(self) -> dict[str, float]:
        """Mean loss at each level on held-out images, by sigma. The noise is the same at every call."""
        clean = as_float(self.held_out)
        noise, losses = fixed_noise(clean.shape), {}
        for number, sigma in enumerate(ncsn_sigmas().tolist()):
            level = torch.full((len(clean),), number)
            rows = zip(*(tensor.split(_CPU_CHUNK if self.device == "cpu" else 128) for tensor in (clean, noise, level)), strict=True)
            parts = [ncsn_losses(self.network, *(part.to(self.device) for part in row)).cpu() for row in rows]
            losses[f"{sigma:.5f}"] = round(float(torch.cat(parts).double().mean()), 4)
        return losses


def train(
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
    """Train the ten-level network, or resume, and write weights and card. Returns the path of the weights.

    See ``sepbench.trainers.Trainer``.

    Raises:
        SepbenchError: the network cannot take the images, the labels leave nothing, ``init`` is of another network, or
            a place cannot be written.
    """
    data = material(signals, labels)
    check_writable(out, "--out")
    check_writable(folder / CHECKPOINT, "--folder")
    colour = data.images.shape[1] > 1
    config = NCSNConfig(steps=steps or NCSNConfig().steps, features=128 if colour else 64, mirror=colour, seed=seed)
    training = NCSNTraining(data.images, data.held_out, config, folder, init=None if init is None else _start(init), minutes=minutes, device=device)
    loop.run(training, folder, progress=progress)
    return export(training, out, data.name, command)


if TYPE_CHECKING:
    _: Trainer = train


def _start(path: Path) -> NCSNPrior:
    prior = load_prior(path)
    if not isinstance(prior, NCSNPrior):
        raise SepbenchError(f"{path} holds no ncsn-refinenet; only such a prior can be trained on")
    return prior


def export(training: NCSNTraining, path: Path, data_name: str, command: str) -> Path:
    """Write the weights, in float32, and their card. Returns the path of the weights."""
    facts = {
        "data": {"name": data_name, "images": len(training.images), "sha256": training.origin["images"], "held_out": len(training.held_out)},
        "training": {
            "steps": training.step,
            "images_seen": training.step * training.config.batch,
            "minutes": round(training.seconds / 60, 1),
            "seed": training.config.seed,
            "config": asdict(training.config),
            "command": command,
            "hardware": hardware(),
            "packages": {"torch": torch.__version__, "python": platform.python_version()},
        },
        "held_out_loss": training.held_out_loss(),
    }
    network = training.network.cpu().eval()
    return save_prior(path, NCSNPrior(network, tuple(training.images.shape[1:]), name=path.stem), facts, dtype=torch.float32)
