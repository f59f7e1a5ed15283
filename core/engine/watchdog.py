"""The watchdog: workflow code that never yields must not stop the others.

Workflow code runs between two yields for as long as it likes, and has a thread of the engine meanwhile. One that loops
for ever would keep it for ever. So whoever moves a run leaves a note (which thread, which run), and the clockwork looks
at the notes: one that stays the same for too long, while the thread stands in workflow code, is interrupted, and its
run is blocked with the file, the line and the seconds.

**How.** A private `BaseException` is raised in the thread, by CPython's `PyThreadState_SetAsyncExc`. Nothing better
exists: a thread cannot be ended from outside, signals reach the main thread only, a trace function would slow down
every line, and a process for each run would cost each step two messages. The exception is raised between two bytecodes:
never in the middle of C code (a sleep, a lock), and only when the thread stands in code of the workflow as seen from
the clockwork, so that no transaction of the engine is torn. It may arrive a moment later than that, when the workflow
has just yielded; the note is then taken down under the lock that it was raised under, and nobody else is hit.

**A thread stuck in C code**, or in code that catches everything and goes on, does not end by this. It is counted out
and replaced, and its run is set aside in the store; what it says if it ever comes back goes nowhere. C code that keeps
the interpreter lock stops the whole process, clockwork included: then its lease runs out and other engines go on.

**Debuggers.** While a thread is traced, or stands in pdb, time is not its own; such an activation is left alone.
"""

from __future__ import annotations

import ctypes
import logging
import os
import sys
import sysconfig
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from dalsegno.core.engine.edge import Clock
from dalsegno.core.engine.live import LiveRun

WATCHDOG_S = 30.0
"""How long code may run without a yield. Replaying 10,000 steps takes a twentieth of a second; what takes longer than
half a minute belongs into a step."""

STRIKES = 3
"""So often a thread is interrupted, once a second; then it is given up."""

STRIKE_EVERY_US = 1_000_000

ENGINE = os.path.dirname(__file__)
CORE = os.path.dirname(ENGINE)
PACKAGE = os.path.dirname(CORE)
DRIVER = os.path.join(CORE, "interpreter")
LIBRARIES = tuple(filter(None, (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"))))
DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "pydevd_frame.py")

log = logging.getLogger("dalsegno.engine")


class Interrupted(BaseException):
    """Raised in the thread of an activation that takes too long. Nobody is to catch it, so it is no `Exception`."""


class Overrun(Exception):
    """The code of a workflow ran for too long without a yield."""


class Note:
    """That a thread moves a run, left by it and read by the clockwork. One is made for each activation, and hardly ever
    looked at: what it has besides the run stands in the class."""

    since_us = 0  # when the clockwork saw it first
    strikes = struck_us = 0
    where = ""
    left_alone = given_up = False

    def __init__(self, run: LiveRun) -> None:
        self.run = run


class Watchdog:
    """Looks at activations. `give_up(run, thread id, reason)` counts a thread out and sets its run aside."""

    def __init__(self, clock: Clock, limit_s: float, give_up: Callable[[LiveRun, int, str], None]) -> None:
        self._clock, self._limit_us, self._give_up = clock, round(limit_s * 1e6), give_up
        self._notes: dict[int, Note] = {}
        self.has_struck = False  # ever
        self._striking = threading.Lock()

    # --- on the thread that moves a run ----------------------------------------------------------------------------

    def over(self, move: Callable[..., bool], run: LiveRun, *more: Any) -> bool:
        """`move(run, *more)`, watched. Raises `Overrun` if it was interrupted; false, too, if the run was given up."""
        me, note = threading.get_ident(), Note(run)
        self._notes[me] = note
        try:
            try:
                moved = move(run, *more)
            finally:
                del self._notes[me]
                if note.strikes:
                    self._come_to_rest(me)
        except (Interrupted, Overrun):
            self._notes.pop(me, None)
            self._come_to_rest(me)
            moved = True
        if note.given_up:
            return False
        if note.strikes and moved:
            raise Overrun(note.where)
        return moved

    def _come_to_rest(self, me: int) -> None:
        """Have no exception on its way to this thread any more."""
        while True:
            try:
                with self._striking:  # whoever strikes has done so, or sees that the note is gone
                    pass
                break
            except Interrupted:
                continue
        take_one()

    def confess(self) -> None:
        """Raise `Overrun` if this thread was interrupted: whatever the workflow made of it is not to be recorded."""
        note = self._notes.get(threading.get_ident())
        if note is not None and note.strikes:
            raise Overrun(note.where)

    # --- on the clockwork's thread -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at all notes once."""
        now_us = self._clock.steady_us()
        for thread, note in list(self._notes.items()):
            if not note.since_us:
                note.since_us = now_us
            elif now_us - note.since_us > self._limit_us and now_us - note.struck_us > STRIKE_EVERY_US:
                self._strike(thread, note, now_us)

    def _strike(self, thread: int, note: Note, now_us: int) -> None:
        frame = sys._current_frames().get(thread)
        code = None if frame is None or note.left_alone else workflow_code(frame)
        if code is None:
            return  # not in workflow code just now
        if sys.gettrace() is not None or is_debugged(code):
            note.left_alone = True
            return
        seconds = (now_us - note.since_us) / 1e6
        with self._striking:
            if self._notes.get(thread) is not note:
                return
            note.where = note.where or (
                f"its code ran for {seconds:.0f} s without a yield, at {place(code)}. Other runs wait meanwhile: long "
                "work belongs into a step. (The limit is the engine's option `watchdog`.)"
            )
            note.struck_us, self.has_struck = now_us, True
            note.strikes += 1
            note.given_up = note.strikes > STRIKES
            if not note.given_up:
                _raise_in(thread, Interrupted)
        if note.given_up:
            _raise_in(thread, None)
            take_one()
            log.error("run %s cannot be interrupted: %s", note.run.number, note.where)
            note.left_alone = True
            self._give_up(note.run, thread, note.where)


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in another thread, or call back one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


def take_one() -> None:
    """Raise the exception in this very thread, and take it. It takes the place of one that is on its way here. In
    CPython up to 3.12 an exception that is called back leaves the whole interpreter looking for it at every call, and a
    traced thread looking for ever; one that has arrived does not."""
    try:
        _raise_in(threading.get_ident(), Interrupted)
        while True:
            pass
    except Interrupted:
        return


def workflow_code(frame: FrameType) -> list[FrameType] | None:
    """The frames of workflow code on top of a stack, innermost first; None if the engine itself is at work there."""
    found: list[FrameType] = []
    at: FrameType | None = frame
    while at is not None:
        file = at.f_code.co_filename
        if file.startswith(DRIVER):
            return found or None
        if file.startswith((ENGINE, os.path.join(PACKAGE, "backends"))):
            return None
        found.append(at)
        at = at.f_back
    return None


def is_debugged(code: list[FrameType]) -> bool:
    """Whether somebody goes through this code by hand."""
    return any(frame.f_trace is not None or os.path.basename(frame.f_code.co_filename) in DEBUGGERS for frame in code)


def place(code: list[FrameType]) -> str:
    """The innermost line that is the program's own."""
    own = [frame for frame in code if not frame.f_code.co_filename.startswith((PACKAGE, *LIBRARIES))]
    frame = (own or code)[0]
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
