"""The report: its sums, its two forms, and that nothing from the audited tree gets into the page unescaped."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

from dalsegno.examples.audit_measure import FileMeasure, Finding
from dalsegno.examples.audit_report import Report, as_html, as_json, summarise, totals, write_whole

HOSTILE = "<script>alert('x')</script>&$root.py"

REPORT = Report(
    root="/src/<b>",
    run_id="audit#1",
    made_at=datetime(2024, 5, 1, 12, 30, tzinfo=UTC),
    packages=(
        summarise("a", [FileMeasure("a/x.py", 10, 2, 1, 3, 4, 2, ("os",), "f", 7)]),
        summarise(
            "b", [FileMeasure(HOSTILE, 5, findings=(Finding(HOSTILE, HOSTILE, 3),)), FileMeasure("b/y.py", 1000)]
        ),
    ),
)


class Elements(HTMLParser):
    """Counts the elements of a page and gathers its text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href")]


def test_sums():
    """Packages add up their files, the report its packages."""
    assert totals(REPORT) == {
        "packages": 2,
        "files": 3,
        "lines": 1015,
        "functions": 2,
        "classes": 1,
        "branches": 3,
        "public": 4,
        "documented": 2,
        "findings": 1,
    }


def test_json_form():
    """The JSON form holds the sums and every file under its package."""
    data = json.loads(as_json(REPORT))
    assert data["totals"]["files"] == 3
    assert data["made_at"] == "2024-05-01T12:30:00+00:00"
    assert [file["path"] for package in data["packages"] for file in package["files"]] == ["a/x.py", HOSTILE, "b/y.py"]


def test_page_escapes_what_it_shows():
    """Names and messages from the tree cannot add an element to the page."""
    tags = Elements(as_html(REPORT)).tags
    assert tags.count("script") == 1
    assert tags.count("b") == 7  # the cards' figures
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&amp;$root.py" in as_html(REPORT)


def test_page_stands_alone():
    """The page refers to nothing outside itself."""
    page = as_html(REPORT)
    assert Elements(page).addresses == []
    assert "url(" not in page
    assert "@import" not in page


def test_page_sorts_by_value():
    """Cells of numbers carry the number to sort by, whatever they show."""
    page = as_html(REPORT)
    assert '<td class=n data-v="1000">1,000</td>' in page
    assert '<td class=n data-v="0.500000">50 %</td>' in page


def test_an_empty_report_has_a_page():
    """A tree without a single file still makes a page that says so."""
    assert "Nothing found." in as_html(Report("/nowhere", "audit#1", REPORT.made_at, ()))


def test_files_are_written_whole(tmp_path: Path):
    """Writing makes the folder, replaces what was there, and leaves no halves behind."""
    assert write_whole(tmp_path / "out" / "r.txt", "old") == str(tmp_path / "out" / "r.txt")
    write_whole(tmp_path / "out" / "r.txt", "new")
    assert [(file.name, file.read_text()) for file in (tmp_path / "out").iterdir()] == [("r.txt", "new")]
