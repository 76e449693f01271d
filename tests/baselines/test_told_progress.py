"""What methods tell of their progress, every line of it: how much of a fit and of a batch is done, and of what."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from setting_worlds import World, audio, images
from test_every_setting import CASES

from sepbench.protocols import Mixtures
from sepbench.registry import create_separator

Told = list[tuple[float, str]]
STAGES = ("stage 1: the observed source", "stage 2: the other source")
DICTIONARIES: Told = [((slot + done / 12) / 2, f"dictionary {slot + 1} of 2") for slot in range(2) for done in range(1, 13)]
SHARED: Told = [(done / 12, "dictionary 1 of 1") for done in range(1, 13)]
OBSERVED: Told = [*((done / 6 / 3, STAGES[0]) for done in range(1, 7)), *(((1 + 2 * done / 6) / 3, STAGES[1]) for done in range(1, 7))]
TWO: Told = [(0.5, "spectra"), (1.0, "spectra")]
CHUNKS = ("ideal", "masks", "spectrogram_nmf")
FITS: dict[str, Told] = {
    "nmf": DICTIONARIES,
    "nmf.audio": DICTIONARIES,
    "nmf-semi": OBSERVED,
    "nmf-semi.audio": OBSERVED,
    "nmf-semi-printed": [(1 / 3, STAGES[0]), (1.0, STAGES[1])],
    "lass": [(0.4, "codec: step 4, 0.0 min, loss"), (0.9, "prior: step 6, 0.0 min, loss"), (1.0, "sums: step 2, 0.0 min")],
}
SEPARATIONS: dict[str, Told] = {
    "ica": [(done / 4, "images") for done in range(1, 5)],
    "rpca": [(done / 4, "images") for done in range(1, 5)],
    "ica.audio": [(0.5, "recordings"), (1.0, "recordings")],
    **dict.fromkeys(("ft2d", "hpss", "nmf.audio", "nmf-blind", "nmf-semi.audio", "repet", "repet-sim", "rpca.audio"), TWO),
    "lass": [
        (0.6, "candidates"),
        (0.6, "0 of 16 tokens of mixtures were never counted"),
        *((0.7 + 0.3 * (part + step / 6) / 4, "refinement") for part in range(4) for step in range(7)),
    ],
}
QUIET = ("average", "ideal-mask", "ideal-binary-mask", "ideal-ratio-mask", "mixture", "original", "nmf", "nmf-semi", "nmf-semi-printed")


def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every mixture is a chunk of its own, whatever the method."""
    for room in CHUNKS:
        monkeypatch.setattr(f"baselines.decomposition.{room}.CHUNK_BINS", 1)
    for method in ("ica", "ica_audio"):
        monkeypatch.setattr(f"baselines.{method}.CHUNK_ELEMENTS", {"cpu": 1})
    monkeypatch.setattr("baselines.rpca._CHUNK_ELEMENTS", 1)
    monkeypatch.setattr("baselines.rpca_audio._CHUNK", 1)
    monkeypatch.setattr("baselines.lass.images_at_once", lambda ctx: 2)


def told(key: str, world: World, settings: Any) -> tuple[Told, Told]:
    name, _, domain = key.partition(".")
    method = create_separator(name, settings, domain or world.task.domain)  # type: ignore[arg-type]
    lines: Told = []
    ctx = replace(world.context(), progress=lambda done, text: lines.append((done, re.sub(r"loss [\d.]+", "loss", text))))
    level = "prior" if method.info.supervision == "sources" and world.task.class_agnostic else method.info.supervision
    method.fit(world.view(level), ctx)
    fit = lines.copy()
    lines.clear()
    method.separate(world.mixtures(), ctx)
    return fit, lines


def alike(found: Told, wanted: Told) -> None:
    assert [text for _, text in found] == [text for _, text in wanted]
    assert [done for done, _ in found] == pytest.approx([done for done, _ in wanted])


@pytest.mark.parametrize("key", sorted({*FITS, *SEPARATIONS, *QUIET}))
def test_every_line_of_a_fit_and_of_a_separation(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one_at_a_time(monkeypatch)
    fit, separation = told(key, CASES[key].world(), CASES[key].small)
    alike(fit, FITS.get(key, []))
    alike(separation, SEPARATIONS.get(key, []))


@pytest.mark.parametrize(("key", "world"), [("nmf", images), ("nmf.audio", audio)])
def test_one_dictionary_for_all_classes(key: str, world: Any) -> None:
    agnostic = images(agnostic=True) if world is images else audio(classes=("any", "any"))
    fit, separation = told(key, agnostic, CASES[key].small)
    alike(fit, SHARED)
    alike(separation, [(1.0, "spectra")] if world is audio else [])


@pytest.mark.parametrize("key", ["ica", "ica.audio", "rpca"])
def test_a_batch_of_nothing(key: str) -> None:
    """There is nothing to tell apart, and nothing to divide by."""
    world = CASES[key].world()
    name, _, domain = key.partition(".")
    full = world.mixtures()
    none = Mixtures(full.values[:0], full.example_ids[:0], full.operator.select(torch.arange(0)))
    estimates = create_separator(name, CASES[key].small, domain or world.task.domain).separate(none, world.context())  # type: ignore[arg-type]
    assert estimates.shape == (0, 2, *world.task.source_shape)
