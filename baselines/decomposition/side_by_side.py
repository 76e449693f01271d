"""Independent pieces of a batch side by side on the CPU.

Each piece has its own Python thread, in which torch has one thread. Decompositions of many small matrices (QR, eigh)
hardly gain from several threads inside each call, and their last bits depend on the number of threads. With one thread
per piece they use every core, and the results are the same on every machine, for any number of cores.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from threadpoolctl import ThreadpoolController


def pieces_at_once(rows: int, largest: int, device: torch.device) -> int:
    """Rows per piece: at most ``largest``, and on the CPU few enough that every thread gets some."""
    workers = torch.get_num_threads() if device.type == "cpu" else 1
    return max(1, min(largest, -(-rows // workers)))


def side_by_side(function: Callable[[torch.Tensor], torch.Tensor], batch: torch.Tensor, largest: int) -> torch.Tensor:
    """``function`` on pieces of ``batch`` along dimension 0, at most ``largest`` rows each.

    The results are concatenated in order.

    Args:
        function: treats every row by itself, and has no state. torch does not split its work on the CPU.
        batch: ``(B, ...)``, B > 0. On a GPU the pieces follow one another.
        largest: bounds memory. As many pieces as torch has threads are handled at a time.

    Raises:
        Exception: what ``function`` raises, after the running pieces have ended.
    """
    pieces = batch.split(pieces_at_once(len(batch), largest, batch.device))
    if batch.device.type != "cpu":
        return torch.cat([function(piece) for piece in pieces])
    # Not torch.set_num_threads: any thread's call sets it for the whole process, and batched LU decompositions go
    # wrong from then on.
    openmp = ThreadpoolController().select(user_api="openmp")
    inference, gradients = torch.is_inference_mode_enabled(), torch.is_grad_enabled()

    def work(piece: torch.Tensor) -> torch.Tensor:
        torch.get_num_threads()  # torch sets a thread's number at its first question: ask before the limit, not after
        with openmp.limit(limits=1), torch.inference_mode(inference), torch.set_grad_enabled(gradients):  # all three are per thread
            return function(piece)

    with ThreadPoolExecutor(min(torch.get_num_threads(), len(pieces))) as pool:
        return torch.cat(list(pool.map(work, pieces)))
