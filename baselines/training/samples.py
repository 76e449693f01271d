"""Unconditional samples of a prior, to look at, and their distances to the nearest training images.

The distances show whether the prior memorised these images. The sampler is the deterministic one of Karras et al.
(2022), algorithm 1 with S_churn = 0 (Heun's method on the probability-flow equation).
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch

from baselines.priors.score_prior import EDMPrior
from baselines.sampling.noise_levels import karras_levels
from baselines.training.edm_loss import as_float
from sepbench.noise import NoiseSource

_NEIGHBOUR_CHUNK = 64


def draw_samples(
    prior: EDMPrior,
    count: int,
    noise: NoiseSource,
    steps: int = 40,
    sigma_range: tuple[float, float] = (0.01, 2.0),
    start: tuple[float, float] = (0.0, 0.0),
    device: str = "cpu",
) -> torch.Tensor:
    """``count`` samples ``(count, C, H, W)`` in about [0, 1], not clamped. Sample i depends only on the seed and i.

    Args:
        prior: what to sample from.
        count: how many.
        noise: source of the starting points.
        steps: how many steps. Each makes two denoiser evaluations, and the last makes one.
        sigma_range: the lowest and the highest noise level.
        start: mean and standard deviation of the data. With them the start matches the noisy data even if the highest
            level does not drown the data.
        device: where the prior is.
    """
    mean, deviation = start
    levels = [*karras_levels(steps, sigma_range[1], sigma_range[0]), 0.0]
    ids = torch.arange(count)
    x: torch.Tensor = mean + (levels[0] ** 2 + deviation**2) ** 0.5 * noise.normal(ids, 0, 0, prior.shape, device)
    for now, following in pairwise(levels):
        slope = (x - prior.denoise(x, now)) / now
        ahead = x + (following - now) * slope
        if following > 0.0:
            slope = 0.5 * (slope + (ahead - prior.denoise(ahead, following)) / following)
            ahead = x + (following - now) * slope
        x = ahead
    return x


def nearest_distances(images: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Root-mean-square pixel distances ``(N,)`` of images ``(N, C, H, W)`` to the nearest image of ``reference``.

    ``reference`` is ``(M, C, H, W)``. If a prior memorised, its samples are nearer to the training images than
    held-out images are.
    """
    flat = as_float(reference).flatten(1)
    parts = [torch.cdist(rows, flat).amin(1) for rows in torch.split(as_float(images).flatten(1), _NEIGHBOUR_CHUNK)]
    distances: torch.Tensor = torch.cat(parts) / flat.shape[1] ** 0.5
    return distances


def sample_report(samples: torch.Tensor, training: torch.Tensor, held_out: torch.Tensor) -> dict[str, float | int]:
    """Does a prior copy its training images? The report has median distances of its samples to the nearest images.

    It compares equally many training and held-out images. If the prior memorised, its samples are nearer to the
    training images: the ratio is well below 1. The distances of held-out images are the yardstick.

    Args:
        samples: ``(N, C, H, W)`` in [0, 1] or uint8.
        training, held_out: images of the same kind. The first ``len(held_out)`` training images are compared, and in
            the rows ``..._all_training`` all of them.
    """
    count = min(len(training), len(held_out))
    half = max(1, count // 2)
    to_training = float(nearest_distances(samples, training[:count]).median())
    to_held_out = float(nearest_distances(samples, held_out[:count]).median())
    return {
        "samples": len(samples),
        "images_of_each_kind": count,
        "median_distance_to_training": round(to_training, 5),
        "median_distance_to_held_out": round(to_held_out, 5),
        "ratio": round(to_training / to_held_out, 4),
        "median_distance_of_held_out_to_training": round(float(nearest_distances(held_out[:half], training[:count]).median()), 5),
        "median_distance_of_samples_to_all_training": round(float(nearest_distances(samples, training).median()), 5),
        "median_distance_of_held_out_to_all_training": round(float(nearest_distances(held_out[:half], training).median()), 5),
    }


def write_sheet(images: torch.Tensor, path: Path, columns: int = 16, scale: int = 2) -> None:
    """Write images ``(N, C, H, W)`` in [0, 1] (clamped) as one PNG. Needs Pillow.

    Args:
        images: the images.
        path: of the PNG. Its folder is made if it is missing.
        columns: images per row.
        scale: width of a pixel.
    """
    from PIL import Image

    pixels = (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu()
    count, channels, height, width = pixels.shape
    rows = -(-count // columns)
    sheet = torch.zeros(rows * columns, channels, height + 1, width + 1, dtype=torch.uint8)
    sheet[:count, :, :height, :width] = pixels
    sheet = sheet.reshape(rows, columns, channels, height + 1, width + 1).permute(0, 3, 1, 4, 2).reshape(rows * (height + 1), columns * (width + 1), channels)
    array = sheet.numpy()
    picture = Image.fromarray(array[:, :, 0] if channels == 1 else array)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST).save(path)
