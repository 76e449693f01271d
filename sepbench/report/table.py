"""Leaderboards, comparisons and gate reports as text: rich tables for a terminal of any width, Markdown for a page."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from sepbench.report.fitting import print_table
from sepbench.report.footnotes import page_notes
from sepbench.report.numbers import clusters_text, number_format
from sepbench.report.rows import Cells, Line, RowSelection, TaskTable, task_tables
from sepbench.results.compare import NO_PARTS
from sepbench.results.gate import GateReport, GateRow
from sepbench.results.pairing import no_parts

if TYPE_CHECKING:
    from sepbench.results.ranking import Evidence
    from sepbench.suites.model import Suite

_STATUS_STYLES = {"regression": "red", "not comparable": "yellow", "improvement": "green", "new": "cyan", "holds": ""}


# rich's SIMPLE_HEAD with a visible rule between sections.
_RULED = box.Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")


def render_leaderboard(
    frame: pd.DataFrame,
    suite: Suite | None,
    console: Console,
    *,
    metrics: Sequence[str] = (),
    cells: Cells | None = None,
    bounds: Mapping[str, str] | None = None,
    evidence: Evidence | None = None,
    selection: RowSelection | None = None,
) -> None:
    """Print one table per task: what there is of ours from best to worst, below a rule the papers' methods that have no row of ours; then the footnotes.

    Bounds, incomplete and failed rows are not ranked. On a terminal too narrow for all columns the others follow in further tables.

    Args:
        frame, suite, metrics, cells, bounds, evidence, selection: see ``sepbench.report.rows.task_tables``.
    """
    tables = list(task_tables(frame, suite, metrics=metrics, cells=cells, bounds=bounds, evidence=evidence, selection=selection))
    for table in tables:
        console.print(Text(table.title, style="bold"))
        _print_phrases(table.subtitle, console)
        for number, part in enumerate(_parts(table, console)):
            if number:
                console.print()
            console.print(part)
        if table is not tables[-1]:
            console.print()
    for note in page_notes(tables):
        console.print(Text(note, style="dim"))
    console.print()


def _print_phrases(text: str, console: Console) -> None:
    """Print a head whose lines end after a comma or a semicolon, brackets kept together, where the terminal is too narrow for one line."""
    line = ""
    for phrase in re.findall(r"(?:\([^)]*\)|[^,;(])+[,;]?", text):
        if line and cell_len(line + phrase) > console.width:
            console.print(Text(line.strip(), style="dim"))
            line = ""
        line += phrase if line else phrase.lstrip()
    console.print(Text(line, style="dim"))


def _parts(table: TaskTable, console: Console) -> list[Table]:
    """One rich table if it fits, else the main columns and then the others, cut until they fit."""
    papers = ["published"] * any(line.published for line in table.lines)
    others = [f"other {number}" for number in range(len(table.other_heads))]
    extras = [f"extra {number}" for number in range(len(table.extra_heads))]
    whole = _draw(table, ["rank", "method", "supervision", "value", *papers, *others, *extras, "n"])
    if _fits(whole, console):
        return [whole]
    for middle in (["supervision", "value", *papers], ["supervision", "value"], ["value"]):
        main = _draw(table, ["rank", "method", *middle])
        if _fits(main, console):
            break
    else:
        main = _draw(table, ["rank", "method", "value"], fold=True)
    left = [["supervision"]] * ("supervision" not in middle) + [[key] for key in others] + [[*extras, "n"]]
    below = [_draw(table, ["method", "published"])] if papers and "published" not in middle else []
    return [main, *below, *_draw_packed(table, left, console)]


def _draw_packed(table: TaskTable, groups: list[list[str]], console: Console) -> list[Table]:
    """Tables of the method and some of the columns, each with as many as fit; a group is only divided where it does not fit alone."""
    drawn: list[Table] = []
    keys: list[str] = []
    pieces = [piece for group in groups for piece in ([group] if _fits(_draw(table, ["method", *group]), console) else [[key] for key in group])]
    for piece in pieces:
        if keys and not _fits(_draw(table, ["method", *keys, *piece]), console):
            drawn.append(_draw(table, ["method", *keys]))
            keys = []
        keys += piece
    return [*drawn, _draw(table, ["method", *keys])]


def _fits(table: Table, console: Console) -> bool:
    unbounded = console.options.update(width=10_000)  # measured within the terminal's width, nothing would ever seem too wide
    return console.measure(table, options=unbounded).minimum <= console.width


def _draw(table: TaskTable, keys: Sequence[str], *, fold: bool = False) -> Table:
    """A rich table of some of the columns. ``fold``: intervals may stand below their means."""
    drawn = Table(box=_RULED, show_edge=False, pad_edge=False, collapse_padding=True, padding=(0, 1))
    heads = {"value": table.value_head, **{f"extra {number}": head for number, head in enumerate(table.extra_heads)}}
    heads |= {f"other {number}": head.replace("_", "_\n", 1) for number, head in enumerate(table.other_heads)}
    narrowest = {"method": 10, "published": len("14.8 BASIS Table 2")}
    main = "rank" in keys
    ours = [line for line in table.lines if not line.from_paper and (main or line.published or "published" not in keys)]
    papers = [line for line in table.lines if line.from_paper and "published" in keys]
    for key in keys:
        # Numbers are never cut or folded; names and sources may fold. Said as a least width, because rich would measure the longest word.
        head, texts = heads.get(key, key), [_cell(line, key) for line in [*ours, *papers]]
        pieces = [*head.split("\n"), *(part for text in texts for part in (text.split(" [") if fold and key == "value" else [text]))]
        least = narrowest.get(key) or max(map(cell_len, pieces)) + (fold and key == "value")
        justify = "left" if key in ("method", "supervision", "value", "published") else "right"
        drawn.add_column(head, justify=justify, no_wrap=key not in narrowest and not (fold and key == "value"), min_width=least, overflow="fold")  # type: ignore[arg-type]
    for line in ours:
        drawn.add_row(*(_drawn_cell(line, key, fold) for key in keys), style="" if line.rank[:1].isdigit() or not main else "italic")
    if papers:
        drawn.add_section()
    for line in papers:
        drawn.add_row(*(_drawn_cell(line, key, fold) for key in keys), style="dim")
    return drawn


def _drawn_cell(line: Line, key: str, fold: bool) -> str:
    text = _cell(line, key)
    return escape(text.replace(" [", "\n[") if fold and key == "value" else text)


def _cell(line: Line, key: str) -> str:
    if key.startswith("other "):
        return line.others[int(key.removeprefix("other "))]
    if key.startswith("extra "):
        return line.extras[int(key.removeprefix("extra "))]
    return str(getattr(line, key))


def markdown_leaderboard(
    frame: pd.DataFrame,
    suite: Suite | None,
    *,
    metrics: Sequence[str] = (),
    cells: Cells | None = None,
    bounds: Mapping[str, str] | None = None,
    evidence: Evidence | None = None,
    selection: RowSelection | None = None,
) -> str:
    """The same tables as GitHub Markdown."""
    parts, tables = [], list(task_tables(frame, suite, metrics=metrics, cells=cells, bounds=bounds, evidence=evidence, selection=selection))
    for table in tables:
        heads = ["rank", "method", "supervision", table.value_head, *table.other_heads, "published", *table.extra_heads, "n"]
        rows = [[line.rank, line.method, line.supervision, line.value, *line.others, line.published, *line.extras, line.n] for line in table.lines]
        aligned = ["---:", "---", "---", "---", *["---:"] * len(table.other_heads), "---", *["---:"] * len(table.extra_heads), "---:"]
        lines = [f"### {table.title}", "", table.subtitle, ""]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (heads, aligned, *rows)]
        parts.append("\n".join(lines))
    notes = page_notes(tables)
    parts += ["\n".join(f"- {note}" for note in notes)] * bool(notes)
    return "\n\n".join(parts) + "\n"


def render_comparison(rows: pd.DataFrame, label_a: str, label_b: str, console: Console) -> None:
    """Print the rows of ``compare_sides``: one table per task."""
    console.print(Text(f"A = {label_a}", style="bold"), soft_wrap=True)
    console.print(Text(f"B = {label_b}", style="bold"), soft_wrap=True)
    _print_phrases("difference A - B on the same mixtures, in brackets its 95 % interval; share of mixtures where A is better", console)
    compared = rows[rows["n"] > 0]
    for interval, unit in dict.fromkeys(zip(compared["interval"], compared["cluster"], strict=True)):
        counts = compared.loc[(compared["interval"] == interval) & (compared["cluster"] == unit), "n_clusters"]
        console.print(Text(f"intervals: {interval}{clusters_text(counts.min(), counts.max(), unit)}", style="dim"))
    alike = bool((rows["method_a"] == rows["method_b"]).all())  # else there is one pair of methods, named above
    heads = [("method", "left", 10)] * alike + [
        ("metric", "left", 0),
        ("difference", "left", 0),
        ("n", "right", 0),
        ("A better", "right", 0),
        ("verdict", "left", 10),
    ]
    for task in dict.fromkeys(rows["task"]):
        console.print()
        console.print(Text(str(task), style="bold"))
        table = Table(box=_RULED, show_edge=False, pad_edge=False, collapse_padding=True)
        for head, justify, narrowest in heads:
            table.add_column(head, justify=justify, no_wrap=not narrowest, min_width=narrowest or None, overflow="fold")  # type: ignore[arg-type]
        for row in rows[rows["task"] == task].to_dict("records"):
            cells = (row["metric"], *_difference(row), str(row["verdict"]))
            table.add_row(*(escape(cell) for cell in ((row["method_a"], *cells) if alike else cells)))
        print_table(table, console)
    for side, method, column in (("A", "method_a", "failed_a"), ("B", "method_b", "failed_b")):
        lost = rows[rows[column] > 0].drop_duplicates(["task", method])
        for task, name, count in zip(lost["task"], lost[method], lost[column], strict=True):
            console.print(Text(f"{side}: {count:,} mixtures of {task} that {name} failed on are not part of the comparison", style="yellow"), soft_wrap=True)
    bare = rows[rows["verdict"].str.startswith(NO_PARTS)]
    for metric, judged in dict.fromkeys(zip(bare["metric"], bare["verdict"], strict=True)):
        console.print(Text(no_parts(metric, judged.removeprefix(NO_PARTS).split(" and ")), style="yellow"), soft_wrap=True)
    for metric in dict.fromkeys(rows.loc[~rows["higher_is_better"], "metric"]):
        console.print(Text(f"{metric}: lower is better", style="dim"))


def _difference(row: Mapping[Hashable, Any]) -> tuple[str, str, str]:
    """Difference with its interval and unit, number of pairs, share where A is better."""
    if not row["n"]:
        return "no value of these" if str(row.get("verdict", "")).startswith(NO_PARTS) else "no common example", "0", ""
    ends = [row[name] for name in ("difference", "ci_low", "ci_high") if math.isfinite(row[name])]
    write = number_format(row["unit"], max(map(abs, ends)))
    interval = f" [{write(row['ci_low'])}, {write(row['ci_high'])}]" if len(ends) == 3 else ""
    unit, share = "" if row["unit"] in ("", "1") else f" {row['unit']}", row["share_a_better"]
    return f"{write(row['difference'])}{interval}{unit}", f"{row['n']:,}", f"{share:.0%}" if math.isfinite(share) else ""


def render_gate(report: GateReport, label_new: str, label_old: str, console: Console) -> None:
    """Print the rows of a gate report that matter (all but those that hold), its notes and a one-line verdict."""
    shown: dict[tuple[str, ...], list[GateRow]] = {}
    for row in report.rows:
        if row.status != "holds":
            # One line for all metrics of a method that have the same thing to say; numbers stand alone.
            shown.setdefault((row.status, row.task, row.method, row.reason or row.metric), []).append(row)
    if shown:
        table = Table(box=_RULED, show_edge=False, pad_edge=False, collapse_padding=True)
        for head in ("finding", "task, method, metric", "why"):
            table.add_column(head, no_wrap=head == "finding", overflow="fold")
        for rows in shown.values():
            first, metrics = rows[0], ", ".join(row.metric for row in rows)
            table.add_row(
                *(escape(cell) for cell in (first.status, f"{first.task}, {first.method}, {metrics}", _why(first))), style=_STATUS_STYLES[first.status]
            )
        print_table(table, console)
    for note in report.notes:
        console.print(Text(f"note: {note}", style="dim"))
    console.print(Text(gate_line(report, label_new, label_old), style="bold"), soft_wrap=True)


def gate_json(report: GateReport, label_new: str, label_old: str) -> str:
    """The whole report as JSON; numbers that do not exist are null."""
    rows = [{key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in asdict(row).items()} for row in report.rows]
    head = {"verdict": report.verdict, "exit_code": report.exit_code, "new": label_new, "old": label_old, "summary": gate_line(report, label_new, label_old)}
    return json.dumps({**head, "notes": list(report.notes), "rows": rows}, indent=1, allow_nan=False)


def gate_line(report: GateReport, label_new: str, label_old: str) -> str:
    """The verdict in one line."""
    counts = {status: report.count(status) for status in ("holds", "improvement", "new", "regression", "not comparable")}
    words = {"holds": "hold", "improvement": "improved", "new": "new", "regression": "regressed", "not comparable": "not comparable"}
    found = [(count, words[status]) for status, count in counts.items() if count]
    parts = ", ".join(f"{count:,} {_figures(count, word) if not place else word}" for place, (count, word) in enumerate(found))
    bases = " and ".join(sorted({row.basis for row in report.rows if row.basis}))
    return f"{report.verdict}: {label_new} against {label_old}: {parts}" + (f" (by {bases})" if bases else "")


def _figures(count: int, word: str) -> str:
    """What is counted: a figure is one metric of one method on one task."""
    return f"figures {word}" if count != 1 else f"figure {'holds' if word == 'hold' else word}"


def _why(row: GateRow) -> str:
    if row.reason:
        return row.reason
    write = number_format(row.unit, max(abs(value) for value in (row.difference, row.ci_low, row.ci_high) if math.isfinite(value)))
    interval = f" [{write(row.ci_low)}, {write(row.ci_high)}]" if math.isfinite(row.ci_low) else ""
    means = (number_format(row.unit, abs(value))(value) for value in (row.old, row.new))
    chance = f", adjusted p {row.p_worse:.2g}" if row.status == "regression" and math.isfinite(row.p_worse) else ""
    return f"{' -> '.join(means)}: {write(row.difference)}{interval}, tolerance {row.tolerance:g}{chance}"
