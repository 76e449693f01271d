"""Parts of pages as text, from made-up sections: what stands there only sometimes, and what is left out then."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest

from sepbench.report.html.charts import Chart
from sepbench.report.html.examples import Card, Example, Examples, Sound
from sepbench.report.html.history import History, Step
from sepbench.report.html.page import _environment
from sepbench.report.html.posterior import Finding, Posterior
from sepbench.report.html.samples import MethodSamples, Samples

pytest.importorskip("jinja2")
VIEW = SimpleNamespace(slug="t", task="the task", metric=SimpleNamespace(name="sdr"))


def macro(template: str, name: str, *given: Any) -> str:
    """What a macro writes, with single spaces."""
    text = str(getattr(_environment().get_template(f"{template}.html.j2").module, name)(*given))
    return re.sub(r"\s+", " ", text)


def words(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", text)).strip()


CARDS = (
    Card("mixture", "m.png", "Mixture 3", (), sounds=(Sound("mixture", "m.flac"),)),
    Card("truth", "t.png", "True", ("drums", ""), sounds=(Sound("truth: drums", "t0.flac"), Sound("truth 2", "t1.flac")), count=2),
    Card("nmf", "n.png", "Estimates", ("failed", "failed"), "e.png", "Difference", (), 2),
)


def look(**facts: Any) -> str:
    made = Examples(
        **({"told": "How.", "examples": (Example(3, "best", CARDS, "Softer."),), "width": 99, "audio": True, "seconds": 2.04, "kilohertz": 4.0} | facts)
    )
    return macro("examples", "example_section", SimpleNamespace(view=VIEW, examples=made))


def test_a_mixture_to_listen_to() -> None:
    text = look()
    assert '<section id="t-examples" class="examples" aria-labelledby="t-examples-title">' in text
    assert "Listen and look<span" in text
    assert "Spectrograms: time from 0 to 2 s to the right, frequency from 0 to 4 kHz upwards, level from -90 dB (white) to -20 dB (black)." in text
    assert "show spectrograms of the error, estimate - truth" in text
    assert "How. Values under the pictures are of sdr;" in text
    assert 'max="2.04"' in text
    assert "Softer." in text
    assert re.findall(r'data-method="(\w+)"( data-reference)?', text) == [("mixture", " data-reference"), ("truth", " data-reference"), ("nmf", "")]
    assert re.findall(r'class="strip([^"]*)" style="--count: (\d); --width: (\d+)px"> <img loading="lazy" src="([^"]*)" alt="([^"]*)"', text) == [
        *((" spectrogram", "1", "99", "m.png", "Mixture 3"), (" spectrogram", "2", "99", "t.png", "True"), (" spectrogram", "2", "99", "n.png", "Estimates")),
        (" spectrogram error", "2", "99", "e.png", "Difference"),
    ]
    assert re.findall(r'data-sound="([^"]*)" data-label="([^"]*)" aria-label="([^"]*)"> ([^<]*)</label>', text) == [
        ("m.flac", "mixture", "mixture", "mixture"),
        ("t0.flac", "truth: drums", "truth: drums", "drums"),
        ("t1.flac", "truth 2", "truth 2", "truth 2"),  # without a caption the label stands there
    ]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", text)[2].count("<span>failed</span>") == 2
    assert text.count('<span data-head="') == 3
    assert "caution" not in text


def test_a_mixture_to_look_at() -> None:
    text = look(audio=False, told="", note="Something is <left> out.")
    assert 'class="examples look"' in text
    assert ">Look<span" in text
    assert "show the absolute difference from the truth" in text
    assert '<p class="caution">Something is &lt;left&gt; out.</p>' in text
    assert "spectrogram" not in text.lower()
    assert "Softer" not in text
    assert "Values under the pictures" not in text
    assert "data-player" not in text
    empty = look(examples=(), note="None.")
    assert "data-show-errors" not in empty
    assert "Spectrograms" not in empty
    assert "None." in empty


def test_posterior_samples() -> None:
    drawn = (MethodSamples("basis", (("b0.png", "words 0"), ("b1.png", "words 1"))),)
    made = Samples(5, 7, "median sdr", ("m.png", "Mixture 7"), (("t0.png", "True 0"), ("t1.png", "True 1")), drawn, 160)
    text = macro("examples", "sample_section", SimpleNamespace(view=VIEW, samples=made))
    assert "5 independent draws for mixture 7 (median sdr), each in the order of its best assignment; a line of pictures per source." in text
    found = re.findall(r'src="(\S+)" alt="([^"]*)" style="--count: (\d); --width: (\d+)px"', text)
    assert found == [
        *(("m.png", "Mixture 7", "1", "160"), ("t0.png", "True 0", "1", "160"), ("t1.png", "True 1", "1", "160")),
        *(("b0.png", "words 0", "5", "160"), ("b1.png", "words 1", "5", "160")),
    ]
    assert "<h4>basis</h4>" in text


@pytest.mark.parametrize("plots", [True, False])
def test_samplers_against_exact_draws(plots: bool) -> None:
    chart = Chart({"mark": "bar"}, "bars") if plots else None
    made = Posterior(("a", "b"), (Finding("basis", ("1.5", ""), "does not"),), "Told.", "" if plots else "No plots.", chart, chart, "Flat.")
    text = macro("posterior", "posterior_section", SimpleNamespace(view=VIEW, posterior=made))
    assert "Told." in text
    assert words(text).count("basis 1.5 does not") == 1
    assert ('id="t-posterior-pit"' in text, 'id="t-posterior-draws"' in text, "Flat." in text, "No plots." in text) == (plots, plots, plots, not plots)


def test_a_history_as_a_table() -> None:
    many = tuple(f"row {k:02}" for k in range(22))
    steps = (
        Step("monday", "<b>", "", "6 rows", (), ()),
        Step("tuesday", "new", "regression", "1 regression", many[:20], ("seed",)),
        Step("friday", "last", "worse, not tested", "x", (), (), many[:21]),
        Step("sunday", "", "holds", "y", many, ()),
    )
    text = macro("parts", "history_section", History(steps, (("t", Chart({"mark": "line"}, "a line")), ("u", Chart({}, "another")))), "past")
    rows = [words(row) for row in re.findall(r"<tr.*?</tr>", text)][1:]
    assert [
        row.startswith(start) for row, start in zip(rows, ("monday <b> first 6 rows".replace("<b>", "&lt;b&gt;"), "tuesday", "friday", "sunday"), strict=True)
    ] == [True] * 4
    assert re.findall(r'<tr( class="worse")?>', text)[1:] == ["", ' class="worse"', "", ""]
    assert rows[1].endswith("row 19 what else differs seed")
    assert "21 by means alone, not tested One of the two states has no values per mixture of these rows, so chance is not ruled out." in rows[2]
    assert rows[2].endswith("row 19 and 1 more")
    assert rows[3].endswith("row 19 and 2 more")
    assert re.findall(r'id="(past-\d)" data-chart role="img" aria-label="([^"]*)" style="min-height: (\d+)px"', text) == [
        ("past-1", "a line", "320"),
        ("past-2", "another", "320"),
    ]
    assert '<script type="application/json" data-spec="past-1">{"mark":"line"}</script>' in text


def test_cells_of_tables() -> None:
    cell = SimpleNamespace(text="0.00", sort=0.0, interval="")
    assert macro("parts", "number", cell, "psnr").strip() == '<td class="number" data-metric="psnr" data-sort="0.0">0.00</td>'
    bare = SimpleNamespace(text="", sort=None, interval="[1, 2]")
    assert macro("parts", "number", bare).strip() == '<td class="number" data-sort=""> <span class="ci">[1, 2]</span></td>'
    assert macro("parts", "head", "a_b").strip() == '<th scope="col" aria-sort="none" data-kind="text"><button type="button">a_<wbr>b</button></th>'
    assert 'data-kind="number" title="more"' in macro("parts", "head", "n", "number", "more")
    assert words(macro("parts", "facts", [("a", "<1>"), ("b", "2")])) == "a &lt;1&gt; b 2"


def test_a_name_that_is_missing_is_an_error_and_no_gap() -> None:
    from jinja2 import UndefinedError

    with pytest.raises(UndefinedError):
        macro("examples", "example_section", SimpleNamespace(view=VIEW, examples=SimpleNamespace(audio=True)))
