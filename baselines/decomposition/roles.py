"""The slot of a task into which a part of a blind method goes.

A blind separator cuts a mixture into two parts of its own kind: percussive and harmonic, foreground and background,
low-rank and sparse. Only the names of the task's classes can tell which part is which source. A method names the
classes that one of its parts stands for. If exactly one of the task's two slots has such a class, that part goes into
that slot, and the other part into the other slot. Otherwise the roles are unknown. Then the method keeps its own
order, which only tasks under the best assignment can score, and it refuses ordered tasks.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from sepbench.protocols import Support, TaskSpec

VOICES = frozenset({"speech", "vocals", "voice", "singing"})
"""Classes that music/voice separators take for the foreground.

The other source (noise, accompaniment) is the background.
"""


def slot_of_role(task: TaskSpec, classes: Collection[str]) -> int | None:
    """The slot, 0 or 1, whose class is one of ``classes`` while the other's is not; None if the names do not tell."""
    named = [slot for slot, name in enumerate(task.source_classes) if name in classes]
    return named[0] if len(named) == 1 and task.n_sources == 2 else None


def role_support(task: TaskSpec, classes: Collection[str], method: str, part: str) -> Support:
    """Whether a method with roles takes a task.

    ``part`` is the method's name for the part that stands for ``classes``.
    """
    slot = slot_of_role(task, classes)
    if slot is not None:
        return Support(True, f"{part} is source {slot} ({task.source_classes[slot]}), by the class's name")
    if task.assignment == "ordered":
        return Support(
            False,
            f"{method} cannot tell which source is its {part}: the classes are {', '.join(task.source_classes)}, and it knows "
            f"exactly one of {', '.join(sorted(classes))}; choose a task under the best assignment",
        )
    return Support(True, f"no roles: the {part} may be either source, the best assignment counts")


def in_slots(parts: torch.Tensor, part: int, slot: int | None) -> torch.Tensor:
    """Two parts ``(B, 2, ...)``, with part number ``part`` moved to ``slot``. If ``slot`` is None, they stay."""
    return parts if slot is None or slot == part else parts.flip(1)
