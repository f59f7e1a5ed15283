"""What `verify` found, in the forms that build servers read: JUnit XML and SARIF. Pure: findings in, text out.

JUnit: a suite for each workflow, a case for each run; a divergence is a failure, what could not be told an error. So a
build server shows which runs a change breaks, and since when.

SARIF 2.1.0: a result for each group, at the line of code that yields something else today. So a review shows the
divergence beside the line that was edited. Columns are not known, and paths are relative where the code lies beneath
the folder the command was called in, as the annotations of a review need them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

from dalsegno.tools.text import clean_lines
from dalsegno.tools.verifying import Finding, Group, Verdict, grouped

SARIF_SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
RULES = {
    Verdict.DIVERGES: ("history-mismatch", "Code leaves the path that a recorded run took.", "error"),
    Verdict.UNKNOWN: ("cannot-tell", "A history could not be judged.", "warning"),
}
RUNS_LISTED = 100


def junit(findings: Sequence[Finding]) -> str:
    """The findings as JUnit XML."""
    by_workflow: dict[str, list[Finding]] = {}
    for finding in findings:
        by_workflow.setdefault(finding.workflow, []).append(finding)
    top = Xml.Element("testsuites", {"name": "replay verify"} | _counts(findings))
    for workflow, found in by_workflow.items():
        suite = Xml.SubElement(top, "testsuite", {"name": clean_lines(workflow)} | _counts(found))
        for one in found:
            names = {"classname": clean_lines(workflow), "name": clean_lines(one.run_id)}
            if one.line_now is not None:
                names |= {"file": clean_lines(one.file), "line": str(one.line_now)}
            case = Xml.SubElement(suite, "testcase", names)
            if one.verdict is not Verdict.FITS:
                kind = "failure" if one.verdict is Verdict.DIVERGES else "error"
                said = {"type": RULES[one.verdict][0], "message": clean_lines(_sentence(one))}
                Xml.SubElement(case, kind, said).text = clean_lines(one.reason)
    Xml.indent(top)
    return Xml.tostring(top, encoding="unicode", xml_declaration=True) + "\n"


def _counts(findings: Sequence[Finding]) -> dict[str, str]:
    return {
        "tests": str(len(findings)),
        "failures": str(sum(one.verdict is Verdict.DIVERGES for one in findings)),
        "errors": str(sum(one.verdict is Verdict.UNKNOWN for one in findings)),
    }


def _sentence(one: Finding) -> str:
    if one.differs:
        return f"event {one.event}: recorded {one.recorded}, yielded {one.yielded}; {one.cause or one.differs}"
    return one.reason.partition("\n")[0]


def sarif(findings: Sequence[Finding], here: Path) -> str:
    """The findings as SARIF, a result for each group; `here` is what paths are relative to."""
    rules = [
        {"id": id, "shortDescription": {"text": text}, "defaultConfiguration": {"level": level}}
        for id, text, level in RULES.values()
    ]
    driver = {"name": "replay verify", "semanticVersion": version("dalsegno"), "rules": rules}
    results = [_result(group, here) for group in grouped(findings)]
    log = {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    return json.dumps(log, indent=2) + "\n"


def _result(group: Group, here: Path) -> dict[str, Any]:
    one = group.example
    id, _, level = RULES[one.verdict]
    runs = f"{group.runs} run{'s' * (group.runs != 1)} of {one.workflow!r} ({group.open} open), e.g. {one.run_id}"
    found: dict[str, Any] = {
        "ruleId": id,
        "level": level,
        "message": {"text": clean_lines(f"{runs}: {_sentence(one)}")},
        "properties": {
            "runs": group.runs,
            "open": group.open,
            "runIds": list(group.run_ids[:RUNS_LISTED]),
            "event": one.event,
            "recorded": one.recorded,
            "yielded": one.yielded,
            "differs": one.differs,
            "lineThen": one.line_then,
        },
    }
    if one.file and one.line_now:
        where = {"artifactLocation": {"uri": _uri(one.file, here)}, "region": {"startLine": one.line_now}}
        found["locations"] = [{"physicalLocation": where}]
    return found


def _uri(file: str, here: Path) -> str:
    path = Path(file)
    if path.is_absolute() and path.is_relative_to(here):
        return path.relative_to(here).as_posix()
    return path.as_uri() if path.is_absolute() else path.as_posix()
