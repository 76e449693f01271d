"""Published and measured figures on real images (docs/protocols.md sections 1.4, 2.1): skipped where SEPBENCH_DATA has none."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from metric_cases import image_task, mixtures_of
from skimage.metrics import structural_similarity as skimage_ssim

from sepbench.metrics.scoring import ScoreTable, score_batch
from sepbench.metrics.ssim import structural_similarity


def _file(name: str) -> bytes:
    path = Path(os.environ.get("SEPBENCH_DATA", "/nonexistent")) / name
    if not path.is_file():
        pytest.skip(f"no {name} under SEPBENCH_DATA")
    return path.read_bytes()


@pytest.fixture(scope="module")
def mnist() -> tuple[torch.Tensor, np.ndarray]:
    """MNIST test images ``(10000, 1, 28, 28)`` in [0, 1] and their labels."""
    images = np.frombuffer(gzip.decompress(_file("mnist/t10k-images-idx3-ubyte.gz")), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    labels = np.frombuffer(gzip.decompress(_file("mnist/t10k-labels-idx1-ubyte.gz")), np.uint8, offset=8)
    return torch.from_numpy(images.astype(np.float32) / 255.0), labels


def _mean(table: ScoreTable, metric: str) -> float:
    return float(table.value[table.metric == metric].mean())


def test_average_on_random_mnist_pairs(mnist: tuple[torch.Tensor, np.ndarray]) -> None:
    images, _ = mnist
    rng = np.random.Generator(np.random.PCG64(7))
    pairs = rng.integers(0, len(images), (6000, 2))
    references = images[torch.from_numpy(pairs[pairs[:, 0] != pairs[:, 1]])]
    mixtures = mixtures_of(references)
    estimates = (mixtures.values / 2).unsqueeze(1).repeat(1, 2, 1, 1, 1)
    table = score_batch(["psnr", "psnr_sum_mse", "mixture_error"], estimates, references, mixtures, image_task(2, (1, 28, 28)))
    # 14.89 measured over eight seeds, sampling error of 6,000 pairs 0.015 dB; 11.9 under Kong's rule.
    assert _mean(table, "psnr") == pytest.approx(14.89, abs=0.06)
    assert _mean(table, "psnr_sum_mse") == pytest.approx(11.88, abs=0.06)
    assert _mean(table, "mixture_error") < 1e-7


@pytest.mark.parametrize(("low", "psnr", "ssim"), [(True, 10.79, 0.652), (False, 10.98, 0.640)])
def test_mixture_as_estimate_on_padded_mnist(mnist: tuple[torch.Tensor, np.ndarray], low: bool, psnr: float, ssim: float) -> None:
    """The Const row of NES Table 1: X from 0-4 (or 5-9), zero-padded to 32 x 32, the sum not clipped, X scored alone.

    NES prints SSIM 0.65 for both. Four seeds gave 0.651 to 0.654 and 0.638 to 0.642 here, and scikit-image's loop the same on the same pairs.
    """
    images, labels = mnist
    rng = np.random.Generator(np.random.PCG64(11))
    x, b = (rng.choice(np.flatnonzero((labels < 5) == group), 5000) for group in (low, not low))
    references = torch.stack([images[torch.from_numpy(x)], images[torch.from_numpy(b)]], 1)
    padded = torch.nn.functional.pad(references, (2, 2, 2, 2))
    names = ["psnr_unclamped", "psnr_pad32", "ssim"]
    mixtures = mixtures_of(padded)
    table = score_batch(
        names, mixtures.values.unsqueeze(1).repeat(1, 2, 1, 1, 1), padded, mixtures, image_task(2, (1, 32, 32), assignment="ordered", scored=(0,))
    )
    assert _mean(table, "ssim") == pytest.approx(ssim, abs=0.006)
    assert _mean(table, "psnr_unclamped") == pytest.approx(psnr, abs=0.06)
    # The same figure from 28 x 28 images through the convention for it.
    mixtures = mixtures_of(references)
    estimates = mixtures.values.unsqueeze(1).repeat(1, 2, 1, 1, 1)
    small = score_batch(["psnr_pad32"], estimates, references, mixtures, image_task(2, (1, 28, 28), assignment="ordered", scored=(0,)))
    np.testing.assert_allclose(small.value, table.value[table.metric == "psnr_pad32"], rtol=1e-12)


@pytest.mark.parametrize(("scored", "expected"), [("shoes", 0.473), ("bags", 0.610)])
def test_mixture_as_estimate_on_bags_and_shoes(scored: str, expected: float) -> None:
    """docs/protocols.md FLAG-9: SSIM of the unclipped mixture against each side of NES's own test arrays, the 192 images that NES scores."""
    images = {name: np.load(io.BytesIO(_file(f"bags-shoes-mini/{name}/test.npy")))[:192] for name in ("shoes", "bags")}
    other = "bags" if scored == "shoes" else "shoes"
    references = torch.stack([torch.from_numpy(1.0 - images[name] / 255.0).permute(0, 3, 1, 2) for name in (scored, other)], 1)
    mixtures = mixtures_of(references)
    task = image_task(2, (3, 64, 64), assignment="ordered", scored=(0,))
    table = score_batch(["ssim"], mixtures.values.unsqueeze(1).repeat(1, 2, 1, 1, 1), references, mixtures, task)
    assert _mean(table, "ssim") == pytest.approx(expected, abs=6e-4)


def test_ssim_equals_scikit_image_on_mnist(mnist: tuple[torch.Tensor, np.ndarray]) -> None:
    images = mnist[0][:600].double()
    _assert_equal_to_skimage(images[:300] + images[300:], images[:300])


def test_ssim_equals_scikit_image_on_cifar() -> None:
    records = np.frombuffer(_file("cifar10-mini/test_batch.bin"), np.uint8).reshape(-1, 3073)
    images = torch.from_numpy(records[:400, 1:].reshape(-1, 3, 32, 32) / 255.0)
    _assert_equal_to_skimage((images[:200] + images[200:]) / 2, images[:200])


def _assert_equal_to_skimage(x: torch.Tensor, y: torch.Tensor) -> None:
    expected = [skimage_ssim(a, b, data_range=1.0, channel_axis=0) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(structural_similarity(x, y).numpy(), expected, rtol=0, atol=1e-12)
