"""What a method's page says, fact by fact: of methods that are not installed, of several runs, of weights, and of numbers that are not there."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from synthetic_run import SyntheticRun

from sepbench.errors import SepbenchError
from sepbench.report.html import methods
from sepbench.report.html.board import open_board, task_views
from sepbench.report.html.media import Media
from sepbench.report.html.methods import MethodPage, MethodPages, _digests, _prior, _seconds, _shipped, _shown, _weights_folders
from sepbench.results.leaderboard import write_leaderboard

pytest.importorskip("altair")


def pages(target: str, media: Media | None = None) -> dict[str, MethodPage]:
    board = open_board(target, set(), lambda text: None)
    collected = MethodPages(board, media or Media(0))
    for view in task_views(board):
        collected.add(view)
    return {page.name: page for page in collected.pages()}


@pytest.fixture(scope="module")
def facts_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, MethodPage]]:
    """Pages of a run whose record has been changed."""

    def made(
        change: Callable[[SyntheticRun], None] = lambda run: None, tasks: tuple[str, ...] = ("class-split",), board: bool = False
    ) -> dict[str, MethodPage]:
        run = SyntheticRun({"nmf": 16.0, "average": 14.0, "nobody-s": 12.0}, tasks, n=12)
        change(run)
        folder = tmp_path_factory.mktemp("pages")
        if board:
            write_leaderboard(run.frame(), folder / "board.csv")
            return pages(str(folder / "board.csv"))
        return pages(run.save(folder / "run"))

    return made


def test_a_method_that_is_not_installed(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        run.record["methods"]["nobody-s"]["settings"] = {"k": 3, "names": ["a", "b"]}

    page = facts_of(change)["nobody-s"]
    unknown = ("installed", "no: what it says of itself is not known here")
    assert (page.title, page.about) == ("Nobody-S", (("learns from", "blind, nothing: no training data at all"), unknown))
    assert [(one.name, one.value, one.default, one.kind, one.description) for one in page.settings] == [
        ("k", "3", "", "", ""),
        ("names", "['a', 'b']", "", "", ""),
    ]
    assert (page.settings_told, page.settings_known, page.cards) == ("as the run had them", True, ())
    of_board = facts_of(board=True)["nobody-s"]
    assert (of_board.title, of_board.about[-1], of_board.settings, of_board.settings_known) == ("", unknown, (), False)


def test_what_an_installed_method_says_of_itself(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        run.cells["class-split", "average"]["supervision"] = "from stars"
        run.record["methods"]["nmf"]["settings"] = {"atoms": 24}

    found = facts_of(change)
    about = dict(found["average"].about)
    assert about["learns from"] == "from stars"
    assert about["bound"] == "lower bound, a row for comparison, never ranked"
    assert "chance" not in about
    assert "bound" not in dict(found["nmf"].about)
    settings = {one.name: one for one in found["nmf"].settings}
    assert (settings["atoms"].value, settings["atoms"].default, settings["atoms"].kind) == ("24", "16", "int, from 1")
    assert settings["shared_atoms"].value == ""
    of_board = facts_of(board=True)["nmf"]
    assert of_board.settings_told == "defaults of the installed version; what a row had instead stands in its command after --set"
    assert {one.value for one in of_board.settings} == {""}
    assert not of_board.settings_known


def test_who_learns_from_nobody_knows_what(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        for method in ("nmf", "nobody-s"):
            run.cells["class-split", method]["supervision"] = ""
            run.record["methods"][method]["supervision"] = ""

    found = facts_of(change)
    assert [dict(found[name].about)["learns from"] for name in ("nmf", "nobody-s")] == ["not known"] * 2


@pytest.mark.parametrize(
    ("value", "text"), [("", "''"), ([], "[]"), ((), "()"), ([1, 2], "1,2"), ([1], "(1,)"), (True, "true"), (None, "none"), (0.5, "0.5"), (Path("a/b"), "a/b")]
)
def test_values_of_settings(value: object, text: str) -> None:
    assert _shown(value) == (text if value != [] else "()")


def test_rows_of_every_task(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        run.fail("nmf", 3)
        there = (run.scores["method"] == "nmf") & (run.scores["metric"] == "ssim") & (run.scores["task"] == "class-agnostic")
        run.scores = run.scores[~there]
        run.cells["class-agnostic", "nmf"] |= {"command": "another", "note": "a note", "latency_seconds": 0.0625, "warm_up_seconds": 1234.5}

    page = facts_of(change, ("class-split", "class-agnostic"))["nmf"]
    assert [(rows.task, rows.rank) for rows in page.tasks] == [("class-split", "part"), ("class-agnostic", "part")]
    assert [row[0] for row in page.tasks[0].rows] == ["psnr", "ssim", "mixture_error"]
    assert [row[2:] for row in page.tasks[0].rows] == [("dB", "11 of 12"), ("", "11 of 12"), ("", "11 of 12")]
    assert dict(page.tasks[0].seconds)["first error"] == "ValueError: broken"
    assert page.tasks[1].rows[1] == ("ssim", "no value", "", "0 of 12")
    seconds = dict(page.tasks[1].seconds)
    assert (seconds["one mixture alone"], seconds["warm-up"], seconds["note"]) == ("0.0625 s", "1,234 s", "a note")
    assert "first error" not in seconds
    assert page.commands == ("sepbench run --suite digits-pairs --limit 12", "another")


def test_where_a_run_was_made(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        run.record["environment"] |= {"cpu": "C", "instruction_set": "avx", "gpu": "G", "platform": "Linux", "python": "3.12", "git_dirty": True}
        run.record["methods"]["nmf"]["source_sha256"] = "feed"
        run.cells["class-agnostic", "nmf"] |= {"git_sha": "c0ffee", "timing_group": "cuda:H100:1threads"}
        run.record["methods"]["average"]["source"] = ""

    found = facts_of(change, ("class-split", "class-agnostic"))
    digests = [
        task.digest
        for task in SyntheticRun(n=1, tasks=("class-split", "class-agnostic")).suite.tasks.values()
        if task.spec.name in ("class-split", "class-agnostic")
    ]
    assert found["nmf"].provenance == (
        *(("suite version", "1"), ("method version", "1"), ("sepbench", "0.1.0"), ("commit", "0123abc-dirty, c0ffee"), ("seed", "0"), ("budget", "paper")),
        *(("device", "cpu"), ("timing group", "cpu, Test CPU, 2 threads, float32; cuda, H100, 1 thread"), ("task digests", ", ".join(digests))),
        *(("source", "somewhere:nmf"), ("source SHA-256", "feed"), ("machine", "C, avx, G, Linux, Python 3.12")),
        ("working tree", "had changes that were not committed"),
    )
    labels = [label for label, _ in found["average"].provenance]
    assert labels[-2:] == ["machine", "working tree"]
    assert "source" not in labels
    of_board = facts_of(change, ("class-split", "class-agnostic"), board=True)["nmf"]
    assert of_board.provenance == found["nmf"].provenance[:9]


def test_a_machine_that_says_little(facts_of: Callable[..., dict[str, MethodPage]]) -> None:
    def change(run: SyntheticRun) -> None:
        run.record["environment"] |= {"platform": "Linux"}

    provenance = dict(facts_of(change)["nmf"].provenance)
    assert provenance["machine"] == "Linux"
    assert "working tree" not in provenance


NAN = math.nan


@pytest.mark.parametrize(
    ("record", "cell", "told"),
    [
        ({}, {}, ()),
        ({"fit_seconds": 0.0}, {}, (("fit", "0 s"),)),
        ({"fit_seconds": 3.14159, "fit_cached": True}, {}, (("fit", "3.14 s (of the fit that was read from the cache)"),)),
        ({"seconds_per_mixture": 999.4}, {}, (("separation", "999 s per mixture"),)),
        ({"seconds_per_mixture": 1000.4}, {}, (("separation", "1,000 s per mixture"),)),
        ({"evaluations_per_mixture": 12345.0}, {}, (("evaluations of the prior", "12,345 per mixture and source"),)),
        ({"peak_mb": 0.5}, {}, (("peak memory", "0.5 MB"),)),
        ({}, {"latency_seconds": 0.25}, (("one mixture alone", "0.25 s"),)),
        ({}, {"warm_up_seconds": 2.0}, (("warm-up", "2 s"),)),
        ({"peak_mb": NAN}, {"error": "E", "note": "N"}, (("first error", "E"), ("note", "N"))),
    ],
)
def test_seconds_and_memory(record: dict[str, Any], cell: dict[str, Any], told: tuple[tuple[str, str], ...]) -> None:
    usual = {"fit_seconds": NAN, "fit_cached": False, "seconds_per_mixture": NAN, "evaluations_per_mixture": NAN, "peak_mb": NAN}
    own = SimpleNamespace(**({"latency_seconds": None, "warm_up_seconds": None, "error": "", "note": ""} | cell))
    view: Any = SimpleNamespace(cell=lambda method: {"m": own}[method])
    assert tuple(_seconds(view, "m", usual | record)) == told


# -- weights


def test_digests_of_all_rows_each_once() -> None:
    assert _digests([{"weights_sha256": "a,b"}, {"weights_sha256": ""}, {"weights_sha256": "b,c,"}]) == ["a", "b", "c"]


def test_priors_and_their_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"dataset": "mnist", "classes": "0-4", "shape": [1, 28, 28], "size": 4_208_674}
    monkeypatch.setattr(methods, "_shipped", lambda: {"a": entry | {"name": "mnist-0-4"}, "b": entry | {"name": "mnist-all", "classes": ""}})
    records = [
        {"prior": "EDM", "weights_sha256": "a,x"},
        {"prior": "", "weights_sha256": ""},
        {"prior": "EDM", "weights_sha256": "b"},
        {"prior": "P", "weights_sha256": ""},
    ]
    assert list(_prior(records)) == [
        *(("prior", "EDM"), ("prior", "P")),
        ("weights", "mnist-0-4: trained on mnist 0-4, signals of [1, 28, 28], 4.2 MB, ships with sepbench"),
        *(("weights SHA-256", "a"), ("weights SHA-256", "x")),
        ("weights", "mnist-all: trained on mnist, signals of [1, 28, 28], 4.2 MB, ships with sepbench"),
        ("weights SHA-256", "b"),
    ]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, {}),
        ("", {}),
        ('[[weights]]\nsha256 = "f"\nname = "x"\n', {"f": {"sha256": "f", "name": "x"}}),
        ("[[weights]\n", None),
        ('[[weights]]\nname = "x"\n', None),
        ("weights = 3\n", None),
    ],
)
def test_the_list_of_weights_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, found: dict[str, Any] | None) -> None:
    monkeypatch.setattr(methods, "resource_root", lambda name: {"data_manifests": tmp_path}[name])
    path = tmp_path / "weights.toml"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    if found is not None:
        assert _shipped.__wrapped__() == found
        return
    with pytest.raises(SepbenchError) as caught:
        _shipped.__wrapped__()
    assert str(caught.value).startswith(f"{path} is damaged (")
    assert str(caught.value).endswith("); install sepbench again")


def test_where_a_package_keeps_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    package = ModuleType("pack")
    package.__path__ = ["/one", "/two"]
    asked: list[tuple[str, Any]] = []

    def of(module: str) -> Callable[[str, Any], Any]:
        return lambda method, domain: asked.append((method, domain)) or SimpleNamespace(__module__=module)

    monkeypatch.setitem(sys.modules, "pack", package)
    monkeypatch.setattr(methods, "separator_class", of("pack.deep.inside"))
    assert list(_weights_folders("m", "audio")) == [Path("/one/weights"), Path("/two/weights")]
    assert asked == [("m", "audio")]
    monkeypatch.setattr(methods, "separator_class", of("gone.deep"))
    assert list(_weights_folders("m", None)) == []
    monkeypatch.setitem(sys.modules, "gone", ModuleType("gone"))  # one file, no folder
    assert list(_weights_folders("m", None)) == []
    monkeypatch.undo()
    assert list(_weights_folders("nobody-s", None)) == []


def test_cards_are_looked_for_beside_the_package_first(facts_of: Callable[..., dict[str, MethodPage]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked: list[list[Path]] = []

    def cards_in(folders: Any) -> dict[str, Path]:
        looked.append(list(folders))
        return {"a": Path("card of a"), "c": Path("card of c")}

    monkeypatch.setattr(methods, "cards_in", cards_in)
    monkeypatch.setattr(methods, "card", lambda path, media: str(path) if path.name != "card of c" else None)
    monkeypatch.setattr(methods, "_weights_folders", lambda method, domain: iter([Path(f"{method} {domain}")]))
    files = {"weights": {"/z/1.safetensors": "a", "/b/2.safetensors": "b"}, "other": {"/b/3.safetensors": "c"}}

    def change(run: SyntheticRun) -> None:
        run.record["methods"]["nmf"]["files"] = files
        run.cells["class-split", "nmf"]["weights_sha256"] = "c,b,a"

    found = facts_of(change)
    assert found["nmf"].cards == ("card of a",)  # type: ignore[comparison-overlap]
    assert looked == [[Path("nmf image"), Path("/b"), Path("/z")]]  # not for methods without weights
    looked.clear()
    facts_of(change, board=True)
    assert looked == [[Path("nmf image")]]


# -- facts that no run has


def bare(**changes: Any) -> dict[str, Any]:
    """A record of a row, all of whose texts are empty."""
    texts = ("suite_version", "method_version", "sepbench_version", "git_sha", "seed", "budget", "device", "timing_group", "task_digest")
    usual: dict[str, Any] = dict.fromkeys((*texts, "prior", "weights_sha256", "command", "supervision", "unit"), "")
    numbers = dict.fromkeys(("fit_seconds", "seconds_per_mixture", "evaluations_per_mixture", "peak_mb", "ci_low", "ci_high"), NAN)
    return usual | numbers | {"fit_cached": False, "mean": 1.5, "n_scored": 1234, "n_expected": 12_345} | changes


def test_rows_of_papers_are_passed_over_wherever_they_stand() -> None:
    board: Any = SimpleNamespace(record=None, results=SimpleNamespace(suite=None))
    lines = [
        SimpleNamespace(method=name, rank=rank, from_paper=paper)
        for name, rank, paper in (("x", "", True), ("nobody-s", "1", False), ("y", "", True), ("z", "2", False))
    ]
    own = SimpleNamespace(latency_seconds=None, warm_up_seconds=None, error="", note="")
    records = {(name, metric): bare(unit=unit) for name in ("nobody-s", "z") for metric, unit in (("sdr", "dB"), ("mae", "1"), ("fid", ""))}
    metrics = [SimpleNamespace(name=name, unit=unit) for name, unit in (("sdr", "dB"), ("none", "s"), ("mae", "1"), ("fid", ""))]
    view: Any = SimpleNamespace(task="t", lines=lines, metrics=metrics, records=records, first=lambda name: records[name, "sdr"], cell=lambda name: own)
    collected = MethodPages(board, Media(0))
    collected.add(view)
    first, second = collected.pages()
    assert (first.name, second.name) == ("nobody-s", "z")
    assert [row[2:] for row in first.tasks[0].rows] == [("dB", "1,234 of 12,345"), ("", "1,234 of 12,345"), ("", "1,234 of 12,345")]
    assert (first.tasks[0].rank, second.tasks[0].rank, first.tasks[0].seconds) == ("1", "2", ())
    assert (first.commands, first.prior, first.provenance) == ((), (), ())
    assert first.about[0] == ("learns from", "not known")


def test_a_method_without_words_of_its_own_has_none_on_its_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The docstring that ``dataclass`` writes says nothing."""

    def about(words: str, **facts: Any) -> dict[str, str]:
        info = SimpleNamespace(**({"title": "T", "paper": "", "deterministic": True, "bound": ""} | facts))
        kind = type("Toy", (), {"__doc__": words, "info": info})
        monkeypatch.setattr(methods, "create_separator", lambda name, domain: kind())
        board: Any = SimpleNamespace(record=None, results=SimpleNamespace(suite=SimpleNamespace(domain="audio")))
        title, found = MethodPages(board, Media(0))._about("toy", bare(supervision="blind"))
        assert title == "T"
        return dict(found)

    usual = {"learns from": "blind, nothing: no training data at all"}
    assert about("Toy(a: int = 3)") == about("") == usual
    assert about("First line,\n    its end.\n\nMore.") == {"about": "First line, its end.", **usual}
    told = {"paper": "P", "bound": "upper bound, a row for comparison, never ranked", "chance": "the estimates depend on the seed"}
    assert about("", paper="P", deterministic=False, bound="upper") == usual | told


def test_a_thousand_is_a_whole_number_and_cards_are_of_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    own = SimpleNamespace(latency_seconds=None, warm_up_seconds=1000.0, error="", note="")
    view: Any = SimpleNamespace(cell=lambda method: own)
    assert tuple(_seconds(view, "m", bare(peak_mb=999.4, fit_seconds=1000.0))) == (("fit", "1,000 s"), ("warm-up", "1,000 s"), ("peak memory", "999 MB"))
    monkeypatch.setattr(methods, "cards_in", lambda folders: {digest: Path(digest) for digest in "ab"})
    monkeypatch.setattr(methods, "card", lambda path, media: str(path))
    board: Any = SimpleNamespace(record=None, results=SimpleNamespace(suite=None))
    pages_of = MethodPages(board, Media(0))
    assert list(pages_of._cards("nobody-s", [bare(weights_sha256="b"), bare(weights_sha256="a,c")])) == ["b", "a"]
