"""Windows of long signals, span by span: the same as all of them at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from baselines.decomposition import delay_embedding
from baselines.decomposition.delay_embedding import Windows
from baselines.decomposition.patches import fold_patches, unfold_patches


@pytest.mark.parametrize("span", [1, 5, 1 << 14])
def test_spans_of_windows_are_the_whole_embedding(span: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_embedding, "_SPAN", span)
    g = torch.Generator().manual_seed(0)
    signals, maps = torch.randn(2, 40, generator=g, dtype=torch.float64), torch.randn(2, 3, 6, 6, generator=g, dtype=torch.float64)
    windows, whole = Windows.of(signals, 6), unfold_patches(signals[:, None, None], (1, 6))
    mean, covariance = windows.moments()
    assert windows.count == whole.shape[-1]
    torch.testing.assert_close(mean, whole.mean(-1))
    centred = whole - mean.unsqueeze(-1)
    torch.testing.assert_close(covariance, centred @ centred.mT / windows.count)
    torch.testing.assert_close(windows.filtered(maps[:, 0], stride=4), (maps[:, 0] @ whole)[..., ::4])
    folded = [fold_patches(maps[:, k] @ whole, (1, 40), (1, 6))[:, 0, 0] for k in range(3)]
    torch.testing.assert_close(windows.mapped(maps), torch.stack(folded, 1))
    offset = torch.randn(2, 6, generator=g, dtype=torch.float64)
    squares = (maps[:, 1] @ whole - offset.unsqueeze(-1)).square()
    pooled = torch.nn.functional.avg_pool1d(squares, 7, stride=4, padding=3, count_include_pad=False)
    torch.testing.assert_close(windows.envelopes(maps[:, 1], offset, reach=3, step=4)[..., : pooled.shape[-1]], pooled)


def mirrored_windows(signal: np.ndarray, size: int) -> np.ndarray:
    """``(T + size - 1, size)``, written out."""
    padded = np.pad(signal, size - 1, mode="reflect")
    return np.stack([padded[start : start + size] for start in range(len(signal) + size - 1)])


@pytest.mark.parametrize("span", [1, 4, 1 << 14])
@pytest.mark.parametrize(("length", "size"), [(9, 4), (5, 5), (6, 1)])
def test_all_that_is_asked_of_windows_by_loops(span: int, length: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_embedding, "_SPAN", span)
    random = np.random.default_rng(7)
    signals, filters, offset = random.standard_normal((2, length)), random.standard_normal((2, 3, size)), random.standard_normal((2, 3))
    maps = random.standard_normal((2, 2, size, size))
    windows = Windows.of(torch.from_numpy(signals), size)
    assert windows.count == length + size - 1
    mean, covariance = windows.moments()
    for row in range(2):
        own = mirrored_windows(signals[row], size)
        np.testing.assert_allclose(mean[row], own.mean(0), atol=1e-12)
        np.testing.assert_allclose(covariance[row], np.cov(own.T, bias=True).reshape(size, size), atol=1e-12)
        for stride in (1, 2, 3):
            np.testing.assert_allclose(windows.filtered(torch.from_numpy(filters), stride)[row], filters[row] @ own[::stride].T, atol=1e-12)
        for reach, step in ((0, 1), (2, 1), (1, 3), (99, 2)):
            energy = (filters[row] @ own.T - offset[row][:, None]) ** 2
            near = [energy[:, max(0, at - reach) : at + reach + 1].mean(1) for at in range(0, len(own), step)]
            found = windows.envelopes(torch.from_numpy(filters), torch.from_numpy(offset), reach, step)
            np.testing.assert_allclose(found[row], np.stack(near, 1), atol=1e-9)
        for which in range(2):
            made = own @ maps[row, which].T  # window n, mapped; sample t is entry t + size - 1 - n of window n
            folded = [np.mean([made[n, t + size - 1 - n] for n in range(t, t + size)]) for t in range(length)]
            np.testing.assert_allclose(windows.mapped(torch.from_numpy(maps))[row, which], folded, atol=1e-12)
