"""Measuring files: what is counted, and that nothing a file can be stops an audit."""

from __future__ import annotations

import os
import sysconfig
from pathlib import Path

import pytest

from dalsegno.examples.audit_measure import Finding, Package, measure, measure_source, packages_of

SOURCE = b'''"""A module."""
import os, json.decoder
from collections.abc import Iterable
from . import sibling

class Shape:
    """Documented."""
    def area(self):
        return 1 if self.a and self.b or self.c else 0

    def _hidden(self): ...

async def fetch(urls):
    """Documented."""
    async for url in urls:
        try:
            yield [part for part in url if part]
        except OSError:
            def inner(): ...
    match urls:
        case []: pass
        case _: pass
'''


def test_counts():
    """Functions, classes, branches, public and documented names, imports and the longest function are counted."""
    found = measure_source(SOURCE, "m.py")
    assert (found.lines, found.functions, found.classes) == (22, 4, 1)
    assert found.branches == 8  # the conditional, `and`, `or`, the loop, the comprehension's `if`, `except`, two cases
    assert (found.public, found.documented) == (4, 3)  # the module, Shape, Shape.area, fetch
    assert found.imports == ("collections", "json", "os")
    assert (found.longest, found.longest_lines) == ("fetch", 10)
    assert found.findings == ()


def test_empty_file_is_a_module_without_documentation():
    """An empty file has one public thing, the module, and nothing else."""
    found = measure_source(b"", "e.py")
    assert (found.lines, found.public, found.documented, found.longest) == (0, 1, 0, "")


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        (b"print 'old'\n", "does not parse"),
        (b"x = (\n", "does not parse"),
        (b"x = 1\0\n", "does not parse"),
        (b"(" * 5000, "does not parse"),
        (b"# -*- coding: utf-9 -*-\n", "encoding"),
        (b"x = '\xff\xfe'\n", "encoding"),
        (b"\xef\xbb\xbf# -*- coding: latin-1 -*-\n", "encoding"),
    ],
)
def test_a_broken_file_is_a_finding(source: bytes, kind: str):
    """Bad syntax, bytes of zero, too deep a nesting and odd encodings are reported with the file's lines counted."""
    found = measure_source(source, "broken.py")
    assert [finding.kind for finding in found.findings] == [kind]
    assert found.lines == len(source.splitlines())
    found.findings[0].text.encode()  # a store takes it


def test_an_old_encoding_is_no_finding():
    """A file that declares its encoding truthfully is measured like any other."""
    assert measure_source("# coding: latin-1\nä = 'ü'\n".encode("latin-1"), "l.py").findings == ()


def test_what_the_parser_warns_of_is_a_finding():
    """Warnings of the parser are reported with their line, and do not depend on the filters in force."""
    (finding,) = measure_source(b"x = 1\ny = '\\d'\n", "w.py").findings
    assert (finding.kind, finding.line) == ("warning", 2)
    assert "escape" in finding.text


def test_a_vanished_file_is_a_finding(tmp_path: Path):
    """A file that is gone when its turn comes is reported, not raised."""
    assert [finding.kind for finding in measure(tmp_path, "gone.py").findings] == ["vanished"]


def test_an_unreadable_file_is_a_finding(tmp_path: Path):
    """What cannot be read (here because it is a folder by now) is reported, not raised."""
    (tmp_path / "folder.py").mkdir()
    assert measure(tmp_path, "folder.py").findings == (Finding("unreadable", os.strerror(21)),)


def test_packages_are_folders_with_python_in_them(tmp_path: Path):
    """Folders come by dotted name in order; caches, hidden folders, installed packages and links are left out."""
    for path in ("top.py", "a/one.py", "a/b/two.py", "a/tests/three.py", "c/data.txt", ".git/x.py", "__pycache__/y.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / os.fsdecode(b"\xff.py")).touch()
    assert packages_of(tmp_path, tests=False) == [
        Package(".", ("top.py",)),
        Package("a", ("a/one.py",)),
        Package("a.b", ("a/b/two.py",)),
    ]
    assert [package.name for package in packages_of(tmp_path, tests=True)] == [".", "a", "a.b", "a.tests"]


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path):
    """An audit of nothing is refused with a sentence instead of finding nothing."""
    with pytest.raises(NotADirectoryError, match="not a folder"):
        packages_of(tmp_path / "nowhere", tests=True)


def test_the_standard_library_can_be_measured():
    """Every file of a few real packages is measured, the parser's own broken test files among them, where there."""
    root = Path(sysconfig.get_path("stdlib"))
    wanted = ("json", "email", "test.tokenizedata", "lib2to3.tests.data")
    for package in packages_of(root, tests=True):
        if package.name in wanted:
            for path in package.files:
                found = measure(root, path)
                assert found.public or found.findings
