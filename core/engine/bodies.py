"""Step bodies: what a job for the step crew is, what the body can know about itself, and how its outcome is judged.

A body gets decoded copies of its arguments and its result is encoded before anyone sees it, so what the workflow gets
live is what it gets on replay. The body runs on any thread; nothing here touches the run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from dalsegno.core.engine.edge import Clock
from dalsegno.core.errors import DataError, HistoryMismatch, Permanent, RetryAfter, TimedOut, UseError
from dalsegno.core.policies import StepOptions, seconds
from dalsegno.core.transactions import HasTransactions, StepAttempt, Strayed, Undone
from dalsegno.core.values.codec import Codec

if TYPE_CHECKING:
    import psycopg

_current: ContextVar[tuple[Job, Clock] | StepContext] = ContextVar("dalsegno_step")
"""Which body runs here. On the engine's own threads a context is made only when it is asked for."""


class Transaction:
    """What a transactional job knows besides: the connection its body has, and how the attempt ended.

    `fate` is held by whoever decides what becomes of the attempt: its thread, until the body begins and again for the
    commit, or the clockwork, when its time is up. `passing`: it was undone for a reason that may pass. `strayed`:
    another step stands in its place.
    """

    __slots__ = ("connection", "fate", "passing", "strayed")

    def __init__(self) -> None:
        self.connection: Any = None
        self.fate = threading.Lock()
        self.passing = False
        self.strayed: HistoryMismatch | None = None


class Owner(Protocol):
    """What a job knows of the run it belongs to."""

    workflow_id: str
    run_id: str
    running: dict[str, Job]


class Job:
    """One attempt of one step: everything the crew needs to run it and the loop needs to place its outcome."""

    __slots__ = (
        "attempt",
        "beat_us",
        "brief",
        "cancel",
        "details",
        "error",
        "fn",
        "id",
        "name",
        "notes",
        "options",
        "payload",
        "result",
        "run",
        "thread",
        "took_us",
        "transaction",
    )

    def __init__(
        self, run: Any, id: str, name: str, fn: Callable[..., Any], payload: bytes, options: StepOptions, attempt: int
    ) -> None:
        self.run: Any = run  # an Owner, and to the loop its LiveRun
        self.id, self.name, self.fn, self.payload = id, name, fn, payload
        self.options, self.attempt = options, attempt
        self.result: bytes | None = None
        self.error: BaseException | None = None
        self.beat_us = self.took_us = 0
        self.brief = False  # whether it is expected to be over soon; judged when it is handed over
        self.details: Any = None
        self.notes: Notebook | None = None
        self.thread: threading.Thread | None = None
        self.cancel: Callable[[], object] | None = None  # set where the body can be interrupted (asyncio)
        self.transaction = Transaction() if options.transactional else None

    @property
    def waited_for(self) -> bool:
        """Whether its run still wants the outcome of this very attempt."""
        return self.run.running.get(self.id) is self


class Notebook(Protocol):
    """Where heartbeats are kept, so that the next attempt can read them."""

    def tell(self, job: Job, details: Any) -> None: ...
    def last(self, job: Job) -> Any: ...


class Watches(Protocol):
    """Whoever observes bodies."""

    def begin(self, job: Job) -> Callable[[], None]:
        """A body is about to run here; the answer is called after it."""


