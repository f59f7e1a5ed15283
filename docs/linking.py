"""What mkdocs calls while it builds the site: a link from a page to a file of the tree, like `../core/store.py`, leads
to a copy of that file under `tree/` in the site, because nothing outside `docs/` is a part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

OUTWARD = re.compile(r"\]\((?:\.\./)+([^)#]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add every file that a page links to."""
    root = Path(config.config_file_path).parent
    wanted = {
        target
        for file in files.documentation_pages()
        for target in OUTWARD.findall(Path(str(file.abs_src_path)).read_text("utf-8"))
    }
    for target in sorted(wanted):
        if (root / target).is_file():  # what is not there stays a dead link, which --strict reports
            name = f"tree/{target}" + (".txt" if target.endswith(".md") else "")
            files.append(File.generated(config, name, abs_src_path=str(root / target)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """Point the links there."""
    up = "../" * page.file.src_uri.count("/")
    return OUTWARD.sub(lambda found: f"]({up}tree/{found[1]}" + (".txt" if found[1].endswith(".md") else ""), markdown)
