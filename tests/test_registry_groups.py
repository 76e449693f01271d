"""Groups of entry points: what the project registers is found in each, and what cannot be loaded is told in the words of its group."""

from __future__ import annotations

import os
import re
import threading
import tomllib
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
from broken_methods import INFO, Toy, register
from third_parties import install
from told_places import without_place

from sepbench import registry
from sepbench.errors import DataError, MethodError, MetricError, NameClaimedError, SepbenchError, SettingError, SuiteError, UnknownNameError
from sepbench.handed_over import HELD, HandedOver, handed_over, held_state, methods_handed_over

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
WORDS: dict[str, tuple[str, str, type[SepbenchError]]] = {
    "sepbench.separators": (registry.SEPARATOR_GROUP, "method", MethodError),
    "sepbench.suites": (registry.SUITE_GROUP, "suite", SuiteError),
    "sepbench.metrics": (registry.METRIC_GROUP, "metric", MetricError),
    "sepbench.datasets": (registry.DATASET_GROUP, "data set", DataError),
    "sepbench.trainers": (registry.TRAINER_GROUP, "trainer", MethodError),
    "sepbench.backends": (registry.BACKEND_GROUP, "backend", SepbenchError),
    "sepbench.extractors": (registry.EXTRACTOR_GROUP, "extractor", MetricError),
}


