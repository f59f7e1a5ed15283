"""`replay debug`: a real debugger inside the workflow's own code, over its recorded history.

The events before N are told silently. Then the debugger waits for the generator that hears of event N: when it is
resumed, it stops in that frame, at the `yield` that is being answered. From there on it is an ordinary pdb. `next` goes
over a `yield` into the next line, since the rest of the history is told meanwhile; breakpoints hold; `breakpoint()` in
the code stops, from event N on, or from the beginning where no N is named. The stack shows the workflow's frames and
not those of the interpreter, into which `step` does not go. There is nothing that watches the time.

Leaving raises nothing in the workflow (pdb's own `quit` would run its `finally` blocks): the code goes on to its next
`yield`, and nothing more is told. No step is run, and nothing is written.

With `--listen` it is debugpy that stops there, for editors; it has to be installed.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pdb import Pdb
from types import CodeType, FrameType
from typing import IO, Any, Final

import click

from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import BadOption, DalsegnoError
from dalsegno.core.events import Event
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.choosing import reading
from dalsegno.tools.exported import cut_data
from dalsegno.tools.failures import say
from dalsegno.tools.options import RunName, app_option, command_help, json_option, show_json, store_option
from dalsegno.tools.stores import find_run, read_run
from dalsegno.tools.text import clean, clean_lines
from dalsegno.tools.timeline import words
from dalsegno.tools.walking import answered, fiber_of, silenced

OURS: Final = (
    "dalsegno.core",
    "dalsegno.tools",
    "dalsegno.backends",
    "attr",
    "attrs",
    "cattrs",
    "msgspec",
    "contextlib",
)
Trace = Callable[[FrameType, str, Any], Any]


class Debugger(Pdb):
    """A pdb that stops in a generator when it is resumed, and sees nothing but the workflow's code."""

    def __init__(self, out: IO[str] | None = None) -> None:
        super().__init__(stdin=sys.stdin, stdout=out or sys.stdout, nosigint=True)
        self.use_rawinput = out is None and sys.stdin.isatty() and sys.stdout.isatty()  # with a line editor
        self.prompt = "(replay) "
        self.left = False
        self.stops: list[tuple[str, int]] = []
        """Where it stopped: file and line."""

    def stop_when_run(self, place: FrameType | CodeType) -> None:
        """Stop when this suspended frame goes on, or this code begins."""

        def wait(resumed: FrameType, event: str, _: Any) -> Any:
            begins = resumed.f_code is place and resumed.f_lineno == resumed.f_code.co_firstlineno
            # another generator of this code may be put away meanwhile: that is a call as well, further down in it
            return self.stop_in(resumed) if event == "call" and (begins or resumed is place) else None

        sys.settrace(wait)

    def stop_in(self, frame: FrameType) -> Trace | None:
        """Stop here and now; the answer is what traces the rest of the frame."""
        self.reset()
        self.botframe = outermost(frame)
        above: FrameType | None = frame
        while above is not None:
            above.f_trace = self.trace_dispatch
            if above is self.botframe:
                break
            above = above.f_back
        self.set_step()
        sys.settrace(self.trace_dispatch)
        self.interaction(frame, None)
        return None if self.left else self.trace_dispatch

    def hook(self, *_: Any, **__: Any) -> None:
        """What `breakpoint()` calls: stop at the next line of who called it."""
        frame = sys._getframe().f_back
        if frame is not None and not self.left:
            self.reset()
            self.botframe = outermost(frame)
            self.set_trace_below(frame)

    def set_trace_below(self, frame: FrameType) -> None:
        """Trace a frame that is running, from its next line on."""
        while True:
            frame.f_trace = self.trace_dispatch
            if frame is self.botframe or frame.f_back is None:
                break
            frame = frame.f_back
        self.set_step()
        sys.settrace(self.trace_dispatch)

    # --- what pdb asks of its heirs --------------------------------------------------------------------------------

    def stop_here(self, frame: FrameType) -> bool:
        """Never in the interpreter, nor in code without a file."""
        return not self.left and is_users(frame) and bool(super().stop_here(frame))

    def dispatch_call(self, frame: FrameType, arg: Any) -> Any:
        """A generator that goes on under another caller is the new bottom of the stack."""
        if is_users(frame) and (frame.f_back is None or not is_users(frame.f_back)):
            self.botframe = frame
        return super().dispatch_call(frame, arg)

    def interaction(self, frame: FrameType | None, traceback: Any) -> None:
        """Talk; where the input ends, leave."""
        if frame is not None:
            self.stops.append((frame.f_code.co_filename, frame.f_lineno))
        super().interaction(frame, traceback)

    def user_exception(self, frame: FrameType, exc_info: Any) -> None:
        """An exception is shown with what it says; pdb takes the last line, which is the note of run and event."""
        if getattr(exc_info[1], "__notes__", ()):
            self.message(f"{exc_info[0].__name__}: {clean_lines(exc_info[1])}")
        super().user_exception(frame, exc_info)

    def set_continue(self) -> None:
        """Go on without stopping, and with breakpoints still holding in generators that are resumed later."""
        super().set_continue()
        if self.breaks and not self.left:
            sys.settrace(self.trace_dispatch)

    def do_quit(self, arg: str) -> bool:
        """q(uit): leave. Nothing is raised in the workflow; nothing more of the history is told."""
        self.left = True
        self.clear_all_breaks()
        self.set_continue()
        sys.settrace(None)
        return True

    do_q = do_exit = do_quit

    def do_EOF(self, arg: str) -> bool:  # noqa: N802  # cmd calls it so
        """The end of the input: leave."""
        self.message("")
        return self.do_quit(arg)


