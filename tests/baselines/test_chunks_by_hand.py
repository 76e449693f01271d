"""How many rows are handled at a time: as many as the budget holds, and one at least. Nothing that a user sees depends on it but memory and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from method_toys import context, mix, toy_task
from setting_worlds import audio, images
from sound_toys import sound_task, sounds
from test_every_setting import CASES

import baselines.decomposition.nnls
import baselines.decomposition.nonnegative
import baselines.s_d
from baselines.decomposition import ideal
from baselines.decomposition.nonnegative import encode, factorise, sparse_encode
from baselines.decomposition.spectrogram_nmf import recording_spectra
from baselines.ideal_binary_mask import IdealBinaryMask
from baselines.s_d import _in_parts
from sepbench.registry import create_separator
from sepbench.stft import Stft

# Elements of one mixture of the toy worlds: patches of 4 x 4 at 11 x 11 places, 8 x 8 pixels, 16 lags of 2,400 + 15 windows.
ONE = {"ica": 16 * 11 * 11, "rpca": 64, "ica.audio": 16 * 2_415}
BUDGETS = {"ica": ("ica.CHUNK_ELEMENTS", dict), "rpca": ("rpca._CHUNK_ELEMENTS", int), "ica.audio": ("ica_audio.CHUNK_ELEMENTS", dict)}


@pytest.mark.parametrize(("many", "less", "rows"), [(0, 0, 1), (1, 0, 1), (2, 1, 1), (2, 0, 2), (3, 1, 2), (9, 0, 4)])
@pytest.mark.parametrize("key", ONE)
def test_mixtures_that_are_decomposed_at_a_time(monkeypatch: pytest.MonkeyPatch, key: str, many: int, less: int, rows: int) -> None:
    budget, (name, kind) = many * ONE[key] - less, BUDGETS[key]
    monkeypatch.setattr(f"baselines.{name}", {"cpu": budget} if kind is dict else budget)
    told: list[float] = []
    world = images() if key != "ica.audio" else audio()
    method = create_separator(key.partition(".")[0], {**CASES[key].small, "max_iterations": 1}, world.task.domain)
    sources = world.sources if key != "ica.audio" else world.sources.repeat(2, 1, 1, 1)
    method.separate(mix(sources, world.task.operator), context(world.task, progress=lambda done, text: told.append(done)))
    assert told == [min(4, end) / 4 for end in range(rows, 4 + rows, rows)]


@pytest.mark.parametrize(("budget", "rows"), [(1, [1, 1, 1]), (2 * 4 * 3 * 400 - 1, [1, 1, 1]), (2 * 4 * 3 * 400, [2, 1]), (9 * 4 * 3 * 400, [3])])
def test_mixtures_that_are_masked_ideally_at_a_time(monkeypatch: pytest.MonkeyPatch, budget: int, rows: list[int]) -> None:
    """400 samples of a mixture and its two sources, at four times as many bins."""
    asked: list[int] = []
    sources, task = sounds(3, 400), sound_task(400)

    def references(ids: torch.Tensor) -> torch.Tensor:
        asked.append(len(ids))
        return sources[ids]

    monkeypatch.setattr(ideal, "CHUNK_BINS", budget)
    IdealBinaryMask().separate(mix(sources, "mean"), context(task, references=references))
    assert asked == rows


@pytest.mark.parametrize(("less", "sizes"), [(0, [2, 2, 1]), (1, [1] * 5)])
def test_recordings_that_are_transformed_at_a_time(monkeypatch: pytest.MonkeyPatch, less: int, sizes: list[int]) -> None:
    stft, signals = Stft.at(8_000), torch.rand(5, 2, 600, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("baselines.decomposition.spectrogram_nmf.CHUNK_BINS", 2 * 2 * stft.bins * stft.frames(600) - less)
    found = recording_spectra(signals, 8_000, "cpu")
    assert [len(one) for one in found] == sizes
    torch.testing.assert_close(torch.cat(found), stft.forward(signals).abs().mean(1))


@pytest.mark.parametrize("elements", [1, 3 * 4, 3 * 4 + 2, 1 << 17])
@pytest.mark.parametrize("solve", ["encode", "sparse_encode", "factorise", "factorise from codes", "nnls"])
def test_rows_of_a_factorisation_in_chunks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch, solve: str, elements: int) -> None:
    """Seven signals on four atoms: one at a time, three at a time with one over, and all."""
    g = torch.Generator().manual_seed(0)
    signals, atoms, codes = (torch.rand(*shape, generator=g, dtype=torch.float64) for shape in ((7, 6), (4, 6), (7, 4)))
    solvers: dict[str, Callable[[], tuple[torch.Tensor, ...]]] = {
        "encode": lambda: (encode(signals, atoms, 5, sparsity=0.1),),
        "sparse_encode": lambda: (sparse_encode(signals, atoms, 5, sparsity=0.1, codes=codes),),
        "factorise": lambda: pair(factorise(signals, atoms, 5)),
        "factorise from codes": lambda: pair(factorise(signals, atoms, 5, codes=codes)),
        "nnls": lambda: (baselines.decomposition.nnls.nnls(atoms @ atoms.T, signals @ atoms.T, start=codes),),
    }
    whole = solvers[solve]()
    monkeypatch.setattr(baselines.decomposition.nonnegative, "_CHUNK_ELEMENTS", elements)
    monkeypatch.setattr(baselines.decomposition.nnls, "_CHUNK_ELEMENTS", elements)
    for found, wanted in zip(solvers[solve](), whole, strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5 if solve == "nnls" else 1e-10, rtol=0)


def pair(factors: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return factors.atoms, factors.codes


@pytest.mark.parametrize(("count", "at_once", "sizes"), [(5, 2, [2, 2, 1]), (4, 4, [4]), (3, 0, [1, 1, 1]), (2, 9, [2])])
def test_parts_of_a_search_and_how_much_of_all_they_are(count: int, at_once: int, sizes: list[int]) -> None:
    told: list[float] = []
    parts: Iterator[Any] = _in_parts(count, at_once, told.append)
    numbers = []
    for rows, tell in parts:
        numbers.append(rows.tolist())
        tell(0.5)
        tell(1.0)
    assert [len(rows) for rows in numbers] == sizes
    assert [row for rows in numbers for row in rows] == list(range(count))
    assert told == pytest.approx([(part + done) / len(sizes) for part in range(len(sizes)) for done in (0.5, 1.0)])


@pytest.mark.parametrize(
    ("restarts", "images_at_once", "first", "second"), [(2, 128, [4], [4]), (2, 12, [3, 1], [4]), (3, 6, [1] * 4, [3, 1]), (5, 2, [1] * 4, [1] * 4)]
)
def test_searches_at_once_share_the_images_among_sources_and_starts(
    monkeypatch: pytest.MonkeyPatch, restarts: int, images_at_once: int, first: list[int], second: list[int]
) -> None:
    """Stage 1 generates an image for every start of both sources, stage 2 for both sources alone."""
    calls: list[tuple[str, int, int]] = []

    def starts(scene: Any, rows: torch.Tensor, count: int, noise: Any, steps: int, lr: float, told: Any) -> tuple[torch.Tensor, torch.Tensor]:
        calls.append(("first", len(rows), steps))
        return torch.zeros(len(rows), 2, 6), torch.zeros(len(rows))

    def descend(codes: torch.Tensor, losses: Any, steps: int, lr: float, **more: Any) -> torch.Tensor:
        calls.append(("second", len(codes), steps))
        assert more["tolerance"] == 0.25
        return codes

    monkeypatch.setattr(baselines.s_d, "best_of_starts", starts)
    monkeypatch.setattr(baselines.s_d, "descend", descend)
    monkeypatch.setattr(baselines.s_d, "_CPU_IMAGES", images_at_once)
    method: Any = create_separator("s-d", {"restarts": restarts, "first_steps": 9, "last_steps": 13, "tolerance": 0.25, "latent": 6})
    world = images()
    monkeypatch.setattr(type(method), "fitted", lambda self: lambda codes: torch.zeros(len(codes), 1, 8, 8))
    for budget, steps in (("paper", (9, 13)), ("quick", (3, 4))):
        calls.clear()
        found = method.separate(world.mixtures(), context(world.task, budget=budget))
        assert found.shape == (4, 2, 1, 8, 8)
        assert [rows for stage, rows, _ in calls if stage == "first"] == first
        assert [rows for stage, rows, _ in calls if stage == "second"] == second
        assert [{count for stage, _, count in calls if stage == which} for which in ("first", "second")] == [{steps[0]}, {steps[1]}]


@pytest.mark.parametrize(("steps", "quick"), [(1, 1), (4, 1), (5, 2), (400, 100)])
def test_a_quarter_of_the_steps_of_a_search_rounded_up(monkeypatch: pytest.MonkeyPatch, steps: int, quick: int) -> None:
    import baselines.glom

    told: list[int] = []

    def parts(generators: Any, mixtures: torch.Tensor, starts: torch.Tensor, count: int, *rest: Any) -> torch.Tensor:
        told.append(count)
        return torch.ones(len(mixtures), 2, 1, 8, 8)

    monkeypatch.setattr(baselines.glom, "found_parts", parts)
    method: Any = create_separator("glom", {"search_steps": steps, "latent": 3})
    monkeypatch.setattr(type(method), "fitted", lambda self: None)
    task = toy_task(observed=0)
    for budget in ("paper", "quick"):
        method.separate(images().mixtures(), context(task, budget=budget))
    assert told == [steps, quick]
