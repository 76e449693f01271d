"""Medians of many short lists at once: of sliding windows, and of lists of unequal length.

Comparisons run as minima and maxima of whole tensors (bitonic networks: Batcher, "Sorting networks and their
applications", 1968). So a median costs the same for every input. The CPU uses vector instructions, and a GPU works as
well. A median is an element of its list, or the mean of the middle two. No rounding can depend on the batch.
"""

from __future__ import annotations

import torch

_CHUNK_ELEMENTS = 1 << 18
"""Windows handled at a time: buffers of 1 MiB."""

_CHUNK_COLUMNS = 1024
"""Windows that are adjacent in memory: long enough for vector instructions."""

_NETWORK_SIZE = 128
"""torch sorts longer lists, because networks need log2(n)^2 / 2 passes."""


def sliding_median(values: torch.Tensor, width: int, dim: int) -> torch.Tensor:
    """The median of the ``width`` values around each value along ``dim``.

    Both ends are mirrored, and the last value is repeated. Adjacent windows share most of their values. So windows are
    handled in groups of P, a power of two. The values that all of them share are sorted once, and the P ranks that can
    still be a median are kept. Then groups are halved: each half adds the values that only its own windows have, and
    again keeps only the ranks that can still matter. This ends when each window has its median. It takes about 40
    minima or maxima per median of 31. To sort each window by itself takes 370.

    Args:
        values: any shape; floating point without NaN.
        width: odd. It may exceed the axis, which is then mirrored again and again.
        dim: the axis.

    Returns:
        The medians, in the shape of ``values``.

    Raises:
        ValueError: ``width`` is not odd and positive.
    """
    if width < 1 or width % 2 == 0:
        raise ValueError(f"a median filter must have an odd width, got {width}")
    if width == 1 or values.numel() == 0:
        return values.clone()
    dim %= values.ndim
    length, inner = values.shape[dim], values.shape[dim + 1 :].numel()
    result = torch.empty(values.shape, dtype=values.dtype, device=values.device)
    source, target = (tensor.reshape(-1, length, inner).movedim(1, 0) for tensor in (values, result))
    group = 1 << (((width + 1) // 2).bit_length() - 1)
    outer = max(1, _CHUNK_COLUMNS // inner)
    step = group * max(1, _CHUNK_ELEMENTS // (group * min(outer, source.shape[1]) * inner))
    for start in range(0, length, step):
        stop = start + min(step, -(-(length - start) // group) * group)
        for inputs, outputs in zip(source.split(outer, 1), target[start:stop].split(outer, 1), strict=True):
            padded = _mirrored(inputs, start - width // 2, stop + width // 2)
            medians = _medians_of_columns(padded.flatten(1), width, group)
            outputs.copy_(medians[: len(outputs)].unflatten(1, outputs.shape[1:]))
    return result


def median_of_lists(lists: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """The medians ``(...)`` of lists ``(n, ...)`` with ``counts`` values each, in any places, and ``inf`` elsewhere.

    With an even count it is the mean of the middle two. A list of count 0 has the median ``inf``.

    Args:
        lists: floating point without NaN.
        counts: int64, at most n; broadcasts against ``(...)``.
    """
    ordered = sort_values(lists)
    counts = counts.expand(lists.shape[1:]).unsqueeze(0)
    low = ordered.gather(0, ((counts - 1) // 2).clamp(min=0))
    high = ordered.gather(0, (counts // 2).clamp(max=len(lists) - 1))
    return ((low + high) / 2).squeeze(0)


def sort_values(values: torch.Tensor) -> torch.Tensor:
    """Values ``(n, ...)`` sorted along the first axis, by the faster way for n values."""
    return sort_first_axis(values) if len(values) <= _NETWORK_SIZE else values.sort(0).values


def sort_first_axis(values: torch.Tensor, *, descending: bool = False) -> torch.Tensor:
    """Values ``(n, ...)`` sorted along the first axis by a bitonic network."""
    n = values.shape[0]
    size = 1 << (n - 1).bit_length()
    if size > n:
        values = torch.cat([values, values.new_full((size - n, *values.shape[1:]), float("-inf" if descending else "inf"))])
    block = 2
    while block < size:  # runs of ``block`` values, rising and falling in turn
        for stride in _halvings(block):
            pairs = values.unflatten(0, (size // (2 * block), 2, block // (2 * stride), 2, stride))
            values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
            ordered = values.view(pairs.shape)
            _compare(pairs[:, 0], ordered[:, 0], 2, descending=False)
            _compare(pairs[:, 1], ordered[:, 1], 2, descending=True)
        block *= 2
    return merge_first_axis(values, descending=descending)[:n]


def merge_first_axis(values: torch.Tensor, *, descending: bool = False) -> torch.Tensor:
    """Values ``(n, ...)`` that rise and then fall, or the reverse, sorted along the first axis.

    n must be a power of two.
    """
    for stride in _halvings(len(values)):
        pairs = values.unflatten(0, (len(values) // (2 * stride), 2, stride))
        values = torch.empty(values.shape, dtype=values.dtype, device=values.device)
        _compare(pairs, values.view(pairs.shape), 1, descending=descending)
    return values


def _halvings(size: int) -> list[int]:
    """size / 2, size / 4, ..., 1."""
    return [size >> shift for shift in range(1, size.bit_length())]


def _compare(pairs: torch.Tensor, ordered: torch.Tensor, dim: int, *, descending: bool) -> None:
    """Write the smaller of each pair along ``dim`` first, or last if descending."""
    first, second = pairs.unbind(dim)
    low, high = ordered.unbind(dim)[:: -1 if descending else 1]
    torch.minimum(first, second, out=low)
    torch.maximum(first, second, out=high)


def mirrored_positions(start: int, stop: int, length: int, device: torch.device) -> torch.Tensor:
    """Positions in [0, length) of the values ``start`` to ``stop`` of a mirrored signal.

    The signal is mirrored at both ends, and its last value is repeated.
    """
    cycle = torch.arange(start, stop, device=device) % (2 * length)
    return torch.minimum(cycle, 2 * length - 1 - cycle)


def _mirrored(values: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Rows ``start`` to ``stop`` of values ``(L, ...)`` mirrored at both ends, contiguous."""
    length = len(values)
    first, last = min(max(start, 0), stop), max(min(stop, length), start)
    padded = torch.empty((stop - start, *values.shape[1:]), dtype=values.dtype, device=values.device)
    # Only the ends are picked row by row.
    padded[first - start : last - start] = values[first:last]
    padded[: first - start] = values[mirrored_positions(start, first, length, values.device)]
    padded[last - start :] = values[mirrored_positions(last, stop, length, values.device)]
    return padded


def _medians_of_columns(padded: torch.Tensor, width: int, group: int) -> torch.Tensor:
    """Medians ``(n, M)`` of all windows of ``width`` rows of ``(n + width - 1, M)`` contiguous values.

    n is a multiple of ``group``.
    """
    columns = padded.shape[1]
    groups, middle = (len(padded) - width + 1) // group, (width + 1) // 2
    shared = padded.as_strided((width - group + 1, 1, groups, columns), (columns, 0, group * columns, 1), (group - 1) * columns)
    kept = sort_first_axis(shared)[middle - group : middle]
    half = group // 2
    while half:
        subgroups = group // (2 * half)
        # These are new to the windows of the left and of the right half of each subgroup.
        strides = (columns, 2 * half * columns, (width - half + 1) * columns, group * columns, 1)
        new = sort_first_axis(padded.as_strided((half, subgroups, 2, groups, columns), strides, (half - 1) * columns), descending=True)
        # Of ranks and new values together, neither the lowest ``half`` nor the highest can be medians.
        above = merge_first_axis(torch.maximum(kept[:half].unsqueeze(2), new), descending=True)
        inner = merge_first_axis(torch.minimum(above, kept[half:].unsqueeze(2)))
        kept = inner.reshape(half, 2 * subgroups, groups, columns)
        half //= 2
    return kept[0].transpose(0, 1).reshape(groups * group, columns)
