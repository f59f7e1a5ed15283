"""A run, seen from outside: how it stands, what came of it, and the things one can say to it."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from concurrent.futures import Future
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, Protocol, TypeVar

from dalsegno.core.errors import (
    BadOption,
    InternalError,
    RunBlocked,
    RunClosed,
    RunNotFound,
    Terminated,
    TimedOut,
)
from dalsegno.core.events import Event, RunCancelled, RunCompleted, RunFailed, RunTerminated, RunTimedOut
from dalsegno.core.history import decode_event, decode_history
from dalsegno.core.policies import seconds
from dalsegno.core.store import Backend, Message, MessageKind, RunRecord, Sent, Status
from dalsegno.core.text import storable
from dalsegno.core.values.codec import Codec
from dalsegno.core.values.exceptions import ErrorSummary

T = TypeVar("T")


class Host(Protocol):
    """What a run needs of the client that made it."""

    @property
    def backend(self) -> Backend: ...
    @property
    def codec(self) -> Codec: ...
    def send(self, message: Message) -> Sent: ...
    def has_ended(self, record: RunRecord) -> bool: ...
    def wait_for_end(self, run: Run[Any], timeout: float | None) -> bool: ...
    def call_at_end(self, run: Run[Any], ended: Future[None]) -> bool: ...
    def completed(self, run: Run[Any]) -> bytes | None: ...
    def fork(self, run: Run[T], at: int, id: str | None) -> Run[T]: ...


class Run(Generic[T]):
    """A handle on one workflow id. Made by `start`, `get` and `runs`; holds nothing open.

    From `start` and `get` it follows the id: when the run continues as new, or is started again, `status`, `result` and
    messages are those of the newest run. From `runs`, which lists every run that an id has had, it is that one run:
    `result` is then what came of it, or of the runs it has continued as, and messages go there.

    Whatever is asked is read from the store now, and raises what the store raises, and `RunNotFound` when retention has
    removed the run. `await run` is `run.result()` for programs with an event loop.

    >>> from dalsegno import Engine, Flow, Publish, Receive, workflow
    >>> @workflow
    ... def approved(order: str) -> Flow[str]:
    ...     yield from Publish("stage", "waiting")
    ...     return f"{order}: {(yield from Receive('approval', str))}"
    >>> with Engine("memory:", workflows=[approved]) as engine:
    ...     run = engine.start(approved, "chairs", id="order-42")
    ...     run.signal("approval", "granted")
    ...     run.result(timeout=10), run.status, run.state
    ('chairs: granted', <Status.COMPLETED: 'completed'>, {'stage': 'waiting'})
    """

    def __init__(self, client: Host, record: RunRecord, *, follows: bool = True) -> None:
        self._client, self._record, self.follows = client, record, follows

    def __repr__(self) -> str:
        return f"<Run {self._record.run_id} of {self._record.workflow}>"

    # --- how it stands ---------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The workflow id."""
        return self._record.workflow_id

    @property
    def run_id(self) -> str:
        """The workflow id and the number of the run, like `order-42#2`: of the newest, where this follows the id."""
        return self.record.run_id

    @property
    def workflow(self) -> str:
        """The name of the workflow."""
        return self._record.workflow

    @property
    def tags(self) -> Mapping[str, str]:
        """What the run was tagged with."""
        return self._record.tags

    @property
    def record(self) -> RunRecord:
        """What the store knows of the run, read now. Raises `RunNotFound` after it was purged."""
        self._record = found = self._find(None if self.follows else self._record.generation)
        return found

    @property
    def current(self) -> RunRecord:
        """The record of the run that `result` and messages are about, read now: of this run, or of the one it has
        continued as. Raises `RunNotFound`."""
        record = self.record
        while record.status is Status.CONTINUED and not self.follows:
            record = self._find(record.generation + 1)
        return record

    def _find(self, generation: int | None) -> RunRecord:
        found = self._client.backend.find(self.id, generation)
        if found is None:
            name = self.id if generation is None else f"{self.id}#{generation}"
            raise RunNotFound(f"there is no run {name!r} any more: retention removed it", workflow_id=self.id)
        return found

    @property
    def status(self) -> Status:
        """How it stands, read now."""
        return self.record.status

    @property
    def started_at(self) -> datetime:
        """When the run was created, in UTC."""
        return datetime.fromtimestamp(self.record.created_at_us / 1e6, UTC)

    @property
    def state(self) -> dict[str, Any]:
        """What the run has published, by key; readable after it has closed, too."""
        codec = self._client.codec
        return {k: codec.decode(v) for k, v in self._client.backend.published(self.record.number).items()}

    def history(self) -> list[Event]:
        """The events of the run. Raises `DecodeError` when one cannot be read."""
        return decode_history(self._client.backend.history(self.record.number))

    @property
    def error(self) -> ErrorSummary | None:
        """How the run failed, was cancelled or terminated, ran out of time or is blocked, as data that needs none of
        its classes; None if it did not."""
        record = self.record
        event = self._closing_event(record)
        if isinstance(event, RunFailed | RunCancelled):
            return self._client.codec.describe_error(event.error)
        error = self._plain_error(record, event)
        if error is None:
            return None
        return self._client.codec.describe_error(self._client.codec.encode_error(error))

    # --- its end ---------------------------------------------------------------------------------------------------

    def result(self, timeout: float | timedelta | None = None) -> T:
        """Wait for the end and return the workflow's value.

        Raises what the workflow raised (a fresh exception of its own type, `RemoteError` where that is not known
        here), `Cancelled`, `Terminated`, `TimedOut` when the run ran out of its own time, `RunBlocked` as soon as it
        waits for mended code, and `TimedOut` when `timeout` (seconds or a timedelta) passes first; the run goes on.
        """
        limit = None if timeout is None else seconds(timeout)
        if not self._client.wait_for_end(self, limit):
            raise TimedOut(
                f"run {self.id!r} has not ended after {limit:g} s; it is {self.status.value} and goes on",
                workflow_id=self.id,
            )
        completed = self._client.completed(self)
        if completed is not None:
            return self._value(decode_event(completed))
        # As it was when it was found to have ended; unless that was known without it.
        return self._outcome(self._record if self._client.has_ended(self._record) else self.current)

    def __await__(self) -> Generator[Any, None, T]:
        return self._wait().__await__()

    async def _wait(self) -> T:
        import asyncio

        ended: Future[None] = Future()
        if not self._client.call_at_end(self, ended):
            # A client beside the engine can only look again and again; that is done off the event loop.
            return await asyncio.to_thread(self.result)
        await asyncio.wrap_future(ended)
        return self.outcome()

    @property
    def ended(self) -> bool:
        """Whether `result` has something to say: the run has closed, or is blocked."""
        return self._client.has_ended(self.current)

    def outcome(self) -> T:
        """What `result` returns or raises, for a run that has ended."""
        return self._outcome(self.current)

    def _outcome(self, record: RunRecord) -> T:
        event = self._closing_event(record)
        if isinstance(event, RunCompleted):
            return self._value(event)
        if isinstance(event, RunFailed | RunCancelled):
            error = self._client.codec.decode_error(event.error)
            error.add_note(f"(raised by run {record.run_id}, event {self._client.backend.head(record.number) - 1})")
            raise error
        plain = self._plain_error(record, event)
        raise plain or InternalError(f"run {record.run_id} is {record.status.value} but its history ends in {event!r}")

    def _value(self, event: Event) -> T:
        assert isinstance(event, RunCompleted)
        value: T = self._client.codec.decode(event.result)
        return value

    def _closing_event(self, record: RunRecord) -> Event | None:
        if record.status.open:
            return None
        last = self._client.backend.head(record.number) - 1
        stored = self._client.backend.history(record.number, last, 1)
        return decode_event(stored[0]) if stored else None

    @staticmethod
    def _plain_error(record: RunRecord, event: Event | None) -> Exception | None:
        if record.status is Status.BLOCKED:
            return RunBlocked(
                f"run {record.run_id} is blocked until its code is mended: {record.reason}",
                workflow_id=record.workflow_id,
                reason=record.reason,
            )
        if isinstance(event, RunTerminated):
            why = f": {event.reason}" if event.reason else ""
            return Terminated(f"run {record.run_id} was terminated{why}", reason=event.reason)
        if isinstance(event, RunTimedOut):
            return TimedOut(f"run {record.run_id} took longer than its timeout", workflow_id=record.workflow_id)
        return None

    # --- what one can say to it ------------------------------------------------------------------------------------

    def signal(self, name: str, payload: Any = None, *, dedup: str | None = None) -> None:
        """Put a signal into the run's inbox; when this returns, it is durable and will be seen exactly once.

        `dedup`: a second signal with the same key is not delivered again, also after the run has closed. Raises
        `RunClosed` when the run has ended, `EncodeError` for a payload that cannot be stored.
        """
        self._say("signal", named(name), self._client.codec.encode(payload), dedup)

    def signal_json(self, name: str, payload: Any = None, *, dedup: str | None = None) -> None:
        """The same with plain JSON data, which the `Receive` turns into the type it asks for."""
        self._say("signal", named(name), self._client.codec.from_json(payload), dedup)

    def cancel(self, reason: str = "") -> None:
        """Ask the run to end itself: `Cancelled` is raised where it waits, and its clean-up runs. Durable when this
        returns, and over when `result` raises. Raises `RunClosed`, as the next three do, too."""
        self._say("cancel", payload=storable(reason, "a reason").encode())

    def terminate(self, reason: str = "") -> None:
        """End the run without asking its code; works for a blocked run, too."""
        self._say("terminate", payload=storable(reason, "a reason").encode())

    def pause(self, reason: str = "") -> None:
        """Have the run's code stand still until `resume`. Durable when this returns, in effect a moment later.

        Bodies that are at work already end, and what came of them is recorded; the code is told of it at `resume`.
        Signals, answers of callbacks and ends of children wait in the inbox, which is durable, and timers stay due.
        Then all of it is taken, in the order in which it came. `cancel` ends a pause, because clean-up has to run;
        `terminate` ends the run as it stands, and so does its own time-out. A child is a run of its own, and not paused
        with its parent; a step that was put on a queue before may still be begun by a worker. Raises `RunClosed`.

        >>> from dalsegno import Engine, Flow, Receive, workflow
        >>> @workflow
        ... def greets() -> Flow[str]:
        ...     return (yield from Receive("name", str))
        >>> with Engine("memory:", workflows=[greets]) as engine:
        ...     run = engine.start(greets)
        ...     run.pause("for lunch")
        ...     run.signal("name", "world")
        ...     run.resume()
        ...     run.result(timeout=10)
        'world'
        """
        self._say("pause", payload=storable(reason, "a reason").encode())

    def resume(self) -> None:
        """Let a paused run go on, or have a blocked one tried again with the code the engine has now."""
        self._say("resume")

    def fork(self, at: int, *, id: str | None = None) -> Run[T]:
        """Start a new run from the first `at` events of this one's history. Steps in them are not run again; timers
        and children that they leave open are set up anew. This run is not touched.

        Raises `BadOption` unless 1 <= at <= the number of events before the closing one.
        """
        return self._client.fork(self, at, id)

    def _say(self, kind: MessageKind, name: str = "", payload: bytes = b"", dedup: str | None = None) -> None:
        if dedup is not None:
            storable(dedup, "a dedup key")
        while True:
            to = None if self.follows else self.current.generation
            message = Message(workflow_id=self.id, generation=to, kind=kind, name=name, payload=payload, dedup=dedup)
            sent = self._client.send(message)
            if sent is not Sent.CLOSED or to is None or self.current.generation == to:
                break  # otherwise it has continued as new in this very moment
        if sent is Sent.NOT_FOUND:
            raise RunNotFound(f"there is no run {self.id!r}", workflow_id=self.id)
        if sent is Sent.CLOSED:
            status = self.current.status
            raise RunClosed(
                f"run {self.id!r} has ended ({status.value}) and takes no {name or kind!r} any more",
                workflow_id=self.id,
                status=status,
            )


def named(name: str) -> str:
    """A signal's name, if it is one. Raises `BadOption`."""
    if not name:
        raise BadOption("a signal has a name: run.signal(name, payload)")
    return storable(name, "a signal's name")
