"""Tasks as supplied estimates meet them: two sounds of 400 samples, two digits of 8 x 8 pixels."""

from __future__ import annotations

from sepbench.protocols import TaskSpec

SOUND = TaskSpec("toy", "sounds", "audio", 2, (1, 400), "mean", ("drums", "bass"), "ordered", (0, 1), sample_rate=8000)
DIGIT = TaskSpec("toy", "digits", "image", 2, (1, 8, 8), "sum", ("0-4", "5-9"), "permutation", (0, 1))
COLOUR = TaskSpec("toy", "colours", "image", 2, (3, 8, 8), "sum", ("cat", "dog"), "ordered", (0, 1))
