"""The watchdog: workflow code that never yields must not stop the others.

Workflow code runs between two yields for as long as it likes, and has a thread of the engine meanwhile. One that loops
for ever would keep it for ever. So whoever moves a run leaves a `Note` (which thread, which run) and says in it when
it is inside the workflow's code; the clockwork looks at the notes, and code that is still inside after too long is
interrupted, and its run blocked with the file, the line and the time.

**How.** A private `BaseException` is raised in the thread, by CPython's `PyThreadState_SetAsyncExc`. Nothing better
exists: a thread cannot be ended from outside, signals reach the main thread only, a trace function would slow down
every line, and a process for each run would cost each step two messages. The exception is raised between two bytecodes,
never in the middle of C code (a sleep, a lock).

**Where it may arrive.** Only inside. Whoever strikes looks at `inside` under a lock, and so does whoever leaves and
finds that he was struck: he waits for the lock and takes the exception that is still on its way to him. Outside, no
transaction of the engine can be torn, and every fact that was folded is there to be recorded: code that was struck is
blocked with what had happened, as code is that went astray.

**It may arrive in vain.** Python swallows what is raised in a finalizer, in a callback of the garbage collector or in a
weak reference's; code may catch everything. So it is struck again until it has left. For a while only a line of the
program's own is struck, and no such callback: there, an interruption is neither swallowed, nor does it come between the
taking of a library's lock and the `try` that gives it back (every `logging` handler has such a place).

**A thread stuck in C code**, or in code that goes on whatever is raised, does not end by this. It is counted out and
replaced, and its run is set aside in the store; what it says if it ever comes back goes nowhere. C code that keeps
the interpreter lock stops the whole process, clockwork included: then its lease runs out and other engines go on.

**Debuggers.** While a thread is traced, or stands in pdb, time is not its own; such an activation is left alone.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, NoReturn

from dalsegno.core.engine.edge import Clock
from dalsegno.core.engine.live import LiveRun

WATCHDOG_S = 30.0
"""How long code may run without a yield. Replaying 10,000 steps takes a twentieth of a second; what takes longer than
half a minute belongs into a step."""

PATIENCE_US = 1_000_000
"""So long after its time is up, code is struck only where that does no harm: a hundred looks."""

LOOKS = 5
"""So often a thread is looked at each time, a few milliseconds apart, for a line where it may be struck."""

STRIKE_EVERY_US = 200_000

GIVE_UP_US = 3_000_000
"""So long after the first strike a thread that is still inside is given up."""

CORE = os.path.dirname(os.path.dirname(__file__))
PACKAGE = os.path.dirname(CORE)
DRIVERS = (os.path.join(CORE, "interpreter"), os.path.join(CORE, "engine"))
LIBRARIES = ("<frozen ", *{sysconfig.get_path(kind) for kind in ("stdlib", "purelib", "platlib")})
DEBUGGERS = ("bdb.py", "pdb.py", "pydevd.py", "pydevd_frame.py")
SWALLOWS = ("weakref.py", "_weakrefset.py")
"""From the callbacks in here nothing is raised to whoever let go of an object."""

log = logging.getLogger("dalsegno.engine")


class Interrupted(BaseException):
    """Raised in the thread of an activation that takes too long. Nobody is to catch it, so it is no `Exception`."""


class Overrun(Exception):
    """The code of a workflow ran for too long without a yield."""


class Note:
    """That a thread moves a run, left by it and read by the clockwork. A thread writes its activations into one and the
    same, as long as it is not struck."""

    inside: object = None  # what is being told to the workflow's code; None outside
    seen: object = None  # the same, as the clockwork saw it
    since_us = struck_us = first_us = 0
    strikes = 0
    where = ""
    left_alone = given_up = False

    def __init__(self, run: LiveRun, striking: threading.Lock) -> None:
        self.run, self._striking = run, striking

    def leave(self) -> NoReturn:
        """Called outside by the thread that was struck inside: have no exception on its way here. Raises `Overrun`; if
        an exception arrives before the first line of this, then that one, and none follows it."""
        while True:
            try:
                with self._striking:  # whoever strikes has done so, or sees that nobody is inside
                    pass
                take_one()
                break
            except Interrupted:
                continue
        raise Overrun(self.where)


class Watchdog:
    """Looks at activations. `give_up(run, thread id, reason)` counts a thread out and sets its run aside; `told(run,
    reason)` hears of each activation that is struck."""

    def __init__(
        self,
        clock: Clock,
        limit_s: float,
        give_up: Callable[[LiveRun, int, str], None],
        told: Callable[[LiveRun, str], object] = lambda run, reason: None,
    ) -> None:
        self._clock, self._limit_us, self._give_up, self._told = clock, round(limit_s * 1e6), give_up, told
        self._notes: dict[int, Note] = {}
        self._given_up: list[tuple[LiveRun, int, str]] = []  # and not yet set aside
        self._striking = threading.Lock()

    # --- on the thread that moves a run ----------------------------------------------------------------------------

    def over(self, move: Callable[..., bool], run: LiveRun, *more: Any) -> bool:
        """`move(run, *more)`, watched while the run's note says that it is inside; false, too, if it was given up."""
        me = threading.get_ident()
        note = self._notes.get(me)
        if note is None or note.strikes or note.left_alone:
            note = self._notes[me] = Note(run, self._striking)
        note.run, run.note = run, note
        try:
            return move(run, *more) and not note.given_up
        finally:
            run.note = None

    # --- on the clockwork's thread -----------------------------------------------------------------------------------

    def look(self) -> None:
        """Look at all notes once."""
        now_us = self._clock.steady_us()
        for thread, note in list(self._notes.items()):
            inside = note.inside
            if inside is None or inside is not note.seen:
                note.seen, note.since_us = inside, now_us
            elif now_us - note.since_us > self._limit_us and now_us - note.struck_us > STRIKE_EVERY_US:
                self._consider(thread, note, now_us)
        if self._given_up:
            self._set_aside()

    def _consider(self, thread: int, note: Note, now_us: int) -> None:
        """Strike, unless it is better to wait, or there is no use any more."""
        if note.left_alone:
            return
        took_us = now_us - note.since_us
        anywhere = took_us > self._limit_us + PATIENCE_US
        final = bool(note.strikes) and now_us - note.first_us > GIVE_UP_US
        for left in reversed(range(LOOKS)):
            with self._striking:
                code = workflow_code(sys._current_frames().get(thread))
                if sys.gettrace() is not None or is_debugged(code):
                    note.left_alone = True
                if note.left_alone or note.inside is None or note.inside is not note.seen:
                    return
                note.where = note.where or overran(took_us, code)
                if final or lands_well(code) or (anywhere and not left):
                    self._strike(thread, note, now_us, final)
                    break
            time.sleep(0)  # the code goes on a little
        if note.given_up:
            log.error("run %s cannot be interrupted: %s", note.run.number, note.where)
            self._given_up.append((note.run, thread, note.where))
        elif note.strikes == 1:
            self._told(note.run, note.where)

    @staticmethod
    def _strike(thread: int, note: Note, now_us: int, final: bool) -> None:
        note.strikes += 1  # first, so that whoever leaves knows of it
        if not final:
            _raise_in(thread, Interrupted)
        note.first_us, note.struck_us = note.first_us or now_us, now_us
        if final:
            note.given_up = note.left_alone = True
            _raise_in(thread, None)
            take_one()

    def _set_aside(self) -> None:
        """Have those that were given up counted out; with a store that fails, at the next look."""
        given_up, self._given_up = self._given_up, []
        for run, thread, where in given_up:
            try:
                self._give_up(run, thread, where)
            except Exception as error:  # the store's, be it a StoreError or not
                log.warning("run %s is set aside later: %s", run.number, error)
                self._given_up.append((run, thread, where))


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Raise an exception in another thread, or call back one that was not raised yet."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error)
    )


