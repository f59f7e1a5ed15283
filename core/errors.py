"""Every error dalsegno raises, under one root, split first by whose fault it is.

* `WorkflowError`: the workflow's code did something no engine can carry on from (a mismatch with its own history,
  an alien yield). The run is blocked, never failed: mended code lets it go on.
* `UseError`: the caller asked for something that cannot be done (an unknown run, a conflicting id, an engine closed).
* `DataError`: something stored or passed cannot be encoded, decoded or trusted.
* `StoreError`: the store refused or failed (full, locked, damaged, of a newer format).
* `Outcome`: not a fault at all but the way a run or a command ended (cancelled, timed out, a step's outcome unknown).
* `InternalError`: ourselves. Please report it.

Facts are attributes, so that a caller can act on them without reading the message; every error survives pickling by
whoever insists on it (multiprocessing does), because facts live in `__dict__` and the message in `args`.

>>> error = RunNotFound("there is no run with the id 'order-42' in this store", workflow_id="order-42")
>>> isinstance(error, LookupError), isinstance(error, UseError), error.workflow_id
(True, True, 'order-42')
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

WAIT_MAX_S: Final = 10**11
"""No wait is longer, 3,000 years: a deadline in microseconds has to fit into 64 bits."""


class DalsegnoError(Exception):
    """The root of every error of this library: `except DalsegnoError` catches them all and nothing else.

    Keyword arguments become attributes: the facts behind the message. Asking for a fact that an error does not carry is
    an `AttributeError`.
    """

    def __init__(self, message: str = "", **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    def __getattr__(self, name: str) -> Any:  # typed access to facts; a missing fact is an ordinary AttributeError
        raise AttributeError(f"{type(self).__name__} carries no fact called {name!r}")


# --- the workflow's code -------------------------------------------------------------------------------------------


class WorkflowError(DalsegnoError):
    """The workflow's code cannot go on as it stands. The run is `BLOCKED` until an engine opens with mended code."""


class HistoryMismatch(WorkflowError):
    """The code no longer yields what the history says it yielded. The run is blocked, and `run.result()` raises
    `RunBlocked` with this as its reason; `replay verify` finds it before the code is deployed.

    Facts: `workflow_id`, `event_index`, `recorded`, `yielded`, `differs`, `cause`, `line_then`, `line_now`, `source`.
    """


class AlienYield(WorkflowError):
    """The workflow yielded or awaited something that is not a command. The message says what was likely meant, and the
    line. The run is blocked, and `run.result()` raises `RunBlocked` with this as its reason."""


class UnknownDefinition(WorkflowError):
    """A workflow or step name in a history is registered with no engine that serves this run. The run is blocked until
    an engine opens that has it in `workflows=[…]`."""


# --- the caller ----------------------------------------------------------------------------------------------------


class UseError(DalsegnoError):
    """The call cannot be carried out as it was made; nothing was recorded. Correct the call and make it again."""


class DefinitionError(UseError, TypeError):
    """A function that cannot be a step or a workflow, or two definitions of one name. Raised by `@step`, `@workflow`,
    `collect`, and when an engine is made."""


class BadOption(UseError, ValueError):
    """An option or argument outside its range, or of a type that cannot be meant; the message says what could stand
    there. Raised wherever options are written: by policies, commands, engines, clients, stores and the command line."""


class RunNotFound(UseError, LookupError):
    """No run has this id: it was mistyped, is in another store, or retention has removed it. Raised by `engine.get`,
    and by a `Run` whose run has gone. Facts: `workflow_id`."""


class RunClosed(UseError):
    """The run has ended and takes no more messages. Raised by `signal`, `cancel`, `terminate`, `pause` and `resume` of
    a `Run`. Facts: `workflow_id`, `status`."""


class RunConflict(UseError):
    """The id is taken by a run of another workflow or other arguments, or `on_conflict="reject"` was asked for. Raised
    by `start` and `start_many`, and in a workflow that gave its child an `id=` which is taken. Facts: `workflow_id`."""


class InvalidToken(UseError, LookupError):
    """A callback token that is not of this store, was mistyped, or was completed already. Raised by `complete` and
    `fail`; the callback is as it was."""


class EngineClosed(UseError):
    """The engine was closed; open another one on the same store and the runs go on there. Raised by whatever is asked
    of a closed engine, and by a `run.result()` that still waited."""


class SendFailed(UseError):
    """A workflow sent a signal to a run that is not there or has ended. Raised at the `Send`."""


class RunBlocked(UseError):
    """The run waits for mended code. Facts: `workflow_id`, `reason`. Raised by `run.result()`."""


# --- data ----------------------------------------------------------------------------------------------------------


class DataError(DalsegnoError):
    """A value or a record that cannot be written, read or trusted."""


class EncodeError(DataError, TypeError):
    """A value that cannot be stored; raised at the line that passed it, before anything was recorded. Fact: `path`."""


