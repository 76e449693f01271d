"""Pieces of a batch in threads: order, thread counts, modes and errors."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from baselines.decomposition.side_by_side import pieces_at_once, side_by_side


@pytest.fixture
def two_threads() -> Iterator[None]:
    with threadpool_limits(2, user_api="openmp"):  # not torch.set_num_threads, see below
        yield


@given(rows=st.integers(1, 40), largest=st.integers(1, 9))
def test_every_row_is_in_one_piece_that_is_not_too_large(rows: int, largest: int) -> None:
    size = pieces_at_once(rows, largest, torch.device("cpu"))
    assert 1 <= size <= largest
    assert size * torch.get_num_threads() >= rows or size == largest


@pytest.mark.parametrize(("rows", "largest"), [(1, 4), (2, 4), (7, 2), (8, 100)])
def test_results_come_in_order(two_threads: None, rows: int, largest: int) -> None:
    batch = torch.arange(3 * rows, dtype=torch.float32).reshape(rows, 3)
    assert torch.equal(side_by_side(lambda piece: piece.square(), batch, largest), batch.square())


def test_a_piece_sees_one_torch_thread_and_the_callers_mode(two_threads: None) -> None:
    seen: list[tuple[int, bool, bool]] = []
    lock, both = threading.Lock(), threading.Barrier(2)

    def note(piece: torch.Tensor) -> torch.Tensor:
        both.wait(timeout=60)  # passes only if two pieces are in work at once
        with lock:
            seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), torch.is_grad_enabled()))
        return piece

    with torch.inference_mode():
        side_by_side(note, torch.zeros(4, 2), 2)
    side_by_side(note, torch.zeros(4, 2), 2)
    assert seen == [(1, True, False)] * 2 + [(1, False, True)] * 2
    assert torch.get_num_threads() == 2


def test_an_error_reaches_the_caller_and_leaves_its_threads(two_threads: None) -> None:
    def fail(piece: torch.Tensor) -> torch.Tensor:
        raise ValueError(f"row {int(piece[0, 0])}")

    with pytest.raises(ValueError, match="row 0"):
        side_by_side(fail, torch.zeros(3, 1), 1)
    assert torch.get_num_threads() == 2


def test_batched_lu_stays_right(two_threads: None) -> None:
    """``torch.set_num_threads``, in whichever thread, breaks it for the process (pytorch issues 142815 and 141358)."""
    side_by_side(lambda piece: torch.linalg.qr(piece).Q, torch.randn(4, 300, 50, generator=torch.Generator().manual_seed(0)), 1)
    random = torch.Generator().manual_seed(1)
    matrices, wanted = (torch.randn(2, 256, columns, dtype=torch.float64, generator=random) for columns in (256, 4))
    torch.testing.assert_close(torch.linalg.solve(matrices, matrices @ wanted), wanted, atol=1e-8, rtol=0)


def test_a_piece_keeps_no_gradients_where_its_caller_keeps_none() -> None:
    for kept in (False, True):
        seen: list[tuple[bool, bool]] = []
        with torch.set_grad_enabled(kept):
            side_by_side(lambda piece, seen=seen: (seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled())), piece)[1], torch.zeros(1, 2), 2)
        assert seen == [(kept, False)]


@pytest.mark.parametrize(
    ("rows", "largest", "workers", "device", "size"),
    [
        (7, 100, 2, "cpu", 4),
        (8, 100, 2, "cpu", 4),
        (9, 100, 4, "cpu", 3),
        (3, 100, 8, "cpu", 1),
        (9, 2, 2, "cpu", 2),
        (9, 0, 2, "cpu", 1),
        (9, 100, 4, "cuda", 9),
    ],
)
def test_every_thread_gets_a_piece(monkeypatch: pytest.MonkeyPatch, rows: int, largest: int, workers: int, device: str, size: int) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: workers)
    assert pieces_at_once(rows, largest, torch.device(device)) == size


def test_on_a_gpu_pieces_follow_one_another_in_the_thread_of_the_caller(two_threads: None) -> None:
    seen: list[tuple[int, threading.Thread]] = []

    def note(piece: torch.Tensor) -> torch.Tensor:
        seen.append((len(piece), threading.current_thread()))
        return torch.full((len(piece),), len(seen))

    assert side_by_side(note, torch.zeros(5, 2, device="meta"), 2).tolist() == [1, 1, 2, 2, 3]
    assert seen == [(size, threading.current_thread()) for size in (2, 2, 1)]
