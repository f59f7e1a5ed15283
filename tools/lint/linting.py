"""Linting a file: every check over all code that runs inside workflows, less what comments excuse.

A comment excuses what it stands beside, or what stands on the line below when it has a line to itself:

    key = hash(name)  # dalsegno: ignore[identity] compared in this process only

It names rules and gives a reason. One without a reason, of an unknown rule, or that excuses nothing is found itself.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Final

import attrs

from dalsegno.core.errors import BadOption
from dalsegno.tools.lint.asking import global_state, hazards, set_order
from dalsegno.tools.lint.flowing import alien_yield, finally_yield, forgotten_yield, swallowed_cancel
from dalsegno.tools.lint.reach import workflow_code
from dalsegno.tools.lint.rules import RULES, Rule
from dalsegno.tools.lint.sources import Files, Source

CHECKS: Final = (
    *(hazards, global_state, set_order),
    *(forgotten_yield, alien_yield, swallowed_cancel, finally_yield),
)

PASSED_OVER: Final = frozenset({"__pycache__", "node_modules", "site-packages", "build", "dist"})


@attrs.frozen(kw_only=True)
class Finding:
    """Something found: which rule, where, what. `excused` is the reason a comment gave, where one did."""

    rule: str
    file: str
    line: int
    column: int
    end_line: int
    what: str
    workflow: str = ""
    excused: str | None = None

    @property
    def table(self) -> Rule:
        """The rule: why it matters and what to write instead."""
        return RULES[self.rule]


@attrs.frozen
class Unreadable:
    """A file that could not be looked through."""

    file: str
    why: str


@attrs.frozen
class Linted:
    """The outcome: what was found, what comments excused, and what could not be read."""

    found: tuple[Finding, ...]
    excused: tuple[Finding, ...]
    unreadable: tuple[Unreadable, ...]
    files: int
    workflows: int


def lint_text(text: str, path: str = "<text>") -> list[Finding]:
    """Everything in a source text, excused findings included. Raises `SyntaxError`."""
    return lint_source(Source(path, text, Files()))[0]


def lint_source(source: Source) -> tuple[list[Finding], int]:
    """Everything in a file, excused findings included, and how many workflows it has."""
    found: dict[tuple[int, str, str], Finding] = {}
    reached = workflow_code(source)
    for code in reached:
        for check in CHECKS:
            for node, rule, what in check(code):
                finding = Finding(
                    rule=rule,
                    file=source.path,
                    line=getattr(node, "lineno", 1),
                    column=getattr(node, "col_offset", 0) + 1,
                    end_line=_end(node),
                    what=what,
                    workflow=code.workflow,
                )
                found.setdefault((finding.line, rule, what), finding)
    excuses = _excuses(source)
    judged = [_judged(finding, excuses) for finding in found.values()]
    judged += _of_comments(source, excuses)
    workflows = sum(code.function.kind == "workflow" for code in reached)
    return sorted(judged, key=lambda finding: (finding.line, finding.column, finding.rule)), workflows


def _end(node: ast.AST) -> int:
    """The last line a comment may stand beside: that of the expression, or of a handler's head."""
    first: int = getattr(node, "lineno", 1)
    return first if isinstance(node, ast.ExceptHandler) else getattr(node, "end_lineno", None) or first


# --- comments ------------------------------------------------------------------------------------------------------

_COMMENT: Final = re.compile(r"#\s*dalsegno:\s*ignore(?:\[([^\]]*)\])?\s*(.*)")


@attrs.define
class Excuse:
    """A comment that excuses findings of some rules on some line."""

    at: int
    line: int
    rules: tuple[str, ...]
    reason: str
    used: set[str] = attrs.field(factory=set)

    @property
    def good(self) -> bool:
        """Whether it may excuse anything."""
        return bool(self.rules and self.reason) and all(rule in RULES for rule in self.rules)


def _excuses(source: Source) -> list[Excuse]:
    found: list[Excuse] = []
    for token in tokenize.generate_tokens(io.StringIO(source.text).readline):
        said = _COMMENT.match(token.string) if token.type == tokenize.COMMENT else None
        if said is not None:
            at = token.start[0]
            alone = not token.line[: token.start[1]].strip()
            rules = tuple(rule.strip() for rule in (said[1] or "").split(",") if rule.strip())
            found.append(Excuse(at, at + 1 if alone else at, rules, said[2].strip()))
    return found


