"""Somebody else's packages, as Python finds them: a folder on the path with a ``.dist-info`` that names entry points, and modules beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest


def package(site: Path, distribution: str, entries: Mapping[str, Mapping[str, str]], modules: Mapping[str, str] | None = None) -> Path:
    """Write a distribution into ``site``, which is returned.

    Args:
        distribution: its name.
        entries: group -> name -> ``module:object``.
        modules: name of a module -> its text.
    """
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n", encoding="utf-8")
    lines = [line for group, named in entries.items() for line in (f"[{group}]", *(f"{name} = {value}" for name, value in named.items()), "")]
    (info / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    for name, text in (modules or {}).items():
        (site / f"{name}.py").write_text(text, encoding="utf-8")
    return site


def install(
    monkeypatch: pytest.MonkeyPatch, site: Path, distribution: str, entries: Mapping[str, Mapping[str, str]], modules: Mapping[str, str] | None = None
) -> None:
    """Write a distribution into a folder of its own under ``site``, and find it for this test."""
    monkeypatch.syspath_prepend(str(package(site / distribution, distribution, entries, modules)))