def is_users(frame: FrameType) -> bool:
    """Whether a frame is of code that somebody wants to see."""
    module = str(frame.f_globals.get("__name__", ""))
    ours = any(module == name or module.startswith(f"{name}.") for name in OURS)
    return not ours and not frame.f_code.co_filename.startswith("<")


def outermost(frame: FrameType) -> FrameType:
    """The outermost frame of the workflow above this one."""
    while frame.f_back is not None and is_users(frame.f_back):
        frame = frame.f_back
    return frame


# --- driving -------------------------------------------------------------------------------------------------------


class Remote:
    """debugpy in the place of pdb: it stops where an editor that has connected sees it."""

    left = False

    def __init__(self, address: str) -> None:
        if importlib.util.find_spec("debugpy") is None:
            raise BadOption("--listen needs debugpy, which is not installed here: pip install debugpy")
        host, _, port = address.rpartition(":")
        if not port.isdecimal():
            raise BadOption(f"--listen {clean(address, 60)!r}: write HOST:PORT or PORT")
        self._debugpy: Any = importlib.import_module("debugpy")
        self.stops: list[tuple[str, int]] = []
        self._debugpy.listen((host or "127.0.0.1", int(port)))
        say(f"waiting for an editor to attach to {host or '127.0.0.1'}:{port}", mark="")
        self._debugpy.wait_for_client()

    def stop_when_run(self, place: FrameType | CodeType) -> None:
        """Have debugpy stop where this frame comes to its next line."""
        assert not isinstance(place, CodeType), "code that has not begun has no frame to stop in"
        self.stops.append((place.f_code.co_filename, place.f_lineno))
        importlib.import_module("pydevd").settrace(
            suspend=True, trace_only_current_thread=True, patch_multiprocessing=False, stop_at_frame=place
        )

    def hook(self, *arguments: Any, **options: Any) -> None:
        """What `breakpoint()` calls."""
        self._debugpy.breakpoint()


@contextmanager
def breakpoints(debugger: Debugger | Remote) -> Iterator[None]:
    """Let `breakpoint()` stop in this debugger, unless PYTHONBREAKPOINT names another."""
    before, trace = sys.breakpointhook, sys.gettrace()
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = debugger.hook
    try:
        yield
    finally:
        sys.breakpointhook = before
        if isinstance(debugger, Debugger):  # debugpy wants nobody else to set the trace
            sys.settrace(trace)
            debugger.clear_all_breaks()  # pdb keeps them for the whole process


def debug(
    events: Sequence[Event],
    definition: WorkflowDefinition[Any, Any],
    codec: Codec,
    debugger: Debugger | Remote,
    at: int | None,
) -> Interpreter:
    """Tell the whole history, stopping at event N on the way. Raises what a replay raises."""
    interpreter = Interpreter(definition, codec)
    if at:
        with silenced():
            interpreter.replay(events, at)
    with breakpoints(debugger):
        for index in range(at or 0, len(events)):
            if index == at:
                place = resumed_by(interpreter, events[index]) if index else getattr(definition.fn, "__code__", None)
                if place is not None:
                    debugger.stop_when_run(place)
            if index == 0:
                interpreter.replay(events, 1)
            else:
                interpreter.apply(events[index])
            if debugger.left:
                break
    return interpreter


def resumed_by(interpreter: Interpreter, event: Event) -> FrameType | None:
    """The innermost frame that goes on when this event is told; None where nothing stands any more."""
    held = fiber_of(interpreter.fibers(), answered(interpreter, event)).frames
    return held[-1] if held else None


@click.command(
    "debug",
    help=command_help(
        "Stop in a debugger inside the workflow's own code, where it hears of event N.",
        "replay debug order-42 --at 17 --app shop.orders",
        "pdb, with the rest of the history told as you go on: n passes over a yield, breakpoints hold, and "
        "breakpoint() in the code stops; without --at only that does. No step is run. "
        'With --json: {"run_id", "at", "stops": [{"file", "line"}], "events": how many were told, "cut"}, after the '
        "session.",
    ),
)
@click.argument("run", type=RunName())
@click.option("--at", type=click.IntRange(min=0), metavar="N", help="Stop where the code hears of event N.")
@click.option("--listen", metavar="[HOST:]PORT", help="Wait for an editor there, and let debugpy stop.")
@app_option(required=True)
@store_option
@json_option
def debug_run(run: str, at: int | None, listen: str | None, app: str, store: str | None, json_wanted: bool) -> None:
    """Debug one run."""
    loaded = load_app(app)
    with reading(store) as opened:
        record = find_run(opened, run)
        kept, cut = read_run(opened, record), cut_data(opened)
    if kept.unreadable is not None:
        say(kept.unreadable.sentence, mark="warning")
    if at is not None and at >= len(kept.events):
        raise BadOption(f"--at {at}: the history has {len(kept.events)} events, numbered from 0")
    if listen is not None and at == 0:  # said before an editor is waited for
        raise BadOption("--listen has no frame to stop in before event 1; begin with --at 1, or use breakpoint()")
    debugger = Debugger(sys.stderr if json_wanted else None) if listen is None else Remote(listen)
    try:
        interpreter = debug(kept.events, loaded.workflow(record.workflow), loaded.codec, debugger, at)
    except DalsegnoError:
        say("here today's code leaves the history:", mark="")
        raise
    if json_wanted:
        stops = [{"file": file, "line": line} for file, line in debugger.stops]
        show_json({"run_id": record.run_id, "at": at, "stops": stops, "events": interpreter.count, "cut": cut})
    elif not debugger.stops:
        event = f"event {at} ({words(type(kept.events[at]).__name__)})" if at is not None else "the history"
        say(f"no code of the workflow ran at {event}, so nothing stopped", mark="warning")
    elif not debugger.left:
        say(f"the history is told: {interpreter.count} events", mark="")
    interpreter.evict()