def _judged(finding: Finding, excuses: list[Excuse]) -> Finding:
    for excuse in excuses:
        if excuse.good and finding.rule in excuse.rules and finding.line <= excuse.line <= finding.end_line:
            excuse.used.add(finding.rule)
            return attrs.evolve(finding, excused=excuse.reason)
    return finding


def _of_comments(source: Source, excuses: list[Excuse]) -> Iterator[Finding]:
    for excuse in excuses:
        unknown = [rule for rule in excuse.rules if rule not in RULES]
        rule, what = "bad-ignore", ""
        if not excuse.rules:
            what = "names no rule: write ignore[rule]"
        elif unknown:
            what = f"names {', '.join(unknown)}, which is no rule"
        elif not excuse.reason:
            what = "gives no reason"
        elif unused := [rule for rule in excuse.rules if rule not in excuse.used]:
            rule, what = "unused-ignore", f"nothing of {', '.join(unused)} is found here"
        if what:
            yield Finding(rule=rule, file=source.path, line=excuse.at, column=1, end_line=excuse.at, what=what)


# --- files and modules ---------------------------------------------------------------------------------------------


def lint(targets: Iterable[str], rules: Iterable[str] = ()) -> Linted:
    """Lint files, folders and modules. Raises `BadOption` for a target that is none of them."""
    wanted = frozenset(rules)
    files = Files()
    found: list[Finding] = []
    unreadable: list[Unreadable] = []
    paths = list(dict.fromkeys(path for target in targets for path in files_of(target)))
    workflows = 0
    for path in paths:
        try:
            findings, count = lint_source(files.read(path))
        except SyntaxError as error:
            unreadable.append(Unreadable(str(path), f"not Python: {error.msg} (line {error.lineno})"))
        except (OSError, UnicodeDecodeError, tokenize.TokenError, RecursionError, ValueError) as error:
            unreadable.append(Unreadable(str(path), f"cannot be read: {error}"))
        else:
            found += findings
            workflows += count
    chosen = [finding for finding in found if not wanted or finding.rule in wanted]
    return Linted(
        tuple(finding for finding in chosen if finding.excused is None),
        tuple(finding for finding in chosen if finding.excused is not None),
        tuple(unreadable),
        len(paths),
        workflows,
    )


def files_of(target: str) -> list[Path]:
    """The Python files that a path or a module's name means."""
    path = Path(target)
    if path.is_dir():
        return sorted(file for file in path.rglob("*.py") if not _is_passed_over(file.relative_to(path), path))
    if path.exists():
        return [path]
    if all(part.isidentifier() for part in target.split(".")) and (spec := find_module(target)) is not None:
        if spec.submodule_search_locations:
            return [file for folder in spec.submodule_search_locations for file in files_of(str(folder))]
        if spec.origin is not None and spec.origin.endswith(".py"):
            return [Path(spec.origin)]
    raise BadOption(f"{target!r} is no file or folder, and no module that is found from here")


def _is_passed_over(relative: Path, root: Path) -> bool:
    folders = relative.parts[:-1]
    if any(folder in PASSED_OVER or folder.startswith(".") for folder in folders):
        return True
    return any((root.joinpath(*folders[: count + 1]) / "pyvenv.cfg").exists() for count in range(len(folders)))


def find_module(name: str) -> ModuleSpec | None:
    """Where a module is, without importing anything: not even the packages it lies in."""
    search: list[str] | None = None
    spec: ModuleSpec | None = None
    parts = name.split(".")
    for count in range(1, len(parts) + 1):
        spec = _spec(".".join(parts[:count]), search)
        if spec is None:
            return None
        search = list(spec.submodule_search_locations or [])
    return spec


def _spec(name: str, search: list[str] | None) -> ModuleSpec | None:
    places = [str(Path.cwd()), *sys.path] if search is None else search
    for finder in sys.meta_path:
        for where in (places, search):
            found = finder.find_spec(name, where, None)
            if found is not None:
                return found
    return None
