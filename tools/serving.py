"""What a worker needs around its engine: stopping on signals, a log that is safe to print, knowing it is done."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from dalsegno.core.store import Backend, Status
from dalsegno.tools.logs import structured
from dalsegno.tools.text import clean_lines

WAKING = frozenset({"wake", "resume", "cancel", "terminate"})
"""Messages that a worker takes in however the run stands."""


def left_to_do(store: Backend) -> bool:
    """Whether a run goes on, or will: something was said that wakes even a paused or blocked one."""
    if store.runs(status=[Status.RUNNING], limit=1):
        return True
    numbers = {number for _, number in store.news()}
    return any(message.kind in WAKING for number in numbers for message in store.inbox(number))


class SafeFormatter(logging.Formatter):
    """Log lines in which nothing acts on a terminal, whatever ids and errors they tell of."""

    def format(self, record: logging.LogRecord) -> str:
        return clean_lines(super().format(record))


def log_to_stderr(*, in_json: bool = False) -> None:
    """Let the engine's warnings be seen, unless the app has said where its log goes; `in_json` was asked for, and goes
    before what the app has said."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(SafeFormatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    chosen = structured(handler) if in_json else handler
    logging.basicConfig(level=logging.INFO, handlers=[chosen], force=in_json)


@contextmanager
def stopping_on_signals(stop: threading.Event) -> Iterator[None]:
    """The first SIGINT or SIGTERM asks to stop; the second one is taken as it is meant."""

    def ask(number: int, frame: FrameType | None) -> None:
        stop.set()
        for one in before:
            signal.signal(one, before[one])

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before = {one: signal.signal(one, ask) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
