"""museval and ``sepbench evaluate`` on the same WAV files: the largest difference of their SDR.

    python benchmarks/evaluate_museval.py [--count 50] [--folder FOLDER]

``export`` writes mixtures and references of drums-bass-synth, by-role (synthesised, no download). The estimates are made of the written files alone:
each source leaks into the other, through a short echo, with noise 40 dB below full scale, as 16-bit WAV. ``evaluate`` scores them, and museval
(BSS Eval v4, windows of one second, its own defaults otherwise) scores the same files against the exported references.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from sepbench.compat import import_museval, import_soundfile
from sepbench.results.evaluation import evaluate_estimates
from sepbench.suites.export import export_task
from sepbench.suites.loader import load_suite

SUITE, TASK = "drums-bass-synth", "by-role"

Floats = npt.NDArray[np.float64]


def make_estimates(references: Path, out: Path, count: int) -> None:
    """``000012_1.wav`` and ``000012_2.wav`` of every mixture, 16 bits."""
    soundfile, rng = import_soundfile(), np.random.Generator(np.random.PCG64(0))
    out.mkdir()
    for example in range(count):
        sources = [soundfile.read(references / f"{example:06d}_{k}.wav") for k in (1, 2)]
        for k, ((own, rate), (other, _)) in enumerate(zip(sources, sources[::-1], strict=True), 1):
            echo = np.concatenate([np.zeros(40), other[:-40]])
            estimate = 0.8 * own + 0.15 * other - 0.05 * echo + 0.01 * rng.standard_normal(len(own))
            soundfile.write(out / f"{example:06d}_{k}.wav", estimate.clip(-0.99, 0.99), rate, subtype="PCM_16")


def by_museval(references: Path, estimates: Path, example: int) -> dict[str, Floats]:
    """Median and mean over windows of museval's SDR, one value per source."""
    soundfile = import_soundfile()
    (true, rate), (found, _) = (_read(soundfile, folder, example) for folder in (references, estimates))
    windows = import_museval().evaluate(true, found, win=rate, hop=rate)[0]
    return {"sdr": np.nanmedian(windows, axis=1), "sdr_mean": np.nanmean(windows, axis=1)}


def _read(soundfile: object, folder: Path, example: int) -> tuple[Floats, int]:
    signals = [soundfile.read(folder / f"{example:06d}_{k}.wav", always_2d=True) for k in (1, 2)]  # type: ignore[attr-defined]
    return np.stack([signal for signal, _ in signals]), signals[0][1]


def compare(folder: Path, count: int) -> dict[str, tuple[Floats, Floats]]:
    """By metric: ours and museval's values ``(count, 2)`` in dB."""
    suite = load_suite(SUITE)
    export_task(suite, suite.tasks[TASK], folder / "export", form="wav", references=True, limit=count)
    references, estimates = folder / "export" / "references", folder / "estimates"
    make_estimates(references, estimates, count)
    scores = evaluate_estimates(suite, TASK, estimates, "leaky", folder / "run", limit=count).read_scores()
    theirs = [by_museval(references, estimates, example) for example in range(count)]
    found = {}
    for metric in ("sdr", "sdr_mean"):
        rows = scores[scores["metric"] == metric].sort_values(["example", "source"])
        ours = rows["value"].to_numpy().reshape(count, 2)
        found[metric] = (ours, np.stack([values[metric] for values in theirs]))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--folder", type=Path, help="keep the files here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for metric, (ours, theirs) in compare(options.folder or Path(temporary), options.count).items():
            spread = f"{ours.size} values from {ours.min():.2f} to {ours.max():.2f} dB"
            print(f"{metric}: {spread}, largest difference from museval {np.abs(ours - theirs).max():.2e} dB")


if __name__ == "__main__":
    main()
