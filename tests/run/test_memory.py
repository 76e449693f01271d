"""Freed memory stays with the process: counted in page faults, not in seconds."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import resource, sys
import numpy as np
from sepbench.run.timing import keep_freed_memory
print(keep_freed_memory() if sys.argv[1] == "keep" else None)
def layers():
    return [np.ones(20 << 20, dtype=np.uint8) for _ in range(8)]
for _ in range(3):
    layers()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    layers()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str, **environment: str) -> tuple[str, int]:
    """What the function returned, and the page faults of five rounds of 8 x 20 MiB made and freed."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_") and name != "GLIBC_TUNABLES"}
    done = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True, env={**kept, **environment})
    answer, count = done.stdout.split()
    return answer, int(count)


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
def test_what_was_freed_is_not_paged_in_again() -> None:
    answer, kept = faults("keep")
    assert answer == "True"
    assert kept * 20 < faults("as it is")[1]


@pytest.mark.skipif(not GLIBC, reason="another C library than glibc")
@pytest.mark.parametrize("name", ["MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_"])
def test_a_user_s_own_setting_is_left_alone(name: str) -> None:
    assert faults("keep", **{name: "131072"})[0] == "False"


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from sepbench.run import timing

    monkeypatch.setattr(timing.platform, "libc_ver", lambda: ("", ""))
    assert timing.keep_freed_memory() is False
