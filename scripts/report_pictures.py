"""Make the pictures of the HTML report in ``docs/pictures``: ``python scripts/report_pictures.py [FOLDER]``.

Runs two small suites whose data are free, writes their reports and photographs them with Debian's chromium (``apt-get install chromium``).
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import chromium  # beside this script
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
RUNS = {
    "digits": ("digits-pairs", "class-split", "average,ideal-mask,nmf,nmf-semi,ica,rpca", 200),
    "sounds": ("drums-bass-synth", "best-assignment", "average,ideal-ratio-mask,hpss,repet", 24),
}


def sepbench(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "sepbench.cli.main", *arguments], check=True, cwd=ROOT)


def small(path: Path) -> None:
    """Without transparency, as small as PNG gets."""
    with Image.open(path) as image:
        image.convert("RGB").save(path, optimize=True)


def photograph(browser: Any, page_file: Path, target: Path, selector: str, height: int, scheme: str) -> None:
    """``height`` pixels of a page from an element on, 1,200 wide."""
    page = browser.new_page(viewport={"width": 1200, "height": height}, color_scheme=scheme)
    page.goto(page_file.as_uri())
    page.wait_for_timeout(1500)
    page.locator(selector).first.evaluate("element => window.scrollTo({ top: element.getBoundingClientRect().top + scrollY - 12, behavior: 'instant' })")
    page.wait_for_timeout(2500)
    page.screenshot(path=target)
    page.close()
    small(target)


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        for name, (suite, task, methods, limit) in RUNS.items():
            run = Path(work) / name
            sepbench("run", "--suite", suite, "--tasks", task, "--methods", methods, "--limit", str(limit), "--out", str(run))
            sepbench("report", str(run))
        with chromium.browser() as browser:
            photograph(browser, Path(work) / "digits" / "report" / "index.html", folder / "report.png", "section.task", 1230, "light")
            photograph(browser, Path(work) / "sounds" / "report" / "index.html", folder / "report-sounds.png", "[data-example]", 770, "dark")


if __name__ == "__main__":
    main()
