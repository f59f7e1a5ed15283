"""The site: one page for each file, each in the table of contents, no dead link, and it builds."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.docs.pages import DOCS, FENCE, ROOT, pages

LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)\s]+)\)")


def prose(path: Path) -> str:
    """A page without its blocks."""
    return FENCE.sub("", path.read_text("utf-8"))


def anchors(path: Path) -> set[str]:
    """The names of a page's sections, as code hosts and the site make them."""
    titles = re.findall(r"^#+ (.*)$", prose(path), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def named(nav: object) -> list[str]:
    """Every page of a table of contents."""
    if isinstance(nav, str):
        return [nav]
    inner = nav.values() if isinstance(nav, dict) else nav
    assert not isinstance(inner, str)
    return [page for part in inner for page in named(part)]  # type: ignore[attr-defined]


def test_the_table_of_contents_names_every_page():
    """Each page once; a new page is added to `nav` in mkdocs.yml."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    assert sorted(named(config["nav"])) == pages()


@pytest.mark.parametrize("page", [*pages(), "../README.md", "../ARCHITECTURE.md"])
def test_no_link_is_dead(page: str):
    """Every file and every section that a page points to is there."""
    path = DOCS / page
    dead = []
    for target in LINK.findall(prose(path)):
        if re.match(r"https?:", target):
            continue
        file, _, anchor = target.partition("#")
        there = path.parent / file if file else path
        if not there.exists() or (anchor and there.suffix == ".md" and anchor not in anchors(there)):
            dead.append(target)
    assert dead == []


def test_the_readme_leads_to_every_page():
    """Who comes through the front door finds the first page, and from there all others."""
    assert "docs/index.md" in LINK.findall(prose(ROOT / "README.md"))
    linked = {target.partition("#")[0] for target in LINK.findall(prose(DOCS / "index.md"))}
    assert [page for page in pages() if page != "index.md" and page not in linked] == []


def test_the_site_builds(tmp_path: Path):
    """As `make docs` does it, and its pages load nothing from elsewhere."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    loaded = r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"""
    made = list((tmp_path / "site").rglob("*.html"))
    assert len(made) > len(pages())
    assert [
        (page.name, re.findall(loaded, page.read_text("utf-8")))
        for page in made
        if re.search(loaded, page.read_text("utf-8"))
    ] == []
