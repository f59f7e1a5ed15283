"""Frames of suspended generators: which line they stand at, and whether leaving them runs code of the workflow.

CPython runs the `finally` and `with` blocks of a suspended generator when it is closed or dropped. Whether it stands
inside one can be read from the code object: its exception table says which handler covers the instruction it stopped
at. A handler of `try` or `with` begins with PUSH_EXC_INFO. The compiler's own handlers do not (the one that turns
StopIteration into RuntimeError, those of `yield from` and of leaving an `except` block), so they are passed over to
whatever covers them in turn.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator
from types import CodeType, FrameType, GeneratorType
from typing import Any

from dalsegno.core.commands import Command

_COMMAND_CODES = frozenset({Command.__iter__.__code__, Command.__await__.__code__})
_PUSH_EXC_INFO = dis.opmap["PUSH_EXC_INFO"]


def frame_of(suspended: Any) -> FrameType | None:
    """The frame of a generator or coroutine; None when it has ended or is neither."""
    frame: FrameType | None = getattr(suspended, "gi_frame", None) or getattr(suspended, "cr_frame", None)
    return frame


def frames(suspended: Any) -> Iterator[FrameType]:
    """The frames from a generator inwards, through `yield from` and `await`, those of commands left out."""
    while suspended is not None:
        frame = frame_of(suspended)
        if frame is None or frame.f_code in _COMMAND_CODES:
            return
        yield frame
        suspended = getattr(suspended, "gi_yieldfrom", None) or getattr(suspended, "cr_await", None)


def innermost(suspended: Any) -> FrameType | None:
    """The frame that holds the `yield` a generator stands at."""
    found = None
    while suspended is not None:  # written out, since it is asked once for every step
        if type(suspended) is GeneratorType:
            frame, inner = suspended.gi_frame, suspended.gi_yieldfrom
        else:
            frame, inner = frame_of(suspended), getattr(suspended, "cr_await", None)
        if frame is None or frame.f_code in _COMMAND_CODES:
            break
        found, suspended = frame, inner
    return found


def is_suspended_inside_try(suspended: Any) -> bool:
    """Whether closing this generator (or one it delegates to) would run a handler of the workflow."""
    return any(frame.f_lasti >= 0 and is_covered(frame.f_code, frame.f_lasti) for frame in frames(suspended))


def is_covered(code: CodeType, offset: int) -> bool:
    """Whether the instruction at `offset` stands inside a `try` or `with` block of this code."""
    entries = list(exception_table(code))
    seen: set[int] = set()
    while offset not in seen:
        seen.add(offset)
        target = next((target for start, end, target in entries if start <= offset < end), None)
        if target is None:
            return False
        if code.co_code[target] == _PUSH_EXC_INFO:
            return True
        offset = target
    return False


def exception_table(code: CodeType) -> Iterator[tuple[int, int, int]]:
    """The exception table of a code object as (start, end, handler) in bytes, innermost entry first for any offset.

    The format is the one of CPython 3.11 to 3.13 (Objects/exception_handling_notes.txt): four numbers an entry, in
    groups of six bits, the first byte of an entry marked by its highest bit.
    """
    data = iter(code.co_exceptiontable)
    for first in data:
        start = _number(first & 0x7F, data)
        length = _number(next(data), data)
        target = _number(next(data), data)
        _number(next(data), data)  # stack depth, and whether the offset is pushed
        yield start * 2, (start + length) * 2, target * 2


def _number(byte: int, data: Iterator[int]) -> int:
    value = byte & 63
    while byte & 64:
        byte = next(data)
        value = value << 6 | byte & 63
    return value
