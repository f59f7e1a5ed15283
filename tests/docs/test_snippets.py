"""The pages say nothing that does not run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Reading, blocks, pages, same

ELSEWHERE = {
    "testing.md": "tests/testing/test_guide.py",
    "stores.md": "tests/testing/test_backend_machine.py",
    "postgresql.md": "tests/backends/test_postgresql.py",
    "retention.md": "tests/tools/test_retention_guide.py",
    "lint.md": "tests/tools/test_lint_command.py",
    "debugging.md": "tests/docs/test_debugging.py",
}
"""Pages that need more than an empty folder (a server, other arguments, a package to install), and what runs them."""

SHOWN = {"python", "text", "console", "sh", "sql", "ini", "toml", "json", "yaml"}
"""What a block may be. One that says nothing would be run by nobody."""


@pytest.mark.parametrize("page", [page for page in pages() if page not in ELSEWHERE])
def test_what_a_page_shows_is_so(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its snippets run from top to bottom in an empty folder, and print what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DALSEGNO_STORE", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    reading = Reading(page, tmp_path)
    try:
        reading.run()
    finally:
        reading.close()
    assert not reading.faults, "\n".join(reading.faults)


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_the_other_pages_are_run_elsewhere(page: str, test: str):
    """The test that is said to run a page names it."""
    assert page.removesuffix(".md") in (ROOT / test).read_text("utf-8")


@pytest.mark.parametrize("page", [page for page in pages() if page not in ELSEWHERE])
def test_every_block_says_what_it_is(page: str):
    """No block is passed over because nobody knows what it is."""
    assert [block.line for block in blocks(page) if block.language not in SHOWN] == []


def test_what_differs_each_time_is_compared_by_its_form():
    """A duration for a duration, `…` for whatever it is; a number is not any number."""
    assert same("took 3.21 ms\n…\nend", "took 41 µs\nmore\nand more\nend\n")
    assert same("order-42#1  at 2026-01-08 12:00:03", "order-42#1 at 2031-11-30 01:02:03")
    assert not same("3 greeted", "4 greeted")
    assert not same("end", "end\nof it")
