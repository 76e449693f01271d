"""Where an error arose: the innermost frame of an author's own code, wherever it is installed."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sepbench import places
from sepbench.errors import DataError
from sepbench.places import from_the_method_on, kept_traceback, told

METHOD = "def separate(x):\n    return helper(x)\n\n\ndef helper(x):\n    return call(x)\n"
LIBRARY = "def call(x):\n    return deeper(x)\n\n\ndef deeper(x):\n    raise x\n"


def module(path: Path, name: str, text: str, **names: Any) -> ModuleType:
    """A module of this text that says to lie there."""
    made = ModuleType(name)
    vars(made).update(names)
    exec(compile(text, str(path), "exec"), vars(made))
    return made


@pytest.fixture(params=["editable", "installed"])
def raised(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Raises through a method's module, in a folder or installed, which calls a library of another venv's."""
    venv = tmp_path / "venv" / "lib" / "site-packages"
    library = module(venv / "lib" / "core.py", "lib.core", LIBRARY)
    folder = tmp_path if request.param == "editable" else venv
    method = module(folder / "revpack.py", "revpack", METHOD, call=library.call)

    def error(of: BaseException) -> BaseException:
        try:
            method.separate(of)
        except BaseException as caught:
            return caught
        raise AssertionError

    return error


def test_the_innermost_frame_of_the_methods_package_is_named(raised: Any) -> None:
    assert told(raised(ValueError("a\nb")), "revpack") == "ValueError: a b (revpack.py, line 6)"
    assert told(raised(ValueError("abc")), "revpack", 12) == "ValueError:  (revpack.py, line 6)"
    assert told(raised(DataError("no file")), "revpack") == "DataError: no file (revpack.py, line 6)"
    assert told(raised(DataError("no file")), "baselines.nmf") == "DataError: no file"  # a built-in's own words are enough


@pytest.mark.parametrize("module_of_class", ["", "other.package"])
def test_where_no_frame_is_known_to_be_the_authors(tmp_path: Path, module_of_class: str) -> None:
    installed = module(tmp_path / "site-packages" / "lib" / "core.py", "lib.core", LIBRARY)
    with pytest.raises(ValueError, match=r"^x$") as caught:
        installed.call(ValueError("x"))
    error = caught.value.with_traceback(caught.tb.tb_next)  # without this test's frame
    assert told(error, module_of_class) == "ValueError: x (core.py, line 6)"
    assert told(error, module_of_class, any_frame=False) == "ValueError: x"
    assert told(ValueError("never raised")) == "ValueError: never raised"


def test_frames_of_sepbench_python_and_torch_are_not_the_authors(tmp_path: Path) -> None:
    """A method that calls back through all of them is named where it called."""
    mine = module(tmp_path / "mine.py", "mine", "import torch, json\ndef separate(x):\n    return json.loads(x)\nguarded = torch.no_grad()(separate)\n")
    with pytest.raises(ValueError, match="Expecting value") as caught:
        mine.guarded("x")
    assert told(caught.value, "mine").endswith(" (mine.py, line 3)")
    with pytest.raises(AttributeError) as ours:
        places.place(None)  # type: ignore[arg-type]
    assert places.place(ours.value.with_traceback(ours.tb.tb_next)) == ""


def test_a_package_is_named_with_its_folder(tmp_path: Path) -> None:
    mine = module(tmp_path / "revpack" / "__init__.py", "revpack", LIBRARY)
    with pytest.raises(KeyError) as caught:
        mine.call(KeyError("x"))
    assert told(caught.value, "revpack") == "KeyError: 'x' (revpack/__init__.py, line 6)"


def test_a_kept_traceback_begins_with_the_method_and_has_its_causes(tmp_path: Path) -> None:
    failing = "def inner():\n    raise KeyError('lost')\n"
    text = f"{failing}def separate():\n    try:\n        inner()\n    except KeyError as error:\n        raise ValueError('x') from error\n"
    mine = module(tmp_path / "mine.py", "mine", text)
    ours = module(Path(places.__file__), "sepbench.run.there", "def call(f):\n    return f()\n")
    with pytest.raises(ValueError, match=r"^x$") as caught:
        ours.call(mine.separate)
    error = caught.value.with_traceback(caught.tb.tb_next)
    assert [frame.name for frame in traceback.extract_tb(from_the_method_on(error))] == ["separate"]
    lines = [line.strip() for line in kept_traceback(error).splitlines() if line.startswith(("  File", "KeyError", "ValueError"))]
    assert [line.rpartition(" in ")[2] for line in lines] == ["separate", "inner", "KeyError: 'lost'", "separate", "ValueError: x"]


def test_a_traceback_of_sepbench_alone_is_kept_whole() -> None:
    with pytest.raises(AttributeError) as caught:
        places.place(None)  # type: ignore[arg-type]
    inside = caught.value.with_traceback(caught.tb.tb_next)
    assert from_the_method_on(inside) is inside.__traceback__
