"""Pages of methods for the documents: what a method's file says at its top, its rows, settings and figures."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

from suite_cards import board, seconds, table, with_interval

from sepbench.kinds import shown
from sepbench.protocols import SUPERVISION_LEVELS, Separator
from sepbench.registry import create_separator, separator_class, separator_domains, separator_names, suite_names
from sepbench.settings import REQUIRED, describe, settings_of
from sepbench.suites.loader import load_suite

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
LONG = {
    "basis": ("priors",),
    "projected": ("samplers",),
    "projected_auto": ("projected-auto",),
    "lass": ("lass",),
    "lass_projected": ("lass",),
    "s_d": ("s-d",),
    "nes": ("learned_methods",),
    "am": ("learned_methods",),
    "glom": ("learned_methods",),
    "supervised": ("learned_methods",),
    "conv_tasnet": ("waveform_methods",),
    "demucs": ("waveform_methods",),
    "nmf_semi": ("semi-supervised-nmf",),
    "nmf_semi_printed": ("semi-supervised-nmf",),
    "dirac": ("samplers",),
    "gaussian": ("samplers",),
    "diffusion_gibbs": ("samplers",),
    "alpha_rgs": ("samplers",),
    "exact_posterior": ("posterior",),
}
"""Long pages about the methods of a file."""


@dataclass(frozen=True)
class Family:
    """The rows that one file of ``baselines/`` registers.

    Attributes:
        stem: the file's name without its ending.
        rows: name of each row -> an instance with its settings.
        cls: the class behind them.
    """

    stem: str
    rows: Mapping[str, Separator]
    cls: type

    @property
    def first(self) -> Separator:
        return next(iter(self.rows.values()))


@cache
def families() -> tuple[Family, ...]:
    """All files with registered methods of this project, by name."""
    found: dict[str, dict[str, Separator]] = {}
    classes: dict[str, type] = {}
    for name in separator_names():
        for domain in separator_domains(name):
            cls = separator_class(name, domain)
            if cls.__module__.startswith("baselines."):
                stem = cls.__module__.removeprefix("baselines.")
                found.setdefault(stem, {})[name] = create_separator(name, domain=domain)
                classes[stem] = cls
    return tuple(Family(stem, rows, classes[stem]) for stem, rows in sorted(found.items()))


def method_index(pages: Sequence[Family]) -> str:
    """All rows by what they may learn from."""
    intro = (
        "Every row is registered through an entry point, as [your own](../own-method.md) is. "
        "What it may learn from is checked at the interface and is a column of the leaderboards."
    )
    text = ["# Methods", "", intro]
    for level, meaning in SUPERVISION_LEVELS.items():
        rows = [
            (f"[`{name}`]({page.stem}.md)", separator.info.title, ", ".join(sorted(separator.info.domains)), separator.info.paper)
            for page in pages
            for name, separator in page.rows.items()
            if separator.info.supervision == level
        ]
        if rows:
            text += ["", f"## `{level}`: {meaning}", "", table(("method", "title", "signals", "paper"), rows)]
    return "\n".join(text) + "\n"


def method_page(family: Family, long_pages: Mapping[str, str]) -> str:
    """One file's page: its docstring, rows, settings, figures and pictures."""
    title, body = _docstring(family.stem)
    parts = [f"# {', '.join(f'`{name}`' for name in list(family.rows)[:3])}{' and more' if len(family.rows) > 3 else ''}", title, body, _rows(family)]
    links = [f"[{page}](../{long_pages[page]})" for page in LONG.get(family.stem, ()) if page in long_pages]
    if links:
        parts.append(f"More: {', '.join(links)}.")
    parts += [_settings(family), _figures(family), _pictures(family)]
    parts.append(f"Code: `baselines/{family.stem}.py`. `sepbench list {next(iter(family.rows))}` shows this page in the terminal.")
    return "\n\n".join(part for part in parts if part) + "\n"


def _docstring(stem: str) -> tuple[str, str]:
    """First line and the rest; tables and formulas of the docstring stay as they are typed."""
    text = (import_module(f"baselines.{stem}").__doc__ or "").strip()
    title, _, rest = text.partition("\n\n")
    return _inline(title), "\n\n".join(_block(block) for block in rest.split("\n\n"))


