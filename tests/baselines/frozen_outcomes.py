"""Numbers that a method's version stands for: ``tests/golden/method_outcomes.json`` holds a few projections of what every method makes of its toy world.

A method that gives other numbers is another version (``MethodInfo.version``), or it is broken. After a change that is meant, raise the version and run
``python tests/baselines/test_every_setting.py``, which writes what is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch

FILE = Path(__file__).parents[1] / "golden" / "method_outcomes.json"
DIRECTIONS = 4
TOLERANCE = 1e-3
"""Of a projection, in units of the root mean square of the estimates. Other vector instructions and threads move none by more than a fifth of it."""
ROUNDED: Mapping[str, float] = {"nes": 1.0, "supervised": 0.1, "lass": 0.15, "am": 0.05, "glom": 0.03, "conv-tasnet": 5e-3}
"""The same for networks whose first steps of Adam go by the sign of gradients near zero, which rounding decides: twice what was measured at least."""
DRAWN: Mapping[str, float] = {"lass audio": 0.3}
"""For a method in a domain where draws of tokens hang on such networks: how far the root mean square alone may go, as a share of itself. A draw that changed
moved it by 0.13 and a projection by 1.2, and AVX2 changes draws of other cases than AVX-512 does."""
recorded: dict[str, list[float]] | None = None
"""Where outcomes are written down instead of held against the file; None in tests."""


def projections(estimates: torch.Tensor) -> list[float]:
    """Root mean square, then inner products with fixed waves over the root of the number of values."""
    values = estimates.detach().double().cpu().flatten()
    place = torch.arange(len(values), dtype=torch.float64)
    waves = torch.stack([torch.cos((0.7 + 1.3 * wave) * place + wave) for wave in range(DIRECTIONS)])
    return [float(values.square().mean().sqrt()), *(waves @ values / len(values) ** 0.5).tolist()]


@cache
def frozen() -> Mapping[str, list[float]]:
    return json.loads(FILE.read_text(encoding="utf-8")) if FILE.is_file() else {}


def name_of(method: str, version: str, task: object, settings: Mapping[str, Any], budget: str) -> str:
    """What an outcome is kept under; of weights the file's name alone counts."""
    told = {key: Path(str(value)).name if str(key).endswith("weights") else value for key, value in settings.items()}
    where = f"{task.domain} {task.operator} {'x'.join(map(str, task.source_shape))} {'/'.join(task.source_classes)}"  # type: ignore[attr-defined]
    return f"{method} {version} | {where} | {budget} | {json.dumps(told, sort_keys=True)}"


def nearness(name: str, found: list[float], wanted: list[float]) -> tuple[float, float]:
    """How far an outcome kept under this name is from what is frozen, in units of the root mean square, and how far it may be."""
    method, domain = name.split(" ")[0], name.split(" | ")[1].split(" ")[0]
    drawn = DRAWN.get(f"{method} {domain}")
    compared = slice(1) if drawn is not None else slice(None)
    far = max(abs(one - other) for one, other in zip(found[compared], wanted[compared], strict=True))
    return far / max(wanted[0], 1e-3), ROUNDED.get(method, TOLERANCE) if drawn is None else drawn


def hold_against_frozen(name: str, estimates: torch.Tensor, more: list[float]) -> None:
    """Fails where the estimates are not those that are frozen under the name, or other numbers that do not come of them."""
    found = projections(estimates)
    if recorded is not None:
        recorded[name] = [float(f"{value:.6g}") for value in [*found, *more]]
        return
    wanted = frozen().get(name)
    assert wanted is not None, f"nothing is frozen for {name}; run python tests/baselines/test_every_setting.py"
    told, wanted = wanted[len(found) :], wanted[: len(found)]
    assert all(abs(one - other) < 1e-4 * max(1.0, other) for one, other in zip(more, told, strict=True)), f"{name} tells {more}, not {told}"
    far, allowed = nearness(name, found, wanted)
    assert far <= allowed, f"other numbers than before: {name}: {found}, frozen {wanted}; if that is meant, raise the version"
