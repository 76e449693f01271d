"""How numbers are written in tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

Record = Mapping[str, Any]


def clusters_text(least: int, most: int, unit: str) -> str:
    """`` over 52 songs``, `` over 25 to 3,456 images``; empty where clusters are not known."""
    if not most:
        return ""
    count = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    return f" over {count} {unit}{'' if most == 1 else 's'}"


def said(value: Any) -> bool:
    """Whether a row has a value in a column."""
    return not (value is False or value == "" or (isinstance(value, float) and math.isnan(value)))


def number_format(unit: str, size: float) -> Callable[[float], str]:
    """How values of a unit are written, and with them others that stand beside them, such as the ends of an interval.

    The one rule: two decimals for dB and three for all other units. Where ``size`` is so small that this leaves less than two digits of it, there are
    two decimals more; where these do not suffice either, it is a power of ten with two digits. An exact zero is ``0``: ``0.000`` beside ``1.7e-08``
    would look like a small number that was rounded.
    """
    usual = 2 if unit == "dB" else 3
    small, tiny = 0 < size < 10.0 ** (1 - usual), 0 < size < 10.0 ** (-1 - usual)
    form = ".1e" if tiny else f".{usual + 2 * small}f"
    return lambda value: "0" if value == 0 else format(value, form)


def size_text(size: int) -> str:
    """Bytes as ``23 kB`` or ``1.3 MB``, of 1,000 and 1,000,000 each; nothing that is there has size 0."""
    return f"{size / 1e6:.1f} MB" if size >= 999_500 else f"{max(size / 1e3, float(size > 0)):.0f} kB"


def mean_text(record: Record | None) -> str:
    if record is None or not math.isfinite(record["mean"]):
        return ""
    return number_format(record["unit"], abs(record["mean"]))(record["mean"])


def with_interval(record: Record) -> str:
    """``16.02 [15.95, 16.09]``."""
    if not math.isfinite(record["mean"]):
        return ""
    write = number_format(record["unit"], abs(record["mean"]))
    if not math.isfinite(record["ci_low"]):
        return write(record["mean"])
    return f"{write(record['mean'])} [{write(record['ci_low'])}, {write(record['ci_high'])}]"
