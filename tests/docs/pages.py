"""The pages of docs/, and how what they show is run.

A page is a program that is read from top to bottom, in an empty folder:

* A block of ```python runs as it stands, in the page's own module. What it prints is in the ```text block that follows.
  Its functions called `test_…` are run, too.
* A block whose first line is `# NAME.py` is that file, and is written instead.
* In a ```console block each line that begins with `$ ` is a command line, and the lines below are what it prints.
* ```sh blocks are command lines that are not run; but each has to be one that `replay` or `dalsegno` understands, as
  has what a unit of systemd in an ```ini block starts.

What differs each time (durations, times, ids made by chance) is compared by its form. A line `…` stands for any lines.
"""

from __future__ import annotations

import importlib
import io
import linecache
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from types import ModuleType

import click
from attrs import frozen
from click.testing import CliRunner

from dalsegno.tools import operate, replay

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PROGRAMS = {"replay": replay.main, "dalsegno": operate.main}
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```[ ]*$", re.S | re.M)


@frozen
class Block:
    """A fenced block of a page."""

    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        found = re.match(r"# ([\w/]+\.py)\n", self.text)
        return found[1] if found and self.language == "python" else None


def pages() -> list[str]:
    """Every page, by its path in docs/."""
    return sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def blocks(page: str) -> list[Block]:
    """The blocks of a page, in their order."""
    text = (DOCS / page).read_text("utf-8")
    return [Block(text.count("\n", 0, m.start()) + 2, m[2], m[3]) for m in FENCE.finditer(text)]


def commands(block: Block) -> Iterator[tuple[str, str]]:
    """The command lines of a console block, each with what it prints."""
    parts = re.split(r"^\$ (.*(?:\\\n.*)*)\n", block.text, flags=re.M)
    assert not parts[0].strip(), f"line {block.line}: output without a command"
    for line, printed in zip(parts[1::2], parts[2::2], strict=True):
        yield re.sub(r"\s+# .*$", "", line), printed


def understood(line: str) -> None:
    """Refuse a command line whose command or options do not exist."""
    program, *words = shlex.split(line, comments=True)
    if program in PROGRAMS:
        command: click.Command = PROGRAMS[program]
        if isinstance(command, click.Group) and not words[0].startswith("-"):
            command = command.commands[words.pop(0)]
        command.make_parser(click.Context(command)).parse_args([word for word in words if word != "…"])


VARYING = [
    (r"\x1b\[[\d;]*m", ""),
    (r"(?m)^engine \S+ has died; its runs are taken over\n", ""),  # how soon it is seen is chance
    (r"\s+", " "),
    (r"\bpid \d+|\b[\w.-]+:\d+:[0-9a-f]{8}\b", "PID"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)?( ?UTC|Z|\+00:00)?", "TIME"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?( UTC)?", "TIME"),
    (r"[+-]?\b\d+[dhm] \d\d[hms]\b", "LONG"),  # on a machine that has much to do
    (r"[+±-]?\b\d[\d,]*(\.\d+)? ?(ns|µs|ms|s|min|h|d|seconds?|minutes?|hours?|days?)\b", "LONG"),
    (r"\b\d[\d,.]* (bytes|[KMG]i?B)\b", "MANY bytes"),
    (r"\b(?=[0-9a-f-]*\d)[0-9a-f]{8}(-?[0-9a-f]{4,})*\b", "HEX"),
    (r"(/[\w.-]+)+/(?=[\w-]+\.py)", ""),
    (r"[─━═]+", "─"),
    (r"─( ─)+", "─"),
]


def plain(text: str) -> str:
    """The text without what differs each time."""
    for pattern, instead in VARYING:
        text = re.sub(pattern, instead, text)
    return text.strip()


def same(shown: str, printed: str) -> bool:
    """Whether that is what a page shows; where lines break is no matter."""
    pattern = re.sub(r"\S*…", ".*", re.sub(r"[^\w\s…]", lambda found: re.escape(found[0]), plain(shown)))
    return re.fullmatch(pattern, plain(printed)) is not None


class Reading:
    """A page that is being run."""

    def __init__(self, page: str, folder: Path) -> None:
        self.page, self.folder = page, folder
        self.module = ModuleType(re.sub(r"\W", "_", page.removesuffix(".md")) + "_page")
        self.faults: list[str] = []

    def run(self) -> None:
        """Run it from top to bottom, in its folder."""
        printed: str | None = None
        for block in blocks(self.page):
            if block.file is not None:
                self._write(block.file, block.text)
            elif block.language == "python":
                printed = self._execute(block)
                continue
            elif block.language == "text" and printed is not None:
                self._compare(block.line, block.text, printed)
            elif block.language == "console":
                for line, expected in commands(block):
                    self._compare(block.line, expected, self.call(line), line)
            elif block.language == "sh":
                for line in block.text.replace("\\\n", " ").splitlines():
                    understood(line)
            elif block.language == "ini":
                for line in re.findall(r"^ExecStart=\S*/(.*)$", block.text, re.M):
                    understood(line)
            if printed and block.language != "text":
                self.faults.append(f"before line {block.line}: the page does not show what was printed: {printed}")
            printed = None

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")

    def _execute(self, block: Block) -> str:
        sys.modules[self.module.__name__] = self.module
        self._forget()
        before = set(vars(self.module))
        code = compile("\n" * (block.line - 1) + block.text, str(DOCS / self.page), "exec")
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(code, vars(self.module))
            for name in [name for name in vars(self.module) if name.startswith("test_") and name not in before]:
                vars(self.module)[name]()
        return printed.getvalue()

    def call(self, line: str) -> str:
        """Run a command line and answer what it prints. Ours run in this process, which is quicker."""
        program, *words = shlex.split(line)
        if program in PROGRAMS and words[0] != "worker" and not re.search(r"[|;&<>]", line):
            self._forget()
            result = CliRunner(env={"COLUMNS": "100"}).invoke(PROGRAMS[program], words, catch_exceptions=False)
            return str(result.output).replace(str(self.folder), "/home/you/shop")
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self.folder,
            env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "100"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        return done.stdout.replace(str(self.folder), "/home/you/shop")

    def _compare(self, line: int, shown: str, printed: str, of: str = "") -> None:
        if not same(shown, printed):
            self.faults.append(f"line {line}: {of}\n  shows\n{shown}\n  and there is\n{printed}")

    def _forget(self) -> None:
        """Forget modules that were imported from the folder: a later block may have changed their files."""
        importlib.invalidate_caches()
        linecache.checkcache()
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(f"{self.folder}/"):
                del sys.modules[name]

    def close(self) -> None:
        """Take back what the page has imported."""
        self._forget()
        sys.modules.pop(self.module.__name__, None)
