"""``sepbench run --config`` and ``--save-config``: a file says what the command line can say, and no more; both ways give the same call."""

from __future__ import annotations

import functools
import inspect
import json
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from sepbench.cli import run_config
from sepbench.cli.main import app
from sepbench.cli.run import names, run
from sepbench.errors import SepbenchError
from sepbench.settings import parse_settings

RUN = ("run", "--suite", "digits-pairs", "--tasks", "class-split", "--limit", "4", "--device", "cpu")


@pytest.fixture(autouse=True)
def empty_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)


def sepbench(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "200"})


def refused(text: str, name: str = "run.yaml") -> str:
    Path(name).write_text(text)
    result = sepbench("run", "--config", name)
    assert isinstance(result.exception, SepbenchError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def called(*arguments: str) -> tuple[dict[str, Any], str]:
    """What ``run`` is called with, and the command that its record would keep."""
    seen: list[tuple[dict[str, Any], str]] = []

    @functools.wraps(run)
    def spy(ctx: typer.Context, **parameters: Any) -> None:
        if parameters["save_config"]:
            run_config.save_config(ctx, parameters["save_config"])
        parameters["settings"] = run_config.settings_of(ctx)
        seen.append((parameters, run_config.command_line(ctx, list(arguments))))

    spied = typer.Typer()
    spied.command("run")(spy)
    spied.command("other")(lambda: None)
    result = CliRunner().invoke(spied, list(arguments))
    assert result.exit_code == 0, result.output or result.exception
    return seen[0]


def parameters(*arguments: str) -> dict[str, Any]:
    """What decides the run, with settings and names as the run reads them."""
    found = {name: value for name, value in called(*arguments)[0].items() if name not in run_config.OF_THE_CALL}
    return found | {"settings": repr(parse_settings(found["settings"]))} | {name: names(found[name]) for name in run_config.LISTS}


def test_a_file_may_say_each_option_of_the_command_and_nothing_else() -> None:
    fields = run_config.options_model(run).model_fields
    options = set(inspect.signature(run).parameters) - {"ctx"}
    assert set(fields) == options - set(run_config.OF_THE_CALL)
    assert set(run_config.OF_THE_CALL) < options
    command: Any = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    spelled = {option.name: option.opts[0].removeprefix("--") for option in command.params}
    assert {name: field.alias for name, field in fields.items()} == {name: spelled[name] for name in fields}
    assert {name for name, field in fields.items() if "separated by commas" in str(field.description)} == set(run_config.LISTS)


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=12)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz-0123456789", min_size=1, max_size=8).map(lambda text: f"m{text}")
LISTED = st.lists(NAMES, min_size=1, max_size=3).map(", ".join)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS
LITERALS = (
    (SCALARS | st.tuples(SCALARS, SCALARS) | st.lists(SCALARS, max_size=2)).map(repr) | WORDS | st.sampled_from(["1e-3", "no", "0x10", "1_000", "1:30", "~"])
)
SET = st.dictionaries(st.tuples(NAMES, NAMES).map(".".join), LITERALS, min_size=1, max_size=3).map(lambda own: [f"{k}={v}" for k, v in own.items()])
VALUES = st.fixed_dictionaries(
    {"suite": NAMES},
    optional={
        "methods": LISTED,
        "tasks": LISTED,
        "limit": st.integers(),
        "device": WORDS,
        "seed": st.integers(),
        "seeds": st.integers(1),
        "out": WORDS,
        "budget": st.sampled_from(["quick", "paper"]),
        "settings": SET,
        "workers": st.sampled_from(["auto", "4", "04"]),
        "refit": st.booleans(),
        "keep_estimates": st.booleans(),
    },
)


@hypothesis_settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES, st.sampled_from([".yaml", ".json"]))
def test_what_is_saved_is_read_back(values: dict[str, Any], ending: str) -> None:
    path = Path(f"saved{ending}")
    path.write_text(run_config.config_text(values, run, ending), encoding="utf-8", newline="")
    found = dict(run_config.read_config(path, run))
    for side in (found, values := dict(values)):
        side["settings"] = repr(parse_settings(side.get("settings", [])))
        for name in run_config.LISTS:
            side[name] = names(side.get(name, ""))
    assert found == values


OPTIONS = (
    *("--methods", "nmf, ica", "--limit", "3", "--budget", "quick", "--set", "nmf.atoms=4", "--set", "nmf.x='4'", "--set", "ica.y=(1, 2)"),
    *("--workers", "2", "--no-keep-estimates", "--latency", "--out", "a folder", "--shard-size", "7", "--seed", "0"),
)


