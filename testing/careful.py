"""A careful client: what a test says to a simulation that has faults is said again until it is heard.

A test is about the workflow and its engine; the one who starts runs and sends signals to them is assumed to know what
to do when a store fails: to say it again, a signal with a `dedup` key, so that it arrives once. Where the process dies
meanwhile, it is opened anew first.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import attrs

from dalsegno.core.engine.clockwork import TICK_S
from dalsegno.core.engine.engine import Engine, Pending
from dalsegno.core.engine.works import Works
from dalsegno.core.errors import StoreError
from dalsegno.core.events import RunStarted
from dalsegno.core.store import Created, Message, NewRun, Sent
from dalsegno.testing.clock import VirtualClock
from dalsegno.testing.faults import Crash

A = TypeVar("A")

FRUITLESS_MAX = 2000
"""After so many ticks in which nothing could be done (100 virtual seconds), nothing more happens by itself."""


class CarefulEngine(Engine):
    """An engine in one thread that a careful client talks to. Whoever opens it says whether that is called for."""

    clock: VirtualClock
    works: Works
    careful: bool

    def restart(self) -> None:
        """Open the process anew, which has died."""
        raise NotImplementedError

    def _create(self, prepared: Sequence[tuple[NewRun, RunStarted]]) -> list[Created]:
        if not self.careful:
            return super()._create(prepared)
        create = super()._create

        def try_() -> list[Created]:
            owner = self._around.owner  # another one after each restart
            return create([(attrs.evolve(new, owner=owner), first) for new, first in prepared])

        return self._carefully(try_)

    def send(self, message: Message) -> Sent:
        """Put a message into an inbox; durable when this returns."""
        if not self.careful:
            return super().send(message)
        if message.dedup is None and message.kind == "signal":
            # Of no other signal, in whatever simulation of this store before or after. It is in no history.
            message = attrs.evolve(message, dedup=f"said {secrets.token_hex(8)}")
        send, tries = super().send, 0

        def say() -> Sent:
            nonlocal tries
            tries += 1
            return send(message)

        sent = self._carefully(say)
        return Sent.ACCEPTED if sent is Sent.DUPLICATE and tries > 1 else sent

    def _carefully(self, say: Callable[[], A]) -> A:
        for _ in range(FRUITLESS_MAX):
            try:
                return say()
            except Crash:
                self.restart()
            except StoreError:
                self.clock.advance(TICK_S)
        return say()

    def _answers(self, pending: Pending) -> list[Any]:
        for _ in range(FRUITLESS_MAX):
            self.works.committer.stalled = None  # the clockwork's tick would; here the caller is all there is
            self.works.committer.lead()
            if pending.ready:
                break
            self.clock.advance(TICK_S)
        return super()._answers(pending)