class StepContext:
    """What a step can know about itself; `step_context()` gives it.

    `attempt` counts from 1. `idempotency_key` is the same over retries and replays: hand it to whatever must not be
    done twice. `cancelled` turns true when nobody waits for the outcome any more (the run or branch was cancelled, the
    attempt timed out): a long body should look at it and stop.

    >>> from dalsegno import Flow, step, step_context, workflow
    >>> from dalsegno.testing import Simulation
    >>> @step
    ... def charge(amount: int) -> str:
    ...     about = step_context()
    ...     return f"attempt {about.attempt} of {about.run_id}, known to the bank as {about.idempotency_key}"
    >>> @workflow
    ... def pay() -> Flow[str]:
    ...     return (yield from charge(5))
    >>> with Simulation([pay]) as simulation:
    ...     simulation.start(pay, id="order-42").result()
    'attempt 1 of order-42#1, known to the bank as order-42#1/1'
    """

    __slots__ = ("_clock", "_job")

    def __init__(self, job: Job, clock: Clock) -> None:
        self._job, self._clock = job, clock

    @property
    def attempt(self) -> int:
        return self._job.attempt

    @property
    def run_id(self) -> str:
        return str(self._job.run.run_id)

    @property
    def workflow_id(self) -> str:
        return str(self._job.run.workflow_id)

    @property
    def step(self) -> str:
        return self._job.name

    @property
    def idempotency_key(self) -> str:
        return f"{self._job.run.run_id}/{self._job.id}"

    @property
    def cancelled(self) -> bool:
        return not self._job.waited_for

    @property
    def details(self) -> Any:
        """What the last heartbeat told, in this attempt or in one before it; None if none has told anything."""
        job = self._job
        if job.details is None and job.notes is not None:
            job.details = job.notes.last(job)
        return job.details

    @property
    def connection(self) -> psycopg.Connection[Any]:
        """The connection of a step with `transactional=True`, in an open transaction that is committed when the body
        returns and undone when it raises. Raises `UseError` in other steps."""
        transaction = self._job.transaction
        if transaction is None or transaction.connection is None:
            raise UseError(
                f"step {self._job.name!r} has no connection: step_context().connection is for bodies of steps with "
                "transactional=True"
            )
        connection: psycopg.Connection[Any] = transaction.connection
        return connection

    def heartbeat(self, details: Any = None) -> None:
        """Say that the step is alive: its time-out starts anew. `details` are kept for the next attempt (by another
        worker, or after a crash), which reads them as `step_context().details`; how far it has come, say. Those of the
        last second may be lost in a crash. Raises `EncodeError` for what cannot be stored."""
        if details is not None and self._job.notes is not None:
            self._job.notes.tell(self._job, details)
        self._job.details = details
        self._job.beat_us = self._clock.steady_us()


def current_job() -> Job | None:
    """The job whose body is running here."""
    current = _current.get(None)
    if current is None:
        return None
    return current._job if isinstance(current, StepContext) else current[0]


def step_context() -> StepContext:
    """The context of the step whose body is running. Raises `UseError` outside of one.

    >>> step_context()
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.UseError: step_context() is for step bodies; no step is running here
    """
    current = _current.get(None)
    if current is None:
        raise UseError("step_context() is for step bodies; no step is running here")
    return current if isinstance(current, StepContext) else StepContext(*current)


def run_as(context: StepContext, body: Callable[[], Any]) -> Any:
    """Call a body that has come here without its job; `step_context()` gives it this context."""
    token = _current.set(context)
    try:
        return body()
    finally:
        _current.reset(token)


def run_body(
    job: Job, codec: Codec, clock: Clock, observed: Watches | None = None, store: HasTransactions | None = None
) -> None:
    """Run a plain function body and put its outcome into the job. Whatever the body raises is its outcome, too. `store`
    is where the transactions of steps are."""
    leave = observed.begin(job) if observed is not None else None
    begun = clock.steady_us()
    job.beat_us = begun
    token = _current.set((job, clock))
    try:
        if job.transaction is not None:
            job.result = _transact(job, job.transaction, codec, clock, store or HasTransactions())
        else:
            args, kwargs = codec.decode_call(job.payload)
            result = job.fn(*args, **kwargs)
            if hasattr(result, "__await__"):  # ten times as quick as inspect.isawaitable
                raise _awaitable(job, result)
            job.result = codec.encode(result)
    except BaseException as error:  # a step may raise anything, SystemExit too; none of it may end the thread
        job.error = error
    finally:
        _current.reset(token)
    job.took_us = clock.steady_us() - begun
    if leave is not None:
        leave()


