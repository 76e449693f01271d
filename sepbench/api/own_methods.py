"""Methods as the Python API takes them: by registered name, as a class, or as an object. The last two need no package and no entry point."""

from __future__ import annotations

import copy
import hashlib
import io
import pickle
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from sepbench.api.arguments import one_name, several, shown
from sepbench.errors import ArgumentError, SepbenchError, flat, reason
from sepbench.handed_over import HandedOver
from sepbench.protocols import MethodInfo, Separator
from sepbench.registry import separator_class, separator_domains, separator_names
from sepbench.settings import settings_of

Method = str | type | Separator
"""A registered name, a class that offers ``Separator``, or an object of such a class."""

_WHAT = "a method's name, a Separator class or an object of one"


def methods_of(given: Method | Sequence[Method]) -> tuple[tuple[str, ...], list[HandedOver]]:
    """The names of methods, and those that have to be handed over to be found by theirs.

    Raises:
        ArgumentError: something that is no method, two methods of one name, or a name that belongs to a registered method.
    """
    each: list[Any] = [given] if isinstance(given, (str, type)) or isinstance(getattr(given, "info", None), MethodInfo) else several("methods", given, _WHAT)
    names: list[str] = []
    own: dict[str, HandedOver] = {}
    for one in each:
        if isinstance(one, str):
            name = one_name("methods", one, _WHAT)
        else:
            handed = hand_over(one)
            name = handed.name
            if name in names:
                raise ArgumentError(f"two methods of this run are named {name!r}; give one of them another info.name")
            if handed.made_by is not _registered(name):
                own[name] = handed
        names.append(name)
    return tuple(names), list(own.values())


def hand_over(method: object) -> HandedOver:
    """A class or an object as what the registry finds by its name.

    An object that its settings make again is handed over as its class with those settings; any other is copied, as it is, for every task.

    Raises:
        ArgumentError: no method, or its name belongs to a registered one.
    """
    cls: Any = method if isinstance(method, type) else type(method)
    where = f"{cls.__module__}.{cls.__qualname__}"
    missing = [part for part in ("info", "supports", "fit", "separate") if not hasattr(method, part)]
    if missing == ["info"] and isinstance(method, type):
        raise ArgumentError(f"class {where} says its info when it is made; hand over an object of it: {cls.__name__}(...)")
    if missing:
        lacks = f"lacks {', '.join(missing)} of sepbench.protocols.Separator"
        raise ArgumentError(f"a method must be {_WHAT}; {shown(method) if not isinstance(method, type) else f'class {where}'} {lacks}")
    info: Any = method.info  # type: ignore[attr-defined]
    if isinstance(method, type) and isinstance(info, property):
        raise ArgumentError(f"class {where} says its info when it is made; hand over an object of it: {cls.__name__}(...)")
    if not isinstance(info, MethodInfo):
        raise ArgumentError(f"method {where}: info must be a sepbench.protocols.MethodInfo, got {type(info).__name__}")
    name = one_name("info.name", info.name, "the method's name")
    if name in separator_names() and not _is_registered(name, cls):
        raise ArgumentError(f"{name!r} is the name of a registered method; give info.name of {where} another name")
    return HandedOver(name, where, cls) if isinstance(method, type) else _of_object(name, where, method)


def _registered(name: str) -> object:
    return separator_class(name) if name in separator_names() else None


def _is_registered(name: str, cls: type) -> bool:
    """Whether a class is the one that is registered under this name, for some kind of signal."""
    return any(separator_class(name, domain) is cls for domain in separator_domains(name))


def _of_object(name: str, where: str, method: object) -> HandedOver:
    cls = type(method)
    settings = settings_of(method)
    state = state_sha256(method)
    try:
        same = state_sha256(cls(**copy.deepcopy(settings))) == state
    except Exception:  # it is made in another way
        same = False

    def again() -> Any:
        try:
            return cls(**copy.deepcopy(settings)) if same else copy.deepcopy(method)
        except Exception as error:
            raise SepbenchError(f"method {name!r} cannot be copied, which every task needs ({reason(error)}); hand over its class and settings") from error

    return HandedOver(name, where, again, "" if same else state)


class _Digest(pickle.Pickler):
    """Writes an object so that equal content gives equal bytes: tensors and arrays as their digests."""

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            plain = value.detach().cpu().contiguous()
            content = plain.flatten().view(torch.uint8).numpy().tobytes() if plain.numel() else b""
            return str, (f"{plain.dtype} {tuple(plain.shape)} {hashlib.sha256(content).hexdigest()}",)
        if isinstance(value, np.ndarray) and value.dtype != object:
            return str, (f"{value.dtype} {value.shape} {hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()}",)
        if isinstance(value, torch.nn.Module):
            return tuple, (f"{type(value).__qualname__} {flat(value)}", dict(value.state_dict()))  # nobody reads it back
        return NotImplemented


def state_sha256(method: object) -> str:
    """SHA-256 of all that an object holds; one of its own where that cannot be said, so that it is never taken for another."""
    text = io.BytesIO()
    slots = {name: getattr(method, name) for base in type(method).__mro__ for name in getattr(base, "__slots__", ()) if hasattr(method, name)}
    try:
        _Digest(text).dump(sorted({**getattr(method, "__dict__", {}), **slots}.items()))
    except Exception:  # a lambda, an open file
        return hashlib.sha256(uuid.uuid4().bytes).hexdigest()
    return hashlib.sha256(text.getvalue()).hexdigest()
