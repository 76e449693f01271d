"""Independent pieces of a batch side by side on the CPU: each on a Python thread of its own, in which torch has one thread.

Decompositions of many small matrices (QR, eigh) hardly gain from several threads inside each call, and their last bits depend on how many there
are. Pieces on one thread each use every core, and come out the same on every machine, however many cores it has.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import ThreadpoolController


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
    # Not torch.set_num_threads: whichever thread calls it, it is set for the process, and batched LU decompositions go wrong from then on.
    openmp = ThreadpoolController().select(user_api="openmp")
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work(piece: torch.Tensor) -> torch.Tensor:
        torch.get_num_threads()  # a thread's number is set when torch first asks for it: before it is limited, then, not after
        with openmp.limit(limits=1), torch.inference_mode(inference), torch.set_grad_enabled(gradients):  # all three are the thread's own
            return function(piece)

    with ThreadPoolExecutor(min(torch.get_num_threads(), len(pieces))) as pool:
        return torch.cat(list(pool.map(work, pieces)))
