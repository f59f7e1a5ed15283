"""Planted bugs: what they are, and how one is put into a copy of the tree and looked for there.

The `*.toml` files beside this one hold them. Each has a name, a sentence `why` it would hurt, the `file`, a text `old`
that stands there exactly once and the text `new` in its place, and `caught_by`: the test that has to find it. Shipped
code is never touched; tests run on a copy of the tree, in a process of their own.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import attrs

ROOT = Path(__file__).parents[2]
COPIED = ("dalsegno", "core", "backends", "testing", "tools", "examples", "tests", "pyproject.toml")
TIMEOUT_S = 90
TEST_TIMEOUT_S = 10  # a bug that makes a test hang is found, too
TESTS_FAILED = 1  # pytest's status; any other says that they did not run


@attrs.frozen(kw_only=True)
class Mutant:
    """One planted bug."""

    name: str
    why: str
    file: str
    old: str
    new: str
    caught_by: str

    def planted(self, text: str) -> str:
        """The file with the bug in it. Raises `ValueError` if the entry does not apply any more."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.name}: its old text stands in {self.file} {count} times, and has to once")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    """Every planted bug."""
    return [
        Mutant(name=name, **entry)
        for file in sorted(Path(__file__).parent.glob("*.toml"))
        for name, entry in tomllib.loads(file.read_text("utf-8")).items()
    ]


Verdict = Literal["caught", "hung", "survived", "does not apply", "does not run"]


@attrs.frozen(kw_only=True)
class Outcome:
    """What became of a planted bug: `by` is the first test that failed, or what went wrong instead."""

    mutant: Mutant
    verdict: Verdict
    by: str
    seconds: float

    @property
    def fine(self) -> bool:
        """Whether it was found."""
        return self.verdict in ("caught", "hung")


class Copy:
    """A copy of the tree, in which one bug at a time is planted."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for part in COPIED:
            source, target = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)

    def run(self, tests: Iterable[str], *, keep_compiled: bool = False) -> subprocess.CompletedProcess[str]:
        """Run tests of the copy on the code of the copy, up to the first failure."""
        environment = {**os.environ, "PYTHONPATH": str(self.root), "DALSEGNO_MUTANT": str(self.root)}
        environment.pop("PYTEST_ADDOPTS", None)
        if not keep_compiled:
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        options = ["-q", "-x", "--tb=line", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:randomly"]
        options += ["-p", "tests.mutants.proof_of_copy", f"--timeout={TEST_TIMEOUT_S}"]
        return subprocess.run(
            [sys.executable, "-m", "pytest", *options, f"--basetemp={self.root}/tmp", *tests],
            cwd=self.root,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def examine(self, mutant: Mutant, tests: Sequence[str] = ()) -> Outcome:
        """Plant a bug, run what has to find it, and take the bug out again."""
        path, begun = self.root / mutant.file, time.monotonic()
        sound = path.read_text("utf-8")
        try:
            path.write_text(mutant.planted(sound), "utf-8")
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
            verdict, by = self._look(tests or [mutant.caught_by])
        except ValueError as error:
            verdict, by = "does not apply", str(error)
        finally:
            path.write_text(sound, "utf-8")
        return Outcome(mutant=mutant, verdict=verdict, by=by, seconds=time.monotonic() - begun)

    def _look(self, tests: Sequence[str]) -> tuple[Verdict, str]:
        try:
            done = self.run(tests)
        except subprocess.TimeoutExpired:
            return "hung", " ".join(tests)
        if done.returncode == 0:
            return "survived", " ".join(tests)
        if done.returncode != TESTS_FAILED:
            return "does not run", "\n".join(done.stdout.splitlines()[-5:]) + done.stderr[-500:]
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", done.stdout, re.MULTILINE)
        return "caught", failed[1] if failed else "(no test was named)"
