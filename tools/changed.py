"""Which lines have changed since a git revision: `git diff` of the files of an app, read.

Only names and line numbers are taken from git, so that this works with any of its versions: of each piece of the
difference, the lines it had then and the lines it has now.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import attrs

from dalsegno.core.errors import BadOption
from dalsegno.tools.text import clean

_PIECE = re.compile(r"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")


@attrs.frozen
class Piece:
    """One piece of a difference: the lines of a file that were there, and those there today instead."""

    file: str
    then: range
    now: range


def changed_since(revision: str, files: Iterable[str]) -> list[Piece]:
    """The differences of files between a revision and today. Raises `BadOption` where git cannot tell."""
    if revision.startswith("-"):
        raise BadOption(f"{clean(revision, 60)!r} is no git revision")
    return [piece for file in sorted(files) if Path(file).is_file() for piece in _pieces(revision, file)]


def _pieces(revision: str, file: str) -> list[Piece]:
    path = Path(file).resolve()
    command = ["git", "-C", str(path.parent), "diff", "--unified=0", "--no-color", "--no-ext-diff", revision, "--"]
    try:
        done = subprocess.run([*command, path.name], capture_output=True, text=True, errors="replace", check=False)
    except FileNotFoundError:
        raise BadOption("--since needs git, which is not installed here") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it failed"]
        raise BadOption(f"git cannot tell what changed in {path.name} since {clean(revision, 60)!r}: {said[0]}")
    found = [matched for line in done.stdout.splitlines() if (matched := _PIECE.match(line))]
    return [Piece(file, _range(one[1], one[2]), _range(one[3], one[4])) for one in found]


def _range(first: str, count: str | None) -> range:
    return range(int(first), int(first) + int(count if count is not None else 1))
