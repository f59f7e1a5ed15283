"""How findings look: text for people, JSON for scripts, SARIF for code hosts and editors. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from rich.text import Text

from dalsegno.tools.lint.linting import Finding, Linted
from dalsegno.tools.lint.rules import RULES
from dalsegno.tools.text import clean, counted

SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def text_report(linted: Linted) -> Iterator[Text]:
    """A paragraph for each finding, then a line that counts."""
    for finding in linted.found:
        inside = f" (in workflow {clean(finding.workflow)!r})" if finding.workflow else ""
        lines = Text(f"{clean(finding.file)}:{finding.line}:{finding.column}: ", style="bold")
        lines.append(finding.rule, style="red")
        lines.append(f": {clean(finding.what)}{inside}\n", style="default not bold")
        lines.append(f"    {finding.table.why}\n", style="dim not bold")
        lines.append(f"    write instead: {finding.table.instead}", style="default not bold")
        yield lines
    excused = f", {len(linted.excused)} excused by comments" if linted.excused else ""
    what = f"{counted(linted.workflows, 'workflow')} in {counted(linted.files, 'file')}"
    yield Text(f"{what}: {counted(len(linted.found), 'finding')}{excused}")


def data(linted: Linted) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "files": linted.files,
        "workflows": linted.workflows,
        "findings": [_finding(finding) for finding in linted.found],
        "excused": [_finding(finding) | {"reason": finding.excused} for finding in linted.excused],
        "unreadable": [{"file": each.file, "why": each.why} for each in linted.unreadable],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "rule": finding.rule,
        "file": finding.file,
        "line": finding.line,
        "column": finding.column,
        "workflow": finding.workflow,
        "what": finding.what,
        "why": finding.table.why,
        "instead": finding.table.instead,
    }


def sarif(linted: Linted) -> dict[str, Any]:
    """The findings as SARIF 2.1.0; excused ones are there as suppressed."""
    ids = list(RULES)
    driver = {
        "name": "dalsegno",
        "version": version("dalsegno"),
        "rules": [
            {
                "id": rule.id,
                "shortDescription": {"text": rule.title},
                "fullDescription": {"text": f"{rule.title}: {rule.why}."},
                "help": {"text": f"Write instead: {rule.instead}."},
                "defaultConfiguration": {"level": _level(rule.id)},
            }
            for rule in RULES.values()
        ],
    }
    notes = [
        {"level": "error", "message": {"text": each.why}, "locations": [_location(each.file, 1, 1)]}
        for each in linted.unreadable
    ]
    run = {
        "tool": {"driver": driver},
        "columnKind": "utf16CodeUnits",
        "invocations": [{"executionSuccessful": not linted.unreadable, "toolExecutionNotifications": notes}],
        "results": [_result(finding, ids) for finding in (*linted.found, *linted.excused)],
    }
    return {"$schema": SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}


def _level(rule: str) -> str:
    return "note" if rule == "unused-ignore" else "warning"


def _result(finding: Finding, ids: list[str]) -> dict[str, Any]:
    inside = f" in workflow {finding.workflow!r}" if finding.workflow else ""
    text = f"{finding.what}{inside}: {finding.table.why}. Write instead: {finding.table.instead}."
    result = {
        "ruleId": finding.rule,
        "ruleIndex": ids.index(finding.rule),
        "level": _level(finding.rule),
        "message": {"text": text[:1].upper() + text[1:]},
        "locations": [_location(finding.file, finding.line, finding.column)],
    }
    if finding.excused is not None:
        result["suppressions"] = [{"kind": "inSource", "justification": finding.excused}]
    return result


def _location(file: str, line: int, column: int) -> dict[str, Any]:
    path = Path(file)
    uri = path.as_uri() if path.is_absolute() else path.as_posix()
    region = {"startLine": line, "startColumn": column}
    return {"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}