@pytest.mark.parametrize("ending", ["yaml", "yml", "json"])
def test_a_saved_command_is_repeated(ending: str) -> None:
    direct = parameters("run", "--suite", "digits-pairs", *OPTIONS)
    assert parameters("run", "--suite", "digits-pairs", *OPTIONS, "--save-config", f"saved.{ending}") == direct
    assert parameters("run", "--config", f"saved.{ending}") == direct


def test_the_record_needs_no_file() -> None:
    called("run", "--suite", "digits-pairs", *OPTIONS, "--save-config", "saved.yaml")
    _, command = called("run", "--config", "saved.yaml", "--seeds", "2")
    Path("saved.yaml").unlink()
    assert "config" not in command
    program, *arguments = shlex.split(command)
    assert program == "sepbench"
    assert parameters(*arguments) == parameters("run", "--suite", "digits-pairs", *OPTIONS, "--seeds", "2")
    assert called("run", "--suite", "x", "--limit", "1")[1] == "sepbench run --suite x --limit 1"


def test_the_command_line_wins() -> None:
    Path("run.yaml").write_text("suite: a\nlimit: 9\nkeep_estimates: false\nset:\n  nmf: {atoms: 4, beta: 1e-3}\n")
    found = called("run", "--config", "run.yaml", "--limit", "2", "--keep-estimates", "--set", "nmf.atoms=5")[0]
    assert (found["suite"], found["limit"], found["keep_estimates"]) == ("a", 2, True)
    assert parse_settings(found["settings"]) == {"nmf": {"atoms": 5, "beta": 0.001}}


def test_forms_of_a_file() -> None:
    Path("a.yaml").write_text("suite: s\nmethods: [nmf, ica]\nworkers: 4\nset: [nmf.atoms=4]\ndevice:\n")
    Path("b.toml").write_text('suite = "s"\nmethods = "nmf,ica"\nworkers = "4"\n[set.nmf]\natoms = 4\n')
    assert parameters("run", "--config", "a.yaml") == parameters("run", "--config", "b.toml")
    assert parameters("run", "--config", "a.yaml")["device"] == "auto"
    Path("empty.yaml").write_text("# nothing\n")
    assert parameters("run", "--config", "empty.yaml", "--suite", "s")["limit"] is None


LINES = {
    "not near": ("suite: s\nsettings: {}\n", "unknown key 'settings'; the keys are the options of 'sepbench run' without dashes: suite, methods,"),
    "near": ("suite: s\nmethdos: [nmf]\n", "run.yaml: unknown key 'methdos'; did you mean methods"),
    "of the call": ("dry-run: true\n", "run.yaml: dry-run is about one call, and belongs on the command line"),
    "kind": ("limit: many\n", "run.yaml: limit must be a whole number, got 'many'"),
    "bool for int": ("limit: true\n", "limit must be a whole number, got True"),
    "bound": ("seeds: 0\n", "run.yaml: seeds must be at least 1, got 0"),
    "choice": ("budget: slow\n", "budget must be one of quick, paper, got 'slow'"),
    "names": ("methods: {nmf: 1}\n", "methods must be names, such as [nmf, ica], got {'nmf': 1}"),
    "settings": ("set: 4\n", "set must be METHOD: {SETTING: VALUE}, or a list of METHOD.SETTING=VALUE, got 4"),
    "flag": ("refit: 'no'\n", "refit must be true or false, got 'no'"),
    "twice": ("limit: 1\nlimit: 2\n", "run.yaml cannot be read: key 'limit' is given twice"),
    "both spellings": ("shard-size: 1\nshard_size: 2\n", "run.yaml gives shard-size twice"),
    "no mapping": ("- a\n", "run.yaml must hold keys with values"),
    "not YAML": ("a: [\n", "run.yaml cannot be read: "),
    "another bound": ("save-audio: -1\n", "run.yaml: save-audio must be at least 0, got -1"),
    "a number with a point": ("seed: 1.0\n", "run.yaml: seed must be a whole number, got 1.0"),
    "no path": ("out: 3\n", "run.yaml: out must be text, got 3"),
    "number or text": ("workers: 2.5\n", "run.yaml: workers must be a whole number or text, got 2.5"),
    "names that are none": ("tasks: [a, 3]\n", "run.yaml: tasks must be names, such as [nmf, ica], got ['a', 3]"),
    "a key that is no text": ("1: 2\n", "run.yaml: unknown key '1'; the keys are the options"),
    "the file itself": ("config: a.yaml\n", "run.yaml: config is about one call, and belongs on the command line"),
    "by another spelling": ("save_config: a.yaml\n", "run.yaml: save-config is about one call, and belongs on the command line"),
}


@pytest.mark.parametrize(("text", "line"), LINES.values(), ids=LINES.keys())
def test_refusals_name_file_and_key(text: str, line: str) -> None:
    assert line in refused(text)


