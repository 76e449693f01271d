"""Candidates of LASS: errors of candidates and of finished rows by hand, who draws them with which settings, parts of a batch, and counts of partial sums."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from method_toys import context, toy_task

from baselines.networks.vqvae import VQVAE
from baselines.priors.token_sums import SumCounter, SumCounts
from baselines.sampling.token_particles import Particles
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, SequencePosterior, TokenPosterior
from baselines.sampling.token_trees import TreePosterior
from baselines.training import token_candidates
from baselines.training.token_candidates import TokenCandidates, decoded, errors_of, fewer, images_at_once, rows_evidence
from baselines.training.token_models import TokenModels
from sepbench.protocols import Support

CODES = 5


class Smeared(VQVAE):
    """Token k is a 4 x 4 patch of brightness k / 8; a patch takes a quarter of its light from the patch below it."""

    def __init__(self) -> None:
        super().__init__(1, (8, 4), CODES, 2)
        self.decoded: list[int] = []

    def tokens_of(self, images: torch.Tensor) -> torch.Tensor:
        return (8 * images.unflatten(2, (2, 4)).mean((1, 3, 4))).round().long()

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens[:, None, :, None] / 8

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        self.decoded.append(len(latents))
        light = 0.75 * latents + 0.25 * torch.cat([latents[:, :, 1:], latents[:, :, -1:]], 2)
        return light.repeat_interleave(4, 2).repeat_interleave(4, 3)


def light(tokens: list[int]) -> list[float]:
    return [(0.75 * tokens[0] + 0.25 * tokens[1]) / 8, tokens[1] / 8]


def models() -> TokenModels:
    counter = SumCounter(CODES)
    counter.add(torch.tensor([0, 1]), torch.tensor([2, 3]), torch.tensor([1, 2]))
    return TokenModels(Smeared(), SimpleNamespace(), counter.counts())  # type: ignore[arg-type]


FOUND = torch.tensor([[[[0, 1], [2, 3]], [[4, 4], [0, 0]], [[1, 1], [1, 1]]], [[[2, 0], [0, 2]], [[3, 1], [3, 1]], [[0, 0], [4, 2]]]])
"""``(2, 3, 2, 2)``."""
GREYS = [[0.25, 0.125], [0.5, 0.0]]
MEANS = torch.tensor(GREYS)[:, None, :, None].repeat_interleave(4, 2).expand(-1, 1, 8, 4)


def by_hand(found: torch.Tensor, patches: int) -> list[list[float]]:
    table = []
    for candidates, grey in zip(found.tolist(), GREYS, strict=True):
        means = [[sum(both) / 2 for both in zip(*map(light, sources), strict=True)] for sources in candidates]
        table.append([16 * sum((mean[p] - grey[p]) ** 2 for p in range(patches)) for mean in means])
    return table


@pytest.mark.parametrize(("at_once", "most"), [(1, 1), (2, 2), (5, 4), (100, 9)])
def test_errors_of_candidates_are_those_of_their_decoded_means(at_once: int, most: int) -> None:
    """Of the twelve sequences nine are different."""
    made = models()
    logs = torch.tensor([[-1.0, -torch.inf, -3.0], [torch.nan, -2.0, torch.inf]])
    errors = errors_of(made, FOUND, logs, MEANS, at_once)
    wanted = torch.tensor(by_hand(FOUND, 2))
    wanted[0, 1] = wanted[1, 0] = wanted[1, 2] = torch.inf
    torch.testing.assert_close(errors, wanted)
    assert max(made.codec.decoded) == most  # type: ignore[attr-defined]


def test_one_candidate_is_taken_as_it_is() -> None:
    made = models()
    assert errors_of(made, FOUND[:, :1], torch.tensor([[-torch.inf], [0.0]]), MEANS, 9).tolist() == [[0.0], [0.0]]
    assert made.codec.decoded == []  # type: ignore[attr-defined]


@pytest.mark.parametrize("at_once", [1, 5, 100])
@pytest.mark.parametrize(("finished", "patches"), [(1, 1), (2, 2)])
def test_evidence_is_the_error_of_the_rows_that_are_finished(finished: int, patches: int, at_once: int) -> None:
    """Where a source has no token yet, it has the mixture's, whose light falls on the row above."""
    mixture = torch.tensor([[2, 4], [1, 3]])
    whole = FOUND.clone()
    whole[..., finished:] = mixture[:, None, None, finished:]
    told = rows_evidence(models(), mixture, MEANS, 0.5, at_once)(FOUND, finished)
    assert told.dtype == torch.float64
    torch.testing.assert_close(told, -0.5 * torch.tensor(by_hand(whole, patches)).double())


