"""The styles songs are composed in: tables of what is likely, from which every song draws patterns of its own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Style:
    """One way to play.

    Patterns have a character per step of a bar: a digit d is a stroke with probability d / 9, a dot is none.

    Attributes:
        name: for people.
        tempo: slowest and fastest, beats per minute.
        beats: per bar.
        steps: per beat: 4 straight, 3 triplets.
        kick, snare, ghosts: patterns; ghosts are soft strokes of the snare, drawn anew in every bar.
        hats: names of ``HATS`` to choose from.
        bass: names of ways to play the bass to choose from (``bass_part``).
    """

    name: str
    tempo: tuple[float, float]
    beats: int
    steps: int
    kick: str
    snare: str
    ghosts: str
    hats: tuple[str, ...]
    bass: tuple[str, ...]


STYLES = (
    Style("rock", (96, 150), 4, 4, "9..1..2.6.5..12.", "....9.......9...", ".1....12.1.1...1", ("eighths", "eighths", "quarters"), ("kick", "eighths", "long")),
    Style("four", (112, 138), 4, 4, "9...9...9...9..1", "....8.......8...", "............1..1", ("offbeats", "sixteenths"), ("octaves", "eighths", "broken")),
    Style("funk", (88, 122), 4, 4, "9..4..52.16..3..", "....9.......9..2", ".2.2.13434.2.213", ("sixteenths", "gallop"), ("broken", "kick", "broken")),
    Style("half-time", (120, 176), 4, 4, "9..2..5...4.2..3", "........9.......", "..1..1.....2..1.", ("eighths", "sixteenths"), ("kick", "long", "broken")),
    Style("breakbeat", (140, 180), 4, 4, "9.7...1...851..1", "....9.......9...", ".......6.5.....2", ("eighths", "gallop"), ("long", "broken", "kick")),
    Style(
        "latin", (84, 128), 4, 4, "9..7..9.5..7..9.", "...4..9...9...5.", ".1..1....1..1..1", ("eighths", "gallop", "quarters"), ("broken", "kick", "octaves")
    ),
    Style(
        "ballad", (70, 92), 4, 4, "9....1.27.4....1", "....9.......9...", ".......1.......2", ("eighths", "sixteenths", "quarters"), ("long", "kick", "walk")
    ),
    Style("shuffle", (84, 144), 4, 3, "9.2..36.3..4", "...9..1..9..", "..2.1...1..2", ("shuffle", "quarters"), ("walk", "eighths", "kick")),
    Style("swing", (112, 178), 4, 3, "4..2..4..2.2", "..1.3.1..2.2", "..2.2..1..21", ("jazz", "jazz", "shuffle"), ("walk", "walk", "long")),
    Style("twelve-eight", (70, 84), 4, 3, "9....44.3..3", "...9.....9..", "..1..1.1..12", ("triplets", "quarters"), ("kick", "long", "broken")),
    Style("waltz", (86, 160), 3, 4, "9.....2...2.", "....5...8...", "..1....1..1.", ("eighths", "quarters"), ("long", "kick", "walk")),
)

# Steps of a beat at which the cymbal or hi-hat is struck, by name; "jazz" alternates between two beats.
HATS: dict[str, tuple[tuple[int, ...], ...]] = {
    "quarters": ((0,),),
    "eighths": ((0, 2),),
    "sixteenths": ((0, 1, 2, 3),),
    "offbeats": ((2,),),
    "gallop": ((0, 2, 3),),
    "shuffle": ((0, 2),),
    "triplets": ((0, 1, 2),),
    "jazz": ((0,), (0, 2)),
}

MAJOR, MINOR = (0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10)

# Chord roots as degrees of the scale from 0, one per bar.
PROGRESSIONS: dict[bool, tuple[tuple[int, ...], ...]] = {
    False: ((0, 4, 5, 3), (0, 3, 4, 3), (5, 3, 0, 4), (0, 0, 3, 4), (1, 4, 0, 0), (0, 5, 1, 4), (0, 3), (0, 2, 3, 4), (3, 4, 2, 5), (0, 6, 3, 0)),
    True: ((0, 5, 2, 6), (0, 6, 5, 6), (0, 3, 4, 0), (0, 5, 3, 4), (0,), (0, 3), (0, 6), (5, 6, 0, 0), (0, 2, 3, 5), (1, 4, 0, 0)),
}
"""By ``minor``."""


def likely(pattern: str) -> tuple[float, ...]:
    """A pattern's characters as probabilities in [0, 1]."""
    return tuple(0.0 if mark == "." else int(mark) / 9 for mark in pattern)
