"""The drummer: strokes from a song's frame."""

from __future__ import annotations

from dataclasses import dataclass

from sepbench.data.synthesis.dice import Dice
from sepbench.data.synthesis.score import HUMAN_SECONDS, Bar, Frame, Stroke
from sepbench.data.synthesis.sound import samples
from sepbench.data.synthesis.styles import HATS, likely


@dataclass(frozen=True, slots=True)
class _Groove:
    """One section's pattern: steps of kick and snare, the cymbal and the steps it is struck at (by beat, in turn)."""

    kick: frozenset[int]
    snare: frozenset[int]
    cymbal: str
    rhythm: tuple[tuple[int, ...], ...]
    open_steps: frozenset[int]


@dataclass(frozen=True, slots=True)
class _Hands:
    """How a song's drummer plays: accents from even to strong, looseness in time, strength of ghost notes, how much changes between bars."""

    accent: float
    loose: float
    ghosts: float
    change: float
    backbeat: str


def play_drums(key: str, frame: Frame) -> tuple[Stroke, ...]:
    """All strokes of a song, in the order of time."""
    dice = Dice(f"{key}.drum-part")
    hands = _Hands(dice.uniform(0.1, 0.45), dice.uniform(0.1, 1.0), dice.uniform(0.0, 1.3), dice.uniform(0.02, 0.12), _backbeat(dice, frame))
    grooves = {"verse": _groove(dice, frame, calm=True), "chorus": _groove(dice, frame, calm=False)}
    strokes: list[Stroke] = []
    filled = False
    for number, bar in enumerate(frame.bars):
        if bar.drums != "none":
            groove = grooves["chorus" if bar.section == "chorus" else "verse"]
            strokes += _bar(dice, frame, number, bar, groove, hands, crash=bar.opens and (filled or dice.flip(0.2)))
        filled = bar.fill
    return tuple(sorted((s for s in strokes if s.at < frame.length), key=lambda stroke: stroke.at))


def _backbeat(dice: Dice, frame: Frame) -> str:
    if frame.style.name == "latin":
        return dice.pick(("rim", "rim", "snare"))
    if frame.style.name in ("four", "half-time"):
        return dice.pick(("snare", "clap"))
    return dice.pick(("snare", "rim"), (9, 1))


def _groove(dice: Dice, frame: Frame, calm: bool) -> _Groove:
    style = frame.style
    kick = frozenset(step for step, p in enumerate(likely(style.kick)) if dice.flip(p if calm else min(1.0, 1.25 * p)))
    snare = frozenset(step for step, p in enumerate(likely(style.snare)) if dice.flip(p))
    name = dice.pick(style.hats)
    cymbal = "ride" if name == "jazz" else dice.pick(("hat", "ride", "shaker") if calm else ("hat", "ride", "open"), (6, 2, 1))
    opened = dice.uniform(0.0, 0.12)
    open_steps = frozenset(step for step in range(frame.grid.bar_steps) if dice.flip(opened)) if cymbal == "hat" else frozenset()
    return _Groove(kick or frozenset({0}), snare, cymbal, HATS[name], open_steps)


def _bar(dice: Dice, frame: Frame, number: int, bar: Bar, groove: _Groove, hands: _Hands, crash: bool) -> list[Stroke]:
    grid = frame.grid
    fill_from = grid.bar_steps - grid.steps * dice.pick((1, 1, 2)) if bar.fill else grid.bar_steps
    found: list[tuple[str, int, float]] = []
    for step in range(fill_from):
        weight = 1.0 if step % grid.steps == 0 else 1.0 - hands.accent * (0.7 if 2 * (step % grid.steps) == grid.steps else 1.0)
        if bar.drums == "full":
            if (step in groove.kick) != (dice.flip(hands.change) and step > 0 and step % 2 == 0):
                found.append(("kick", step, 0.95 * weight))
            if step in groove.snare:
                found.append((hands.backbeat, step, 0.95))
            elif dice.flip(hands.ghosts * likely(frame.style.ghosts)[step]):
                found.append(("snare", step, dice.uniform(0.12, 0.35)))
        elif step == 0:
            found.append(("kick", step, 0.8))
        beat = groove.rhythm[(step // grid.steps) % len(groove.rhythm)]
        if step % grid.steps in beat and not (crash and step == 0):
            voice = "open" if step in groove.open_steps else groove.cymbal
            found.append((voice, step, 0.8 * weight))
    if crash:
        found.append(("crash", 0, 0.9))
    if bar.fill:
        found += _fill(dice, frame, fill_from)
    return [_stroke(dice, frame, number, hands, *what) for what in found]


def _fill(dice: Dice, frame: Frame, start: int) -> list[tuple[str, int, float]]:
    """Strokes down the toms, louder towards the next bar."""
    voices = dice.pick((("tom-high", "tom-mid", "tom-low"), ("snare", "tom-high", "tom-low"), ("snare",), ("snare", "tom-mid")))
    steps = [step for step in range(start, frame.grid.bar_steps) if dice.flip(0.8)]
    return [(voices[n * len(voices) // len(steps)], step, 0.55 + 0.4 * (n + 1) / len(steps)) for n, step in enumerate(steps)]


def _stroke(dice: Dice, frame: Frame, bar: int, hands: _Hands, voice: str, step: int, velocity: float) -> Stroke:
    late = dice.around(HUMAN_SECONDS * hands.loose)
    at = max(0, samples(frame.grid.seconds(bar, step) + late))
    return Stroke(voice, at, min(1.0, velocity * (1.0 + dice.around(0.12))))
