"""What ``new-suite`` hands on: every option reaches the reading of files, their split and the lists of mixtures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sepbench.data.own.folders import OwnFolder
from sepbench.data.own.lists import ListPlan
from sepbench.data.own.signals import OwnSignals
from sepbench.suites import own
from sepbench.suites.own import DEFAULT_SECONDS, OwnSuite, make_suite


class Planned(Exception):
    """Ends a call where the lists would be made."""


def signals(name: str, count: int = 10) -> OwnSignals:
    numbers = np.arange(count, dtype=np.int64)
    values = (numbers[:, None] * np.ones((1, 4), np.int64)).astype(np.int16)
    return OwnSignals(name, values, tuple(f"{n}.wav" for n in range(count)), numbers, 0 * numbers, 0 * numbers + 1, numbers)


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the steps were given, by step; two folders, of images or of sounds as ``domain`` says."""
    told: dict[str, Any] = {"domain": "image", "lines": []}

    def open_folders(sources: tuple[Path, ...]) -> Any:
        told["opened"] = sources
        return told["domain"], [OwnFolder(source, (source / "x",) * 600, ()) for source in sources]

    def read_images(folders: Any, names: list[str], size: int | None, convert: bool) -> Any:
        told["images"] = (names, size, convert)
        return [signals(name) for name in names], ["a note"]

    def read_sounds(folders: Any, names: list[str], rate: int | None, seconds: float, convert: bool) -> Any:
        told["sounds"] = (names, rate, seconds, convert)
        return [signals(name) for name in names], 8_000, []

    def split_groups(order: str, groups: Any, validation: float, test: float, least: int) -> Any:
        told.setdefault("splits", []).append((order, len(groups), validation, test, least))
        return np.array([2] * len(groups))

    def make_lists(plan: ListPlan, parts: Any) -> Any:
        told["plan"], told["parts"] = plan, parts
        raise Planned

    for name, fake in {
        "open_folders": open_folders,
        "read_images": read_images,
        "read_sounds": read_sounds,
        "split_groups": split_groups,
        "make_lists": make_lists,
        "check_no_shared_content": lambda read: told.update(checked=[one.name for one in read]),
    }.items():
        monkeypatch.setattr(own, name, fake)
    return told


@pytest.fixture
def ask(handed: dict[str, Any], tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def call(domain: str = "image", **options: Any) -> dict[str, Any]:
        handed["domain"] = domain
        asked = replace(OwnSuite("mine", (tmp_path / "low", tmp_path / "high")), **options)
        with pytest.raises(Planned):
            make_suite(asked, tmp_path / "out", handed["lines"].append)
        return handed

    return call


def test_what_is_not_said_of_images(ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    told = ask()
    assert told["opened"] == (tmp_path / "low", tmp_path / "high")
    assert told["images"] == (["low", "high"], None, False)
    assert "sounds" not in told
    assert told["checked"] == ["low", "high"]
    assert told["splits"] == [("mine.low.split", 10, 0.1, 0.2, 1), ("mine.high.split", 10, 0.1, 0.2, 1)]
    assert told["plan"] == ListPlan("mine", False, 2, False, 0.0, None, "image")
    assert told["lines"] == ["reading 1,200 images"]


def test_what_is_said_of_images(ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    told = ask(sources=(tmp_path / "low",), agnostic=True, n_sources=3, size=16, convert=True, mixtures=7, validation=0.25, test=0.5, operator="mean")
    assert told["images"] == (["low"], 16, True)
    assert told["splits"] == [("mine.low.split", 10, 0.25, 0.5, 3)]  # as many as one mixture takes
    assert told["plan"] == ListPlan("mine", True, 3, False, 0.0, 7, "image")


def test_what_is_not_said_of_sounds(ask: Callable[..., dict[str, Any]]) -> None:
    told = ask("audio")
    assert told["sounds"] == (["low", "high"], None, 3.0, False)
    assert DEFAULT_SECONDS == 3.0
    assert told["plan"] == ListPlan("mine", False, 2, True, 0.0, None, "recording")
    assert told["lines"] == ["reading 1,200 sounds"]


def test_what_is_said_of_sounds(ask: Callable[..., dict[str, Any]]) -> None:
    told = ask("audio", rate=16_000, seconds=0.5, snr_db=-6.0, mixtures=9, convert=True)
    assert told["sounds"] == (["low", "high"], 16_000, 0.5, True)
    assert told["plan"] == ListPlan("mine", False, 2, True, -6.0, 9, "recording")
    assert ask("audio", operator="sum")["plan"].gains is False


def test_three_folders_are_three_sources(ask: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    told = ask(sources=tuple(tmp_path / name for name in ("a", "b", "c")))
    assert told["plan"].n_sources == 3
    assert [sorted(part) for part in told["parts"]] == [["test"]] * 3