class DecodeError(DataError, ValueError):
    """Stored bytes that cannot be read back (a class renamed, a record of a later version). Blocks that run only; it
    goes on when an engine can read them, with the class there again or `Codec(renamed={…})`. Raised by `run.result()`,
    `run.state` and `run.history()` where they are read here."""


class RemoteError(DataError):
    """Stands for an exception whose type is not known here, or may not be thrown into a generator (`SystemExit`,
    `StopIteration`). Raised where the exception would be: at the `yield` of a step or child, and by `run.result()`.

    Facts: `type_name`, `details` (the attributes as plain data), `traceback_text`.
    """


# --- the store -----------------------------------------------------------------------------------------------------


class StoreError(DalsegnoError):
    """The store could not do it. What was acknowledged before is safe. Raised by calls that read or write; an engine
    that meets one itself tries again and goes on."""


class StoreInUse(StoreError):
    """Another engine has this store to itself, or is there and this one wants it so (`alone=True`); a store that
    engines cannot share has one at a time. Raised when an engine opens; a `Client` may be used beside it. Facts:
    `owner`."""


class StoreFull(StoreError):
    """No room for more; reading goes on, and writing resumes by itself once there is room. Raised by `start` and
    `signal`, which took nothing; what an engine has to write waits."""


class StoreUnusable(StoreError):
    """The path cannot be opened as a store: a file, read-only, remote, truncated, or of a newer format. Raised when a
    store is opened, and by one that was closed. Where the file system is why, the fact `file_system` is its type."""


class StoreDamaged(StoreError):
    """A record does not carry the checksum it was written with. Raised where that run is read; others go on, and
    `replay check` lists all that is damaged. Facts: `key`, `run`, `event`."""


class UnknownOutcome(StoreError):
    """A commit failed in a way that leaves open whether it was applied; the engine re-reads the head and decides."""


# --- how things end ------------------------------------------------------------------------------------------------


class Outcome(DalsegnoError):
    """The way a command or a run ended, when that is neither a value nor the workflow's own exception."""


class Cancelled(Outcome):
    """The run, or this branch of it, was cancelled. Raised at the yield where the workflow waits."""


class Terminated(Outcome):
    """The run was ended from outside without its code being asked. Raised by `run.result()`, and in a parent that
    waits for this child. Facts: `reason`."""


class TimedOut(Outcome, TimeoutError):
    """A `Receive`, a step's attempt, a `result()` or the whole run took longer than it was given. In a workflow it is
    raised at the yield; by `run.result()` either for the run's own time-out, or for its own, and then the run goes on.
    """


class StepOutcomeUnknown(Outcome):
    """A `once=True` step was started and the process died before its outcome was recorded: it may or may not have
    happened, and it is not tried again. Facts: `step`, `attempt`."""


class StepKilledWorkers(Outcome):
    """A step was at work at the deaths of several workers that had taken it from a queue, and is not given to another.
    Facts: `step`, `deaths`."""


class AttemptLost(Outcome, ConnectionError):
    """The executor that was to run a step's body gave no outcome: its process or machine died, its pool broke, it was
    shut down. Being a `ConnectionError`, it is tried again by default; a `once=True` step whose body may have begun
    ends as `StepOutcomeUnknown` instead. Facts: `step`, `attempt`."""


class ToleranceExceeded(Outcome):
    """More branches of a `Map` failed than its `Completion` tolerates. Raised at the `Map`, after the others were
    cancelled. Facts: `failed`, `outcomes`."""


class Permanent(DalsegnoError):
    """Raised by a step to say: do not retry, whatever the policy says. `Permanent(error)` carries the reason, and where
    that is an exception the workflow sees it alone.

    >>> raise Permanent(ValueError("no such account"))
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.Permanent: no such account
    """

    def __init__(self, error: BaseException | str = "") -> None:
        super().__init__(str(error))
        self.error = error
        if isinstance(error, BaseException):
            self.__cause__ = error


class RetryAfter(DalsegnoError):
    """Raised by a step to say: try again, after this many seconds (or this `timedelta`), whatever the policy says of
    errors and waits. `max_attempts` still counts.

    >>> raise RetryAfter(30, "too many requests")
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.RetryAfter: too many requests
    """

    def __init__(self, delay: float | timedelta, error: BaseException | str = "") -> None:
        length = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(length, bool) or not isinstance(length, int | float) or not 0 <= length <= WAIT_MAX_S:
            raise BadOption(f"RetryAfter({delay!r}): takes seconds, or a timedelta, from 0 to 3,000 years")
        super().__init__(str(error) or f"retry after {delay}")
        self.delay = delay
        if isinstance(error, BaseException):
            self.__cause__ = error

    def __reduce__(self) -> tuple[Any, ...]:
        return RetryAfter, (self.delay, str(self)), self.__dict__


class InternalError(DalsegnoError):
    """A bug in dalsegno: please report it with this message and the output of `replay export`."""
