"""Images that leave [0, 1] a little are a sampler's; those in 0 to 255 are warned of, everywhere by one rule."""

from __future__ import annotations

import pytest
import torch

from sepbench.run.image_range import estimates_warning, range_warning

WARNED = [("image", 20.0, False), ("image", 20.5, True), ("image", 255.0, True), ("audio", 255.0, False), ("vector", 99.0, False)]


@pytest.mark.parametrize(("domain", "largest", "warned"), WARNED)
def test_images_beyond_their_range_are_warned_of(domain: str, largest: float, warned: bool) -> None:
    line = f"a.npy reaches {largest:.4g}, and images are in [0, 1]: if it holds numbers from 0 to 255, divide by 255 first"
    assert range_warning("a.npy", domain, largest, "holds") == (line if warned else "")  # type: ignore[arg-type]
    for sign in (1.0, -1.0):
        estimates = torch.tensor([[0.5, sign * largest], [torch.nan, torch.inf]], requires_grad=True)
        assert estimates_warning("a.npy", domain, estimates) == (line.replace("holds", "returns") if warned else "")  # type: ignore[arg-type]


def test_no_estimates_have_no_range() -> None:
    assert estimates_warning("m", "image", torch.zeros(0, 2)) == ""