def _transact(job: Job, transaction: Transaction, codec: Codec, clock: Clock, store: HasTransactions) -> bytes:
    """Have the store run a body in a transaction that records its outcome."""

    nobody = UseError(f"nobody waits for step {job.name!r} any more")

    def body(connection: Any) -> bytes:
        if not job.waited_for:
            raise nobody
        transaction.connection = connection
        job.beat_us = clock.steady_us()  # its time-out counts from here: what is committed already has no time
        transaction.fate.release()
        try:
            args, kwargs = codec.decode_call(job.payload)
            result = job.fn(*args, **kwargs)
            if hasattr(result, "__await__"):
                raise _awaitable(job, result)
            return codec.encode(result)
        finally:
            transaction.connection = None

    def holder() -> tuple[str, int] | None:
        decides = transaction.fate.acquire(blocking=False)
        return (job.run.record.owner, job.run.epoch) if decides and job.waited_for else None

    if not transaction.fate.acquire(blocking=False):
        raise nobody
    attempt = StepAttempt(
        run=job.run.number,
        step=job.id,
        name=job.name,
        attempt=job.attempt,
        timeout=job.options.timeout,
        holder=holder,
    )
    try:
        return store.transact(attempt, body)
    except Undone as undone:
        transaction.passing = True
        raise undone.error from None
    except Strayed as strayed:
        transaction.strayed = HistoryMismatch(
            f"step {strayed.name!r} was committed as command {job.id} of run {job.run.run_id} before its process died, "
            f"and the code now asks for step {job.name!r} there. Open the engine with the code that ran then",
            workflow_id=job.run.workflow_id,
            recorded=strayed.name,
            yielded=job.name,
            differs="name",
        )
        raise transaction.strayed from None


async def run_async_body(job: Job, codec: Codec, clock: Clock, observed: Watches | None = None) -> None:
    """The same for an `async def` body, on the engine's event loop."""
    leave = observed.begin(job) if observed is not None else None
    begun = clock.steady_us()
    job.beat_us = begun
    _current.set((job, clock))  # each task has a context of its own
    try:
        args, kwargs = codec.decode_call(job.payload)
        job.result = codec.encode(await job.fn(*args, **kwargs))
    except BaseException as error:
        job.error = error
    job.took_us = clock.steady_us() - begun
    if leave is not None:
        leave()


def _awaitable(job: Job, result: Any) -> TypeError:
    """The error for a plain body that returns a coroutine. Nobody will await that: it is closed, so that it does not
    warn when it is collected."""
    error = TypeError(f"step {job.name!r} returned {result!r}: define it with `async def` to await in it")
    close = getattr(result, "close", None)
    if close is not None:
        close()
    return error


@attrs.frozen(slots=True)
class Judgement:
    """What follows from a failed attempt: another one after `delay_us`, or none (None), and the error to record."""

    delay_us: int | None
    error: BaseException


def judge(job: Job, error: BaseException, spread: Callable[[], float]) -> Judgement:
    """Whether a failed attempt is worth another, and when."""
    retry = job.options.retry
    told = error
    if isinstance(error, Permanent) and isinstance(error.error, BaseException):
        told = error.error
    if (
        isinstance(error, DataError)
        or job.options.once
        or job.attempt >= retry.max_attempts
        or not (retry.retries(error) or (_passed(job) and not isinstance(error, retry.never_on)))
    ):
        return Judgement(None, told)
    delay = seconds(error.delay) if isinstance(error, RetryAfter) else retry.delay(job.attempt, spread())
    return Judgement(max(0, round(delay * 1_000_000)), told)


def _passed(job: Job) -> bool:
    """Whether what undid the transaction of an attempt may have passed when the next one comes."""
    return job.transaction is not None and job.transaction.passing


def too_slow(job: Job) -> TimedOut:
    """The error of an attempt that ran out of time."""
    return TimedOut(
        f"step {job.name!r} took longer than its timeout of {job.options.timeout:g} s (attempt {job.attempt})",
        step=job.name,
        attempt=job.attempt,
        timeout=job.options.timeout,
    )