def test_images_are_decoded_so_many_at_a_time_and_equal_ones_once() -> None:
    codec, tokens = Smeared(), torch.tensor([[4, 4], [0, 1], [4, 4], [1, 1], [0, 1]])
    made = decoded(codec, tokens, 2)
    assert codec.decoded == [2, 1]
    assert made[:, 0, ::4, 0].tolist() == [light(one) for one in tokens.tolist()]
    assert len(decoded(codec, FOUND[0, :, 0], 0)) == 3


def test_batches_of_many_images_have_few_sizes() -> None:
    codec = Smeared()
    sizes = []
    for count in (0, 1, 31, 32, 33, 70, 130):
        tokens = torch.stack([torch.arange(count) // 16, torch.arange(count) % 16], 1)
        torch.testing.assert_close(decoded(codec, tokens, 64), decoded(codec, tokens, 3))
        sizes.append([size for size in codec.decoded if size > 3])
        codec.decoded.clear()
    assert sizes == [[], [], [31], [32], [64], [64, 6], [64, 64]]


def test_quick_takes_a_quarter_rounded_up() -> None:
    quick, paper = context(toy_task(), budget="quick"), context(toy_task())
    assert [fewer(count, quick) for count in (1, 4, 5, 512)] == [1, 1, 2, 128]
    assert [fewer(count, paper) for count in (1, 5)] == [1, 5]


def test_a_gpu_decodes_as_many_images_as_its_memory_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_candidates, "scaled", lambda most, device: (most, device))
    assert images_at_once(SimpleNamespace(device="cpu")) == 512  # type: ignore[arg-type]
    assert images_at_once(SimpleNamespace(device="cuda:1")) == (16384, "cuda:1")  # type: ignore[arg-type,comparison-overlap]


@pytest.mark.parametrize(("sampler", "draws"), [("draw", 7), ("particles", 7), ("greedy", 1), ("beam", 1)])
def test_draws_behind_an_estimate(sampler: Any, draws: int) -> None:
    assert TokenCandidates(sampler=sampler, candidates=7).posterior_samples == draws


class Calls:
    """Stands for the samplers, and writes down what they are asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Any] = []
        for name in ("draw", "search", "particles"):
            monkeypatch.setattr(token_candidates, name, getattr(self, name))

    def _drawn(self, rows: int, sources: int = 2) -> Drawn:
        start = sum(call["rows"] for call in self.asked)
        numbers = torch.arange(start, start + rows)
        return Drawn(numbers[:, None, None].expand(-1, sources, 2), numbers.double(), torch.zeros(rows))

    def draw(
        self, posterior: SequencePosterior, mixture: torch.Tensor, rule: object, noise: object, ids: torch.Tensor, number: torch.Tensor, device: str
    ) -> Drawn:
        made = self._drawn(len(mixture), len(posterior.priors))
        told = {"posterior": posterior, "rule": rule, "noise": noise, "device": device}
        self.asked.append({"rows": len(mixture), "mixture": mixture.tolist(), "ids": ids.tolist(), "number": number.tolist(), **told})
        return made

    def search(self, posterior: TokenPosterior, mixture: torch.Tensor, width: int, device: str, *, misaligned: bool) -> Drawn:
        made = self._drawn(len(mixture) * width)
        self.asked.append({"rows": len(mixture) * width, "mixture": mixture.tolist(), "width": width, "misaligned": misaligned, "device": device})
        return made

    def particles(
        self, posterior: SequencePosterior, mixture: torch.Tensor, count: int, rule: Rule, noise: object, ids: torch.Tensor, device: str, **more: Any
    ) -> Particles:
        made = self._drawn(len(mixture) * count, len(posterior.priors))
        self.asked.append(
            {"rows": len(mixture) * count, "posterior": posterior, "mixture": mixture.tolist(), "count": count, "rule": rule, "ids": ids.tolist(), **more}
        )
        nothing = torch.zeros(1)
        return Particles(made.tokens.unflatten(0, (-1, count)), made.log_posterior.unflatten(0, (-1, count)), nothing, nothing, nothing)


IDS = torch.tensor([30, 10, 20])
MIXED = torch.tensor([[1, 2], [3, 4], [0, 1]])
IMAGES = (MIXED / 8)[:, None, :, None].repeat_interleave(4, 2).expand(-1, 1, 8, 4)


def asked(monkeypatch: pytest.MonkeyPatch, sources: int = 2, budget: str = "paper", **settings: Any) -> tuple[Calls, Any, TokenCandidates, list[float], Any]:
    """Three mixtures with settings of their own, twelve token sequences at a time."""
    monkeypatch.setattr(token_candidates, "_CPU_ROWS", 12)
    calls, told = Calls(monkeypatch), list[float]()
    standard = {"codes": CODES, "candidates": 4, "top_k": 9, "nucleus": 0.75, "temperature": 0.5, "likelihood_weight": 0.25, "smoothing": 0.125}
    method = TokenCandidates(**{**standard, **settings})
    method._models = models()
    ctx = context(toy_task(), budget=budget)
    found = method.found(IMAGES, sources, IDS, ctx, told.append)
    return calls, found, method, told, ctx


def test_draws_are_those_of_every_mixture_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (tokens, logs), method, told, ctx = asked(monkeypatch)
    rows = [call["rows"] for call in calls.asked]
    assert rows == [6, 6]
    for name, each in (("ids", IDS.tolist()), ("mixture", MIXED.tolist())):
        assert [one for call in calls.asked for one in call[name]] == [one for one in each for _ in range(4)]
    assert [one for call in calls.asked for one in call["number"]] == [0, 1, 2, 3] * 3
    call = calls.asked[0]
    assert (call["rule"], call["noise"], call["device"]) == (Rule(0.5, 9, 0.75), ctx.noise, "cpu")
    posterior, known = call["posterior"], method.fitted()
    assert posterior.priors == (known.prior, known.prior)
    assert (posterior.weight, posterior.likelihood.smoothing, posterior.likelihood.counts) == (0.25, 0.125, known.sums)
    assert tokens.shape == (3, 4, 2, 2)
    assert tokens[..., 0, 0].tolist() == logs.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert told == [0.5, 1.0]


def test_all_pairs_may_be_drawn_and_quick_draws_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (tokens, _), *_ = asked(monkeypatch, budget="quick", top_k=0, nucleus=1.0)
    assert calls.asked[0]["rule"] == Rule(0.5, None, 1.0)
    assert tokens.shape == (3, 1, 2, 2)


def test_greedy_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (tokens, _), *_ = asked(monkeypatch, sampler="greedy")
    assert isinstance(calls.asked[0]["rule"], Greedy)
    assert tokens.shape == (3, 1, 2, 2)


@pytest.mark.parametrize("misaligned", [False, True])
def test_beams_of_a_mixture_stay_together(misaligned: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (tokens, _), _, told, _ = asked(monkeypatch, sampler="beam", misaligned=misaligned)
    assert [call["mixture"] for call in calls.asked] == [[row] for row in MIXED.tolist()]
    assert {(call["width"], call["misaligned"], call["device"]) for call in calls.asked} == {(4, misaligned, "cpu")}
    assert tokens.shape == (3, 4, 2, 2)
    assert told == pytest.approx([1 / 3, 2 / 3, 1.0])


@pytest.mark.parametrize(("candidates", "parts"), [(4, [1, 1, 1]), (3, [2, 1]), (99, [1, 1, 1])])
def test_particles_are_of_as_many_mixtures_as_fit(candidates: int, parts: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    calls, (tokens, logs), _, told, _ = asked(monkeypatch, sampler="particles", candidates=candidates)
    assert [len(call["mixture"]) for call in calls.asked] == parts
    assert [one for call in calls.asked for one in call["ids"]] == IDS.tolist()
    assert all((call["evidence"], call["every"], call["rule"]) == (None, 1, Rule(0.5, 9, 0.75)) for call in calls.asked)
    assert tokens.shape == (3, candidates, 2, 2)
    assert logs.shape == (3, candidates)
    assert told[-1] == 1.0
    assert len(told) == len(parts)


def test_particles_with_evidence_look_at_their_own_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, _, method, *_ = asked(monkeypatch, sampler="particles", evidence=2.0)
    for row, call in enumerate(calls.asked):
        found = FOUND[:1]
        wanted = rows_evidence(method.fitted(), MIXED[row : row + 1], IMAGES[row : row + 1], 2.0, 512)
        torch.testing.assert_close(call["evidence"](found, 1), wanted(found, 1))


@pytest.mark.parametrize("sampler", ["draw", "particles"])
def test_more_sources_go_through_a_tree_whose_counts_are_made_once(sampler: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    counts = models().sums

    def count(codec: object, images: object, sizes: tuple[int, int], mixtures: int, seed: int) -> SumCounts:
        made.append((images, sizes, mixtures, seed))
        return SumCounts(counts.codes, counts.keys, counts.counts + len(made))

    monkeypatch.setattr(token_candidates, "own_images", lambda codec, prior, many, seed: (prior, many, seed))
    monkeypatch.setattr(token_candidates, "count_partial_sums", count)
    calls, (tokens, _), method, *_ = asked(monkeypatch, sources=3, partial_mixtures=77, sampler=sampler)
    prior = method.fitted().prior
    assert made == [((prior, 4096, 0), (2, 1), 77, 0)]
    assert [call["rows"] for call in calls.asked] == [4, 4, 4]
    assert tokens.shape == (3, 4, 3, 2)
    posterior = calls.asked[0]["posterior"]
    assert isinstance(posterior, TreePosterior)
    assert (posterior.priors, posterior.weight, calls.asked[0]["rule"]) == ((prior,) * 3, 0.25, Rule(0.5, 9, 0.75))
    whole = posterior.tree.likelihood
    assert (whole.counts.counts.tolist(), whole.smoothing) == ((counts.counts + 1).tolist(), 0.125)
    assert posterior.tree.left.likelihood.counts is method.fitted().sums
    method.found(IMAGES, 3, IDS, context(toy_task()))
    assert len(made) == 1
    monkeypatch.setattr(token_candidates, "_OWN_IMAGES", 2)
    method.found(IMAGES, 5, IDS, context(toy_task()))
    assert [(images[1], sizes) for images, sizes, *_ in made] == [(4096, (2, 1)), (5, (3, 2))]


def test_a_gpu_makes_as_many_sequences_as_its_memory_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, method = Calls(monkeypatch), TokenCandidates(codes=CODES, candidates=4)
    asked_for: list[Any] = []
    monkeypatch.setattr(token_candidates, "scaled", lambda most, device: (asked_for.append((most, device)), 8)[1])
    method._models = models()
    method.found(IMAGES, 2, IDS, replace(context(toy_task()), device="cuda:1"))
    assert asked_for == [(65536, "cuda:1")]
    assert [call["rows"] for call in calls.asked] == [4, 4, 4]
    assert {call["device"] for call in calls.asked} == {"cuda:1"}


@pytest.mark.parametrize(
    ("settings", "sources", "task", "note"),
    [
        ({}, 2, {}, ""),
        ({}, 2, {"operator": "gain"}, "m counts tokens of means; operator 'gain' weighs sources differently"),
        ({}, 2, {"shape": (1, 8, 6)}, "m takes images whose height and width are multiples of 4"),
        ({}, 2, {"shape": (1, 6, 8)}, "m takes images whose height and width are multiples of 4"),
        ({"sampler": "beam"}, 3, {}, "m has its beam for two sources, the task has 3; use --set m.sampler=draw"),
        ({"sampler": "particles"}, 4, {}, ""),
        ({"sampler": "beam"}, 2, {}, ""),
        ({"sampler": "greedy"}, 3, {}, ""),
        ({"codes": 512}, 3, {}, ""),
        ({"codes": 513}, 3, {}, "m sums over all triples of codes where there are more than two sources, for at most 512 codes"),
        ({"codes": 513}, 2, {}, ""),
        ({}, 1, {}, "m separates two sources or more, the task has one"),
    ],
)
def test_tasks_that_tokens_can_separate(settings: dict[str, Any], sources: int, task: dict[str, Any], note: str) -> None:
    spec = toy_task(classes=tuple("abcd"[:sources]), **task)
    assert TokenCandidates(**settings).token_support(spec, "m") == Support(not note, note)
