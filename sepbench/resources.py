"""Where the files that travel with the package lie: manifests, pair lists, suites, leaderboards, weights.

In a wheel they are inside the package (``sepbench/_resources``); in a checkout (editable install) they are the repository's own
top-level folders. Everything else asks here and never builds such a path itself.
"""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
_WHEEL_ROOT = _PACKAGE / "_resources"


def resource_root(name: str) -> Path:
    """Folder ``data_manifests`` or ``leaderboards``.

    Raises:
        FileNotFoundError: the installation is incomplete.
    """
    for base in (_WHEEL_ROOT, _PACKAGE.parent):
        if (base / name).is_dir():
            return base / name
    raise FileNotFoundError(f"the folder {name!r} is missing from this installation of sepbench; install it again")


def suites_root() -> Path:
    """Folder of the built-in suites (TOML)."""
    return _PACKAGE / "suites" / "builtin"
