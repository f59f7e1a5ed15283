"""The report of an audit: what it holds, and its two forms, JSON for programs and one HTML page for people.

The page stands alone: style and script are inside, nothing is fetched, and with scripts off it still reads (only the
sorting and the filter are gone). Every text from the audited tree is escaped; file names and parser messages are
input like any other.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

from dalsegno.examples.audit_measure import FileMeasure


@dataclass(frozen=True, slots=True)
class PackageSummary:
    """The files of one package, and their sums."""

    name: str
    files: tuple[FileMeasure, ...]
    lines: int
    functions: int
    classes: int
    branches: int
    public: int
    documented: int
    findings: int


@dataclass(frozen=True, slots=True)
class Report:
    """The whole tree, package by package."""

    root: str
    run_id: str
    made_at: datetime
    packages: tuple[PackageSummary, ...]

    @property
    def files(self) -> int:
        return sum(len(package.files) for package in self.packages)

    @property
    def findings(self) -> int:
        return sum(package.findings for package in self.packages)


def summarise(name: str, measures: Sequence[FileMeasure]) -> PackageSummary:
    """Add up the files of a package.

    >>> summarise("empty", []).lines
    0
    """
    return PackageSummary(
        name,
        tuple(measures),
        lines=sum(m.lines for m in measures),
        functions=sum(m.functions for m in measures),
        classes=sum(m.classes for m in measures),
        branches=sum(m.branches for m in measures),
        public=sum(m.public for m in measures),
        documented=sum(m.documented for m in measures),
        findings=sum(len(m.findings) for m in measures),
    )


def totals(report: Report) -> dict[str, int]:
    """The sums over the whole tree."""
    names = ("lines", "functions", "classes", "branches", "public", "documented", "findings")
    sums = {name: sum(getattr(package, name) for package in report.packages) for name in names}
    return {"packages": len(report.packages), "files": report.files, **sums}


def as_json(report: Report) -> str:
    """The report as a JSON document: `root`, `run_id`, `made_at`, `totals`, `packages` with their `files`."""
    data = asdict(report) | {"made_at": report.made_at.isoformat(), "totals": totals(report)}
    return json.dumps(data, indent=1) + "\n"


def as_html(report: Report) -> str:
    """The report as one page."""
    sums = totals(report)
    measures = [measure for package in report.packages for measure in package.files]
    shown = {
        "packages": f"{sums['packages']:,}",
        "files": f"{sums['files']:,}",
        "lines": f"{sums['lines']:,}",
        "functions": f"{sums['functions']:,}",
        "classes": f"{sums['classes']:,}",
        "documented": percent(sums["documented"], sums["public"]),
        "findings": f"{sums['findings']:,}",
    }
    page = Template(files(__package__).joinpath("audit_page.html").read_text("utf-8"))
    return page.substitute(
        root=escape(report.root),
        run=escape(report.run_id),
        made_at=f"{report.made_at:%d %B %Y, %H:%M} UTC",
        cards="\n".join(f"<div><b>{value}</b><span>{name}</span></div>" for name, value in shown.items()),
        packages="\n".join(map(_package_row, report.packages)),
        files="\n".join(map(_file_row, measures)),
        findings="\n".join(_finding_rows(measures)) or "<tr><td colspan=4>Nothing found.</td></tr>",
        imports="\n".join(_import_rows(measures)),
    )


def percent(part: int, whole: int) -> str:
    """A share for people.

    >>> percent(1, 3), percent(0, 0)
    ('33 %', '-')
    """
    return f"{100 * part / whole:.0f} %" if whole else "-"


def _row(*cells: str | int | tuple[str, float]) -> str:
    """A table row. Numbers go right; a pair is a text and the number to sort it by. Texts are escaped here."""
    made = []
    for cell in cells:
        if isinstance(cell, int):
            made.append(f'<td class=n data-v="{cell}">{cell:,}</td>')
        elif isinstance(cell, tuple):
            made.append(f'<td class=n data-v="{cell[1]:.6f}">{escape(cell[0])}</td>')
        else:
            made.append(f"<td>{escape(cell)}</td>")
    return f"<tr>{''.join(made)}</tr>"


def _share(part: int, whole: int) -> tuple[str, float]:
    return percent(part, whole), part / whole if whole else -1.0


def _package_row(p: PackageSummary) -> str:
    documented = _share(p.documented, p.public)
    return _row(p.name, len(p.files), p.lines, p.functions, p.classes, p.branches, documented, p.findings)


def _file_row(m: FileMeasure) -> str:
    documented, longest = _share(m.documented, m.public), f"{m.longest}()" if m.longest else ""
    return _row(m.path, m.lines, m.functions, m.classes, m.branches, documented, longest, m.longest_lines)


def _finding_rows(measures: Iterable[FileMeasure]) -> Iterator[str]:
    for measure in measures:
        for finding in measure.findings:
            yield _row(finding.kind, measure.path, finding.line, finding.text)


def _import_rows(measures: Iterable[FileMeasure]) -> Iterator[str]:
    counted = Counter(name for measure in measures for name in measure.imports)
    for name, count in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:50]:
        yield _row(name, count)


def write_whole(path: Path, text: str) -> str:
    """Write a file so that a reader sees the old one or the new one, never half of it; answers its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f".{path.name}.half")
    half.write_text(text, "utf-8")
    half.replace(path)
    return str(path)
