"""The targets are judged from the document of a run alone."""

from pathlib import Path

import pytest
from benchmarks.report import ONE, TWO, Document, entry, failures, merged, table
from benchmarks.run import Result, Sample
from benchmarks.summary import in_block, sizing, summary

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def result(load: str, peer: str, cpu: float, *, resident: tuple[int, ...] = (50_000,), moved: int = 0) -> Result:
    """A peer that needed ``cpu`` seconds for each of its hundred operations in a second, in each turn."""
    samples = [
        Sample(100, 1.0, 100 * cpu, 0.0, 0.0, p50=cpu, p99=2 * cpu, peak_kib=kib, resident_kib=kib)
        for kib in resident
    ]
    return Result(load, peer, moved, samples, idle_kib=40_000)


def document(*groups: list[Result], revision: str = "abc1234") -> Document:
    entries = {group[0].load: entry("a load", "2026-01-01", revision, group) for group in groups}
    return {
        "started": "2026-01-01 00:00 UTC",
        "machine": {"cpu": "a processor", "cores": 2, "python": "3.11"},
        "peers": {"moorage": {"version": "0.1.0", "durability": "all of it"}},
        "missing": {"zot": "no zot on PATH"},
        "tables": {ONE: entries, TWO: {}},
    }


def row(text: str, label: str) -> list[str]:
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.split("|")[1:-1]]


def test_cpu_is_at_most_the_target() -> None:
    load = "manifest-get-tag"
    group = [
        result(load, peer, cpu) for peer, cpu in (("moorage", 30e-6), ("distribution", 150e-6), ("nginx", 10e-6))
    ]
    text = summary(document(group))
    cells = row(text, "manifest GET by tag")
    assert cells[1:5] == ["CPU", "30 µs", "0.2 (≤ 0.2) ✓", "nginx 3 (≤ 2.5) ✗"]
    assert cells[5:] == ["- (≤ 1)", "- (≤ 1)"]
    assert "1 of 2 measured targets are met." in text
    assert "- not met: manifest GET by tag against nginx: 3 instead of ≤ 2.5" in text


def test_a_rate_is_at_least_the_target() -> None:
    load = "tags-middle"
    ours = result(load, "moorage", 1e-4)
    slow = Result(load, "distribution", 0, [Sample(4, 1.0, 1.0, 0.0, 0.0, 0.2, 0.3, 1, 1)])
    text = summary(document([ours, slow]))
    assert row(text, "tag page, middle of 100,000 tags")[2:4] == ["100/s", "25 (≥ 20) ✓"]


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    text = summary(document())
    assert "0 of 0 measured targets are met." in text
    assert "✓" not in text
    assert "✗" not in text


def test_growth_compares_the_most_tags_with_the_fewest() -> None:
    sizes = [
        result("growth-page", f"{count:,} tags", cpu) for count, cpu in ((10, 1e-4), (1000, 9e-5), (10**6, 3e-4))
    ]
    assert row(summary(document(sizes)), "tag page: CPU at 1,000,000 tags over that at the fewest")[1:] == [
        "3",
        "≤ 1.25",
        "✗",
    ]


def test_memory_over_many_requests_starts_after_the_first_turn() -> None:
    group = [result("endurance", "moorage", 1e-5, resident=(50_000, 50_500, 51_000))]
    assert row(summary(document(group)), "memory after 300 requests over that after a tenth")[1:] == [
        "1.02",
        "≤ 1.05",
        "✓",
    ]


def test_a_failure_is_shown_and_counted() -> None:
    broken = Result("blob-head", "olareg", 0, failure="500 instead of 200")
    found = document([result("blob-head", "moorage", 1e-5), broken])
    assert failures(found) == ["blob-head, one core, olareg: 500 instead of 200"]
    assert "FAILED: 500 instead of 200" in table(found)
    assert "MISSING: no zot on PATH" in table(found)


def test_a_later_run_replaces_its_loads_and_keeps_the_others() -> None:
    old = document([result("blob-head", "moorage", 1e-5)], [result("endurance", "moorage", 1e-5)], revision="old")
    new = document([result("blob-head", "moorage", 2e-5)], revision="new")
    entries = merged(old, new, ["endurance", "blob-head"])["tables"][ONE]
    assert list(entries) == ["endurance", "blob-head"]
    assert entries["endurance"]["revision"] == "old"
    assert entries["blob-head"]["peers"]["moorage"]["cpu_seconds_per_operation"] == pytest.approx(2e-5)


def test_sizing_tells_what_a_core_does() -> None:
    group = [result("blob-get-10m", "moorage", 5e-3, moved=10_000_000)]
    text = sizing(document(group, [result("manifest-get-tag", "moorage", 40e-6)]))
    assert row(text, "blob bytes out, blobs of 10 MB") == ["blob bytes out, blobs of 10 MB", "2.00 GB/s"]
    assert row(text, "pulls of a manifest by tag")[1] == "25,000/s"


@pytest.mark.parametrize("name", ["figures", "sizing"])
def test_the_page_has_the_block_that_is_rewritten(name: str) -> None:
    page = PAGE.read_text("utf-8")
    changed = in_block(page, name, "instead\n")
    assert "instead" in changed
    assert in_block(changed, name, "instead\n") == changed


def test_a_page_without_the_block_is_refused() -> None:
    with pytest.raises(ValueError, match="figures"):
        in_block("# A page\n", "figures", "text")
