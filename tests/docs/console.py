"""Pages that are one session in a shell: what is exported stays so, files stay, and programs are talked to.

`pages` runs the commands of a page one by one; here they are typed into one shell, from top to bottom. A here-document
belongs to its command. Where a program asks, `(1/3) p path` and `(replay) n` are its prompt and what is typed. Outputs
are compared as `pages` does: times and line breaks are no matter, and a line `…` stands for any lines.

`python -m tests.docs.console debugging.md` writes outputs anew where they are not what is printed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from attrs import frozen

from tests.docs.pages import DOCS, FENCE, blocks, same

HERE: Final = "/home/you/audit"
"""The folder as pages show it."""

MARK: Final = "\x1e"
PROMPT: Final = r"(\((?:\d+/\d+|replay)\)) "
TYPED: Final = re.compile(rf"^{PROMPT}(.*)$", re.MULTILINE)


@frozen
class Call:
    """A command, and what stands below it: its output, with what is typed while it runs."""

    command: str
    shown: str

    @property
    def typed(self) -> list[str]:
        """The lines that are typed at its prompts."""
        return [found[2] for found in TYPED.finditer(self.shown)]

    def prints(self, printed: str) -> bool:
        """Whether that is what stands below it."""
        return same(TYPED.sub(r"\1", self.shown), printed)


def calls(page: str) -> list[Call]:
    """Every command of a page, in order."""
    return [call for block in blocks(page) if block.language == "console" for call in calls_of(block.text)]


def calls_of(block: str) -> Iterator[Call]:
    """The commands of one block."""
    lines = block.splitlines()
    while lines:
        line = lines.pop(0)
        assert line.startswith("$ "), f"output without a command: {line!r}"
        command = [line[2:]]
        if (here := re.search(r"<<'?(\w+)", line)) is not None:
            while command[-1] != here[1]:
                command.append(lines.pop(0))
        shown = []
        while lines and not lines[0].startswith("$ "):
            shown.append(lines.pop(0))
        yield Call("\n".join(command), "\n".join(shown))


def run(found: list[Call], folder: Path) -> list[str]:
    """Type commands into one shell, in a folder, and answer what each printed on both streams."""
    script = ["__status=0"]
    for call in found:
        typed = "".join(f"{line}\n" for line in call.typed)
        source = f"<<'__TYPED__'\n{typed}__TYPED__" if typed else "</dev/null"
        script += ["(exit $__status)", "{", call.command, f"}} 2>&1 {source}", "__status=$?", f"printf '{MARK}'"]
    kept = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]), "HOME": str(folder)}
    # Nothing of this machine's or this user's own settings reaches the commands.
    plain = {
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
    }
    done = subprocess.run(
        ["bash", "-s"], input="\n".join(script), cwd=folder, env=kept | plain, capture_output=True, text=True,
        check=False, timeout=110,
    )  # fmt: skip
    *printed, rest = done.stdout.split(MARK)
    assert (len(printed), rest, done.stderr) == (len(found), "", ""), done.stdout + done.stderr
    return [text.replace(str(folder), HERE) for text in printed]


def told(page: str) -> list[tuple[Call, str]]:
    """The commands of a page, each with what it prints in a new folder."""
    found = calls(page)
    with tempfile.TemporaryDirectory(prefix="audit-") as folder:  # of a short name, so that nothing shown is cut
        for block in blocks(page):
            if block.file is not None:
                Path(folder, block.file).write_text(block.text, "utf-8")
        return list(zip(found, run(found, Path(folder).resolve()), strict=True))


def refresh(page: str) -> None:
    """Write the outputs of a page anew."""
    outputs = (printed for _, printed in told(page))

    def anew(block: re.Match[str]) -> str:
        if block[2] != "console":
            return block[0]
        lines = []
        for call in calls_of(block[3]):
            printed = next(outputs)
            lines += [f"$ {call.command}", call.shown if call.prints(printed) else with_typed(call, printed)]
        return "```console\n" + "".join(f"{line}\n" for line in lines if line) + "```"

    file = DOCS / page
    file.write_text(FENCE.sub(anew, file.read_text("utf-8")), "utf-8")


def with_typed(call: Call, printed: str) -> str:
    """An output with what is typed behind its prompts; from a pipe, what follows stands on the prompt's own line."""
    typed = iter(call.typed)
    text = re.sub(PROMPT, lambda prompt: f"{prompt[1]} {next(typed, '')}\n", printed)
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


if __name__ == "__main__":
    refresh(sys.argv[1])
