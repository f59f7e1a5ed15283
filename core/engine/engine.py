"""The engine: client and worker in one process. Everything it touches is an argument."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from functools import partial
from typing import Any, Self, Unpack

from dalsegno.core.engine.arrivals import MAIL
from dalsegno.core.engine.client import Client
from dalsegno.core.engine.committer import Committer, Request, Write
from dalsegno.core.engine.run import Run
from dalsegno.core.engine.worker import Worker
from dalsegno.core.engine.works import WorkerOptions, Works
from dalsegno.core.errors import EngineClosed, StoreUnusable
from dalsegno.core.events import RunStarted
from dalsegno.core.options import only
from dalsegno.core.store import Backend, Created, Message, NewRun, RunRecord, Sent, Status

CLOSED = "this engine was closed; open another one on the store and the runs go on there"

LOOK_AGAIN_S = 1.0
"""Who waits for the end of a run is told; so often he looks as well, since another engine may have taken it over."""

OTHERS_S = 0.02
"""How often he looks where the run is another engine's."""


class Engine(Client):
    """Runs workflows, and talks to them, in one process.

    >>> from dalsegno import Engine, step, workflow
    >>> @step
    ... def greet(name: str) -> str:
    ...     return f"hello {name}"
    >>> @workflow
    ... def hello(name: str):
    ...     return (yield from greet(name))
    >>> with Engine("memory:", workflows=[hello]) as engine:
    ...     engine.start(hello, "world", id="first").result(timeout=10)
    'hello world'

    Takes what `Worker` takes. Opening claims every unfinished run in the store that no other engine has, and goes on
    with it; closing stops in good order. Several engines and workers may share a store, unless one of them wants it
    `alone`.

    Raises `StoreInUse` where they may not, `StoreUnusable`, `DefinitionError`.
    """

    def __init__(self, store: str | Backend, **options: Unpack[WorkerOptions]) -> None:
        only("Engine", options, sorted(WorkerOptions.__optional_keys__))
        worker = Worker(store, **options)
        self._serve(worker)
        worker.start()

    def _serve(self, works: Works) -> None:
        """Be the client of these works."""
        self._worker, self._around = works, works.around
        self._owns_backend = False  # the works close it
        self._closed = False
        self._closing = threading.Lock()
        self._waited: set[threading.Event] = set()  # by threads
        self._awaited: set[Future[None]] = set()  # by event loops

    # --- life ------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop in good order: running bodies get the grace period, everything is recorded, the store is released.

        Closing twice is fine. Runs that are not finished go on when an engine opens on the store again; whoever waits
        for one of them here gets `EngineClosed`.
        """
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._worker.stop()
            for event in list(self._waited):
                event.set()
            for ended in list(self._awaited):
                _settle(ended, EngineClosed(CLOSED))

    def __enter__(self) -> Self:
        return self

    # --- writes that join the engine's flushes ---------------------------------------------------------------------

    def _create(self, prepared: Sequence[tuple[NewRun, RunStarted]]) -> list[Created]:
        self._check_open()
        pending = Pending(len(prepared))
        submit = self._worker.committer.submit
        for at, (new, first) in enumerate(prepared):
            submit(Creation(self._made, pending, at, new, first))
        return self._answers(pending)

    def _answers(self, pending: Pending) -> list[Any]:
        """Wait until every write of a caller is answered."""
        return pending.wait(self._worker.committer)

    def _made(self, pending: Pending, at: int, first: RunStarted, made: Created) -> None:
        if made.new:
            if first.deadline_us is not None:
                self._worker.loop.expect_timer(first.deadline_us)
            self._worker.loop.adopt(made.record, first)
        elif made.record.active and made.record.owner == self._around.owner:
            # Ours and with work to do, and perhaps nobody works on it: it was created by an earlier try of this very
            # write, whose outcome was unknown. Whoever is in memory already takes no harm from it.
            self._worker.loop.rejoin(made.record)
        pending.done(at, made)

    def _create_plain(self, new: NewRun) -> Created:
        made = super()._create_plain(new)  # a fork is announced as news, like a run another process created
        self._worker.wake()
        return made

    def send(self, message: Message) -> Sent:
        """Put a message into an inbox; durable when this returns."""
        self._check_open()
        pending = Pending(1)
        self._worker.committer.submit(Request(message, partial(pending.done, 0), pending.failed))
        sent, number = self._answers(pending)[0]
        if sent is Sent.ACCEPTED:
            self._worker.loop.deliver(number, MAIL)
        return Sent(sent)

    def _check_open(self) -> None:
        if self._closed:
            raise EngineClosed(CLOSED)

    # --- waiting ---------------------------------------------------------------------------------------------------

    def has_ended(self, record: RunRecord) -> bool:
        """As for any client, except that a blocked run which this engine is just trying again has not."""
        if record.status is Status.BLOCKED and record.number in self._worker.loop.live:
            return False
        return super().has_ended(record)

    def wait_for_end(self, run: Run[Any], timeout: float | None) -> bool:
        """Wait until the run has ended; false when `timeout` seconds passed first."""
        if self.completed(run) is not None:
            return True
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                record = run.current
            except StoreUnusable:
                self._check_open()  # the store was closed with the engine
                raise
            if self.has_ended(record):
                return True
            ended = threading.Event()
            self._worker.watch(record.number, ended.set)
            self._waited.add(ended)
            try:
                if run.ended:  # before anybody watched
                    return True
                if run.current.number != record.number:
                    continue  # it has continued as new: wait for the newest
                self._check_open()
                pause = self._pause_s(record)
                left = pause if deadline is None else min(pause, max(0.0, deadline - time.monotonic()))
                if not ended.wait(left) and deadline is not None and time.monotonic() >= deadline:
                    return run.ended
                if self.completed(run) is not None:
                    return True
            finally:
                self._waited.discard(ended)
                self._worker.unwatch(record.number, ended.set)

    def _pause_s(self, record: RunRecord) -> float:
        """How long to wait before the store is looked at. Of runs that are another engine's nobody tells this one."""
        return LOOK_AGAIN_S if record.owner == self._around.owner else OTHERS_S

    def completed(self, run: Run[Any]) -> bytes | None:
        """The closing event of a run that completed in this engine a while ago."""
        return self._worker.loop.ends.get(run.id) if run.follows else None

    def call_at_end(self, run: Run[Any], ended: Future[None]) -> bool:
        """Resolve the future when the run ends."""

        def look() -> None:
            if run.ended:
                _settle(ended)
            elif not self.call_at_end(run, ended):
                threading.Thread(target=poll, name="dalsegno-await", daemon=True).start()

        def poll() -> None:
            try:
                self.wait_for_end(run, None)
            except Exception as error:
                _settle(ended, error)
            else:
                _settle(ended)

        record = run.current
        if record.owner != self._around.owner and record.status.open:
            return False
        self._awaited.add(ended)
        ended.add_done_callback(self._awaited.discard)
        self._worker.watch(record.number, look)
        if run.ended:
            _settle(ended)
        return True


