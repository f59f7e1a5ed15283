"""The main job: audit a source tree, file by file, and publish a report once a person has agreed.

    audit_tree                      the whole tree
    ├── list_packages               a step
    ├── audit_package, for each    child workflows, a few at a time, each with a history of its own
    │   └── measure_file, for each steps, a few at a time
    ├── Receive("approval")         waits for a person; days, if need be, and costs nothing meanwhile
    └── write_json, write_html      steps

Kill the process at any point and start it again: what was measured is not measured again, and an approval that was
given stays given. `demo.py` does just that, and proves it.

None of the steps is declared `idempotent=True`, though measuring a file twice would do no harm. The declaration lets
results wait for the next checkpoint, to save flushes, at the price of repeating what was waiting when the process
died. A flush costs some 0.2 ms here and a measurement 4 ms: there is little to save, and work to lose.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from dalsegno import Flow, Info, Map, Now, Publish, Receive, Retry, TimedOut, step, workflow
from dalsegno.examples.audit_measure import FileMeasure, Package, measure, packages_of
from dalsegno.examples.audit_report import PackageSummary, Report, as_html, as_json, summarise, write_whole
from dalsegno.examples.ledger import note

PACKAGES_AT_ONCE = 4
FILES_AT_ONCE = 4
PATIENCE = timedelta(days=3)


@dataclass(frozen=True, slots=True)
class Approval:
    """The answer to "shall this report be published?"; the payload of the signal `approval`."""

    granted: bool
    by: str = ""
    comment: str = ""


@dataclass(frozen=True, slots=True)
class Audited:
    """How an audit ended. `json` and `html` are the files of the report, empty where it was not published."""

    files: int
    findings: int
    published: bool
    why: str
    json: str = ""
    html: str = ""


@step
def list_packages(root: str, tests: bool, ledger: str) -> list[Package]:
    """The folders to audit and their files, as they are now; the audit keeps to this list."""
    note(ledger, "list")
    return packages_of(Path(root), tests=tests)


@step(retry=Retry(max_attempts=3))
def measure_file(root: str, path: str, ledger: str) -> FileMeasure:
    """Parse a file and count. A file that is broken, or gone by now, is a finding and not a failure."""
    note(ledger, path)
    return measure(Path(root), path)


@step
def write_json(report: Report, out: str, ledger: str) -> str:
    """The report for programs; answers the file's name."""
    note(ledger, "report.json")
    return write_whole(Path(out) / "report.json", as_json(report))


@step
def write_html(report: Report, out: str, ledger: str) -> str:
    """The report for people; answers the file's name."""
    note(ledger, "report.html")
    return write_whole(Path(out) / "report.html", as_html(report))


@workflow
def audit_package(root: str, package: Package, ledger: str) -> Flow[PackageSummary]:
    """Measure the files of one package; `run.state["measured"]` follows how many are done."""
    done = 0

    def one(path: str) -> Flow[FileMeasure]:
        nonlocal done
        found = yield from measure_file(root, path, ledger)
        done += 1
        yield from Publish("measured", done)
        return found

    measures = yield from Map(one, package.files, concurrency=FILES_AT_ONCE)
    return summarise(package.name, measures)


@workflow
def audit_tree(root: str, out: str, ledger: str, tests: bool = True, patience: timedelta = PATIENCE) -> Flow[Audited]:
    """Audit the tree below `root`, wait for the signal `approval`, and write the report into the folder `out`.

    `ledger` is a file that every step body adds a line to. `run.state` shows the `stage` and, by name, what is known
    so far. An audit nobody approves within `patience` ends unpublished; nothing is lost by that, for the summaries
    stay in the histories.
    """
    yield from Publish("stage", "listing")
    packages = yield from list_packages(root, tests, ledger)
    yield from Publish("files", sum(len(package.files) for package in packages))
    yield from Publish("packages", len(packages))
    yield from Publish("stage", "measuring")
    summaries = yield from _audit_packages(root, packages, ledger)
    info = yield from Info()
    report = Report(root, info.run_id, (yield from Now()), tuple(summaries))
    yield from Publish("findings", report.findings)
    yield from Publish("stage", "waiting for approval")
    try:
        approval = yield from Receive("approval", Approval, timeout=patience)
    except TimedOut:
        approval = Approval(granted=False, comment=f"nobody answered within {patience}")
    if not approval.granted:
        yield from Publish("stage", "not published")
        return Audited(report.files, report.findings, False, approval.comment or f"declined by {approval.by}")
    yield from Publish("stage", "publishing")
    json = yield from write_json(report, out, ledger)
    html = yield from write_html(report, out, ledger)
    yield from Publish("stage", "published")
    return Audited(report.files, report.findings, True, approval.comment or f"approved by {approval.by}", json, html)


def _audit_packages(root: str, packages: Iterable[Package], ledger: str) -> Flow[list[PackageSummary]]:
    done = 0

    def one(package: Package) -> Flow[PackageSummary]:
        nonlocal done
        summary = yield from audit_package(root, package, ledger)
        done += 1
        yield from Publish("packages_done", done)
        return summary

    return (yield from Map(one, packages, concurrency=PACKAGES_AT_ONCE))
