"""Step bodies on an executor that was given: threads, processes, a cluster. Outcomes go to the durable crew.

What is submitted is a `Call`. An executor with threads of this process calls it as it is, and the body runs with all
that bodies have on the engine's own threads. Any other executor sends it away, by whatever means it sends things; what
arrives there is `run_far` with plain data: where the function is, its arguments, and which attempt of which run this
is. What the body returns or raises is written by a codec over there and comes back as bytes. So a result or an error
that could not be pickled, or that would break when it is unpickled, is what it is on a thread; and whatever else a
future raises was raised by the executor itself, and not by the body: its process died, its pool broke, it was shut
down. Nobody knows then how far the body came (`AttemptLost`).
"""

from __future__ import annotations

import importlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Executor, Future, ThreadPoolExecutor
from functools import partial
from typing import Any, cast

import attrs

from dalsegno.core.definitions import Definition
from dalsegno.core.engine.bodies import Job, StepContext, run_as, run_body
from dalsegno.core.engine.edge import SystemClock
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.errors import AttemptLost, BadOption, DataError, StepOutcomeUnknown, UseError
from dalsegno.core.policies import StepOptions
from dalsegno.core.values.codec import Codec

NOT_SENT = (TypeError, AttributeError, ImportError)
"""What pickling raises besides its own error, for things that cannot be sent."""

log = logging.getLogger("dalsegno.engine")


# --- over there ----------------------------------------------------------------------------------------------------


@attrs.frozen(slots=True, kw_only=True)
class Sent:
    """A body on its way: where its function is, and what it can know about itself. All of it plain data."""

    module: str
    qualname: str
    id: str
    step: str
    attempt: int
    workflow: str
    workflow_id: str
    run_id: str
    max_bytes: int


@attrs.frozen(slots=True)
class Origin:
    """What a body that was sent away knows of its run."""

    workflow: str
    workflow_id: str
    run_id: str

    @property
    def record(self) -> Origin:
        """As far as a logger wants it, this is the run's record."""
        return self


@attrs.frozen(slots=True)
class Answer:
    """What became of a body: a result or an error, as bytes, and how long it took."""

    is_error: bool
    data: bytes
    took_us: int


class FarContext(StepContext):
    """What a step can know about itself where its engine cannot be reached."""

    @property
    def cancelled(self) -> bool:
        """Always false: nobody can tell it here."""
        return False

    def heartbeat(self, details: Any = None) -> None:
        raise UseError(
            f"heartbeat() of step {self.step!r} cannot reach its engine: the body runs in another process (pid "
            f"{os.getpid()}), on an executor. Give the step a time-out that covers all of it, or leave it to the "
            "engine's own threads or a ThreadPoolExecutor"
        )


def find(sent: Sent) -> Callable[..., Any]:
    """The function that stands at a name, behind its decorator. Raises `UseError` where it is not there."""
    where = f"{sent.module}.{sent.qualname}"
    try:
        found: Any = importlib.import_module(sent.module)
        for part in sent.qualname.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise UseError(
            f"step {sent.step!r} is {where} where its engine runs, and cannot be found in the executor's process (pid "
            f"{os.getpid()}): {error}. Define it at the top level of a module that can be imported there, too"
        ) from error
    function: Callable[..., Any] = found.fn if isinstance(found, Definition) else found
    return function


