"""Links to the papers' numbers: each leads to one row, and the rows of the tables we cover are all linked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from sepbench.resources import resource_root, suites_root
from sepbench.suites.loader import load_suite
from sepbench.suites.published import PublishedRow, find_published, published_rows
from sepbench.suites.tables import read_table

CSV = resource_root("leaderboards") / "published.csv"
NAMES = sorted(path.stem for path in suites_root().glob("*.toml"))


def finds(name: str) -> list[dict[str, str]]:
    return [entry.table("find").raw() for entry in read_table(suites_root() / f"{name}.toml").array("published")]


def row(suite: str, task: str, method: str, metric: str) -> PublishedRow:
    (found,) = [r for r in load_suite(suite).published if (r.task, r.method, r.metric) == (task, method, metric)]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_every_link_resolves_to_exactly_one_row(name: str) -> None:
    keys = finds(name)
    assert len(keys) == len(load_suite(name).published)
    for key in keys:
        hits = [r for r in published_rows(CSV) if key.items() <= dict(r).items()]
        assert len(hits) == 1, key
        assert find_published(key, CSV, "test") == hits[0]


@pytest.mark.parametrize(
    ("suites", "covered"),
    [
        (("mnist-pairs",), lambda r: (r["source"], r["table"]) == ("BASIS", "Table 2")),
        (("cifar10-pairs",), lambda r: (r["source"], r["table"]) == ("BASIS", "Table 3")),
        (("cifar10-color",), lambda r: (r["source"], r["table"]) == ("BASIS", "Table 4")),
        (("mnist-pairs",), lambda r: (r["source"], r["table"], r["direction"]) == ("S-D", "Table 2", "separation")),
        (("mnist-lass",), lambda r: r["source"] == "LASS" and r["table"] in ("Table 2", "Table 3") and r["dataset"] == "MNIST"),
        (("celeba-lass",), lambda r: r["source"] == "LASS" and r["table"] == "Table 2" and r["dataset"] == "CelebA 32x32"),
        (("mnist-nes", "bags-shoes-mini"), lambda r: (r["source"], r["table"]) == ("NES", "Table 1")),
        (("speech-noise",), lambda r: (r["source"], r["table"]) == ("NES", "Table 2")),
        (("musdb-vocals", "musdb-drums"), lambda r: r["source"] == "NES" and r["table"] in ("Table 3", "text sec 4.3") and "MUSDB" in r["dataset"]),
        (("slakh-drums-bass",), lambda r: (r["source"], r["table"], r["direction"]) == ("LASS", "Table 5", "avg")),
    ],
)
def test_the_covered_tables_are_linked_row_by_row(suites: tuple[str, ...], covered: object) -> None:
    linked = Counter(CSV_ROWS.index(find_published(key, CSV, "test")) for suite in suites for key in finds(suite))
    wanted = [n for n, r in enumerate(CSV_ROWS) if covered(r)]  # type: ignore[operator]
    assert wanted
    assert {n: linked[n] for n in wanted} == dict.fromkeys(wanted, 1)


CSV_ROWS = list(published_rows(CSV))


@pytest.mark.parametrize("name", NAMES)
def test_links_name_metrics_of_the_suite(name: str) -> None:
    suite = load_suite(name)
    distribution = {"fid_inception", "is_inception"} if name in ("celeba-lass", "cifar10-pairs", "cifar10-color") else set()
    assert {r.metric for r in suite.published} <= {*suite.metrics, *distribution}
    assert {r.task for r in suite.published} <= {key for key, task in suite.tasks.items() if task.split == "test"}


def test_numbers_stand_beside_the_convention_they_were_measured_with() -> None:
    """Flag 1: three definitions of PSNR in one column of BASIS Table 2."""
    assert row("mnist-pairs", "class-split", "average", "psnr").value == 14.8
    assert row("mnist-pairs", "class-split", "basis-ncsn", "psnr").value == 29.5
    assert row("mnist-pairs", "class-agnostic", "basis-ncsn", "psnr").value == 29.3
    nmf = row("mnist-pairs", "class-agnostic", "nmf", "psnr_sum_mse")
    assert (nmf.value, nmf.source, nmf.title) == (9.4, "BASIS Table 2", "NMF")
    assert "sum" in nmf.notes
    by_restarts = {name: row("mnist-pairs", "class-agnostic", name, "psnr_sum_mse") for name in ("s-d-1", "s-d", "s-d-32")}
    assert {name: (one.value, one.title) for name, one in by_restarts.items()} == {
        "s-d-1": (13.7, "S-D 1 init"),
        "s-d": (16.8, "S-D 8 init"),
        "s-d-32": (18.5, "S-D 32 init"),
    }
    assert row("mnist-lass", "permuted", "s-d-32", "psnr_sum_mse").value == 18.5
    assert row("mnist-pairs", "class-split", "supervised", "psnr_pooled32_pad").value == 24.3
    assert row("mnist-pairs", "class-split", "nmf-semi-printed", "psnr_pooled32_pad").value == 16.0
    assert row("mnist-nes", "x-0-4", "nmf-semi-printed", "psnr_pooled32").value == 16.5
    assert row("mnist-nes", "x-0-4", "mixture", "ssim").value == 0.65
    assert row("mnist-nes", "x-5-9", "mixture", "psnr_pooled32").value == 10.8
    assert row("musdb-vocals", "vocals", "mixture", "sdr_corpus_median").value == -3.5
    assert (row("mnist-lass", "permuted", "lass-greedy", "psnr").std, row("mnist-lass", "permuted", "lass-greedy", "psnr").n) == (5.9, 1000)


def test_numbers_of_other_data_say_so_in_their_source() -> None:
    """Leaderboards quote the source beside the number, so that it is not taken for one of this suite's data."""
    assert {r.source for r in load_suite("drums-bass-synth").published} == {"LASS Table 5 on Slakh2100"}
    assert row("drums-bass-synth", "best-assignment", "repet", "sdr").value == 1.04
    assert all(" on " not in r.source for name in set(NAMES) - {"drums-bass-synth"} for r in load_suite(name).published)


def test_another_table_is_refused(tmp_path: Path) -> None:
    from sepbench.errors import SuiteError

    path = tmp_path / "published.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(SuiteError, match="must have the columns"):
        published_rows(path)
    with pytest.raises(SuiteError, match="cannot be read"):
        published_rows(tmp_path / "absent.csv")
