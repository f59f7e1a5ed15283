"""Who keeps LMDB's write lock, told to whoever waits for it.

All processes that write to an environment take one lock in its `lock.mdb`, and LMDB waits for it without end: a process
that was stopped (Ctrl-Z, a debugger, a frozen container) while it wrote holds all others up, and none of them says why.
So where a write has to wait, a thread is there that tells whose lock it is when it takes too long.

The lock is a robust mutex of POSIX threads: by Linux's ABI for these its first word holds the id of the thread that
has it (and two bits). LMDB 0.9 has mapped `lock.mdb` into memory, with that mutex in its second line of 64 bytes. It is
read there, and only there: to open and close the file would take this process's own locks off it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 5.0
"""A commit takes milliseconds, and on a slow disk tenths of a second; who waits longer waits for something else."""
REMIND_EVERY_S: Final = 60.0

_MUTEX_AT: Final = 64
_THREAD: Final = 0x3FFFFFFF  # FUTEX_TID_MASK of linux/futex.h
_DIED: Final = 0x40000000  # FUTEX_OWNER_DIED: the next to come gets it
_PROC: Final = Path("/proc")
_KNOWN: Final = sys.platform == "linux" and sys.byteorder == "little" and ctypes.sizeof(ctypes.c_void_p) == 8

log = logging.getLogger("dalsegno.store")


class WriteLock:
    """The write lock of an environment that is open in this process. `close` it before that is closed."""

    def __init__(self, lock_file: Path) -> None:
        self._folder = lock_file.parent
        at = _mapped_at(lock_file) if _KNOWN else 0
        self._word = ctypes.c_uint32.from_address(at + _MUTEX_AT) if at else ctypes.c_uint32(0)
        self._since = 0.0
        self._closed = threading.Event()
        self._watch: threading.Thread | None = None

    @property
    def holder(self) -> int:
        """The id of the thread that has it, in whatever process; 0 for nobody, or where it cannot be told."""
        word = self._word.value
        return 0 if word & _DIED else word & _THREAD

    @contextmanager
    def told(self) -> Iterator[None]:
        """While the block waits for the lock, log who has it: after `PATIENCE_S`, and then now and again."""
        self._since = time.monotonic()
        if self._watch is None:  # only where processes meet at all; one for each wait would take longer than most waits
            self._watch = threading.Thread(target=self._look, name="dalsegno-write-lock", daemon=True)
            self._watch.start()
        try:
            yield
        finally:
            self._since = 0.0

    def close(self) -> None:
        """Look no more."""
        self._closed.set()
        if self._watch is not None:
            self._watch.join()
        self._word = ctypes.c_uint32(0)

    def _look(self) -> None:
        told_of, told_at = 0.0, 0.0
        while not self._closed.wait(PATIENCE_S / 2):
            since, now = self._since, time.monotonic()
            again = now - told_at >= REMIND_EVERY_S if since == told_of else True
            if since and now - since >= PATIENCE_S and again:
                told_of, told_at = since, now
                log.warning(
                    "%s: a write has been waiting for %.0f s for LMDB's write lock. %s. Nothing is lost: it goes on "
                    "when the lock is free, which it also is when that process ends",
                    self._folder,
                    now - since,
                    describe(self.holder),
                )


def describe(thread: int) -> str:
    """Which process a thread belongs to, what it is doing, and what helps: a sentence without its full stop."""
    if not thread:
        return "Nobody holds it any more"
    try:
        status = (_PROC / str(thread) / "status").read_text("utf-8", "replace")
        facts = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        process = int(facts["Tgid"])
        words = (_PROC / str(process) / "cmdline").read_text("utf-8", "replace").split("\0")
    except (OSError, KeyError, ValueError):
        return f"Thread {thread} holds it, of a process that cannot be seen from here (another container?)"
    command = " ".join(word if word.isprintable() else ascii(word) for word in words if word)[:200]
    who = f"Process {process} ({command}) holds it"
    state = facts.get("State", "")
    if state.startswith(("T", "t")):
        return f"{who} and is stopped: `kill -CONT {process}` lets it go on"
    return f"{who}, in state {state}"


def _mapped_at(file: Path) -> int:
    """Where a file is mapped into the memory of this process, from its beginning; 0 if it is not."""
    try:
        found = os.stat(file)
        for line in (_PROC / "self" / "maps").read_text("utf-8", "surrogateescape").splitlines():
            fields = line.split(None, 5)
            if len(fields) == 6 and int(fields[4]) == found.st_ino and fields[5].endswith(file.name):
                return int(fields[0].partition("-")[0], 16)
    except (OSError, ValueError, IndexError):
        pass  # whoever cannot look is not told, and loses nothing else
    return 0
