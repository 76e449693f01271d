"""Which tasks every registered method takes, and the line that tells why not, over a grid of tasks that differ in one thing each.

Rows of leaderboards come and go with these answers. To change one knowingly run this file, which writes what is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sepbench.errors import SepbenchError
from sepbench.protocols import TaskSpec
from sepbench.registry import create_separator, separator_domains, separator_names

FILE = Path(__file__).parents[1] / "golden" / "supports.json"
IMAGE = TaskSpec("own", "task", "image", 2, (1, 28, 28), "sum", ("a", "b"), "permutation", (0, 1), 1, datasets=("mnist", "mnist"))
AUDIO = TaskSpec("own", "task", "audio", 2, (1, 8_000), "mean", ("drums", "bass"), "ordered", (0, 1), 1, sample_rate=8_000)
VECTOR = TaskSpec("own", "task", "vector", 2, (3,), "sum", ("a", "b"), "ordered", (0, 1), analytic_prior=True)
AGNOSTIC: Mapping[str, Any] = {"source_classes": ("any", "any"), "observed_source": None}
THREE: Mapping[str, Any] = {"n_sources": 3, "source_classes": ("drums", "bass", "c"), "scored_sources": (0, 1, 2)}
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "as it is": {},
    "mean": {"operator": "mean"},
    "gain": {"operator": "gain"},
    "agnostic, ordered": {**AGNOSTIC, "assignment": "ordered"},
    "agnostic": {**AGNOSTIC, "assignment": "permutation"},
    "three": THREE,
    "three of one class": {**THREE, "source_classes": ("any",) * 3, "observed_source": None, "assignment": "permutation"},
    "six of one class": {
        "n_sources": 6,
        "source_classes": ("any",) * 6,
        "scored_sources": tuple(range(6)),
        "observed_source": None,
        "assignment": "permutation",
    },
    "first observed": {"observed_source": 0},
    "none observed": {"observed_source": None},
    "one scored": {"scored_sources": (0,)},
    "one": {"n_sources": 1, "source_classes": ("a",), "scored_sources": (0,), "observed_source": 0},
    "two of three alike": {**THREE, "source_classes": ("a", "b", "a"), "observed_source": None, "assignment": "permutation"},
    "three, none observed": {**THREE, "observed_source": None},
}
MORE: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "image": {
        "in order": {"assignment": "ordered"},
        "colour of one": {
            "n_sources": 1,
            "operator": "channel-mean",
            "source_shape": (3, 32, 32),
            "source_classes": ("any",),
            "scored_sources": (0,),
            "observed_source": None,
            "assignment": "ordered",
            "datasets": ("cifar10",),
        },
        "padded": {"source_shape": (1, 32, 32), "padding": 2},
        "colour": {"source_shape": (3, 32, 32), "datasets": ("cifar10", "cifar10")},
        "colour, unknown": {"source_shape": (3, 32, 32), "datasets": ("mine", "mine")},
        "channels": {"operator": "channel-mean", "n_sources": 3, "source_shape": (3, 32, 32), "source_classes": ("any",) * 3, "datasets": ("cifar10",) * 3},
        "odd": {"source_shape": (1, 27, 29)},
        "tiny": {"source_shape": (1, 3, 3)},
        "long": {"source_shape": (1, 64, 8)},
        "digits": {"source_shape": (1, 8, 8), "datasets": ("digits", "digits")},
        "no data set": {"datasets": ()},
    },
    "audio": {
        "two channels": {"source_shape": (2, 8_000)},
        "short": {"source_shape": (1, 40)},
        "a second": {"sample_rate": 44_100},
        "no rate": {"sample_rate": None},
        "no drums": {"source_classes": ("a", "b")},
        "a voice first": {"source_classes": ("vocals", "accompaniment")},
        "a voice last": {"source_classes": ("noise", "speech")},
        "two voices": {"source_classes": ("vocals", "speech")},
        "two voices, any order": {"source_classes": ("vocals", "speech"), "assignment": "permutation"},
        "a voice among three": {**THREE, "source_classes": ("vocals", "bass", "c")},
        "two drums": {"source_classes": ("drums", "drums"), "assignment": "permutation"},
        "just short of three periods": {"source_shape": (1, 19_199), "source_classes": ("vocals", "b")},
        "three periods": {"source_shape": (1, 19_200), "source_classes": ("vocals", "b")},
        "just a second": {"source_shape": (1, 8_000), "source_classes": ("vocals", "b")},
        "just short of a second": {"source_shape": (1, 7_999), "source_classes": ("vocals", "b")},
    },
    "vector": {"unknown prior": {"analytic_prior": False}, "draws": {"posterior_draws": 8}, "bound": {"source_shape": (1,)}},
}


def tasks(domain: str) -> dict[str, TaskSpec]:
    base = {"image": IMAGE, "audio": AUDIO, "vector": VECTOR}[domain]
    changed = {name: replace(base, **change) for name, change in {**CHANGES, **MORE[domain]}.items()}
    return {name: replace(task, datasets=task.datasets[:1] * task.n_sources) for name, task in changed.items()}


def answers(name: str) -> dict[str, str]:
    """``domain: task`` to the reason, or to ``yes`` and a caveat; what is taken without one is left out."""
    found = {}
    pairs = [(own, domain) for own in separator_domains(name) for domain in ((own,) if own else sorted(create_separator(name, {}, own).info.domains))]
    for own, domain in pairs:
        method = create_separator(name, {}, own)
        for which, task in tasks(domain).items():
            try:
                support = method.supports(task)
            except SepbenchError as error:
                found[f"{domain}: {which}"] = f"{type(error).__name__}: {error}"
                continue
            found[f"{domain}: {which}"] = "yes" * support.ok + ": " * bool(support.ok and support.note) + support.note
    return {which: answer for which, answer in found.items() if answer != "yes"}


@pytest.mark.parametrize("name", separator_names())
def test_a_method_takes_the_tasks_that_it_took(name: str) -> None:
    frozen = json.loads(FILE.read_text(encoding="utf-8"))
    assert answers(name) == frozen[name]


def test_every_reason_is_one_line_with_something_in_it() -> None:
    for name, found in json.loads(FILE.read_text(encoding="utf-8")).items():
        for which, answer in found.items():
            assert answer.strip(), (name, which)
            assert "\n" not in answer, (name, which)


if __name__ == "__main__":
    FILE.write_text(json.dumps({name: answers(name) for name in separator_names()}, indent=1, sort_keys=True) + "\n", encoding="utf-8", newline="")
