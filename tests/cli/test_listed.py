"""``sepbench list --json`` and its relatives: each entry in whole, those that cannot be read in their place, and only what was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.cli import listed
from sepbench.errors import SepbenchError
from sepbench.protocols import MethodInfo
from sepbench.settings import REQUIRED


def find(known: dict[str, Any], name: str) -> Any:
    """What is known by a name; an error is raised."""
    if isinstance(known[name], SepbenchError):
        raise known[name]
    return known[name]


def suite(name: str, frozen: bool) -> Any:
    spec = SimpleNamespace(name="t", n_sources=3, operator="mean")
    task = SimpleNamespace(spec=spec, split="val", n_examples=9, frozen=frozen, digest="feed")
    facts = {"version": 4, "title": name.title(), "domain": "audio", "metrics": ("a", "b"), "ranking_metric": "b", "methods": ("m",), "tasks": {"t": task}}
    return SimpleNamespace(name=name, **facts)


def wanted(name: str, frozen: bool) -> dict[str, Any]:
    task = {"name": "t", "split": "val", "n_sources": 3, "operator": "mean", "mixtures": 9, "frozen": frozen, "digest": "feed" if frozen else None}
    head = {"name": name, "version": 4, "title": name.title(), "domain": "audio", "state": f"state of {name}", "download_bytes": 7, "lacking": ("x",)}
    return {**head, "where": (Path("w"),), "metrics": ("a", "b"), "ranking_metric": "b", "methods": ("m",), "tasks": [task]}


@pytest.mark.parametrize(("only", "found"), [(None, [0, 1, 2, 3]), (["unready"], [2]), (["last", "first"], [3, 0]), (["unread"], [1])])
def test_suites_in_whole_and_those_that_cannot_be_read_with_why(monkeypatch: pytest.MonkeyPatch, only: list[str] | None, found: list[int]) -> None:
    known = {"first": suite("first", True), "unread": SepbenchError("no TOML"), "unready": suite("unready", True), "last": suite("last", False)}

    def readiness(name: str, given: Any) -> Any:
        assert given is known[name]
        if name == "unready":
            raise SepbenchError("no such data set")
        return SimpleNamespace(state=f"state of {name}", download=7, lacking=("x",), where=(Path("w"),))

    monkeypatch.setattr("sepbench.registry.suite_names", lambda: list(known))
    monkeypatch.setattr("sepbench.suites.loader.load_suite", lambda name: find(known, name))
    monkeypatch.setattr("sepbench.suites.readiness.readiness", readiness)
    every = [wanted("first", True), {"name": "unread", "error": "no TOML"}, {"name": "unready", "error": "no such data set"}, wanted("last", False)]
    assert listed.listed_suites(only) == [every[number] for number in found]


def test_a_suite_that_is_not_frozen_is_not_mixed_to_be_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unfrozen(SimpleNamespace):
        @property
        def digest(self) -> str:
            raise AssertionError("it would open the data")

    loose = suite("loose", False)
    loose.tasks = {"t": Unfrozen(**{key: value for key, value in vars(loose.tasks["t"]).items() if key != "digest"})}
    monkeypatch.setattr("sepbench.suites.loader.load_suite", lambda name: loose)
    ready = SimpleNamespace(state="ready", download=0, lacking=(), where=())
    monkeypatch.setattr("sepbench.suites.readiness.readiness", lambda name, given: ready)
    assert listed.listed_suites(["loose"])[0]["tasks"][0]["digest"] is None


def info(name: str, paper: str, *domains: Any, deterministic: bool = True) -> MethodInfo:
    return MethodInfo(name, f"Title of {paper}", "3", frozenset(domains), "prior", paper, bound="upper", deterministic=deterministic)  # type: ignore[arg-type]


def test_methods_with_all_their_domains_and_each_paper_once(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {
        "two": [info("two", "P", "image", "vector"), info("two", "Q", "audio", "image"), replace(info("two", "P", "audio"), version="9")],
        "broken": SepbenchError("no licence"),
        "one": [info("one", "", "vector", deterministic=False)],
    }
    monkeypatch.setattr("sepbench.registry.separator_names", lambda: list(known))
    monkeypatch.setattr("sepbench.run.method_infos.method_infos", lambda names: {name: known[name] for name in names})
    facts = {"version": "3", "supervision": "prior", "bound": "upper"}
    assert listed.listed_methods() == [
        {"name": "two", "title": "Title of P", **facts, "deterministic": True, "domains": ["audio", "image", "vector"], "papers": ["P", "Q"]},
        {"name": "broken", "error": "no licence"},
        {"name": "one", "title": "Title of ", **facts, "deterministic": False, "domains": ["vector"], "papers": [""]},
    ]


@pytest.mark.parametrize(("only", "found"), [(None, [0, 1, 2]), (["up", "down"], [2, 0]), (["odd"], [1])])
def test_metrics_in_whole_and_those_that_cannot_be_loaded_with_why(monkeypatch: pytest.MonkeyPatch, only: list[str] | None, found: list[int]) -> None:
    def metric(higher: bool) -> Any:
        return SimpleNamespace(info=SimpleNamespace(unit="dB", higher_is_better=higher, per="source", source="a formula"))

    known = {"down": metric(False), "odd": SepbenchError("needs museval"), "up": metric(True)}
    monkeypatch.setattr("sepbench.metrics.catalogue.metric_names", lambda: list(known))
    monkeypatch.setattr("sepbench.metrics.catalogue.get_metric", lambda name: find(known, name))
    down, up = ({"name": name, "unit": "dB", "higher_is_better": name == "up", "per": "source", "source": "a formula"} for name in ("down", "up"))
    assert listed.listed_metrics(only) == [[down, {"name": "odd", "error": "needs museval"}, up][number] for number in found]


def test_the_page_of_a_method_with_an_entry_for_each_algorithm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting without a default is one that has to be given; what is told of the method is its first word, all caveats are."""
    made = {"image": info("two", "P", "vector", "image"), "audio": info("two", "Q", "audio", deterministic=False)}
    one = SimpleNamespace(name="rank", kind="int", default=None, range="from 1", description="how many")
    settings = {"image": [one, SimpleNamespace(name="path", kind="str", default=REQUIRED, range="", description="")], "audio": []}
    told = {"image": [("caveat", "one"), ("about", "What it does."), ("about", "more"), ("caveat", "two")], "audio": [("paper", "Q")]}
    monkeypatch.setattr("sepbench.registry.separator_domains", {"two": list(made)}.__getitem__)
    monkeypatch.setattr("sepbench.registry.create_separator", lambda name, domain: SimpleNamespace(info=made[domain], domain=domain))
    monkeypatch.setattr("sepbench.registry.separator_class", lambda name, domain: (name, domain))
    monkeypatch.setattr("sepbench.settings.describe", lambda cls: settings[cls[1]])
    monkeypatch.setattr("sepbench.cli.method_page.facts_of", lambda name, separator: told[separator.domain])
    shared = {"version": "3", "supervision": "prior", "bound": "upper"}
    rank = {"name": "rank", "type": "int", "required": False, "default": None, "range": "from 1", "description": "how many"}
    path = {"name": "path", "type": "str", "required": True, "default": None, "range": "", "description": ""}
    images = {"title": "Title of P", "domains": ["image", "vector"], "deterministic": True, "paper": "P", "about": "What it does.", "caveats": ["one", "two"]}
    sounds = {"title": "Title of Q", "domains": ["audio"], "deterministic": False, "paper": "Q", "about": "", "caveats": [], "settings": []}
    assert listed.listed_method("two") == {"name": "two", "implementations": [shared | images | {"settings": [rank, path]}, shared | sounds]}
