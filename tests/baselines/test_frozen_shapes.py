"""Numbers of methods where no two axes are alike: colour images that are wider than high, two channels of sound, three sources; and a mixture with a NaN.

``test_every_setting.py`` freezes them on grey squares, one channel and two sources. To change one knowingly, raise the method's version and run this file,
which writes what is frozen.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from frozen_outcomes import ROUNDED, TOLERANCE, projections
from method_toys import Digits, mix, toy_task
from setting_worlds import World, WorldView, mixture_priors
from sound_toys import sound_task, sounds
from test_every_setting import CASES

from sepbench.gmm import GaussianMixture
from sepbench.noise import NoiseSource
from sepbench.protocols import Mixtures, Separator, Supervision
from sepbench.registry import create_separator

FILE = Path(__file__).parents[1] / "golden" / "method_shapes.json"
Kinds = tuple[str, ...]


def wide(images: torch.Tensor) -> torch.Tensor:
    """Grey digits ``(N, 1, 8, 8)`` to as many colour images ``(N, 3, 8, 12)``: each digit, half of the next, and the levels of their neighbours."""
    wider = torch.cat([images, images.roll(-1, 0)[..., :4]], -1)
    return torch.cat([wider, 0.7 * wider.roll(-2, 0), 0.4 * wider.flip(-1)], 1)


@cache
def colours(kinds: Kinds = ("a", "b")) -> World:
    """Colour images that are wider than high; the first class is observed, unless all are one."""
    digits, agnostic = Digits.read(), "any" in kinds
    pools = [wide(one[:30]) for one in (digits.low, digits.high, digits.pooled)][: len(kinds)]
    task = toy_task((3, 8, 12), kinds, "mean", observed=None if agnostic or len(kinds) > 2 else 0)
    slots = (torch.cat(pools),) * len(kinds) if agnostic else tuple(pools)
    tests = torch.stack([wide(digits.pairs[:4, k % 2].roll(k // 2, 0)) for k in range(len(kinds))], 1)
    mixed = mix(torch.stack(pools, 1), "mean").values
    return World(task, lambda level: WorldView(task, level, slots, torch.cat(pools), mixed, pools[0].flip(0)), tests, references=True)


@cache
def stereo(kinds: Kinds = ("a", "b"), channels: int = 2) -> World:
    """Sounds of two channels, the second one softer and later."""

    def spread(sources: torch.Tensor) -> torch.Tensor:
        every = torch.cat([sources, sources[:, :1].flip(-1)], 1)[:, : len(kinds)]
        return torch.cat([every, 0.6 * every.roll(37, -1)], 2)[:, :, :channels]

    train, tests, length = spread(sounds(6, 2_400, seed=100)), spread(sounds(2, 2_400, seed=1)), 2_400
    task = sound_task(length, kinds, observed=0 if len(kinds) == 2 else None, channels=channels)
    view = lambda level: WorldView(task, level, train.unbind(1), train.flatten(0, 1), mix(train, "mean").values, train[:, 0].flip(0))  # noqa: E731
    return World(task, view, tests, references=True)


class ThreePriors(WorldView):
    """Three sources of known distributions."""

    def prior(self, slot: int) -> GaussianMixture:
        return three_priors()[slot]


@cache
def three_priors() -> list[GaussianMixture]:
    first, second = mixture_priors()
    return [first, second, GaussianMixture(first.weights.flip(0), 0.5 * second.means + 0.3, first.covariances)]


@cache
def three_vectors() -> World:
    task = replace(toy_task((3,), ("a", "b", "c"), domain="vector"), analytic_prior=True)
    sources = torch.stack([prior.sample(NoiseSource(3), torch.arange(6), 0, k) for k, prior in enumerate(three_priors())], 1).float()
    return World(task, lambda level: ThreePriors(task, level), sources)


THREE: Kinds = ("a", "b", "c")
ALIKE: Kinds = ("any", "any", "any")
WORLDS: Mapping[str, Callable[[], World]] = {
    "colours": colours,
    "three colours": lambda: colours(THREE),
    "three colours alike": lambda: colours(ALIKE),
    "stereo": stereo,
    "three sounds": lambda: stereo(THREE),
    "three sounds alike": lambda: stereo(ALIKE),
    "three of one channel": lambda: stereo(THREE, 1),
    "three vectors": three_vectors,
}
OF_IMAGES = ("average", "ica", "ideal-mask", "mixture", "nmf", "original")
OF_SOUND = ("ideal-binary-mask", "ideal-ratio-mask", "nmf.audio", "nmf-blind")
PLACES: Mapping[str, tuple[str, ...]] = {
    "colours": (*OF_IMAGES, "glom", "nmf-semi", "nmf-semi-printed", "rpca", "s-d", "supervised"),
    "three colours": (*OF_IMAGES, "supervised"),
    "three colours alike": ("nmf",),
    "stereo": (*OF_SOUND, "ft2d", "hpss", "nmf-semi.audio", "repet", "repet-sim", "rpca.audio", "average", "mixture"),
    "three sounds": OF_SOUND,
    "three sounds alike": ("nmf.audio",),
    "three of one channel": ("ica.audio",),
    "three vectors": ("basis-ncsn", "diffusion-gibbs", "dirac", "gaussian", "projected"),
}
OTHER: Mapping[tuple[str, str], Mapping[str, Any]] = {
    ("supervised", "three colours"): {"targets": "classes"},
    ("dirac", "three vectors"): {"slot": 2, "resamplings": 3},
    ("gaussian", "three vectors"): {"steps": 16, "resamplings": 3},
    ("diffusion-gibbs", "three vectors"): {"sweeps_per_level": 2},
    ("projected", "three vectors"): {"candidates": 5, "prune_after": (3, 5), "survivors": (3, 2), "bounded": False},
}
CASES_HERE = [(key, where) for where, keys in PLACES.items() for key in keys]
Row = Literal["all", "some", "none"]


@dataclass(frozen=True)
class Ready:
    """A fitted method in its world."""

    method: Separator
    world: World

    def separate(self, mixtures: Mixtures) -> torch.Tensor:
        return self.method.separate(mixtures, self.world.context())


@cache
def ready(key: str, where: str) -> Ready:
    world = WORLDS[where]()
    name, _, domain = key.partition(".")
    method = create_separator(name, {**CASES[key].small, **OTHER.get((key, where), {})}, domain or world.task.domain)  # type: ignore[arg-type]
    assert method.supports(world.task).ok, method.supports(world.task).note
    level: Supervision = "prior" if method.info.supervision == "sources" and world.task.class_agnostic else method.info.supervision
    method.fit(world.view(level), world.context())
    return Ready(method, world)


@cache
def estimates(key: str, where: str) -> torch.Tensor:
    one = ready(key, where)
    return one.separate(one.world.mixtures())


@pytest.mark.parametrize(("key", "where"), CASES_HERE)
def test_the_numbers_are_those_that_were_made(key: str, where: str) -> None:
    found = estimates(key, where)
    assert found.shape == ready(key, where).world.sources.shape
    wanted = json.loads(FILE.read_text(encoding="utf-8"))[f"{key} | {where}"]
    far = max(abs(one - other) for one, other in zip(projections(found), wanted, strict=True))
    assert far <= ROUNDED.get(key, TOLERANCE) * max(wanted[0], 1e-3), f"{projections(found)}, frozen {wanted}"


COPIES: Mapping[str, Row] = {"average": "some", "mixture": "some", "original": "none", "ideal-mask": "some", "glom": "some", "supervised": "some"}
"""What these make of a mixture with one NaN: they work value by value, or do not look at the mixture. All others have no estimate of it."""
FINITE = ("ica", "rpca", "nmf-semi-printed")
"""These are for images, whose values are always numbers, and decompose matrices of them."""
WITH_NAN = [(key, where) for key, where in CASES_HERE if where in ("colours", "stereo", "three of one channel") and key not in FINITE]


@pytest.mark.parametrize(("key", "where"), WITH_NAN)
def test_a_value_that_is_none_spoils_its_own_mixture_alone(key: str, where: str) -> None:
    one, whole = ready(key, where), estimates(key, where)
    mixtures = one.world.mixtures()
    values = mixtures.values.clone()
    values[1].view(-1)[5] = torch.nan
    found = one.separate(Mixtures(values, mixtures.example_ids, mixtures.operator))
    others = [row for row in range(len(values)) if row != 1]
    torch.testing.assert_close(found[others], whole[others], atol=1e-5, rtol=0)
    lost = found[1].isnan()
    assert ("all" if bool(lost.all()) else "some" if bool(lost.any()) else "none") == COPIES.get(key, "all")


if __name__ == "__main__":
    found = {f"{key} | {where}": [float(f"{one:.6g}") for one in projections(estimates(key, where))] for key, where in CASES_HERE}
    lines = [f"{json.dumps(name)}: {json.dumps(numbers)}" for name, numbers in found.items()]
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="")