def _block(block: str) -> str:
    """One paragraph of a docstring: formulas and tables stay as they are typed, and a list that follows a line gets a blank line before it."""
    lines = block.split("\n")
    if lines[0].startswith("    ") or any(re.fullmatch(r"\s*=+(\s+=+)+\s*", line) for line in lines):
        return "```text\n" + block.strip("\n") + "\n```"
    text: list[str] = []
    for line in lines:
        if _is_item(line) and text and not _is_item(text[-1]) and not text[-1].startswith(" "):
            text.append("")
        text.append(line.removesuffix("::") + ":" if line.endswith("::") else line)
    return _inline("\n".join(text))


def _is_item(line: str) -> bool:
    return bool(re.match(r"\s*(\*|\d+\.) ", line))


def _inline(text: str) -> str:
    """Double backticks to single ones; what Markdown would take for HTML, emphasis or a formula stays text."""
    text = re.sub(r"``(.+?)``", r"`\1`", text, flags=re.S)
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else piece.replace("<", "&lt;").replace("_", r"\_") for piece in pieces)


def _rows(family: Family) -> str:
    rows = []
    for name, separator in family.rows.items():
        info = separator.info
        seed = "no" if info.deterministic else "yes"
        rows.append((f"`{name}`", info.title, info.supervision, ", ".join(sorted(info.domains)), seed, info.paper, _differs(family, name)))
    return "## Rows\n\n" + table(("row", "title", "may learn from", "signals", "random", "paper", "settings that differ"), rows)


def _differs(family: Family, name: str) -> str:
    """The settings of a row that are not the class' defaults."""
    defaults = {one.name: one.default for one in describe(family.cls)}
    chosen = settings_of(family.rows[name])
    return ", ".join(f"`{key}={shown(value)}`" for key, value in chosen.items() if key in defaults and value != defaults[key] and defaults[key] is not REQUIRED)


def _settings(family: Family) -> str:
    rows = [
        (f"`{one.name}`", one.kind, "required" if one.default is REQUIRED else f"`{shown(one.default)}`", one.range, _inline(one.description))
        for one in describe(family.cls)
    ]
    if not rows:
        return "## Settings\n\nNone."
    name = next(iter(family.rows))
    return f"## Settings\n\n`sepbench run ... --set {name}.SETTING=VALUE`\n\n" + table(("setting", "type", "default", "range", "what it does"), rows)


def _figures(family: Family) -> str:
    """Its rows of all leaderboards under each suite's ranking metric."""
    rows = []
    for name in suite_names():
        frame, suite = board(name), load_suite(name)
        if frame is None or suite.domain not in family.first.info.domains:
            continue
        found = frame[frame.method.isin(list(family.rows)) & (frame.metric == suite.ranking_metric)]
        for row in found.itertuples():
            names = (f"[`{name}`](../suites/{name}.md)", f"`{row.task}`", f"`{row.method}`", f"`{row.metric}`")
            rows.append((*names, with_interval(row), f"{int(row.n_scored):,}", *seconds(row)))
    if not rows:
        return "## Figures\n\nNo leaderboard has a row of it yet."
    head = ("suite", "task", "row", "metric", "mean [95 %]", "mixtures", "s/fit", "s/mixture", "timing group")
    return "## Figures\n\nFrom the committed leaderboards; seconds are comparable within one timing group only.\n\n" + table(head, rows)


def _pictures(family: Family) -> str:
    """What ``scripts/failure_pictures.py`` drew."""
    sound = ".audio" if family.stem.endswith("_audio") else ""
    found = [path for name in family.rows if (path := PICTURES / f"{name}{sound}.png").exists()]
    if not found:
        return ""
    intro = "Mixtures from its best to its worst, at quick budgets (`scripts/failure_pictures.py`, `sepbench panel`)."
    pictures = [f"![Mixtures, estimates of {path.stem} and true sources, from its best to its worst mixture](../pictures/{path.name})" for path in found]
    return "\n\n".join(("## Where it fails", intro, *pictures))
