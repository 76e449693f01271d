"""What the tests of the HTML report share: a parser of its pages, and a leaderboard of any size that no data are needed for."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from synthetic_run import SyntheticRun

from sepbench.results.leaderboard import write_leaderboard
from sepbench.results.published_scores import merge_scores
from sepbench.results.values import MetricValues, Values


class Page(HTMLParser):
    """Elements of a page: ``tags`` with their attributes, texts by element, and the JSON that it carries."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.json: list[Any] = []
        self.words = ""
        self._script: dict[str, str | None] | None = None
        self._data = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._script, self._data = dict(attrs), ""

    def handle_data(self, data: str) -> None:
        if self._script is None:
            self.words += data
        else:
            self._data += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._script is not None:
            if self._script.get("type") == "application/json":
                self.json.append(json.loads(self._data, parse_constant=refuse))
            else:
                assert not self._data.strip(), "a script that lies in the page itself"
            self._script = None

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag and all(attributes.get(f"data-{k}") == v for k, v in wanted.items())]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def large_leaderboard(folder: Path, mixtures: int, methods: int) -> Path:
    """A leaderboard with made-up values of so many mixtures beside it, of a suite that nobody has."""
    names = {f"method-{k:02}": 14.0 + k for k in range(methods)}
    frame = SyntheticRun(names, n=8).frame()
    noise = np.random.Generator(np.random.Philox(3))
    difficulty = noise.normal(size=mixtures)
    values = {name: level + difficulty + noise.normal(size=mixtures) for name, level in names.items()}
    frame["suite"] = "made-up"
    for column in ("n_expected", "n_scored", "n_clusters"):
        frame[column] = mixtures
    path = folder / "made-up.csv"
    write_leaderboard(frame, path)
    examples = np.arange(mixtures)
    merge_scores(path, Values(lambda task, method: {"psnr": MetricValues(examples, values[method])}), [("class-split", name) for name in names])
    return path
