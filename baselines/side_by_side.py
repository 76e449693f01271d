"""Independent pieces of a batch side by side on the CPU: each on a Python thread of its own, in which torch has one thread.

Decompositions of many small matrices (QR, eigh) hardly gain from several threads inside each call, and their last bits depend on how many there
are. Pieces on one thread each use every core, and come out the same on every machine, however many cores it has.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch


def pieces_at_once(rows: int, largest: int, device: torch.device) -> int:
    """Rows per piece: at most ``largest``, and few enough that every thread gets some where ``rows`` lie on the CPU."""
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    return max(1, min(largest, -(-rows // workers)))


def side_by_side(function: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, largest: int) -> torch.Tensor:
    """``function`` on pieces of ``batch`` along dimension 0, at most ``largest`` rows each, its results concatenated in order.

    Args:
        function: row by row independent, and free of state; torch does not split its work on the CPU.
        batch: ``(B, ...)``, B > 0. On a GPU the pieces follow one another.
        largest: bounds memory: as many pieces as torch has threads are in work at a time.

    Raises:
        whatever ``function`` raises, once the pieces in work have ended.
    """
    pieces = batch.split(pieces_at_once(len(batch), largest, batch.device))
    if batch.device.type != "cpu":
        return torch.cat([function(piece) for piece in pieces])
    threads = torch.get_num_threads()
    workers = min(threads, len(pieces))
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work(piece: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients):  # both are set per thread
            return function(piece)

    with ThreadPoolExecutor(workers) as pool:
        _limit_to_one_thread(pool, workers, threads)
        return torch.cat(list(pool.map(work, pieces)))


def _limit_to_one_thread(pool: ThreadPoolExecutor, workers: int, threads: int) -> None:
    """Start the pool's threads, each with one torch thread; the caller keeps its ``threads``.

    ``set_num_threads`` counts for the thread that calls it and for those that use torch for the first time later. A thread therefore asks for its
    number first, which would otherwise be set at its first operation, and the caller sets its own again.
    """
    all_started = threading.Barrier(workers + 1)

    def start() -> None:
        torch.get_num_threads()
        torch.set_num_threads(1)
        all_started.wait()

    started = [pool.submit(start) for _ in range(workers)]
    all_started.wait()
    torch.set_num_threads(threads)
    for one in started:
        one.result()
