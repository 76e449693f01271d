"""``torch``, imported when it is first used: commands that only read tables and names do not wait two seconds for it.

Modules that such commands import write::

    from sepbench.torch_later import torch

and use it as ever inside functions. What a module does with torch while it is being imported (a base class, a decorator,
an alias of types that is no text) imports it then; ``tests/test_startup.py`` finds the commands that this slows down.
Methods, networks and whatever computes most of its time import torch itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch as torch
else:

    class _Later:
        """Stands for torch. It keeps nothing of it, so that what tests or libraries replace in torch is replaced here."""

        def __getattr__(self, name: str) -> Any:
            if name.startswith("__") and name != "__version__":  # what Python asks of any object
                raise AttributeError(name)
            import torch

            return getattr(torch, name)

        def __reduce__(self) -> str:
            return "torch"  # the one of this module, in whatever process

        def __repr__(self) -> str:
            return "<torch, imported when it is first used>"

    torch = _Later()