def test_files_that_are_none() -> None:
    assert "a configuration file ends in .yaml, .json or .toml" in refused("a", "run.txt")
    assert "is given twice" in refused('{"limit": 1, "limit": 2}', "run.json")
    assert "cannot be read" in refused("limit = ", "run.toml")
    result = sepbench("run", "--config", "nothing.yaml")
    assert "nothing.yaml cannot be read: no such file or directory" in str(result.exception)


def test_another_file_is_not_written_over(tmp_path: Path) -> None:
    Path("run.yaml").write_text("# my words\nsuite: digits-pairs\n")
    result = sepbench(*RUN, "--methods", "average", "--dry-run", "--save-config", "run.yaml")
    assert "run.yaml is there and says something else" in str(result.exception)
    assert "my words" in Path("run.yaml").read_text()
    assert "files that end in .yaml or .json" in str(sepbench(*RUN, "--dry-run", "--save-config", "run.toml").exception)


def test_a_run_from_a_file_resumes_the_run_of_the_command() -> None:
    direct = sepbench(*RUN, "--methods", "average", "--save-config", "conf/run.yaml")
    assert direct.exit_code == 0, direct.output
    again = sepbench("run", "--config", "conf/run.yaml")
    assert again.exit_code == 0, again.output
    (folder,) = Path("runs").iterdir()
    _, last = json.loads((folder / "run.json").read_text())["sessions"]
    assert parameters(*shlex.split(last["command"])[1:]) == parameters(*RUN, "--methods", "average")


def _strict(text: str) -> Any:
    """JSON as the standard has it: no infinity, no NaN."""

    def none(word: str) -> Any:
        raise ValueError(word)

    return json.loads(text, parse_constant=none)


SPECIAL = ["1e999", "-1e999", "[1, 1e999]", "[[1], [2, 1e999]]", "{'a': 1, 'b': 1e999}", "{1: 2}", "{'a': 1, 2: 3}", "(1, 2)", "b'x'", "2j", "{1, 2}"]


@pytest.mark.parametrize("value", [*SPECIAL, *(f"[1, {value}]" for value in SPECIAL), *(f"[{value}, 1]" for value in SPECIAL)])
def test_a_value_that_not_every_file_gives_back_is_kept_as_it_was_given(value: str) -> None:
    given = [f"nmf.x={value}", "nmf.atoms=4"]
    assert _strict(run_config.config_text({"suite": "a", "settings": given}, run, ".json"))["set"] == given


@pytest.mark.parametrize("value", [4, -0.5, True, None, "word", [1, 2.5, "a", None], [], [[1], []], {"a": {"b": [1]}}, [{"a": 1}]])
def test_a_value_that_every_file_gives_back_stands_under_its_method(value: Any) -> None:
    text = run_config.config_text({"suite": "a", "settings": [f"nmf.x={value!r}", "nmf.atoms=4"]}, run, ".json")
    assert _strict(text)["set"] == {"nmf": {"x": value, "atoms": 4}}


def test_settings_of_a_file_come_first_and_the_command_line_s_take_their_places() -> None:
    Path("run.yaml").write_text("suite: s\nset: ['b.x = 1', a.x=2, c.x=3]\n")
    found = called("run", "--config", "run.yaml", "--set", " a.x = 5", "--set", "d.x=6", "--set", "b.x=7")[0]
    assert found["settings"] == ["c.x=3", " a.x = 5", "d.x=6", "b.x=7"]
    assert called("run", "--config", "run.yaml")[0]["settings"] == ["b.x = 1", "a.x=2", "c.x=3"]


@pytest.mark.parametrize(
    ("value", "text"), [("word", "m.x=word"), ("3", "m.x='3'"), ("a=b", "m.x=a=b"), (" a", "m.x=' a'"), ("", "m.x="), ("None", "m.x='None'"), (3, "m.x=3")]
)
def test_a_text_is_quoted_where_it_would_be_read_as_something_else(value: object, text: str) -> None:
    assert run_config.setting_texts({"m": {"x": value}}) == [text]
    assert parse_settings([text]) == {"m": {"x": value}}


def test_flags_of_a_file_are_spelt_as_they_are_meant() -> None:
    Path("run.yaml").write_text("suite: s\nkeep-estimates: true\nrefit: false\nlatency: true\nlimit: 3\n")
    command = called("run", "--config", "run.yaml", "--no-keep-estimates")[1]
    assert command == "sepbench run --suite s --limit 3 --no-refit --no-keep-estimates --latency"


def test_of_a_long_value_the_beginning_is_shown() -> None:
    assert refused(f"limit: {'x' * 300}\n") == f"run.yaml: limit must be a whole number, got '{'x' * 199}"
