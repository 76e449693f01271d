"""How far unconditional samples of shipped CIFAR-10 priors are from training images: FID, its limit and KID on ``cifarnet``'s features.

    SEPBENCH_DATA=... OMP_NUM_THREADS=1 python benchmarks/prior_samples.py cifar10-all [3d7785a:cifar10-mini-all ...] [--samples 1000]

``COMMIT:NAME`` takes weights out of the history. Each prior draws ``--samples`` samples from the same noise, in bfloat16; as many test images, and two
sets of them averaged in pairs (what ``average`` makes of true sources), stand beside them. The reference is that of ``cifar10-pairs``. Rows replace
those of the same name and number in ``benchmarks/results/prior_samples.csv``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import pandas as pd
import torch
from psnr_of_training import stage

from baselines.priors.score_prior import EDMPrior
from baselines.priors.shipped import FOLDER
from baselines.priors.weights_io import load_prior
from baselines.training.samples import draw_samples
from sepbench.data.datasets import open_dataset
from sepbench.metrics.sets.extractors import eight_bits, extracted, get_extractor
from sepbench.metrics.sets.features import SetReference
from sepbench.metrics.sets.frechet import frechet_limit_values, frechet_values, smallest_for_limit
from sepbench.metrics.sets.kernel import kernel_values
from sepbench.metrics.sets.references import keep_reference, read_reference
from sepbench.noise import NoiseSource
from sepbench.suites.loader import load_suite

CSV = Path(__file__).parent / "results" / "prior_samples.csv"
EXTRACTOR = "cifarnet"
AT_ONCE = 100


def prior_of(text: str) -> EDMPrior:
    commit, _, name = text.rpartition(":")
    with tempfile.TemporaryDirectory() as folder:
        path = stage(commit, name, Path(folder))[0] if commit else FOLDER / f"{name}.safetensors"
        prior = load_prior(path, precision="bfloat16")
    assert isinstance(prior, EDMPrior)
    return prior


def drawn(prior: EDMPrior, count: int, device: str) -> torch.Tensor:
    denoiser, parts = prior.denoiser, []
    for seed in range(-(-count // AT_ONCE)):
        start = (denoiser.mean, denoiser.sigma_data)
        parts.append(draw_samples(prior, AT_ONCE, NoiseSource(seed), sigma_range=(0.01, prior.sigma_range[1]), start=start, device=device).cpu())
        print(f"\r{AT_ONCE * len(parts)} samples", end="", flush=True)
    print()
    return torch.cat(parts)[:count].clamp(0, 1)


def row(name: str, images: torch.Tensor, reference: SetReference, device: str) -> dict[str, object]:
    features = extracted(get_extractor(EXTRACTOR), eight_bits(images), device)[0].numpy()
    limit = frechet_limit_values(lambda: iter([features]), reference.frechet, torch.rand(len(images), generator=torch.Generator().manual_seed(0)).numpy())
    found = {"images": name, "number": len(images), "fid_cifarnet": round(float(frechet_values(lambda: iter([features]), reference.frechet).mean()), 3)}
    if len(images) >= smallest_for_limit(features.shape[1]):
        found["fid_inf_cifarnet"] = round(float(limit.mean()), 3)
    return found | {"kid_cifarnet": round(float(kernel_values(lambda: iter([features]), reference.features).values.mean()), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("priors", nargs="+")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    kept = keep_reference(load_suite("cifar10-pairs").tasks["class-agnostic"], get_extractor(EXTRACTOR), args.device)
    reference, test = read_reference(kept.path), open_dataset("cifar10", "test").load(torch.arange(2 * args.samples))
    rows = [row("test images", test[: args.samples], reference, args.device)]
    rows.append(row("test images averaged in pairs", test.unflatten(0, (args.samples, 2)).mean(1), reference, args.device))
    for text in args.priors:
        start = time.process_time()
        samples = drawn(prior_of(text), args.samples, args.device)
        rows.append(row(text, samples, reference, args.device) | {"seconds_per_sample": round((time.process_time() - start) / args.samples, 3)})
    table = pd.DataFrame(rows)
    if CSV.exists():
        table = pd.concat([pd.read_csv(CSV), table]).drop_duplicates(["images", "number"], keep="last")
    table.to_csv(CSV, index=False)
    print(table.to_string(index=False))


if __name__ == "__main__":
    main()
