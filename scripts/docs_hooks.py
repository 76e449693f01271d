"""Hooks of MkDocs: suite pages get their card, every method gets a page, and all leaderboards are put into the site, from the code and the CSV files at hand.

``mkdocs.yml`` names this file. Nothing that it makes is committed, so a page cannot say other than the code, the manifests and the CSV files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from leaderboard_pages import INDEX, PLACEHOLDER, write_leaderboards
from method_cards import families, method_index, method_page
from suite_cards import metric_table, suite_card

ROOT = Path(__file__).resolve().parent.parent
CARD = "<!-- card -->"
METRICS = "<!-- metrics -->"
_serving = False


def on_startup(command: str, dirty: bool) -> None:
    """``mkdocs serve`` builds again at every change; writing all leaderboards each time would take a minute."""
    global _serving
    _serving = command == "serve"


def on_config(config: Any) -> Any:
    """Name every suite and every file of methods in the menu."""
    menu = {title: pages for entry in config.nav if isinstance(entry, dict) for title, pages in entry.items()}
    menu["Suites"] += [{page.stem: f"suites/{page.name}"} for page in sorted((ROOT / "docs" / "suites").glob("*.md")) if page.stem != "index"]
    menu["Methods"].append({"Every file": [{family.stem: f"methods/{family.stem}.md"} for family in families()]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add a page per method family, and the pictures that lie outside ``docs/``."""
    long_pages = {Path(file.src_uri).stem: file.src_uri for file in files if file.src_uri.endswith(".md") and "/" not in file.src_uri}
    pages = families()
    files.append(File.generated(config, "methods/index.md", content=method_index(pages)))
    for family in pages:
        files.append(File.generated(config, f"methods/{family.stem}.md", content=method_page(family, long_pages)))
    files.append(File.generated(config, INDEX, content=PLACEHOLDER))  # links to it are checked now
    for picture in (ROOT / "benchmarks" / "results").glob("*.png"):
        files.append(File.generated(config, f"results/{picture.name}", abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill in the cards of suite pages and the table of all metrics."""
    if CARD in markdown:
        markdown = markdown.replace(CARD, suite_card(Path(page.file.src_uri).stem))
    markdown = markdown.replace("](../benchmarks/results/", "](results/")  # as the repository has it, so that it is seen there too
    return markdown.replace(METRICS, metric_table()) if METRICS in markdown else markdown


def on_post_build(config: Any) -> None:
    """Put the real page of all leaderboards where the placeholder stands."""
    if not _serving:
        print(write_leaderboards(Path(config.site_dir)), file=sys.stderr)
