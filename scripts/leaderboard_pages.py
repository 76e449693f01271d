"""The committed leaderboards as the page that ``sepbench report`` writes, within the site of the documents.

``docs_hooks.py`` puts a page in its place first, so that links to it are checked, and writes the real one when the site is done. Where the extra
``html`` is not installed the first one stays, and says so.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sepbench.errors import SepbenchError
from sepbench.report.html.extra import check_html
from sepbench.report.html.page import write_report
from sepbench.resources import resource_root

INDEX = "leaderboards/index.html"
ONLY = "SEPBENCH_DOCS_LEADERBOARDS"
"""Variable of the environment: names of leaderboards with commas, for a quick look at the site; empty for none. All if it is not set."""
PLACEHOLDER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Leaderboards</title></head>
<body><p>This site was built without the leaderboards' page. Make it with: <code>sepbench report --leaderboards</code></p></body></html>
"""


def wanted() -> list[str]:
    """The leaderboards to write."""
    every = sorted(path.stem for path in resource_root("leaderboards").glob("*.csv") if path.stem != "published")
    return every if ONLY not in os.environ else [name.strip() for name in os.environ[ONLY].split(",") if name.strip()]


def write_leaderboards(site: Path) -> str:
    """Write the page into a site that is built; returns one line on what was done.

    Raises:
        SepbenchError: a leaderboard that is not there or cannot be read, or a folder that cannot be written.
    """
    names, folder = wanted(), site / "leaderboards"
    if not names:
        return "leaderboards: left out"
    try:
        check_html()
    except SepbenchError as error:  # the documents are whole without it
        return f"leaderboards: left out, {error}"
    if folder.is_dir():
        shutil.rmtree(folder)  # the page in its place, or that of the last build
    made = write_report(names, folder)
    return f"leaderboards: {len(names)} boards, {made.files} files, {made.size / 1e6:.1f} MB, {made.seconds:.0f} s"
