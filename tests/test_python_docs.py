"""docs/python.md and docs/notebook.ipynb: every example runs as written, one after the other in one namespace, and prints what the page says."""

from __future__ import annotations

import contextlib
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
BLOCK = re.compile(r"(?P<slow><!-- slow[^\n]*-->\n)?```python\n(?P<code>.*?)```\n(?:\n```text\n(?P<printed>.*?)```\n)?", re.DOTALL)


@dataclass(frozen=True)
class Example:
    """A block of code; ``printed`` is what the page says that it prints, None if it says nothing."""

    code: str
    printed: str | None
    slow: bool = False


def examples_of_the_page() -> list[Example]:
    found = BLOCK.finditer((DOCS / "python.md").read_text(encoding="utf-8"))
    return [Example(one["code"], one["printed"], bool(one["slow"])) for one in found]


def cells_of_the_notebook() -> list[dict[str, Any]]:
    return json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]  # type: ignore[no-any-return]


@pytest.fixture
def folder(data_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(data_home)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    return data_home


def run_all(examples: list[Example], where: str) -> dict[str, Any]:
    """Run examples in one namespace, which is returned; hold what they print against what is said."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for number, example in enumerate(examples):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(example.code, f"<{where}, example {number}>", "exec"), names)
        if example.printed is not None:
            assert out.getvalue() == example.printed, example.code
    return names


def test_the_page_is_true(folder: Path) -> None:
    examples = examples_of_the_page()
    assert len(examples) >= 9
    first = [line for line in examples[0].code.splitlines() if line.strip()]
    assert len(first) <= 5  # from nothing to a data frame
    names = run_all([one for one in examples if not one.slow], "docs/python.md")
    assert names["estimates"].shape == names["halves"].shape == names["own"].shape == (10, 2, 1, 8, 8)
    assert len(names["states"]) == 2
    assert len(names["papers"]) > 3
    assert names["clean"].shape == (100, 1, 8, 8)


@pytest.mark.slow
def test_what_loads_every_method_is_true_too(folder: Path) -> None:
    names = run_all([Example("import sepbench", None), *(one for one in examples_of_the_page() if one.slow)], "docs/python.md")
    assert "nmf" in set(names["learning"]["name"])
    assert names["settings"]["atoms"].default == 16


def test_the_notebook_runs(folder: Path) -> None:
    """Its code cells in one namespace: nbclient would need ipykernel and thirty packages more, for what is the same here."""
    cells = [cell for cell in cells_of_the_notebook() if cell["cell_type"] == "code"]
    assert len(cells) >= 5
    names = run_all([Example("".join(cell["source"]), None) for cell in cells], "docs/notebook.ipynb")
    assert set(names["run"].methods) == {"average", "nmf", "clipped-half"}
    assert names["figure"].axes


def test_the_notebook_is_one_and_holds_no_outputs() -> None:
    notebook = json.loads((DOCS / "notebook.ipynb").read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        assert all(isinstance(line, str) for line in cell["source"])
        assert set(cell) == {"id", "cell_type", "metadata", "source"} | ({"execution_count", "outputs"} if cell["cell_type"] == "code" else set())
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_public_name_is_on_the_page() -> None:
    import sepbench

    page = (DOCS / "python.md").read_text(encoding="utf-8")
    assert not [name for name in sepbench.__all__ if f"sepbench.{name}" not in page and name not in ("Run", "Comparison")]
