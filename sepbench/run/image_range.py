"""Images far outside [0, 1]: one rule and one line for estimates that a method returns and for those that are supplied."""

from __future__ import annotations

from sepbench.protocols import Domain
from sepbench.torch_later import torch

_SUSPICIOUS = 20.0
"""Samplers leave [0, 1] a little, and a method that diverges goes further; whole numbers up to 255 are rather a mistake."""


def range_warning(who: str, domain: Domain, largest: float, verb: str = "returns") -> str:
    """One line for the user, empty where nothing is odd.

    Args:
        who: whose estimates they are.
        domain: of the signals; of others than images no range is known.
        largest: the largest absolute value.
        verb: what ``who`` does with numbers.
    """
    if domain != "image" or largest <= _SUSPICIOUS:
        return ""
    return f"{who} reaches {largest:.4g}, and images are in [0, 1]: if it {verb} numbers from 0 to 255, divide by 255 first"


def estimates_warning(who: str, domain: Domain, estimates: torch.Tensor) -> str:
    """``range_warning`` of estimates of any shape. What is not finite is told elsewhere and does not count."""
    if domain != "image" or not estimates.numel():
        return ""
    return range_warning(who, domain, float(estimates.detach().nan_to_num(0.0, 0.0, 0.0).abs().max()))