def _settle(ended: Future[None], error: Exception | None = None) -> None:
    """Resolve a future, unless somebody else has, or whoever waited has gone."""
    try:
        if error is None:
            ended.set_result(None)
        else:
            ended.set_exception(error)
    except InvalidStateError:
        pass


class Creation(Write):
    """A run to be created, for a caller who waits. Thousands of them are made at once, so that each is one object."""

    __slots__ = ("_at", "_first", "_made", "_pending")

    def __init__(
        self,
        made: Callable[[Pending, int, RunStarted, Created], None],
        pending: Pending,
        at: int,
        new: NewRun,
        first: RunStarted,
    ) -> None:
        super().__init__(new)
        self._made, self._pending, self._at, self._first = made, pending, at, first

    def done(self, answer: Created) -> None:
        self._made(self._pending, self._at, self._first, answer)

    def failed(self, error: Exception) -> None:
        self._pending.failed(error)


class Pending:
    """Answers a caller waits for while somebody, perhaps the caller, flushes."""

    __slots__ = ("_answers", "_changed", "_error", "_missing")

    def __init__(self, count: int) -> None:
        self._answers: list[Any] = [None] * count
        self._missing = count
        self._error: Exception | None = None
        self._changed = threading.Event()

    @property
    def ready(self) -> bool:
        """Whether `wait` returns or raises at once."""
        return not self._missing or self._error is not None

    def done(self, at: int, answer: Any) -> None:
        """One answer has come. Called by one thread at a time, the leader."""
        self._answers[at] = answer
        self._missing -= 1
        if not self._missing:
            self._changed.set()

    def failed(self, error: Exception) -> None:
        """The write was not taken."""
        self._error = error
        self._changed.set()

    def wait(self, committer: Committer) -> list[Any]:
        """The answers. Raises what the store raised."""
        while not self.ready:
            committer.lead()
            if not self.ready:
                self._changed.wait(0.05)  # whoever leads takes this along; look again in case nobody does
        if self._error is not None:
            raise self._error
        return self._answers
