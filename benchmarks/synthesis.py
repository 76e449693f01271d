"""Speed of the synthesiser: seconds of song (both stems) per second of one core.

OMP_NUM_THREADS=1 python benchmarks/synthesis.py [--songs 20]

Counted in processor time, so that other work on the machine disturbs little; a whole split is rendered in (songs of the split) x (seconds per song).
"""

from __future__ import annotations

import argparse
import statistics
import time

from sepbench.data.synthesis.layout import SAMPLE_RATE, SONG_LENGTH, SPLITS, song_keys
from sepbench.data.synthesis.songs import compose, render


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--songs", type=int, default=20)
    arguments = parser.parse_args()
    render(compose("warm-up"))
    composing, rendering = list[float](), list[float]()
    for key in song_keys("test")[: arguments.songs]:
        start = time.process_time()
        song = compose(key)
        middle = time.process_time()
        render(song)
        composing.append(middle - start)
        rendering.append(time.process_time() - middle)
    duration = SONG_LENGTH / SAMPLE_RATE
    totals = [a + b for a, b in zip(composing, rendering, strict=True)]
    print(f"{len(totals)} songs of {duration:.1f} s, both stems, one core")
    print(f"composing {statistics.mean(composing) * 1e3:.0f} ms, rendering {statistics.mean(rendering) * 1e3:.0f} ms per song")
    speeds = [duration / total for total in totals]
    print(f"{duration / statistics.mean(totals):.0f} x real time on average, {min(speeds):.0f} x for the slowest song, {max(speeds):.0f} x for the fastest")
    for split in SPLITS:
        print(f"{split}: {len(song_keys(split))} songs, about {len(song_keys(split)) * statistics.mean(totals):.0f} s")


if __name__ == "__main__":
    main()
