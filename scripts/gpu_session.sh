#!/usr/bin/env bash
# One loan of a GPU, used as well as its minutes allow: correctness first, then timings alone, then training and leaderboards in order of value.
# Run in the repository's root on a machine with a GPU, with sepbench importable and data in $SEPBENCH_DATA (what is not there is left out).
#
#   bash scripts/gpu_session.sh MINUTES [OUT]
#
# OUT (default: ./gpu-session) gets at most eight files under 16 MB: table.md (measured beside "to reach"), timings.jsonl, session.json,
# results.tar.gz (leaderboards and logs) and trained weights. It is brought up to date while the session runs, so that a session which is stopped
# at any moment loses what was under way at most; the same command goes on where it stopped. What is too large to be kept lies in OUT.work.
# SEPBENCH_GPU_SESSION=tiny runs all of it on the CPU in less than a minute, at sizes whose figures mean nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export SEPBENCH_OFFLINE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" scripts/gpu_session.py "$@"
