"""An event loop in virtual time: `await asyncio.sleep(3600)` in a step takes a moment, and moves the clock an hour.

Its `time()` is the virtual clock's, and where a loop would sit in `select` until its next timer, this one moves the
clock there. Real input still arrives: when nothing but sockets is waited for, it waits for them in real time.
"""

from __future__ import annotations

import asyncio
import selectors
import threading
from collections.abc import Coroutine
from typing import Any

from dalsegno.testing.clock import VirtualClock


class _SkippingSelector(selectors.DefaultSelector):
    """Lets virtual time pass instead of waiting."""

    clock: VirtualClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(timeout if timeout is None else 0)
        if not ready and timeout is not None and timeout > 0:
            self.clock.advance_us(max(1, round(timeout * 1e6)))
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that asks the virtual clock for the time."""

    def __init__(self, clock: VirtualClock) -> None:
        self._virtual = clock
        selector = _SkippingSelector()
        selector.clock = clock
        super().__init__(selector)

    def time(self) -> float:
        return self._virtual.steady_us() / 1e6


def run_coroutine(coroutine: Coroutine[Any, Any, None], clock: VirtualClock) -> None:
    """Run a coroutine to its end in virtual time, also where this thread's event loop is running already."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        _run(coroutine, clock)
        return
    thread = threading.Thread(target=_run, args=(coroutine, clock), name="dalsegno-simulated-async")
    thread.start()
    thread.join()


def _run(coroutine: Coroutine[Any, Any, None], clock: VirtualClock) -> None:
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(clock)) as runner:
        runner.run(coroutine)
