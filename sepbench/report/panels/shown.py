"""Signals as pictures: images as they are, audio as spectrograms."""

from __future__ import annotations

import torch

from sepbench.errors import SepbenchError
from sepbench.protocols import TaskSpec
from sepbench.report.panels.sheet import Pixels, pictures
from sepbench.stft import Stft

SHOWN_DB = (-90.0, -20.0)
"""Levels that white and black stand for; a sine of full scale has 0 dB. Fixed, so that every picture of a sheet can be compared with every other."""
_ROWS, _COLUMNS = 128, 160


def check_shown(spec: TaskSpec) -> None:
    """Refuse signals that cannot be shown.

    Raises:
        SepbenchError: vectors, or images of other than 1 or 3 channels.
    """
    where, instead = f"task {spec.name} of suite {spec.suite}", "use --figures histogram, without --samples"
    if spec.domain not in ("image", "audio"):
        raise SepbenchError(f"{where} has {spec.domain} signals, and grids and samples show images and sounds only; {instead}")
    if spec.domain == "image" and spec.source_shape[0] not in (1, 3):
        raise SepbenchError(f"images of {where} have {spec.source_shape[0]} channels, grids and samples show 1 or 3; {instead}")


def shown(signals: torch.Tensor, spec: TaskSpec, low: float = 0.0, high: float = 1.0) -> Pixels:
    """Signals ``(n, *source_shape)`` as pictures ``(n, H, W, 3)`` in [0, 1].

    Args:
        signals: NaN stays NaN, an empty field on the sheet.
        spec: says what they are.
        low, high: values that black and white of an image stand for; spectrograms have ``SHOWN_DB`` instead.
    """
    if spec.domain == "audio":
        assert spec.sample_rate is not None
        return pictures(spectrograms(signals, spec.sample_rate))
    return pictures(signals, low, high)


def spectrograms(signals: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """``(n, channels, T)`` to grey pictures ``(n, 1, H, W)``: time to the right, frequency upwards from 0 to half the rate, the louder the darker.

    The power of all channels, averaged over cells of the picture, in dB.
    """
    transform = Stft.at(sample_rate)
    full_scale = torch.hann_window(transform.window_length, dtype=torch.float64).sqrt().sum() / 2  # magnitude of a sine of amplitude 1
    power = (transform.forward(signals.double().cpu()).abs() / full_scale).square().mean(1, keepdim=True)
    size = (min(_ROWS, power.shape[-2]), min(_COLUMNS, power.shape[-1]))
    cells = torch.nn.functional.adaptive_avg_pool2d(power, size).flip(-2)
    quiet, loud = SHOWN_DB
    level = 10.0 * cells.clamp(min=1e-12).log10()
    return 1.0 - ((level - quiet) / (loud - quiet)).clamp(0.0, 1.0)
