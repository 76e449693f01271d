"""What every worker of a test run does before its first test, made cheaper. Nothing here changes what is collected.

A worker imports all test files, and pytest rewrites the asserts of each: half a minute in a fresh clone. All workers begin at the same time with
the same file, so that each would rewrite all of them. Here every worker rewrites a share first, into the files in which pytest keeps them.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _pytest.assertion import rewrite


def share_the_rewriting(config: pytest.Config, files: list[Path]) -> None:
    """Rewrite those of this worker's files that nobody has rewritten yet. Without workers, or without pytest's own functions, pytest does it alone."""
    worker = getattr(config, "workerinput", None)
    wanted = ("_read_pyc", "_rewrite_test", "_write_pyc", "get_cache_dir", "assertstate_key", "PYC_TAIL")
    if worker is None or sys.dont_write_bytecode or config.option.assertmode != "rewrite" or not all(hasattr(rewrite, name) for name in wanted):
        return
    state = config.stash[rewrite.assertstate_key]
    for file in files[int(worker["workerid"].removeprefix("gw")) :: worker["workercount"]]:
        kept = rewrite.get_cache_dir(file) / (file.stem + rewrite.PYC_TAIL)
        kept.parent.mkdir(exist_ok=True)
        if rewrite._read_pyc(file, kept) is None:
            source, code = rewrite._rewrite_test(file, config)
            rewrite._write_pyc(state, code, source, kept)


@contextmanager
def without_garbage() -> Iterator[None]:
    """No search for garbage while millions of objects are made that stay; afterwards Python's collector never looks at them again."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
