"""Windows of long signals, span by span: the same as all of them at once."""

from __future__ import annotations

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
