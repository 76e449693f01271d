"""Stages of a fit: each in its own folder, with one progress."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from method_toys import context, toy_task

from baselines.training import stages


def test_a_stage_has_a_folder_of_its_own_and_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []
    monkeypatch.setattr(stages, "resume", lambda one, folder, device: seen.append(("resume", one, folder, device)))
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: seen.append(("run", one, folder)))
    for cache in (tmp_path, None):
        stages.Stages(context(toy_task(), cache=cache), {"codec": 1.0}).make("codec", 3)  # type: ignore[arg-type]
    of = tmp_path / "codec"
    assert seen == [("resume", 3, of, "cpu"), ("run", 3, of), ("resume", 3, None, "cpu"), ("run", 3, None)]


def test_shares_of_the_stages(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[float, str]] = []
    monkeypatch.setattr(stages, "resume", lambda one, folder, device: None)
    monkeypatch.setattr(stages, "run", lambda one, folder, progress: [progress(done, f"step {one}") for done in (0.0, 0.5, 1.0)])
    made = stages.Stages(context(toy_task(), progress=lambda done, text: told.append((done, text))), {"codec": 0.4, "prior": 0.5, "sums": 0.1})
    for name in ("codec", "prior", "sums"):
        made.make(name, 3)  # type: ignore[arg-type]
    assert [done for done, _ in told] == pytest.approx([0.0, 0.2, 0.4, 0.4, 0.65, 0.9, 0.9, 0.95, 1.0])
    assert told[4][1] == "prior: step 3"
    assert max(done for done, _ in told) <= 1.0
