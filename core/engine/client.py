"""The client: starts runs, finds them, talks to them. It works on nothing itself.

`Client(store)` may be used beside a running engine, from another process; `Engine` is a client, too, whose writes join
the engine's own flushes.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Self, TypeVar

import attrs

from dalsegno.core.definitions import Definition, WorkflowDefinition
from dalsegno.core.engine.edge import Clock, Entropy, clock_or_own, entropy_or_own
from dalsegno.core.engine.run import Run
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.errors import BadOption, InvalidToken, RunConflict, RunNotFound
from dalsegno.core.events import RunStarted
from dalsegno.core.history import decode_event, encode_event
from dalsegno.core.interpreter import parse_token, secret_of
from dalsegno.core.options import given_or_default, several
from dalsegno.core.policies import CheckpointPolicy
from dalsegno.core.store import (
    Backend,
    Created,
    Message,
    NewRun,
    OnConflict,
    RunRecord,
    Sent,
    Status,
    opened,
)
from dalsegno.core.text import check_workflow_id, storable, storable_tags
from dalsegno.core.values.codec import Codec

T = TypeVar("T")

POLL_S = (0.01, 0.25)
"""A client beside the engine looks for a run's end first after so long, at last so seldom."""

SOME_STATUS = "Status.RUNNING, or several of Status"

BULK = 1000
"""Runs created per commit by `start_many`."""


