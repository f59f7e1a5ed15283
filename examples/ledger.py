"""A ledger that step bodies keep themselves: one line for each body that ran, whatever the engine says of it.

It is the witness of the demo. The history says what was recorded, the ledger what was done, and neither knows of the
other; `audit_demo` compares them. A line is appended with one `write` to a file opened for appending, which POSIX
keeps whole among concurrent writers; a process killed between two lines leaves whole lines behind.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from dalsegno import step_context


@dataclass(frozen=True, slots=True)
class Entry:
    """One body that ran: for which command of which run, the how manieth attempt, about what, where and when."""

    run: str
    key: str
    attempt: int
    about: str
    pid: int
    at: float

    @classmethod
    def from_line(cls, line: bytes) -> Self:
        return cls(**json.loads(line))


def note(ledger: str, about: str) -> None:
    """Append the line of the step body that calls this. To be called first, so that no body runs unseen."""
    context = step_context()
    entry = Entry(context.run_id, context.idempotency_key, context.attempt, about, os.getpid(), time.time())
    line = json.dumps(asdict(entry)).encode() + b"\n"
    descriptor = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)


class Reader:
    """Reads a ledger while others write it: `entries` is what was seen so far, `read()` takes in what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        self._offset = 0

    def read(self) -> list[Entry]:
        """The entries since the last call. A file that is not there yet is an empty ledger."""
        new = list(self._new())
        self.entries += new
        return new

    def _new(self) -> Iterator[Entry]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return
        # A line that has no end yet is left for the next call.
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        yield from map(Entry.from_line, whole.splitlines())
