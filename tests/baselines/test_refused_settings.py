"""Settings that do not go together: the whole line that refuses them, and the last that are taken."""

from __future__ import annotations

from typing import Any

import pytest

from sepbench.errors import MethodError
from sepbench.registry import create_separator

Settings = dict[str, Any]
PRUNING = "prune_after must rise from 1 and survivors fall from candidates, one for each"
PRUNED_LATE = "prune_after must be below steps, or nothing is left to save; got {} of {} steps"
OF_DRAWS = "criterion {} ranks whole draws, candidates go by the denoising loss; set best_of instead of candidates"
MEDIANS = "both median filters must have an odd width, got {} frames and {} bins"
LEVELS = "noise levels fall: give lowest below middle below highest, got {}, {} and {}"
TWO_LEVELS = "noise levels fall: give lowest below highest, got {} and {}"
JUDGED = "judged must be at least middle, or no level of the search counts; got {} and {}"
SHARES = "level_shares takes {} numbers, one per noise level, got {}"
REFUSED: list[tuple[str, str, Settings, str]] = [
    ("hpss", "audio", {"frames": 30}, MEDIANS.format(30, 31)),
    ("hpss", "audio", {"bins": 4}, MEDIANS.format(31, 4)),
    ("ft2d", "audio", {"rates": 24}, "rates must be odd, got 24"),
    ("ica", "image", {"window": 4}, "window must be odd, got 4"),
    ("repet", "audio", {"shortest": 2.0, "longest": 1.5}, "the shortest period must not be above the longest, got 2.0 and 1.5 s"),
    ("basis-ncsn", "image", {"level_shares": (1.0, 2.0)}, SHARES.format(10, 2)),
    ("basis-ncsn", "image", {"level_shares": (1.0, 2.0), "levels": 1}, SHARES.format(1, 2)),
    ("basis-ncsn", "image", {"lowest": 1.0}, TWO_LEVELS.format(1.0, 1.0)),
    ("alpha-rgs", "image", {"highest": 0.5, "lowest": 0.7}, TWO_LEVELS.format(0.7, 0.5)),
    ("projected-auto", "image", {"lowest": 1.5}, TWO_LEVELS.format(1.5, 1.5)),
    ("projected-auto", "image", {"middle": 1.5}, LEVELS.format(0.03, 1.5, 1.5)),
    ("projected-auto", "image", {"lowest": 0.2}, LEVELS.format(0.2, 0.2, 1.5)),
    ("projected-auto", "image", {"judged": 0.19}, JUDGED.format(0.19, 0.2)),
    ("lass-projected", "image", {"middle": 0.6}, LEVELS.format(0.03, 0.6, 0.6)),
    ("lass-projected", "image", {"lowest": 0.2}, LEVELS.format(0.2, 0.2, 0.6)),
    *(
        ("projected", "image", {"candidates": 4, "prune_after": steps, "survivors": survivors}, PRUNING)
        for steps, survivors in (((3, 3), (2, 1)), ((3, 2), (2, 1)), ((2, 3), (1, 2)), ((2,), (5,)), ((2, 3), (2,)), ((2,), ()), ((), (2,)))
    ),
    ("projected", "image", {"candidates": 4, "steps": 9, "prune_after": (3, 9), "survivors": (2, 1)}, PRUNED_LATE.format(9, 9)),
    ("projected", "image", {"candidates": 4, "steps": 9, "prune_after": (600,), "survivors": (2,)}, PRUNED_LATE.format(600, 9)),
    ("projected", "image", {"candidates": 4, "criterion": "mixture-error"}, OF_DRAWS.format("mixture-error")),
    ("projected", "image", {"candidates": 2, "criterion": "log-prior"}, OF_DRAWS.format("log-prior")),
]
TAKEN: list[tuple[str, str, Settings]] = [
    ("hpss", "audio", {"frames": 1, "bins": 1}),
    ("ft2d", "audio", {"rates": 1}),
    ("ica", "image", {"window": 1}),
    ("repet", "audio", {"shortest": 2.0, "longest": 2.0}),
    ("basis-ncsn", "image", {"level_shares": (1.0, 2.0), "levels": 2}),
    ("projected-auto", "image", {"judged": 0.2}),
    ("projected", "image", {"candidates": 4, "prune_after": (1, 2), "survivors": (4, 4)}),
    ("projected", "image", {"candidates": 4}),
    ("projected", "image", {"candidates": 4, "steps": 9, "prune_after": (8,), "survivors": (2,)}),
    ("projected", "image", {"candidates": 4, "best_of": 2, "criterion": "mixture-error"}),
    ("projected", "image", {"best_of": 65536, "candidates": 65536}),
]


@pytest.mark.parametrize(("name", "domain", "settings", "line"), REFUSED, ids=str)
def test_what_does_not_go_together_is_refused_in_one_line(name: str, domain: Any, settings: Settings, line: str) -> None:
    with pytest.raises(MethodError) as refused:
        create_separator(name, settings, domain)
    assert str(refused.value) == f"method {name!r} refuses its settings: {line}"


@pytest.mark.parametrize(("name", "domain", "settings"), TAKEN, ids=str)
def test_the_last_values_that_go_together_are_taken(name: str, domain: Any, settings: Settings) -> None:
    method = create_separator(name, settings, domain)
    assert {key: getattr(method, key) for key in settings} == settings
