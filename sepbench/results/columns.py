"""Columns and file names of a run's folder: the one place that says what a result looks like.

::

    RUN/
      run.json                                     provenance, see ``run/provenance.py``
      cells/<task>--<method>.json                  state of one (task, method): fit seconds, peak memory, notes, errors
      estimates/<task>--<method>--<shard>.safetensors   ``estimates`` (n, K, ...) float32, ``example_ids`` (n,) int64, ``seconds`` (n,) float64
                                                   (``estimates`` (n, N, K, ...) where the suite scores N posterior draws)
      scores/<task>--<method>--<shard>.parquet     one row per (example, source, metric)
      leaderboard.csv                              one row per (task, method, metric)
"""

from __future__ import annotations

SCORE_COLUMNS = ("suite", "task", "method", "example", "source", "metric", "value", "seconds", "error")
"""``source`` is -1 for metrics of a whole mixture and for failed examples; ``value`` is NaN and ``error`` one line where an example failed."""

LEADERBOARD_COLUMNS = (
    "suite",
    "suite_version",
    "task",
    "task_digest",
    "method",
    "method_version",
    "weights_sha256",
    "supervision",
    "metric",
    "unit",
    "higher_is_better",
    "mean",
    "std",
    "median",
    "ci_low",
    "ci_high",
    "n_expected",
    "n_scored",
    "n_failed",
    "samples",
    "seconds_per_mixture",
    "timing_group",
    "peak_mb",
    "device",
    "budget",
    "seed",
    "published",
    "published_source",
    "sepbench_version",
    "git_sha",
    "command",
)

ADDED_COLUMNS = ("weights_sha256",)
"""Columns that leaderboards of earlier versions lack; read as empty."""

CELL_STATES = ("done", "failed", "unsupported", "partial")


def cell_key(task: str, method: str) -> str:
    """File stem of a (task, method); neither name may contain ``--``."""
    return f"{task}--{method}"