@pytest.fixture
def mine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Registers ``mine`` in a group, and writes a module of the package."""

    def register_mine(group: str, value: str, module: str = "") -> None:
        install(monkeypatch, tmp_path, "my-package", {group: {"mine": value}}, {value.partition(":")[0]: module} if module else None)

    return register_mine


def test_all_that_the_project_registers_is_found_under_its_group() -> None:
    groups = PROJECT["entry-points"]
    assert groups.keys() == WORDS.keys() - {"sepbench.suites"}
    for group, entries in groups.items():
        found = registry.points(WORDS[group][0])
        assert {name: found[name].value for name in entries} == entries


@pytest.mark.parametrize(("written", "group", "what", "error"), [(written, *words) for written, words in WORDS.items()], ids=WORDS.keys())
def test_what_cannot_be_loaded_is_told_in_the_words_of_its_group(
    mine: Callable[..., None], written: str, group: str, what: str, error: type[SepbenchError]
) -> None:
    mine(written, "nowhere_at_all:THING")
    with pytest.raises(SepbenchError) as caught:
        registry.load_entry(group, "mine")
    assert type(caught.value) is error
    assert str(caught.value) == f"{what} 'mine' (nowhere_at_all:THING) cannot be loaded: ModuleNotFoundError: No module named 'nowhere_at_all'"
    with pytest.raises(UnknownNameError, match=rf"^unknown {what} 'mime'; did you mean mine"):
        registry.load_entry(group, "mime")
    with pytest.raises(NameClaimedError, match=rf"^{what} 'twice' is claimed by a and b; uninstall all but one of them, or rename one$"):
        registry.Claimed("twice", group, ("a", "b")).load()


MEDDLES = "import os\nos.umask(0)\nos.environ['SEPBENCH_OFFLINE'] = 'meddled'\n"
LOADERS: dict[str, tuple[str, Callable[[], object]]] = {
    "method": (registry.SEPARATOR_GROUP, lambda: registry.separator_class("mine")),
    "trainer": (registry.TRAINER_GROUP, lambda: registry.trainer("mine")),
    "backend": (registry.BACKEND_GROUP, lambda: registry.load_entry(registry.BACKEND_GROUP, "mine")),
}


@pytest.mark.parametrize(("group", "load"), LOADERS.values(), ids=LOADERS.keys())
def test_what_a_module_changes_while_it_is_imported_is_put_back(mine: Callable[..., None], group: str, load: Callable[[], Any]) -> None:
    mine(group, f"meddles_{group[9:]}:work", f"{MEDDLES}def work(): pass\n")
    before, there = os.umask(0o022), os.environ.get("SEPBENCH_OFFLINE")
    try:
        assert load().__name__ == "work"
        assert os.umask(0o022) == 0o022
        assert os.environ.get("SEPBENCH_OFFLINE") == there
    finally:
        os.umask(before)


@pytest.mark.parametrize(("group", "load"), LOADERS.values(), ids=LOADERS.keys())
def test_a_module_that_ends_the_process_is_one_line_and_ctrl_c_comes_through(mine: Callable[..., None], group: str, load: Callable[[], object]) -> None:
    mine(
        group,
        f"ends_{group[9:]}:work",
        "import sys, os\nif os.environ.get('MINE_IS_PRESSED'):\n    import signal\n    signal.raise_signal(signal.SIGINT)\nsys.exit(3)\n",
    )
    with pytest.raises(SepbenchError, match=rf"'mine' \(ends_{group[9:]}:work\) cannot be loaded: SystemExit: 3$"):
        load()
    os.environ["MINE_IS_PRESSED"] = "1"
    try:
        with pytest.raises(KeyboardInterrupt):
            load()
    finally:
        del os.environ["MINE_IS_PRESSED"]


def test_a_suite_s_entry_may_be_a_text_or_a_path_of_a_file_that_is_there(mine: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "there.toml").write_text("")
    mine(registry.SUITE_GROUP, "my_suites:TEXT", f"from pathlib import Path\nTEXT = {str(tmp_path / 'there.toml')!r}\nPATH = Path(TEXT)\n")
    assert registry.suite_path("mine") == tmp_path / "there.toml"
    assert registry.own_suite("mine") is None
    (tmp_path / "there.toml").rename(tmp_path / "gone.toml")
    with pytest.raises(SuiteError, match=rf"^suite 'mine' points at {tmp_path}/there.toml, which is not a file$"):
        registry.suite_path("mine")


def test_folders_of_suites_may_begin_with_a_home_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEPBENCH_SUITES", os.pathsep.join(["~/mine", " ", "", "~/mine", "other"]))
    assert registry.suite_folders() == [tmp_path / "home" / "mine", tmp_path / "other", tmp_path / "suites"]
    monkeypatch.setenv("SEPBENCH_SUITES", "~nobody-of-that-name/mine")
    with pytest.raises(SuiteError, match=r"^SEPBENCH_SUITES=~nobody-of-that-name/mine: the home folder is not known; set HOME, or give whole paths$"):
        registry.suite_folders()


def test_a_suite_s_path_may_begin_with_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "suite.toml").write_text("")
    assert registry.own_suite("~/mine") == tmp_path / "mine" / "suite.toml"
    assert registry.own_suite("some.toml") == Path("some.toml")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nmf ica", "unknown method 'nmf ica'; separate names by commas: nmf,ica"),
        ("averag", "unknown method 'averag'; did you mean average?"),
    ],
)
def test_a_method_that_is_not_there(name: str, told: str) -> None:
    assert str(registry.unknown_method(name)) == told


def test_words_that_would_do_as_well_as_a_method_are_offered() -> None:
    assert str(registry.unknown_method("everythin", ["everything"], "method or group")) == "unknown method or group 'everythin'; did you mean everything?"


def test_what_a_method_raises_is_one_line_of_the_kind_asked_for() -> None:
    class Failed(MethodError):
        pass

    with pytest.raises(Failed) as caught, registry.method_code("toy", "cannot be fitted", Failed):
        raise ValueError("no\nluck")
    assert without_place(str(caught.value)) == "method 'toy' cannot be fitted: ValueError: no luck"
    with pytest.raises(MethodError) as plain, registry.method_code("toy", "cannot be made"):
        raise SystemExit(0)
    assert type(plain.value) is MethodError
    assert re.fullmatch(r"method 'toy' cannot be made: SystemExit: 0 \(test_registry_groups.py, line \d+\)", str(plain.value))
    with pytest.raises(SettingError, match=r"^mine$"), registry.method_code("toy", "cannot be made"):
        raise SettingError("mine")


def test_a_table_holds_the_class_under_the_entry_s_own_name(monkeypatch: pytest.MonkeyPatch, mine: Callable[..., None]) -> None:
    mine(registry.SEPARATOR_GROUP, "my_table:ROWS", "ROWS = {'mine': dict, 'other': list}\n")
    assert registry.separator_class("mine") is dict


# --- methods that a program hands over


def test_a_method_that_is_handed_over_takes_the_place_of_all_registered_ones_of_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry.separator_domains("nmf") == [None, "audio"]
    with handed_over([HandedOver("nmf", "a class", Toy)]):
        assert registry.separator_domains("nmf") == [None]
        assert registry.separator_class("nmf", "audio") is Toy
        assert registry.separator_class("average") is not Toy
    assert registry.separator_class("nmf", "audio") is not Toy
    register(monkeypatch, "toy", "Toy")
    assert registry.create_separator("toy").info == INFO


def test_methods_are_handed_over_for_the_block_and_inner_ones_beside_outer_ones() -> None:
    outer, inner = HandedOver("a", "object", Toy, "feed"), HandedOver("b", "class", Toy)
    with handed_over([outer]):
        with handed_over([inner]):
            assert methods_handed_over() == {"a": outer, "b": inner}
            assert (held_state("a"), held_state("b"), held_state("c")) == ({HELD: "feed"}, {}, {})
        assert methods_handed_over() == {"a": outer}
    assert methods_handed_over() == {}
    assert HELD == "(object)"


def test_a_name_handed_over_and_claimed_names_the_program(monkeypatch: pytest.MonkeyPatch) -> None:
    assert registry._distribution(HandedOver("a", "object", Toy)) == "this program"
    number: Any = 3
    with handed_over([HandedOver("mine", "my object", number)]), pytest.raises(MethodError, match=r"^method 'mine' \(my object\) is of type int; "):
        registry.separator_class("mine")


# --- names, and whose code is trusted


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        ("nmf", ("nmf", None)),
        ("nmf.audio", ("nmf", "audio")),
        ("nmf.image", ("nmf", "image")),
        ("nmf.vector", ("nmf", "vector")),
        ("a.b.audio", ("a.b", "audio")),
        ("nmf.fast", ("nmf.fast", None)),
        ("nmf.audio.fast", ("nmf.audio.fast", None)),
        ("audio", ("audio", None)),
        (".audio", (".audio", None)),
    ],
)
def test_which_entries_are_implementations_for_a_domain(entry: str, parts: tuple[str, str | None]) -> None:
    assert registry._method_and_domain(entry) == parts


@pytest.mark.parametrize(
    ("module", "trusted"),
    [("sepbench.run.backends.local", True), ("sepbench.x", True), ("sepbench_extras.x", False), ("sepbench", False), ("baselines.nmf", False)],
)
def test_only_modules_of_this_package_are_imported_without_putting_anything_back(module: str, trusted: bool) -> None:
    around = registry._while_loading(EntryPoint("x", f"{module}:X", registry.BACKEND_GROUP))
    assert isinstance(around, nullcontext) is trusted
    assert not isinstance(registry._while_loading(HandedOver("x", "sepbench.x:X", Toy)), nullcontext)


def test_an_entry_of_no_distribution_is_told_so_and_claims_keep_theirs() -> None:
    point = EntryPoint("x", "m:X", registry.METRIC_GROUP)
    assert registry._claims(point) == ("a package without a name (m:X)",)
    assert registry._claims(registry.Claimed("x", registry.METRIC_GROUP, ("a", "b"))) == ("a", "b")
    assert registry.Claimed("x", registry.METRIC_GROUP, ("a", "b", "c")).value == "a and b and c"


def test_whole_lines_about_names_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_points", lambda group, path: {})
    told = "if sepbench has been updated, install it again (pip install)"
    for group, what in ((registry.EXTRACTOR_GROUP, "extractor"), (registry.DATASET_GROUP, "data set")):
        with pytest.raises(UnknownNameError) as caught:
            registry.load_entry(group, "x")
        assert str(caught.value) == f"no {what} 'x': none is registered; {told}"
    (tmp_path / "mine").mkdir()
    otherwise = "no installed package brings it ('sepbench list methods' shows what there is); install yours with 'pip install -e FOLDER', "
    assert str(registry.unknown_method("mine")) == f"unknown method 'mine'; {otherwise}or begin one with 'sepbench new-method'"
    (tmp_path / "mine" / "pyproject.toml").touch()
    where = "the package in the folder mine is not installed: run 'pip install -e ./mine'"
    assert str(registry.unknown_method("mine", what="method or group")) == f"unknown method or group 'mine'; {where}"
    (tmp_path / "folder").mkdir()
    for name in ("./folder", "folder/"):
        with pytest.raises(SuiteError) as refused:
            registry.own_suite(name)
        assert str(refused.value) == f"{name} is not the folder of a suite: it has no suite.toml; 'sepbench list suites' shows the suites"


def test_folders_of_suites_that_cannot_be_read_hold_none_and_hidden_ones_are_unfinished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b", "a", ".hidden", "no-suite"):
        (tmp_path / name).mkdir()
        (tmp_path / name / ("suite.toml" if name != "no-suite" else "other.toml")).touch()
    assert registry._suites_in(tmp_path) == [tmp_path / "a" / "suite.toml", tmp_path / "b" / "suite.toml"]
    assert registry._suites_in(tmp_path / "gone") == []

    def forbidden(self: Path, pattern: str) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "glob", forbidden)
    assert registry._suites_in(tmp_path) == []


def test_a_method_is_handed_over_to_one_thread_and_gone_after_an_error() -> None:
    seen: list[int] = []

    def block() -> None:
        with handed_over([HandedOver("a", "object", Toy)]):
            thread = threading.Thread(target=lambda: seen.append(len(methods_handed_over())))
            thread.start()
            thread.join()
            raise KeyError

    with pytest.raises(KeyError):
        block()
    assert (seen, dict(methods_handed_over())) == ([0], {})
