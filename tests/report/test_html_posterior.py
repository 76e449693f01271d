"""The section on posterior samplers: densities and points of made-up draws by hand, and what is said where there are none."""

from __future__ import annotations

import math
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from sepbench.errors import SepbenchError
from sepbench.report.html import posterior
from sepbench.report.html.board import MetricWords
from sepbench.report.html.posterior import _first_two, _from_draws
from sepbench.results.statistics import TaskDesigns

pytest.importorskip("altair")


class Made:
    """A run of ``planned`` mixtures and its task: draws by method, exact draws, and which mixtures were asked for."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, draws: dict[str, torch.Tensor], exact: torch.Tensor, planned: int, shape: tuple[int, ...] = (2,)
    ) -> None:
        self.draws, self.asked = draws, list[tuple[str, Any]]()
        n_sources = next(iter(draws.values())).shape[2]
        self.spec = SimpleNamespace(name="t", posterior_draws=exact.shape[1], n_sources=n_sources, source_shape=shape)
        self.n_planned = lambda task: {"t": planned}[task]
        self.task: Any = SimpleNamespace(spec=self.spec, mixture_set=lambda: SimpleNamespace(mixtures=self.mixtures), exact_posterior=lambda: "the posterior")
        monkeypatch.setattr(posterior, "posterior_reference", self.reference)
        self.exact = exact

    def mixtures(self, examples: range) -> range:
        self.asked.append(("mixtures", examples))
        return examples

    def reference(self, exact: str, mixtures: range, draws: int) -> Any:
        assert (exact, draws) == ("the posterior", self.spec.posterior_draws)
        return SimpleNamespace(draws=self.exact[list(mixtures)].flatten(2))

    def estimates(self, task: Any, method: str, examples: range) -> torch.Tensor:
        assert task is self.task
        self.asked.append((method, examples))
        return self.draws[method][list(examples)]

    def found(self, *methods: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
        return _from_draws(self, self.task, list(methods))  # type: ignore[arg-type]


def densities(draws: torch.Tensor, exact: torch.Tensor) -> list[float]:
    """Shares of 20 bins times 20, of ``(#{x < y} + 1/2 #{x = y} + 1/2) / (N + 1)`` over all exact draws y of every mixture and coordinate."""
    counts = [0] * 20
    for sampled, true in zip(draws.flatten(2).tolist(), exact.flatten(2).tolist(), strict=True):
        for coordinate in range(len(true[0])):
            own = [point[coordinate] for point in sampled]
            for y in (point[coordinate] for point in true):
                place = (sum(x < y for x in own) + sum(x == y for x in own) / 2 + 0.5) / (len(own) + 1)
                counts[min(19, math.floor(place * 20 + 1e-9))] += 1
    return [20 * count / sum(counts) for count in counts]


def noise(key: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.Generator(np.random.Philox(key)).normal(size=shape))


@pytest.mark.parametrize("spoilt", [math.nan, math.inf, -math.inf])
def test_a_mixture_of_which_any_draw_is_not_finite_does_not_count(monkeypatch: pytest.MonkeyPatch, spoilt: float) -> None:
    """Of three mixtures two count: the third has one coordinate of one source of one draw that is not finite."""
    whole, exact = noise(1, 3, 6, 2, 2), noise(2, 3, 5, 2, 2)
    broken = whole.clone()
    broken[1, 4, 1, 0] = spoilt
    rows, _, methods = Made(monkeypatch, {"whole": whole, "broken": broken}, exact, 3).found("whole", "broken")
    assert methods == ["whole", "broken"]
    assert [row["method"] for row in rows] == ["whole"] * 20 + ["broken"] * 20
    edges = [round(k / 20, 4) for k in range(21)]
    assert [(row["low"], row["high"]) for row in rows] == 2 * list(pairwise(edges))
    assert [row["density"] for row in rows[:20]] == pytest.approx(densities(whole, exact), rel=1e-3)
    assert [row["density"] for row in rows[20:]] == pytest.approx(densities(whole[[0, 2]], exact[[0, 2]]), rel=1e-3)


def test_a_method_without_a_finite_mixture_has_empty_bars_and_no_points(monkeypatch: pytest.MonkeyPatch) -> None:
    exact = noise(3, 1, 4, 1, 2)
    rows, points, _ = Made(monkeypatch, {"failed": torch.full((1, 3, 1, 2), math.nan)}, exact, 1).found("failed")
    assert [row["density"] for row in rows] == [0.0] * 20
    assert [point["kind"] for point in points] == ["exact"] * 4


@pytest.mark.parametrize(("planned", "taken"), [(3, 3), (19, 19), (20, 20), (21, 20), (400, 20)])
def test_the_first_twenty_mixtures_are_looked_at(monkeypatch: pytest.MonkeyPatch, planned: int, taken: int) -> None:
    made = Made(monkeypatch, {"a": noise(4, 21, 3, 1, 2), "b": noise(5, 21, 3, 1, 2)}, noise(6, 21, 2, 1, 2), planned)
    rows, _, _ = made.found("a", "b")
    assert made.asked == [("mixtures", range(taken)), ("a", range(taken)), ("b", range(taken))]
    assert [row["density"] for row in rows[:20]] == pytest.approx(densities(made.draws["a"][:taken], made.exact[:taken]), rel=1e-3)


@pytest.mark.parametrize("layout", [(1, 3), (3, 1)])
def test_points_are_the_first_two_coordinates_of_the_first_mixture(monkeypatch: pytest.MonkeyPatch, layout: tuple[int, int]) -> None:
    """Of one source in three dimensions, or of the first two sources in one."""
    draws, exact = noise(7, 2, 3, 3).reshape(2, 3, *layout), noise(8, 2, 2, 3).reshape(2, 2, *layout)
    draws[0, 1].view(-1)[1] = math.nan  # a draw with a coordinate that cannot be drawn
    draws[0, 2].view(-1)[2] = math.inf  # and one whose third does not matter here
    _, points, _ = Made(monkeypatch, {"m": draws}, exact, 2).found("m")
    wanted = [("exact", exact[0, 0]), ("exact", exact[0, 1]), ("sampler", draws[0, 0]), ("sampler", draws[0, 2])]
    assert [(point["method"], point["kind"]) for point in points] == [("m", kind) for kind, _ in wanted]
    for point, (_, values) in zip(points, wanted, strict=True):
        assert [point["x"], point["y"]] == [float(f"{value:.4g}") for value in values.flatten()[:2].tolist()]


def test_no_more_than_two_hundred_points_are_drawn() -> None:
    points = torch.arange(201.0)[:, None].expand(201, 3) + torch.tensor([0.123456, 1000.06, 7.0])
    found = _first_two(points)
    assert len(found) == 200
    assert (found[0], found[199]) == ((0.1235, 1000.0), (199.1, 1199.0))
    points = torch.tensor([[1.0, math.inf], [math.nan, 1.0], [2.0, 3.0]])
    assert _first_two(points) == [(2.0, 3.0)]


# -- the whole section


def view(methods: tuple[str, ...] = ("exact-posterior", "far"), draws: int | None = 4, task: str = "t", suite: bool = True, tested: bool = True) -> Any:
    metric = MetricWords("error", "1", False, "")
    tasks = {"t": SimpleNamespace(spec=SimpleNamespace(posterior_draws=draws))}
    board = SimpleNamespace(results=SimpleNamespace(suite=SimpleNamespace(tasks=tasks) if suite else None), opened=None)
    records = {(name, "error"): {"mean": 1.0 + place} for place, name in enumerate(methods)}
    return SimpleNamespace(
        **{"task": task, "board": board, "methods": list(methods), "metrics": (metric, MetricWords("other", "1", False, "")), "metric": metric},
        **{"records": records, "values": {"unrelated": None} if tested else {}, "designs": TaskDesigns(lambda task: None)},
    )


@pytest.mark.parametrize("made", [view(suite=False), view(task="other"), view(draws=None), view(draws=0), view(methods=("far",))])
def test_there_is_no_section_without_draws_of_the_exact_posterior(made: Any) -> None:
    assert posterior.posterior(made) is None


@pytest.mark.parametrize(
    ("tested", "end"),
    [
        (True, "The verdict is the paired one-sided test on error, adjusted by Holm over all methods, at 5%."),
        (False, "No values per mixture lie beside this leaderboard, so there is no test: compare the intervals of the leaderboard."),
    ],
)
def test_what_is_told_of_a_leaderboard(tested: bool, end: str) -> None:
    found = posterior.posterior(view(tested=tested))
    assert found is not None
    assert found.told == f"Mean of each metric as a multiple of that of exact draws: 1 is a perfect sampler. {end}"
    assert (found.metrics, [row.method for row in found.findings]) == (("error", "other"), ["exact-posterior", "far"])
    assert (found.note, found.pit, found.draws, found.pit_told) == ("PIT plots need a run that kept its draws.", None, None, "")


@pytest.mark.parametrize(("planned", "count"), [(7, 7), (500, 20)])
@pytest.mark.parametrize(("shape", "dims", "second"), [((1,), 2, "first of source 2, coordinate"), ((2,), 4, "second coordinate")])
def test_plots_of_a_run_that_kept_its_draws(monkeypatch: pytest.MonkeyPatch, planned: int, count: int, shape: tuple[int, ...], dims: int, second: str) -> None:
    opened = SimpleNamespace(spec=SimpleNamespace(n_sources=2, source_shape=shape))
    run = SimpleNamespace(
        tasks=lambda names: {("t",): [opened]}[tuple(names)], methods=lambda task: {"t": ["far", "exact-posterior"]}[task], n_planned=lambda task: planned
    )
    pit = [{"method": "far", "low": 0.0, "high": 1.0, "density": 1.0}]
    points = [{"method": "far", "kind": "exact", "x": 1.0, "y": 2.0}]

    def drawn(own: Any, task: Any, methods: list[str]) -> Any:
        assert (own, task, methods) == (run, opened, ["far", "exact-posterior"])
        return pit, points, methods

    monkeypatch.setattr(posterior, "_from_draws", drawn)
    made = view()
    made.board.opened = run
    found = posterior.posterior(made)
    assert found is not None
    assert found.pit is not None
    assert found.draws is not None
    assert found.note == ""
    assert found.pit_told == (
        f"First {count} mixtures, all {dims} coordinates. Flat at 1: calibrated. A hill: too wide. Horns at the ends: too narrow. A slope: biased. "
        "Bars beyond 4 are cut."
    )
    assert found.pit.words == "PIT histograms of 2 samplers on t; their distance from uniform is the metric pit_error"
    assert found.draws.words == "Draws for mixture 0 of t by each sampler, over exact draws"
    assert [next(iter(chart.spec["datasets"].values())) for chart in (found.pit, found.draws)] == [pit, points]
    encoding = found.draws.spec["spec"]["encoding"]
    assert (encoding["x"]["title"], encoding["y"]["title"]) == ("first coordinate of source 1", second)
    assert [chart.spec["facet"]["sort"] for chart in (found.pit, found.draws)] == [["far", "exact-posterior"]] * 2


def test_a_run_that_did_not_keep_its_draws_says_so_and_shows_its_table() -> None:
    def tasks(names: list[str]) -> Any:
        raise SepbenchError("the estimates were not kept")

    made = view()
    made.board.opened = SimpleNamespace(tasks=tasks)
    found = posterior.posterior(made)
    assert found is not None
    assert (found.note, found.pit, len(found.findings)) == ("No PIT plots: the estimates were not kept.", None, 2)


@pytest.mark.parametrize(
    ("p_values", "told"),
    [
        ({"a": 0.03, "b": 0.03}, ("not told", "not told")),  # by Holm each is twice that
        ({"a": 0.02, "b": 0.03}, ("does not sample it", "does not sample it")),  # 2 x 0.02, and no less for the second
        ({"a": 0.025, "b": 1.0}, ("not told", "not told")),  # at the level itself
        ({"a": 0.03}, ("does not sample it",)),
        ({"a": 0.0001, "b": None}, ("does not sample it", "no verdict below 10 clusters")),
        ({"a": 0.03, "b": None}, ("not told", "no verdict below 10 clusters")),  # what cannot be decided counts in the family
    ],
)
@pytest.mark.parametrize("higher", [False, True])
def test_verdicts_are_adjusted_over_all_methods(
    monkeypatch: pytest.MonkeyPatch, p_values: dict[str, float | None], told: tuple[str, ...], higher: bool
) -> None:
    def compared(pair: tuple[str, str], designs: str) -> Any:
        assert (pair[1], designs) == ("values of exact-posterior", "designs of t")
        p = p_values[pair[0]]
        sides = {"p_lower" if higher else "p_higher": 0.00001 if p is None else p, "p_higher" if higher else "p_lower": 0.5}
        return SimpleNamespace(decidable=p is not None, mean=-1.0 if higher else 1.0, **sides)

    monkeypatch.setattr(posterior, "pair_up", lambda mine, exact: (mine, exact))
    monkeypatch.setattr(posterior, "difference", compared)
    made = view(("exact-posterior", *p_values, "unsaid"))
    made.metric = MetricWords("error", "1", higher, "")
    made.values = {name: name for name in p_values} | {"exact-posterior": "values of exact-posterior"}
    made.designs = SimpleNamespace(task=lambda task: f"designs of {task}")
    found = posterior.posterior(made)
    assert found is not None
    words = tuple("not told from exact draws" if word == "not told" else word for word in told)
    assert [row.verdict for row in found.findings] == ["exact draws", *words, ""]
