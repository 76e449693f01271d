"""The HTML report in a real browser: Debian's chromium, driven by Playwright, pages opened from disk."""

from __future__ import annotations

import io
import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser_again import Chromium
from html_pages import large_leaderboard
from synthetic_run import SyntheticRun

from sepbench.report.html.page import Options, write_report
from sepbench.results.store import RunStore
from sepbench.run.execute import execute
from sepbench.run.plan import make_plan
from sepbench.run.provenance import run_record
from sepbench.run.request import RunRequest
from sepbench.suites.loader import load_suite

pytest.importorskip("altair")
pytest.importorskip("playwright.sync_api")
CHROMIUM = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "chromium.py"))
pytestmark = pytest.mark.skipif(not CHROMIUM["PATH"], reason="Debian's chromium is not installed")
METHODS = {"nmf": 16.0, "ica": 15.9, "rpca": 12.0, "average": 14.0, "ideal-mask": 25.0}
WIDTHS = (360, 1200, 2000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with CHROMIUM["driver"]() as launch:
        started = Chromium(launch)
        yield started
        started.close()


class Tab:
    """A page, and all that it should not do: errors and requests to the outside."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(**options)
        self.context.set_default_timeout(90_000)  # a machine may be busy: Playwright's 30 s were too few for a whole page of CI's
        self.page = self.context.new_page()
        self.errors: list[str] = []
        self.outside: list[str] = []
        self.page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else self.outside.append(request.url))
        self.page.goto(path.as_uri())

    def scroll(self) -> None:
        """Down to the end, so that everything lazy is there; to every chart by itself, since a busy browser may not draw those that are passed quickly."""
        self.page.evaluate(
            """async () => { for (let top = 0; top < document.body.scrollHeight; top += 500) {
            scrollTo({ top, behavior: 'instant' }); await new Promise(r => setTimeout(r, 60)); } }"""
        )
        for at in range(self.page.evaluate("document.querySelectorAll('[data-chart]').length")):
            chart = f"document.querySelectorAll('[data-chart]')[{at}]"
            there = f"{chart}.scrollIntoView({{ behavior: 'instant', block: 'center' }})"  # again and again: charts above it grow and push it away
            self.wait(f"({there}, {chart}.querySelector('svg') !== null)")
        self.wait("[...document.querySelectorAll('[data-chart]')].every(e => e.querySelector('svg'))")

    def wait(self, condition: str) -> None:
        """Until a condition of the page holds; Playwright's own waiting needs eval, which the page's policy forbids."""
        for _ in range(1_800):  # a minute and a half: a machine may be busy
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never came true: {condition}")

    def close(self) -> None:
        self.context.close()
        assert self.errors == []
        assert self.outside == []


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("browser")
    return write_report([SyntheticRun(METHODS, n=30).save(folder / "run")], folder / "report").index


def serious(tab: Tab) -> list[Any]:
    """What axe finds that is serious or worse; the page's policy must be bypassed for it."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    found = axe.Axe().run(tab.page).response["violations"]
    return [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in ("serious", "critical")]


def real_run(folder: Path, suite: str, task: str, methods: tuple[str, ...], limit: int) -> str:
    """A run with its estimates."""
    request = RunRequest(suite=suite, tasks=(task,), methods=methods, limit=limit, budget="quick")
    plan = make_plan(request, load_suite(suite))
    record = run_record(plan, f"sepbench run --suite {suite}")
    store = RunStore.create(folder, record)
    with store.session(record):
        execute(plan, store)
    return str(folder)


def column(tab: Tab, head: str) -> list[str]:
    """The ranked methods of the first table, after a click on a head."""
    tab.page.locator("table.board thead button", has_text=head).first.click()
    return list(tab.page.locator("table.board tbody[data-part=ranked] tr[data-method] th").all_inner_texts())


@pytest.mark.slow
def test_sorting_filtering_and_the_chart_beside_the_table(browser: Any, synthetic: Path) -> None:
    tab = Tab(browser, synthetic)
    forest = tab.page.locator("#class-split-forest svg")
    forest.wait_for()
    assert column(tab, "ssim") == ["nmf", "ica", "rpca"]
    assert "ssim, higher is better" in forest.text_content()
    assert column(tab, "ssim") == ["rpca", "ica", "nmf"]
    assert tab.page.locator("thead th[aria-sort=ascending]").count() == 1
    tab.page.get_by_role("searchbox").fill("a")
    assert tab.page.locator("table.board tr[data-method]:visible").count() == 4  # all but nmf
    tab.wait("!document.querySelector('#class-split-forest').textContent.includes('nmf')")
    tab.page.get_by_role("checkbox", name="bounds").uncheck()
    assert tab.page.locator("table.board tr[data-method]:visible").count() == 2
    tab.page.get_by_role("button", name="Reset").click()
    tab.wait("document.querySelectorAll('table.board tr[data-method]:not([hidden])').length === 5")
    tab.page.get_by_role("link", name="nmf", exact=True).click()
    assert tab.page.locator(".command code").inner_text() == "sepbench run --suite digits-pairs --limit 30"
    assert tab.page.get_by_role("button", name="Copy").is_visible()
    tab.close()


@pytest.mark.slow
def test_a_method_called_script_runs_nothing(browser: Any, tmp_path: Path) -> None:
    name = "<script>document.title='caught'"
    made = SyntheticRun({name: 16.0, "<img src=x onerror=document.title='caught'>": 15.0}, n=12).fail(name, 1, "<script>document.title='caught'</script>")
    tab = Tab(browser, write_report([made.save(tmp_path / "run")], tmp_path / "report").index)
    tab.scroll()
    tab.page.locator("#class-split-forest svg path[aria-roledescription]").first.hover()
    assert "caught" not in tab.page.title()
    tab.page.locator("table.board a").first.click()
    assert "caught'" in tab.page.inner_text("h1")
    assert tab.page.title() != "caught"
    tab.close()


@pytest.mark.slow
def test_pairs_follow_their_selects_and_keys_reach_everything(browser: Any, synthetic: Path) -> None:
    tab = Tab(browser, synthetic)
    tab.page.keyboard.press("Tab")  # before all else: in Chromium 150, Tab goes on from where the page was last used
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    tab.scroll()
    told = tab.page.locator("[data-told]")
    before = told.inner_text()
    tab.page.locator("[data-second]").select_option("rpca")
    assert told.inner_text() != before
    assert told.inner_text().startswith("nmf - rpca: ")
    bars = tab.page.locator("#class-split-spread-difference svg .mark-rect path")
    bars.first.wait_for(state="attached")
    head = tab.page.locator("table.board thead button").nth(3)
    head.focus()
    head.press("Enter")
    assert tab.page.locator("table.board thead th").nth(3).get_attribute("aria-sort") == "descending"
    tab.close()


@pytest.mark.slow
def test_copying_a_command(browser: Any, synthetic: Path) -> None:
    tab = Tab(browser, synthetic.parent / "method-run--nmf.html", permissions=["clipboard-read", "clipboard-write"])
    tab.page.get_by_role("button", name="Copy").click()
    tab.page.get_by_role("button", name="Copied").wait_for()
    assert tab.page.evaluate("navigator.clipboard.readText()") == "sepbench run --suite digits-pairs --limit 30"
    tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_width_without_a_scrollbar_and_axe_finds_nothing_serious(browser: Any, synthetic: Path, scheme: str) -> None:
    for width in WIDTHS:
        tab = Tab(browser, synthetic, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        tab.scroll()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.errors == []
        assert serious(tab) == []
        tab.context.close()  # axe itself reads the style sheet again, which pages from disk may not


def picture(browser: Any, path: Path, scheme: str) -> Any:
    """What a reader sees first, ``(height, width, 3)`` in 0 ... 255.

    Chromium on CI once gave no picture of a whole page in half a minute, and the same test failed again when it had three (its words were lost). So a picture
    is of one screen, has half a minute, and another browser is asked up to twice more.
    """
    image, driver = pytest.importorskip("PIL.Image"), pytest.importorskip("playwright.sync_api")
    for _ in range(3):
        fresh = browser.browser_type.launch(executable_path=CHROMIUM["PATH"], args=list(CHROMIUM["SWITCHES"]))
        try:
            tab = Tab(fresh, path, viewport={"width": 1200, "height": 900}, color_scheme=scheme)
            tab.wait("document.querySelector('#class-split-forest svg') !== null")
            return np.asarray(image.open(io.BytesIO(tab.page.screenshot(timeout=30_000))).convert("RGB"))
        except driver.TimeoutError:
            continue
        finally:
            fresh.close()
    raise AssertionError("three browsers gave no picture")


@pytest.mark.slow
def test_the_page_is_painted_light_or_dark_as_the_reader_s_screen_is(browser: Any, synthetic: Path) -> None:
    seen = {scheme: picture(browser, synthetic, scheme) for scheme in ("light", "dark")}
    assert np.median(seen["light"]) > 200
    assert np.median(seen["dark"]) < 60
    for scheme, pixels in seen.items():  # words and a chart, not an empty page
        away = np.abs(pixels.astype(int) - int(np.median(pixels))).max(axis=-1) > 60
        assert 0.01 < away.mean() < 0.5, scheme
        assert (away.mean(axis=1) > 0.01).mean() > 0.2, scheme


@pytest.mark.slow
def test_the_page_of_a_method_with_its_card(browser: Any, tmp_path: Path) -> None:
    made = SyntheticRun({"projected": 16.0, "nmf": 15.0}, n=12)
    digits_all = "4258417f2057cf7721e859b97d68f7f37cfbc37e27089de2f4292c8b6e55ef37"
    made.cells["class-split", "projected"] |= {"weights_sha256": digits_all, "prior": "EDM U-Net", "evaluations": 1200.0}
    page = write_report([made.save(tmp_path / "run")], tmp_path / "report").index.parent / "method-run--projected.html"
    tab = Tab(browser, page, viewport={"width": 360, "height": 900}, bypass_csp=True)
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
    tab.wait("document.querySelector('.weights img').naturalWidth > 0")
    folded = tab.page.get_by_text("Training: config")
    assert not folded.is_visible()
    tab.page.get_by_text("How it was trained").click()
    assert folded.is_visible()
    assert tab.errors == []
    assert serious(tab) == []
    tab.context.close()


WIDER_THAN_ITS_BOX = "[...document.querySelectorAll('.side .scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.getAttribute('aria-label'))"
MEETING_NAMES = """[...document.querySelectorAll('[id*=-pareto-]')].some(chart => {
    const shown = [...chart.querySelectorAll('g.mark-text.role-mark text')].filter(e => getComputedStyle(e).visibility === 'visible');
    const boxes = shown.map(e => e.getBoundingClientRect());
    return boxes.some((a, i) => boxes.slice(i + 1).some(b => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)); })"""
CUT_LEGENDS = """[...document.querySelectorAll('[data-chart] svg')].filter(svg => [...svg.querySelectorAll('g.role-legend')].some(
    e => e.getBoundingClientRect().right > svg.getBoundingClientRect().right + 1)).map(svg => svg.closest('[data-chart]').id)"""


@pytest.mark.slow
def test_filters_by_task_metric_and_supervision_and_a_point_says_what_it_is(browser: Any, tmp_path: Path) -> None:
    tab = Tab(browser, write_report(["digits-pairs"], tmp_path / "report").index)
    tab.scroll()
    rows = tab.page.locator("table.board tr[data-method]:visible")
    shown = set(rows.evaluate_all("rows => rows.map(row => row.dataset.supervision)"))
    assert {"blind", "prior"} <= shown
    tab.page.locator("select[name=task]").select_option("class-agnostic")
    assert tab.page.locator("section.task:visible").evaluate_all("them => them.map(one => one.dataset.task)") == ["class-agnostic"]
    tab.page.locator("select[name=metric]").select_option("ssim")
    assert set(tab.page.locator("table.board [data-metric]:visible").evaluate_all("cells => cells.map(cell => cell.dataset.metric)")) == {"ssim"}
    tab.page.get_by_role("checkbox", name="blind", exact=True).uncheck()
    assert "blind" not in rows.evaluate_all("rows => rows.map(row => row.dataset.supervision)")
    assert rows.count()
    tab.page.get_by_role("button", name="Reset").click()
    tab.wait("document.querySelectorAll('section.task:not([hidden])').length === 2")
    point = tab.page.locator("#class-split-pareto-1 svg .mark-symbol path").first
    point.scroll_into_view_if_needed()
    point.hover()
    tab.page.locator("#vg-tooltip-element.visible").wait_for()
    assert "[" in tab.page.inner_text("#vg-tooltip-element")  # the interval
    tab.close()


@pytest.mark.slow
def test_the_widest_leaderboard_on_a_wide_screen_on_a_phone_and_on_paper(browser: Any, tmp_path: Path) -> None:
    index = write_report(["mnist-pairs"], tmp_path / "report").index  # 25 methods, 8 metrics
    for width in (360, 2000):
        tab = Tab(browser, index, viewport={"width": width, "height": 900}, color_scheme="dark")
        tab.scroll()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.page.evaluate(CUT_LEGENDS) == []
        assert not tab.page.evaluate(MEETING_NAMES)
        assert tab.page.locator("#class-split-pareto-1 g.mark-text text:visible").count() > 2
        if width == 2000:
            assert tab.page.evaluate(WIDER_THAN_ITS_BOX) == []
            tab.page.set_viewport_size({"width": 1030, "height": 700})  # A4 across, without its margins
            tab.page.emulate_media(media="print", color_scheme="dark")
            assert tab.page.evaluate("document.documentElement.scrollWidth") <= 1030
            wraps = "[...document.querySelectorAll('.board th, .board td')].map(e => getComputedStyle(e).overflowWrap)"
            assert set(tab.page.evaluate(wraps)) == {"normal"}  # no word breaks in the middle
            colours = "[...document.querySelectorAll('.published')].map(e => getComputedStyle(e).color)"
            assert set(tab.page.evaluate(colours)) == {"rgb(122, 76, 0)"}  # ink, not the yellow of the dark page
            sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", tab.page.pdf())
            assert sheets
            assert all(float(across) > float(high) for across, high in sheets)
        tab.close()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_first_page_of_several_runs_with_their_history(browser: Any, tmp_path: Path, scheme: str) -> None:
    runs = []
    for atoms, shift in ((4, 0.0), (8, -3.0)):
        made = SyntheticRun(METHODS, n=30).shift("nmf", "psnr", shift)
        made.record["methods"]["nmf"]["settings"] = {"atoms": atoms}
        runs.append(made.save(tmp_path / f"atoms-{atoms}"))
    index = write_report(runs, tmp_path / "report").index
    for width in (360, 900):
        tab = Tab(browser, index, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        tab.scroll()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert "regression" in tab.page.locator("#past-1-1 svg").text_content()
        assert "class-split, nmf, psnr: 16" in tab.page.locator("tr.worse").inner_text()
        assert tab.page.locator("#curve-1-1 svg").count() == 1
        assert tab.errors == []
        assert serious(tab) == []
        tab.context.close()


@pytest.mark.slow
def test_without_scripts_the_tables_are_whole(browser: Any, synthetic: Path) -> None:
    tab = Tab(browser, synthetic, java_script_enabled=False)
    assert tab.page.locator("table.board tr[data-method]:visible").count() == len(METHODS)
    assert not tab.page.locator("[data-chart]").first.is_visible()
    tab.close()


@pytest.mark.slow
def test_sounds_decode_seek_and_keep_their_place(browser: Any, tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    run = real_run(tmp_path / "run", "drums-bass-synth", "best-assignment", ("average", "hpss"), 4)
    written = write_report([run], tmp_path / "report", Options(asked=(2,)))
    assert written.media > 100_000
    tab = Tab(browser, written.index)
    example = tab.page.locator("[data-example]").first
    assert "chosen" in example.inner_text()
    example.scroll_into_view_if_needed()
    strip = example.locator(".spectrogram:not(.error)").first
    box = strip.bounding_box()
    strip.click(position={"x": box["width"] / 6, "y": box["height"] / 2})  # half a second into the mixture, played from there
    tab.wait("parseFloat(document.querySelector('[data-time]').textContent) > 0.5")
    assert example.locator("[data-play]").inner_text() == "Pause"
    example.locator("[data-sound]").nth(1).check()
    here = float(example.locator("[data-time]").inner_text().split()[0])
    assert here >= 0.5  # another source, the same place
    tab.wait(f"parseFloat(document.querySelector('[data-time]').textContent) > {here}")
    assert example.locator("[data-source]").inner_text() == "truth: drums"
    example.locator("[data-play]").click()
    decoded = tab.page.evaluate(
        """async () => { const audio = new Audio(document.querySelectorAll('[data-sound]')[2].dataset.sound);
        await new Promise((done, failed) => { audio.oncanplay = done; audio.onerror = failed; audio.load(); });
        audio.currentTime = 2; await new Promise(done => { audio.onseeked = done; });
        return [audio.duration, audio.currentTime]; }"""
    )
    assert decoded == pytest.approx([3.0, 2.0], abs=0.05)
    tab.page.get_by_role("slider").first.focus()
    before = float(example.locator("[data-time]").inner_text().split()[0])
    tab.page.keyboard.press("ArrowRight")  # keys seek, too
    tab.wait(f"parseFloat(document.querySelector('[data-time]').textContent) !== {before}")
    tab.close()
    for width, scheme in ((360, "dark"), (2000, "light")):
        looked = Tab(browser, written.index, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        looked.scroll()
        looked.page.get_by_role("checkbox", name="show spectrograms of the error").first.check()
        assert looked.page.locator(".strip.error:visible").count() == looked.page.locator(".strip.error").count() > 0
        assert looked.page.evaluate("document.documentElement.scrollWidth") <= width
        assert serious(looked) == []
        looked.context.close()


@pytest.mark.slow
def test_which_samplers_sample_the_posterior(browser: Any, tmp_path: Path) -> None:
    run = real_run(tmp_path / "run", "gaussian-exact", "d2", ("dirac", "exact-posterior"), 12)
    index = write_report([run], tmp_path / "report").index
    for width, scheme in ((360, "light"), (2000, "dark")):
        tab = Tab(browser, index, viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
        tab.scroll()
        rows = tab.page.locator("#d2-posterior tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows] == ["exact-posterior", "dirac"]
        assert "exact draws" in rows[0]
        for chart in ("pit", "draws"):
            assert "dirac" in tab.page.locator(f"#d2-posterior-{chart} svg").text_content()
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.errors == []
        assert serious(tab) == []
        tab.context.close()


@pytest.mark.slow
def test_25000_mixtures_open_at_once(browser: Any, tmp_path: Path) -> None:
    """No clock decides a test here: what is shown first must not wait for the charts below, and the page's size is what makes it quick."""
    index = write_report([str(large_leaderboard(tmp_path, 25_000, 12))], tmp_path / "report").index
    assert index.stat().st_size < 3_000_000
    tab = Tab(browser, index)
    assert tab.page.locator("table.board tr[data-method]").count() == 12
    assert tab.page.locator("[data-chart] svg").count() < tab.page.locator("[data-chart]").count()
    tab.scroll()
    tab.close()
