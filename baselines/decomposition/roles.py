"""Which part of a blind method goes into which slot of a task.

A blind separator cuts a mixture into two parts of its own kind: percussive and harmonic, foreground and background, low-rank and sparse.
Which of them is which source can only be known from the names of the task's classes. The rule: a method names the classes that one of its parts
stands for; if exactly one of the task's two slots is of such a class, that part goes into that slot and the other part into the other slot.
Else the roles are unknown: the method keeps its own order, which only tasks under the best assignment can score, and refuses ordered tasks.
"""

from __future__ import annotations

from collections.abc import Collection

import torch

from sepbench.protocols import Support, TaskSpec

VOICES = frozenset({"speech", "vocals", "voice", "singing"})
"""Classes that music/voice separators take for the foreground; what is mixed with them (noise, accompaniment) is the background."""


def slot_of_role(task: TaskSpec, classes: Collection[str]) -> int | None:
    """The slot, 0 or 1, that is of one of ``classes`` while the other is not; None if the names do not tell."""
    named = [slot for slot, name in enumerate(task.source_classes) if name in classes]
    return named[0] if len(named) == 1 and task.n_sources == 2 else None


def role_support(task: TaskSpec, classes: Collection[str], method: str, part: str) -> Support:
    """Whether the roles are known where they must be; ``part`` is what the method calls the part that stands for ``classes``."""
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
    """Two parts ``(B, 2, ...)`` with part number ``part`` moved to ``slot``; as they are if ``slot`` is None."""
    return parts if slot is None or slot == part else parts.flip(1)
