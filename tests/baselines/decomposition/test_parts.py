"""Parts become estimates that explain the mixture, whatever the weights."""

from __future__ import annotations

import torch
from method_toys import generator

from baselines.decomposition.parts import estimates_from_parts
from sepbench.operators import make_operator


def test_a_source_of_weight_zero_gets_nothing() -> None:
    operator = make_operator("gain", 2, gains=[[1.0, 0.0], [0.5, 2.0]])
    values = torch.rand(2, 1, 4, 4, generator=generator(8), dtype=torch.float64)
    estimates = estimates_from_parts(torch.stack([0.25 * values, 0.75 * values], 1), values, operator)
    torch.testing.assert_close(operator.forward(estimates), values)
    assert bool((estimates[0, 1] == 0).all())
    torch.testing.assert_close(estimates[0, 0], values[0])
    torch.testing.assert_close(estimates[1], torch.stack([0.5 * values[1], 0.375 * values[1]]))
