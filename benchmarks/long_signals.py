"""Peak memory of the audio methods on long signals, each in a fresh process: what a method holds beyond the signals themselves.

::

    python benchmarks/long_signals.py [--minutes 1 10] [--chunks 100 1000] [--methods hpss,repet-sim] [--rate 22050]

For every method one mixture of so many minutes (mono, drums and bass made here, float32), then so many chunks of 3 s in batches of the method's own
size. ``signals`` is the memory of mixture and estimates, which nobody can save where one signal is the whole batch; chunks are dropped once separated.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

METHODS = ("average", "ica", "rpca", "hpss", "repet", "repet-sim", "ft2d", "nmf-blind")
SECONDS = 3.0


def peak_mib() -> float:
    """The largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(method: str, seconds: float, count: int, rate: int) -> dict[str, float]:
    """Separate ``count`` mixtures of so many seconds; peak MiB above the start, MiB of the signals of the largest batch, and seconds of work."""
    import torch
    from nussl_speed import drums_and_bass

    from sepbench.noise import NoiseSource
    from sepbench.operators import make_operator
    from sepbench.protocols import Mixtures, RunContext, TaskSpec
    from sepbench.registry import create_separator
    from sepbench.run.timing import keep_freed_memory

    keep_freed_memory()  # as `sepbench run` does
    length = round(seconds * rate)
    spec = TaskSpec("benchmark", method, "audio", 2, (1, length), "mean", ("a", "b"), "permutation", (0, 1), sample_rate=rate, datasets=("none", "none"))
    separator = create_separator(method, domain="audio")
    operator, ctx = make_operator("mean", 2), RunContext(spec, "cpu", NoiseSource(0), 0)
    bar = torch.from_numpy(drums_and_bass(0)).float()
    batch = min(count, separator.info.max_batch, 64)
    before, begin = peak_mib(), time.perf_counter()
    for start in range(0, count, batch):
        ids = torch.arange(start, min(start + batch, count))
        # Another gain and another start for every mixture: none is a copy of another one.
        values = torch.stack([(0.5 + 0.001 * i) * bar.roll(37 * i).repeat(-(-length // len(bar)))[:length] for i in ids.tolist()])
        estimates = separator.separate(Mixtures(values.unsqueeze(1), ids, operator), ctx)
    assert bool(torch.isfinite(estimates).all())
    return {"peak": peak_mib() - before, "signals": 3 * batch * length * 4 / 2**20, "seconds": time.perf_counter() - begin}


def in_fresh_process(method: str, seconds: float, count: int, rate: int) -> dict[str, float]:
    code = f"import json, long_signals; print(json.dumps(long_signals.measure({method!r}, {seconds}, {count}, {rate})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=sys.path[0], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{method}: {done.stderr.strip().splitlines()[-1]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="*", default=[1, 10])
    parser.add_argument("--chunks", type=int, nargs="*", default=[100, 1000])
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--rate", type=int, default=22_050)
    args = parser.parse_args()
    print(f"{'method':<10} {'mixtures':>20} {'peak':>12} {'signals':>12} {'work':>9}")
    for method in args.methods.split(","):
        works = [(60 * minutes, 1, f"one of {minutes:g} min") for minutes in args.minutes]
        works += [(SECONDS, count, f"{count:,} of {SECONDS:g} s") for count in args.chunks]
        for seconds, count, title in works:
            found = in_fresh_process(method, seconds, count, args.rate)
            print(f"{method:<10} {title:>20} {found['peak']:>8.0f} MiB {found['signals']:>8.0f} MiB {found['seconds']:>7.1f} s", flush=True)


if __name__ == "__main__":
    main()
