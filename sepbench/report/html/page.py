"""The whole report: boards to pages to one folder that opens from disk. Reads results, computes no number of its own, and writes files."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sepbench import __version__
from sepbench.errors import SepbenchError
from sepbench.files import write_atomically
from sepbench.report.html.board import Board, MetricWords, TaskView, open_board, slug, task_views
from sepbench.report.html.curves import Curves, curves
from sepbench.report.html.distributions import Distributions, distributions
from sepbench.report.html.examples import Examples, examples
from sepbench.report.html.extra import asset_files, check_html, vega_script, versions
from sepbench.report.html.history import History, State, git_states, history
from sepbench.report.html.leaderboard import Leaderboard, leaderboard, method_address
from sepbench.report.html.media import Media
from sepbench.report.html.methods import MethodPages
from sepbench.report.html.pareto import Pareto, pareto
from sepbench.report.html.posterior import Posterior, posterior
from sepbench.report.html.samples import Samples, samples

MANIFEST = "report.json"
DEFAULT_BUDGET_MB = 50.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the user asked for.

    Attributes:
        tasks: only these; empty for all.
        asked: mixtures that he named.
        budget_mb: of pictures and sounds together, in 10**6 bytes.
        samples: posterior samples to draw for one mixture by every method that can; computes.
        history: states of a committed leaderboard in git that are looked at.
        live: the page asks for a newer one every few seconds.
    """

    tasks: Sequence[str] = ()
    asked: Sequence[int] = ()
    budget_mb: float = DEFAULT_BUDGET_MB
    samples: int = 0
    device: str = "cpu"
    history: int = 0
    live: bool = False


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the page to open, bytes of all files, and of those pictures and sounds, and seconds."""

    index: Path
    size: int
    media: int
    files: int
    seconds: float


@dataclass(frozen=True, slots=True)
class TaskSection:
    """Everything that a page says of one task."""

    view: TaskView
    leaderboard: Leaderboard
    pareto: list[Pareto]
    distributions: Distributions | None
    examples: Examples | None
    samples: Samples | None
    posterior: Posterior | None


@dataclass(frozen=True, slots=True)
class BoardSummary:
    """A board on the first page of several."""

    title: str
    address: str
    description: str
    tasks: tuple[tuple[str, str, str, str, str], ...]
    """Per task: name, size, ranking metric, best method, its value."""


@dataclass
class _Report:
    """Pages and files as they are made."""

    options: Options
    media: Media
    environment: Any
    files: dict[str, bytes] = field(default_factory=dict)
    made: str = ""

    def render(self, name: str, template: str, **values: Any) -> None:
        text = self.environment.get_template(template).render(made=self.made, version=__version__, drawn_by=versions(), live=self.options.live, **values)
        self.files[name] = text.encode("utf-8", "replace")


def write_report(targets: Sequence[str], folder: Path, options: Options | None = None, warn: Callable[[str], None] = lambda text: None) -> Written:
    """Write the report of runs, leaderboards or suites.

    One target: ``index.html`` is its page. Several: ``index.html`` lists them, each has a page, and runs of one suite a history in the order given.

    Args:
        targets: folders of runs, CSV files, or suites (their committed leaderboards).
        folder: made anew, or a report that is replaced.
        warn: told in one line what is left out.

    Raises:
        SepbenchError: a missing package, an unknown target, a folder that holds something else, or one that cannot be written.
    """
    begun, options = time.perf_counter(), options or Options()
    check_html()
    _check_folder(folder)
    report = _Report(options, Media(int(options.budget_mb * 1e6)), _environment(), made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()))
    taken: set[str] = {"index"}
    boards = [open_board(target, taken, warn) for target in targets]
    _check_tasks(boards, options.tasks)
    several = len(boards) > 1
    summaries = [_board_page(report, board, boards if several else [], warn) for board in boards]
    if several:
        more = {"histories": _histories(boards), "curves": _curves(boards)}
        report.render("index.html", "overview.html.j2", summaries=summaries, title="Source separation: results", boards=boards, board=None, **more)
    report.files |= {f"assets/{name}": content for name, content in asset_files().items()}
    report.files["assets/vega.js"] = vega_script().encode("utf-8")
    report.files |= report.media.files
    _write(folder, report.files)
    size = sum(map(len, report.files.values()))
    return Written(folder / "index.html", size, report.media.used, len(report.files), time.perf_counter() - begun)


def _check_tasks(boards: Sequence[Board], tasks: Sequence[str]) -> None:
    from sepbench.registry import nearest

    known = list(dict.fromkeys(str(task) for board in boards for task in board.results.frame["task"]))
    for task in tasks:
        if task not in known:
            raise nearest(task, known, "task")


def _board_page(report: _Report, board: Board, boards: Sequence[Board], warn: Callable[[str], None]) -> BoardSummary:
    """Write the page of one board and those of its methods."""
    options, pages = report.options, MethodPages(board, report.media)
    sections, metrics = [], dict[str, MetricWords]()
    for view in task_views(board, options.tasks):
        sections.append(
            TaskSection(
                view,
                leaderboard(view),
                pareto(view),
                distributions(view),
                examples(view, report.media, options.asked),
                samples(view, report.media, options.samples, options.device, options.asked, warn),
                posterior(view),
            )
        )
        pages.add(view)
        metrics |= {metric.name: metric for metric in view.metrics}
    address = f"{board.slug}.html" if boards else "index.html"
    past = _git_history(board, options.history, warn)
    along = curves([board])
    common = {"boards": boards, "board": board, "address": address}
    levels = list(dict.fromkeys(level for section in sections for level in section.leaderboard.supervisions))
    report.render(
        address, "board.html.j2", title=board.title, sections=sections, metrics=list(metrics.values()), history=past, curves=along, levels=levels, **common
    )
    for page in pages.pages():
        name = f"method-{board.slug}--{slug(page.name)}.html"
        report.render(name, "method.html.j2", title=f"{page.name}: {board.title}", page=page, **common)
    return BoardSummary(board.title, address, board.description, tuple(_summary(section.view) for section in sections))


def _summary(view: TaskView) -> tuple[str, str, str, str, str]:
    best = next((line for line in view.lines if line.rank.rstrip("=+") == "1"), None)
    size = view.table.subtitle.partition(",")[0] if "mixtures" not in view.table.subtitle else view.table.subtitle[: view.table.subtitle.index("mixtures") + 8]
    return view.task, size, view.metric.name, best.method if best is not None else "", best.value if best is not None else ""


def _git_history(board: Board, most: int, warn: Callable[[str], None]) -> History | None:
    from sepbench.resources import resource_root

    if not most or board.folder is not None:
        return None
    path = Path(board.results.label)
    csv = path if path.is_file() else resource_root("leaderboards") / f"{board.suite_name}.csv"
    return history(git_states(csv, most, warn))


def _histories(boards: Sequence[Board]) -> list[tuple[str, History]]:
    """Of suites of which several runs or leaderboards were named, in the order given."""
    found = []
    for suite in dict.fromkeys(board.suite_name for board in boards):
        states = [
            State(board.results.label, board.record.command if board.record is not None else "", board.results) for board in boards if board.suite_name == suite
        ]
        made = history(states)
        if made is not None:
            found.append((suite, made))
    return found


def _curves(boards: Sequence[Board]) -> list[tuple[str, list[Curves]]]:
    """Of suites of which several runs were named: curves that run from one to another."""
    suites = dict.fromkeys(board.suite_name for board in boards)
    of_suite = {suite: [board for board in boards if board.suite_name == suite] for suite in suites}
    found = {suite: curves(members) for suite, members in of_suite.items() if len(members) > 1}
    return [(suite, made) for suite, made in found.items() if made]


def _environment() -> Any:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # names and words come from files of strangers
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = as_json
    environment.filters["breakable"] = breakable
    environment.filters["slug"] = slug
    environment.globals["method_address"] = method_address
    return environment


def breakable(name: Any) -> Any:
    """A name that may go on in the next line behind ``_`` and ``/``, and nowhere else within a word."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace("_", "_<wbr>").replace("/", "/<wbr>"))


