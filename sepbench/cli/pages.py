"""Long output through the user's pager, as git does it: only where stdout is a terminal that it does not fit on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

NOT_FOUND = 127
"""What a shell ends with whose command is not there."""


def print_in_pages(draw: Callable[[Console], None], wanted: bool = True) -> None:
    """Draw on stdout, through ``PAGER`` (``less`` by default) where the output has more lines than the terminal.

    Args:
        draw: prints on the console that it is given.
        wanted: False prints in any case. So do an empty ``PAGER``, and one that is not installed.
    """
    from rich.console import Console

    console = Console()
    pager = os.environ.get("PAGER", "less").strip()
    if not (wanted and pager and console.is_terminal and sys.stdout.isatty()):
        draw(console)
        return
    with console.capture() as captured:
        draw(console)
    text = captured.get()
    if text.count("\n") < console.height or not _through(pager, text):
        sys.stdout.write(text)
        sys.stdout.flush()


def _through(pager: str, text: str) -> bool:
    """Hand text to a pager; False if there is none of this name. A reader who leaves early has read enough."""
    environment = {"LESS": "FRX", **os.environ}  # colours, and no pager where it fits after all
    process = subprocess.Popen(pager, shell=True, stdin=subprocess.PIPE, env=environment)
    try:
        process.communicate(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
    except KeyboardInterrupt:  # the pager's own business
        process.wait()
    return process.returncode != NOT_FOUND
