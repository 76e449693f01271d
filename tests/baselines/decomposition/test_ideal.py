from __future__ import annotations

import torch

from baselines.decomposition.ideal import winner_takes_all


def test_ties_are_shared() -> None:
    shares = torch.tensor([0.4, 0.4, 0.2]).reshape(1, 3, 1, 1, 1)
    assert winner_takes_all(shares).flatten().tolist() == [0.5, 0.5, 0.0]