def run_far(sent: Sent, args: tuple[Any, ...], kwargs: dict[str, Any], details: Any) -> Answer:
    """Run a body in an executor's process. Whatever it raises is its outcome, but for Ctrl-C, which is meant for the
    process: that goes on to the executor."""
    codec, begun = Codec(max_bytes=sent.max_bytes), time.perf_counter_ns()
    try:
        fn = find(sent)
        origin = Origin(sent.workflow, sent.workflow_id, sent.run_id)
        job = Job(origin, sent.id, sent.step, fn, b"", StepOptions(), sent.attempt)
        job.details = details
        begun = time.perf_counter_ns()
        result = run_as(FarContext(job, SystemClock()), partial(fn, *args, **kwargs))
        answer = partial(Answer, False, codec.encode(result))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        answer = partial(Answer, True, codec.encode_error(error))
    return answer((time.perf_counter_ns() - begun) // 1000)


# --- here ----------------------------------------------------------------------------------------------------------


def told_apart(given: Executor | Callable[[], Executor]) -> tuple[Executor | None, Callable[[], Executor] | None]:
    """An executor, or a function that makes one, each in its place. Raises `BadOption` for what is neither."""
    if not isinstance(given, type) and hasattr(given, "submit"):
        return cast(Executor, given), None
    if not callable(given):
        raise BadOption(f"executor={given!r}: takes a concurrent.futures.Executor, or a function that makes one")
    return None, given


class Call:
    """What is submitted for a body. Called in this process it runs the body with its job; elsewhere it arrives as a
    call of `run_far`."""

    def __init__(self, job: Job, bodies: ExecutorBodies, sent: Sent, args: tuple[Any, ...], kwargs: dict[str, Any]):
        self._job, self._bodies, self._sent, self._args, self._kwargs = job, bodies, sent, args, kwargs
        self.__name__ = job.name  # what a cluster's own pages show

    def __call__(self) -> None:
        self._bodies.run_here(self._job)

    def __reduce__(self) -> tuple[Any, ...]:
        return partial, (run_far, self._sent, self._args, self._kwargs, self._job.details)


class ExecutorBodies:
    """Bodies on any `concurrent.futures.Executor`; the function has to be importable where that runs.

    `given` is an executor, or a function that makes one: then it is the engine's own, which replaces it when it breaks
    and shuts it down at the end.
    """

    def __init__(self, given: Executor | Callable[[], Executor], around: Surroundings, loop: Loop) -> None:
        self._executor, self._make = told_apart(given)
        self._around, self._loop = around, loop
        self._making = threading.Lock()
        self._running: set[Future[Answer | None]] = set()
        self._changed = threading.Condition()

    def __len__(self) -> int:
        return len(self._running)

    # --- beginning -------------------------------------------------------------------------------------------------

    def put(self, job: Job) -> None:
        """Submit a body; its outcome comes back by the future's callback."""
        if self._loop.draining:
            return
        begun = self._around.clock.steady_us()
        try:
            future, executor = self._submit(self._call(job))
        except Exception as error:
            self._end(job, self._not_begun(job, error))
            return
        job.cancel = future.cancel
        if not isinstance(executor, ThreadPoolExecutor):  # when it begins there, nobody here can know: now, then
            job.beat_us = begun
            if job.options.timeout is not None:
                self._loop.timeouts.watch(job)
            if self._around.observed is not None:
                self._around.observed.started(job)
        with self._changed:
            self._running.add(future)
        future.add_done_callback(lambda done: self._finished(job, done, executor, begun))

    def run_here(self, job: Job) -> None:
        """Run a body on a thread of this process, which an executor has lent."""
        if not job.waited_for or self._loop.draining:
            return
        job.cancel = None  # begun: it looks at `cancelled` by itself
        if job.options.timeout is not None:
            self._loop.timeouts.watch(job)
        run_body(job, self._around.codec, self._around.clock, self._around.observed)

    def _call(self, job: Job) -> Call:
        args, kwargs = self._around.codec.decode_call(job.payload)
        record = job.run.record
        sent = Sent(
            module=job.fn.__module__,
            qualname=job.fn.__qualname__,
            id=job.id,
            step=job.name,
            attempt=job.attempt,
            workflow=record.workflow,
            workflow_id=record.workflow_id,
            run_id=record.run_id,
            max_bytes=self._around.codec.max_bytes,
        )
        return Call(job, self, sent, args, kwargs)

    def _submit(self, call: Call) -> tuple[Future[Answer | None], Executor]:
        """The future, and the executor it is of. One of the engine's own that has broken is replaced."""
        executor = self._current()
        try:
            return executor.submit(call), executor
        except BrokenExecutor as error:
            if not self._replace(executor, error):
                raise
        executor = self._current()
        return executor.submit(call), executor

    def _current(self) -> Executor:
        with self._making:
            if self._executor is None:
                assert self._make is not None
                self._executor = self._make()
            return self._executor

    def _replace(self, broken: Executor, error: BaseException) -> bool:
        """Have another executor made; false where it is not the engine's own."""
        if self._make is None:
            return False
        with self._making:
            if self._executor is broken:
                log.warning("the executor of step bodies broke and is replaced: %s", error)
                self._executor = None
                # Elsewhere, for this may be its own thread, which on Python 3.12 holds the lock that this takes.
                threading.Thread(target=broken.shutdown, args=(False,), name="dalsegno-shutdown", daemon=True).start()
        return True

    # --- ending ----------------------------------------------------------------------------------------------------

    def _finished(self, job: Job, done: Future[Answer | None], executor: Executor, begun: int) -> None:
        failure = None if done.cancelled() else done.exception()
        try:
            if isinstance(failure, BrokenExecutor):
                self._replace(executor, failure)
            if done.cancelled() or failure is not None:
                if job.waited_for and not self._loop.draining:  # or else it goes on when the store is opened again
                    job.took_us = self._around.clock.steady_us() - begun
                    self._end(job, self._lost(job, failure))
            else:
                self._take(job, done.result())
        finally:
            with self._changed:
                self._running.discard(done)
                self._changed.notify_all()

    def _take(self, job: Job, answer: Answer | None) -> None:
        """Hand a body's outcome over. It is in the job already where the body ran in this process."""
        if answer is not None:
            job.took_us = answer.took_us
            try:
                if answer.is_error:
                    job.error = _as_raised(answer.data)
                else:
                    job.result = self._around.codec.seal(answer.data)
            except Exception as refused:
                job.error = refused
        if job.result is not None or job.error is not None:  # neither: it was not begun, since nobody waited for it
            self._loop.finished(job)

    def _end(self, job: Job, error: BaseException) -> None:
        job.error = error
        self._loop.finished(job)

    def _lost(self, job: Job, failure: BaseException | None) -> BaseException:
        """The outcome of an attempt of which the executor says nothing but that something went wrong."""
        if _could_not_be_sent(failure):
            return _not_sent(job, failure)
        what = f"step {job.name!r} (attempt {job.attempt}) gave no outcome on its executor: {_said(failure)}"
        facts = {"step": job.name, "attempt": job.attempt}
        if job.options.once:
            return _caused(StepOutcomeUnknown(f"{what}. It may or may not have happened", **facts), failure)
        return _caused(AttemptLost(what, **facts), failure)

    def _not_begun(self, job: Job, failure: Exception) -> BaseException:
        """The outcome of an attempt that the executor did not take."""
        if isinstance(failure, DataError):
            return failure
        if _could_not_be_sent(failure):
            return _not_sent(job, failure)
        what = (
            f"step {job.name!r} (attempt {job.attempt}) has not begun: its executor did not take it ({_said(failure)})"
        )
        advice = "" if self._make else f". {REPLACEABLE}"
        return _caused(AttemptLost(what + advice, step=job.name, attempt=job.attempt), failure)

    def stop(self, grace: float) -> bool:
        """Let bodies finish for `grace` seconds; drop what is left. False if something was."""
        deadline = time.monotonic() + grace
        with self._changed:
            while self._running and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            late = list(self._running)
        for future in late:
            future.cancel()
        with self._making:
            if self._make is not None and self._executor is not None:
                self._executor.shutdown(wait=not late, cancel_futures=True)
                self._executor = None
        return not late


SENDABLE = "What goes there has to be picklable, and the step's module and its arguments' to be importable there"
REPLACEABLE = "Given a function that makes one, executor=lambda: …, the engine replaces an executor that broke"


def _said(failure: BaseException | None) -> str:
    return "it was cancelled there" if failure is None else f"{type(failure).__name__}: {failure}"


def _could_not_be_sent(failure: BaseException | None) -> bool:
    """Whether something could not be pickled: another attempt would give the same."""
    # By its name: this library does not import pickle, though executors do.
    return isinstance(failure, NOT_SENT) or any(kind.__name__ == "PicklingError" for kind in type(failure).__mro__)


def _not_sent(job: Job, failure: BaseException | None) -> BaseException:
    return _caused(UseError(f"step {job.name!r} cannot be sent to the executor: {_said(failure)}. {SENDABLE}"), failure)


def _caused(error: BaseException, cause: BaseException | None) -> BaseException:
    error.__cause__ = cause
    return error


def _as_raised(data: bytes) -> BaseException:
    """An error that came as bytes, with the traceback it had as a note."""
    codec = Codec()
    error, told = codec.decode_error(data), codec.describe_error(data).traceback
    if told:
        error.add_note(f"raised in a process of the executor:\n{told.rstrip()}")
    return error
