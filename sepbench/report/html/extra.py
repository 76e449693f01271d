"""What the extra ``html`` brings: imported here, so that a missing package is one line, and loaded only when a report is made."""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from pathlib import Path

from sepbench.errors import SepbenchError

PACKAGES = {"jinja2": "Jinja2", "altair": "Altair", "vl_convert": "vl-convert-python", "PIL": "Pillow"}

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_HEAD = "/* Vega, Vega-Lite and Vega-Embed as vl-convert-python bundles them; BSD-3-Clause, https://github.com/vega */\n"


def check_html() -> None:
    """Refuse to begin where something is missing.

    Raises:
        SepbenchError: a package of the extra is not installed.
    """
    for module, package in PACKAGES.items():
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise SepbenchError(f"reports need {package}, which comes with the extra 'html': pip install 'sepbench[html]'") from error


@lru_cache(maxsize=1)
def vega_script() -> str:
    """The drawing library as one classic script, for pages that are opened from disk: browsers load no modules from there.

    Bundling takes a few seconds, once per process.
    """
    import altair
    import vl_convert

    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    known = vl_convert.get_vegalite_versions()
    bundle = vl_convert.javascript_bundle(_SNIPPET, vl_version=version if version in known else known[-1])
    # Its top-level constants must not meet those of the page's own scripts.
    return f"{_HEAD}(function () {{\n{bundle}\n}})();\n"


def asset_files() -> dict[str, bytes]:
    """The style sheet and the scripts of the pages, by file name."""
    folder = Path(__file__).parent / "assets"
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".js", ".css")}


def versions() -> str:
    """The versions of what draws, for the foot of the page."""
    from importlib.metadata import version

    parts = [f"Altair {version('altair')}", f"Vega-Lite {sys.modules['altair'].SCHEMA_VERSION}"] if "altair" in sys.modules else []
    return ", ".join(parts)