def take_one() -> None:
    """Raise the exception in this very thread, and take it. It takes the place of one that is on its way here. In
    CPython up to 3.12 an exception that is called back leaves the whole interpreter looking for it at every call, and a
    traced thread looking for ever; one that has arrived does not."""
    while True:  # it may be swallowed by a callback of the garbage collector
        try:
            _raise_in(threading.get_ident(), Interrupted)
            for _ in range(100):
                pass
        except Interrupted:
            return


def workflow_code(frame: FrameType | None) -> list[FrameType]:
    """The frames on top of those that drive a workflow, innermost first; none while these are at work themselves."""
    found: list[FrameType] = []
    while frame is not None and not frame.f_code.co_filename.startswith(DRIVERS):
        found.append(frame)
        frame = frame.f_back
    return found if frame is not None else []


def lands_well(code: list[FrameType]) -> bool:
    """Whether what is raised here is raised in a line of the program's own, and not where Python swallows it."""
    if not code or not is_own(code[0]):
        return False
    swallowing: set[CodeType | None] = {getattr(each, "__code__", None) for each in gc.callbacks}
    return not any(
        frame.f_code in swallowing
        or frame.f_code.co_name == "__del__"
        or os.path.basename(frame.f_code.co_filename) in SWALLOWS
        for frame in code
    )


def is_debugged(code: list[FrameType]) -> bool:
    """Whether somebody goes through this code by hand."""
    return any(frame.f_trace is not None or os.path.basename(frame.f_code.co_filename) in DEBUGGERS for frame in code)


def is_own(frame: FrameType) -> bool:
    """Whether a frame is of neither a library nor this package."""
    return not frame.f_code.co_filename.startswith((PACKAGE, *LIBRARIES))


def overran(took_us: int, code: list[FrameType]) -> str:
    """Why a run is blocked whose code has taken so long."""
    took = f"{took_us / 1e6:.3g} s" if took_us >= 1_000_000 else f"{took_us / 1e3:.3g} ms"
    return (
        f"its code ran for {took} without a yield, at {place(code)}. Other runs wait meanwhile: long work belongs into "
        "a step. (The limit is the engine's option `watchdog`.)"
    )


def place(code: list[FrameType]) -> str:
    """The innermost line that is the program's own."""
    frame = next(filter(is_own, code), code[0] if code else None)
    if frame is None:
        return "no line of its own: it yields what is answered at once, again and again"
    return f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