def as_json(value: Any) -> Any:
    """JSON for a page: numbers that do not exist are null, and nothing in it can end the script element that it stands in."""
    import jinja2.utils
    from markupsafe import Markup

    return Markup(jinja2.utils.htmlsafe_json_dumps(_clean(value), dumps=lambda cleaned, **_: json.dumps(cleaned, allow_nan=False, separators=(",", ":"))))


def _clean(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _clean(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_clean(entry) for entry in value]
    return value.item() if hasattr(value, "item") else value


def _check_folder(folder: Path) -> None:
    """Only a report is replaced.

    Raises:
        SepbenchError: something else lies there.
    """
    if folder.exists() and not folder.is_dir():
        raise SepbenchError(f"{folder} is a file; choose another folder with --out")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MANIFEST).is_file():
        raise SepbenchError(f"{folder} is not empty and holds no report; choose another folder with --out")


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write all files, ``index.html`` last, then remove those of an earlier report that are no longer there."""
    listed = folder / MANIFEST
    try:
        before = set(json.loads(listed.read_text(encoding="utf-8"))["files"]) if listed.is_file() else set()
    except (OSError, ValueError, KeyError, TypeError):
        before = set()
    try:
        for name in sorted(files, key=lambda name: name == "index.html"):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(target, lambda temporary, name=name: temporary.write_bytes(files[name]))  # type: ignore[misc]
        manifest = json.dumps({"sepbench": __version__, "stamp": time.time_ns(), "files": sorted(files)}, indent=1)
        write_atomically(listed, lambda temporary: temporary.write_text(manifest, encoding="utf-8"))
        root = folder.resolve()
        for name in before - set(files):
            old = (folder / str(name)).resolve()
            if old.is_relative_to(root):  # a manifest is a file that anybody may have written
                old.unlink(missing_ok=True)
    except OSError as error:
        raise SepbenchError(f"cannot write {folder}: {error.strerror or error}; choose a writable folder with --out") from error