class Client:
    """Talks to a store.

    >>> with Client("memory:") as client:
    ...     client.runs()
    []

    Raises what opening the store raises: `BadOption`, `StoreUnusable`.
    """

    def __init__(
        self,
        store: str | Backend,
        *,
        codec: Codec | None = None,
        clock: Clock | None = None,
        entropy: Entropy | None = None,
    ) -> None:
        self._owns_backend = isinstance(store, str)
        codec = given_or_default("codec", codec, Codec, "a Codec, like Codec(max_bytes=10_000_000)")
        clock, entropy = clock_or_own(clock), entropy_or_own(entropy)
        self._around = Surroundings(
            backend=opened(store),
            codec=codec,
            clock=clock,
            entropy=entropy,
            owner="",
            workflows={},
            checkpoint=CheckpointPolicy(),
        )

    @property
    def backend(self) -> Backend:
        """The store."""
        return self._around.backend

    @property
    def codec(self) -> Codec:
        """What turns values into payloads."""
        return self._around.codec

    def close(self) -> None:
        """Release the store, if this client opened it."""
        if self._owns_backend:
            self.backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- starting --------------------------------------------------------------------------------------------------

    def start(
        self,
        workflow: WorkflowDefinition[..., T] | str,
        /,
        *args: Any,
        id: str | None = None,
        on_conflict: OnConflict = "attach",
        tags: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> Run[T]:
        """Start a workflow; when this returns, the run is durable. Idempotent by `id`.

        An id that is taken by a run of the same workflow and arguments is attached to; `on_conflict="reject"` refuses
        it, and `"restart_closed"` starts the next run when the last one has ended. Raises `RunConflict` when the id is
        taken by another workflow or other arguments, `EncodeError` for an argument that cannot be stored, `TypeError`
        for arguments that do not fit, all before anything is recorded.
        """
        new, first = self._prepare(workflow, args, kwargs, id, on_conflict, tags)
        created = self._create([(new, first)])[0]
        return Run(self, self._accept(new, created))

    def start_many(
        self,
        workflow: WorkflowDefinition[..., T] | str,
        starts: Iterable[tuple[str | None, Sequence[Any]]],
        *,
        on_conflict: OnConflict = "attach",
        tags: Mapping[str, str] | None = None,
    ) -> list[Run[T]]:
        """Start one workflow many times in few commits: `start_many(send, [("mail-1", (a,)), ("mail-2", (b,))])`.

        Every pair is checked and encoded before the first commit. A conflict raises `RunConflict` after the commit of
        its batch; calling again is safe, because starting is idempotent.
        """
        takes = "pairs (id, arguments), like [('one', (1, 2))]"
        starts = several("starts", starts, takes)
        prepared = [self._prepare_one(at, workflow, start, on_conflict, tags) for at, start in enumerate(starts)]
        runs: list[Run[T]] = []
        for at in range(0, len(prepared), BULK):
            batch = prepared[at : at + BULK]
            for (new, _), created in zip(batch, self._create(batch), strict=True):
                runs.append(Run(self, self._accept(new, created)))
        return runs

    def _prepare_one(
        self,
        at: int,
        workflow: WorkflowDefinition[..., Any] | str,
        start: tuple[str | None, Sequence[Any]],
        on_conflict: OnConflict,
        tags: Mapping[str, str] | None,
    ) -> tuple[NewRun, RunStarted]:
        """One start of many; an error says which."""
        if not (isinstance(start, Sequence) and len(start) == 2 and _are_arguments(start[1])):
            raise BadOption(f"start {at}, {start!r}: takes pairs (id, arguments), like ('one', (1, 2))")
        id, args = start
        try:
            return self._prepare(workflow, tuple(args), {}, id, on_conflict, tags)
        except Exception as error:
            error.add_note(f"(start {at} of start_many, id {id!r}; none was started)")
            raise

    def _prepare(
        self,
        workflow: WorkflowDefinition[..., Any] | str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        id: str | None,
        on_conflict: OnConflict,
        tags: Mapping[str, str] | None,
    ) -> tuple[NewRun, RunStarted]:
        if isinstance(workflow, WorkflowDefinition):
            workflow.check_call(args, kwargs)
        elif not isinstance(workflow, str):
            raise BadOption(f"start({_as_given(workflow)}): takes a @workflow, or the name of one")
        if on_conflict not in ("attach", "reject", "restart_closed"):
            raise BadOption(f"on_conflict={on_conflict!r}: one of 'attach', 'reject', 'restart_closed'")
        name = workflow if isinstance(workflow, str) else workflow.name
        storable(name, "a workflow's name")
        chosen = f"{name}-{self._around.entropy(6).hex()}" if id is None else storable(id, "a workflow id")
        generation = 1
        if on_conflict == "restart_closed":
            there = self.backend.find(chosen)
            if there is not None:
                generation = there.generation + (not there.status.open)
        new, started = self._around.new_run(
            chosen,
            workflow,
            self.codec.encode_call(args, kwargs),
            owner=self._around.owner,
            tags=storable_tags(tags),
            on_conflict=on_conflict,
            generation=generation,
        )
        if generation > 1:  # and that it stays, should retention delete the earlier ones in this very moment
            new = attrs.evolve(new, generation=generation)
        return new, started

    def _accept(self, new: NewRun, created: Created) -> RunRecord:
        """The record of a start, or the conflict that it is."""
        record = created.record
        if created.new:
            return record
        if new.on_conflict == "reject":
            if self.backend.history(record.number, 0, 1) == [new.events[0]]:
                return record  # created by this very call, in a try whose outcome was unknown
            raise RunConflict(
                f"the id {record.workflow_id!r} is taken: run {record.run_id} of {record.workflow!r} is "
                f"{record.status.value}",
                workflow_id=record.workflow_id,
            )
        older: RunRecord | None = record
        while older is not None and older.digest != new.digest:
            # After a continue as new, the arguments it was once started with belong to an earlier generation.
            oldest = older
            older = self.backend.find(record.workflow_id, older.generation - 1) if older.generation > 1 else None
            if older is None and oldest.workflow == new.workflow and self._was_continued(oldest):
                return record  # retention has deleted the one with the arguments, so that nobody can compare them
        if older is None:
            same = "other arguments" if record.workflow == new.workflow else f"another workflow, {record.workflow!r}"
            if record.workflow_id != new.workflow_id and new.place is not None:
                raise RunConflict(
                    f"dedup={new.place.dedup!r} of queue {new.place.queue!r} is taken by a run with {same} "
                    f"({record.run_id}, {record.status.value}); leave it out, or choose another",
                    workflow_id=record.workflow_id,
                )
            raise RunConflict(
                f"the id {record.workflow_id!r} is taken by a run with {same} ({record.run_id}, "
                f"{record.status.value}); choose another id, or start it with the arguments it has",
                workflow_id=record.workflow_id,
            )
        return record

    def _was_continued(self, record: RunRecord) -> bool:
        """Whether a run is the continuation of one before it."""
        first = self.backend.history(record.number, 0, 1)
        started = decode_event(first[0]) if record.generation > 1 and first else None
        return isinstance(started, RunStarted) and started.origin.startswith("continued from ")

    def _create(self, prepared: Sequence[tuple[NewRun, RunStarted]]) -> list[Created]:
        return self.backend.create([new for new, _ in prepared])

    # --- finding ---------------------------------------------------------------------------------------------------

    def get(self, id: str) -> Run[Any]:
        """The run of a workflow id. Raises `RunNotFound`.

        >>> with Client("memory:") as client:
        ...     client.get("order-42")
        Traceback (most recent call last):
        ...
        dalsegno.core.errors.RunNotFound: there is no run with the id 'order-42' in this store
        """
        if not isinstance(id, str):
            raise BadOption(f"get({id!r}): takes a workflow id, which is text")
        storable(id, "a workflow id")
        record = self.backend.find(id)
        if record is None:
            raise RunNotFound(f"there is no run with the id {id!r} in this store", workflow_id=id)
        return Run(self, record)

    def runs(
        self,
        *,
        status: Status | Iterable[Status] = (),
        workflow: str | WorkflowDefinition[..., Any] | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Run[Any]]:
        """Runs that fit, newest first: of these statuses, of this workflow, that carry all of these tags.

        An id that was restarted, or that has continued as new, has several runs; each is listed, and its handle shows
        that run, while `get(id)` follows the id. Raises `BadOption`.

        >>> with Client("memory:") as client:
        ...     client.runs(status=Status.FAILED, workflow="fulfil", tags={"region": "eu"}, limit=10)
        []
        """
        statuses = [status] if isinstance(status, Status) else several("status", status, SOME_STATUS)
        if not all(isinstance(one, Status) for one in statuses):
            raise BadOption(f"status={status!r}: takes {SOME_STATUS}")
        if limit is not None and not (isinstance(limit, int) and limit >= 0):
            raise BadOption(f"limit={limit!r}: takes a whole number, 0 or more")
        name = workflow.name if isinstance(workflow, WorkflowDefinition) else workflow
        if name is not None and not isinstance(name, str):
            raise BadOption(f"workflow={name!r}: takes a @workflow, or the name of one")
        tags = storable_tags(tags)
        found: list[RunRecord] = []
        before: int | None = None
        while limit is None or len(found) < limit:
            wanted = 1000 if limit is None else min(1000, limit - len(found))
            page = self.backend.runs(status=statuses, workflow=name, tags=tags, before=before, limit=wanted)
            if not page:
                break
            found.extend(page)
            before = page[-1].number
        return [Run(self, record, follows=False) for record in found]

    # --- talking ---------------------------------------------------------------------------------------------------

    def send(self, message: Message) -> Sent:
        """Put a message into an inbox; durable when this returns."""
        return self.backend.send([message], self._around.clock.now_us())[0][0]

    def complete(self, token: str, value: Any = None) -> None:
        """Keep the promise of a `NewCallback`. Raises `InvalidToken` for a token that is not of this store, or whose
        callback was completed before, and `EncodeError`."""
        self._answer(token, self.codec.encode(value), failed=False)

    def complete_json(self, token: str, value: Any = None) -> None:
        """The same with plain JSON data, which the callback's type is made from."""
        self._answer(token, self.codec.from_json(value), failed=False)

    def fail(self, token: str, error: BaseException | str) -> None:
        """Report that the promise of a `NewCallback` cannot be kept; the error is raised where the workflow waits."""
        raised = error if isinstance(error, BaseException) else RuntimeError(error)
        self._answer(token, self.codec.encode_error(raised), failed=True)

    def _answer(self, token: str, payload: bytes, *, failed: bool) -> None:
        said = parse_token(token)
        record = self.backend.find(said.workflow_id, said.generation)
        stored = self.backend.history(record.number, 0, 1) if record is not None else []
        started = decode_event(stored[0]) if stored else None
        if not isinstance(started, RunStarted) or secret_of(started.seed, said.id) != said.secret:
            raise InvalidToken("this callback token is of another store, or was made up")
        key = f"callback {said.generation} {said.id}"
        sent = self.send(
            Message(
                workflow_id=said.workflow_id,
                generation=said.generation,
                kind="callback",
                name=said.id,
                payload=payload,
                failed=failed,
                dedup=key,
            )
        )
        if sent is not Sent.ACCEPTED:
            why = "was completed before" if sent is Sent.DUPLICATE else "belongs to a run that has ended"
            raise InvalidToken(f"the callback of {said.workflow_id!r} {why}", workflow_id=said.workflow_id)

    # --- waiting and forking: what runs ask of their client --------------------------------------------------------

    def has_ended(self, record: RunRecord) -> bool:
        """Whether there is something to tell of the run: it has closed for good, or is blocked."""
        status = record.status
        return status is Status.BLOCKED or not (status.open or status is Status.CONTINUED)

    def wait_for_end(self, run: Run[Any], timeout: float | None) -> bool:
        """Wait until the run has ended; false when `timeout` seconds passed first."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pause, longest = POLL_S
        for _ in itertools.count():
            if run.ended:
                return True
            if deadline is not None:
                pause = min(pause, deadline - time.monotonic())
                if pause <= 0:
                    return False
            time.sleep(pause)
            pause = min(longest, pause * 1.5)
        return False

    def completed(self, run: Run[Any]) -> bytes | None:
        """The closing event of a run that completed, where that is known without asking the store."""
        return None

    def call_at_end(self, run: Run[Any], ended: Future[None]) -> bool:
        """Resolve the future when the run ends; false if this client is not told of ends."""
        return False

    def fork(self, run: Run[T], at: int, id: str | None) -> Run[T]:
        """See `Run.fork`."""
        record = run.record
        stored = self.backend.history(record.number)
        most = len(stored) - (not record.status.open)
        if isinstance(at, bool) or not (isinstance(at, int) and 1 <= at <= most):
            raise BadOption(f"fork(at={at!r}): {run.id!r} has {most} events that can be kept, so between 1 and {most}")
        started = decode_event(stored[0])
        assert isinstance(started, RunStarted)
        if id is not None:
            check_workflow_id(id)
        new_id = id or f"{run.id}.fork-{self._around.entropy(4).hex()}"
        first = attrs.evolve(
            started, workflow_id=new_id, generation=1, parent=(), origin=f"forked from {record.run_id} at {at}"
        )
        new = NewRun(
            workflow_id=new_id,
            workflow=record.workflow,
            events=(encode_event(first), *stored[1:at]),
            created_at_us=self._around.clock.now_us(),
            digest=record.digest,
            tags=record.tags,
            restore=True,
            on_conflict="reject",
        )
        return Run(self, self._accept(new, self._create_plain(new)))

    def _create_plain(self, new: NewRun) -> Created:
        return self.backend.create([new])[0]


def _as_given(thing: object) -> str:
    return f"{thing.name}, a @step" if isinstance(thing, Definition) else repr(thing)


def _are_arguments(given: object) -> bool:
    return isinstance(given, Sequence) and not isinstance(given, str | bytes)
