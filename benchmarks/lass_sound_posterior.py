"""Where LASS on sound loses: in the codec, in the counts, or in the search.

    python benchmarks/lass_sound_posterior.py --fit FOLDER [--suite drums-bass-synth] [--task by-role-val] [--examples 50]

``FOLDER`` holds codec, priors and counts, as a run keeps them (``fits/lass.audio/*/fitted`` in the cache). For every mixture the tokens of its true
parts are known. Each line is a mean over mixtures, and tells:

* the SDR of the true tokens' masks, which no choice of tokens passes by much;
* how many true triples (m, z1, z2) were never counted, so that no search can find them;
* the log posterior per token, under each lambda, of the true tokens (over positions whose triple was counted), of the greedy ones and of draws; and
  the SDR of the last two. If the greedy tokens are likelier than the true ones, a better search would not help.

Rows go to ``benchmarks/results/lass_sound_posterior.csv``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from baselines.lass_audio import LatentSoundSeparation
from baselines.priors.token_sums import SumLikelihood
from baselines.sampling.token_samplers import Drawn, Greedy, Rule, TokenPosterior, draw
from baselines.training.sound_tokens import SoundModels
from sepbench.metrics.catalogue import pair_metric
from sepbench.noise import NoiseSource
from sepbench.operators import make_operator
from sepbench.protocols import RunContext
from sepbench.suites.loader import load_suite

RESULTS = Path(__file__).parent / "results" / "lass_sound_posterior.csv"
LAMBDAS = (1.0, 3.0)


def sdr_of(tokens: torch.Tensor, models: SoundModels, mixtures: torch.Tensor, truth: torch.Tensor, spec: Any) -> float:
    """dB, mean over mixtures and sources of what token pairs ``(B, 2, S)`` make of mixtures ``(B, 1, T)``."""
    with torch.no_grad():
        pictures = models.codec.decode(models.codec.embed(tokens.flatten(0, 1))).unflatten(0, tokens.shape[:2])
    spectra = models.front.stft.forward(mixtures)
    masks = models.front.masks(models.front.shares(pictures), spectra.shape[-1])
    weights = make_operator(spec.operator, spec.n_sources).matrix().reshape(1, -1, 1, 1)
    estimates = models.front.stft.inverse(spectra.unsqueeze(1) * masks, mixtures.shape[-1]) / weights
    scores = pair_metric("sdr", spec).pairwise(estimates, truth)
    return float(torch.as_tensor(scores).diagonal(dim1=1, dim2=2).nanmean())


def counted(models: SoundModels, mixed: torch.Tensor, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whether the triples of ``(B, S)`` and ``(B, 2, S)`` were counted, and their log likelihood (0 where not): ``(B, S)`` each."""
    codes, keys = models.sums.codes, models.sums.keys
    wanted = (mixed * codes + pairs[:, 0]) * codes + pairs[:, 1]
    place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
    seen = keys[place] == wanted
    of_pair, where = (keys % codes**2).unique(return_inverse=True)
    totals = torch.zeros(len(of_pair), dtype=torch.int64).index_add_(0, where, models.sums.counts)
    logs = (models.sums.counts[place].double() / totals[where][place].double()).log()
    return seen, torch.where(seen, logs, 0.0)


def per_token(models: SoundModels, mixed: torch.Tensor, pairs: torch.Tensor, weight: float) -> float:
    """Nats: log priors and weighted log likelihood of pairs ``(B, 2, S)``, mean over tokens, of which the counted ones have a likelihood."""
    seen, logs = counted(models, mixed, pairs)
    with torch.no_grad():
        prior = sum(network.log_prob(pairs[:, which]) for which, network in enumerate(models.priors)) / pairs.shape[-1]
    return float(torch.as_tensor(prior).mean() + weight * logs[seen].mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", type=Path, required=True)
    parser.add_argument("--suite", default="drums-bass-synth")
    parser.add_argument("--task", default="by-role-val")
    parser.add_argument("--examples", type=int, default=50)
    asked = parser.parse_args()
    task = load_suite(asked.suite).tasks[asked.task]
    ids = torch.arange(asked.examples)
    ctx = RunContext(task.spec, "cpu", NoiseSource(0), 0)
    method = LatentSoundSeparation()
    method.load(asked.fit, ctx)
    models = method.fitted()
    mixtures, truth = task.mixtures(ids), task.references(ids)
    parts = truth * make_operator(task.spec.operator, 2).matrix().reshape(1, -1, 1, 1)
    mixed = models.codec.tokens_of(models.front.pictures(mixtures))
    true = torch.stack([models.codec.tokens_of(models.front.pictures(parts[:, which])) for which in (0, 1)], 1)
    likelihood = SumLikelihood(models.sums, models.codec.codebook)
    facts = {"suite": asked.suite, "task": asked.task, "n": asked.examples, "weights": method.weights_sha256[:8]}
    never = float((~counted(models, mixed, true)[0]).double().mean())
    rows: list[dict[str, Any]] = []
    for weight in LAMBDAS:
        posterior = TokenPosterior(models.priors, likelihood, weight)
        found: dict[str, Drawn] = {}
        for name, rule in (("greedy", Greedy()), ("draw", Rule())):
            found[name] = draw(posterior, mixed, rule, ctx.noise, ids, torch.zeros_like(ids))
        for name, tokens in (("true", true), *((name, one.tokens) for name, one in found.items())):
            rows.append(
                facts
                | {"lambda": weight, "tokens": name, "log_posterior": round(per_token(models, mixed, tokens, weight), 3)}
                | {"sdr": round(sdr_of(tokens, models, mixtures, truth, task.spec), 2), "never_counted": round(never, 4) if name == "true" else 0.0}
            )
    table = pd.DataFrame(rows)
    table.to_csv(RESULTS, index=False, lineterminator="\n")
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
