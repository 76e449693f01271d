"""``sepbench report --serve``: the report on the loopback address, made anew while its runs go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from sepbench.errors import SepbenchError
from sepbench.report.html.page import Options, write_report

ADDRESS = "127.0.0.1"
_EVERY = 10.0
"""Seconds between two looks at the runs."""


class _Handler(SimpleHTTPRequestHandler):
    """Files of one folder, for pages of this machine only."""

    def send_head(self) -> Any:
        # A page of another site could have its name lead here (DNS rebinding): such a request names that site.
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in (ADDRESS, "localhost"):
            self.send_error(HTTPStatus.FORBIDDEN)
            return None
        return super().send_head()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        pass


def make_server(folder: Path, port: int) -> ThreadingHTTPServer:
    """A server of a folder on the loopback address; port 0 takes a free one.

    Raises:
        SepbenchError: the port is taken.
    """
    try:
        return ThreadingHTTPServer((ADDRESS, port), partial(_Handler, directory=str(folder)))
    except OSError as error:
        raise SepbenchError(f"port {port} cannot be had ({error.strerror}); choose another with --port") from error


def state_of(targets: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """What of the targets changes while a run goes on: names, sizes and times of its scores and records."""
    found = []
    for target in targets:
        path = Path(target)
        files = [path] if path.is_file() else [*path.glob("run.json"), *path.glob("cells/*"), *path.glob("scores/**/*")]
        for file in files:
            try:
                known = file.stat()
            except OSError:  # replaced this moment
                continue
            found.append((str(file), known.st_size, known.st_mtime_ns))
    return tuple(sorted(found))


def serve_report(targets: Sequence[str], folder: Path, options: Options, port: int, warn: Callable[[str], None], tell: Callable[[str], None]) -> None:
    """Write the report, show it, and write it again when a target has changed; until Ctrl-C.

    Raises:
        SepbenchError: see ``write_report``; later ones are only told, for a run that goes on may be read while it is half written.
    """
    seen = state_of(targets)
    write_report(targets, folder, options, warn)
    server = make_server(folder, port)
    address = f"http://{ADDRESS}:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    tell(f"{address} (Ctrl-C ends it)")
    stop = threading.Event()
    try:
        while not stop.wait(_EVERY):
            now = state_of(targets)
            if now != seen:
                try:
                    write_report(targets, folder, options, warn)
                    seen = now
                except SepbenchError as error:
                    warn(f"not made anew: {error}")
    except KeyboardInterrupt:
        pass
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
