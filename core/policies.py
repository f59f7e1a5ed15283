"""Policies: how often to try, how long a result may wait to be durable, how long a history is kept.

The defaults are the ones the project's source document asks for: 3 to 5 attempts, exponential from 1 s to 60 s;
a checkpoint every 10 steps or 5 minutes; 7 days for successes, 30 for failures. All of them are data: nothing here
reads a clock or draws a number.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from datetime import timedelta
from math import inf
from typing import Any, Literal, NoReturn, Protocol

import attrs

from dalsegno.core.errors import WAIT_MAX_S, BadOption, Permanent, RetryAfter, TimedOut
from dalsegno.core.queues import priority_of, queue_key, queue_name
from dalsegno.core.text import check_workflow_id

OnParentClose = Literal["cancel", "abandon", "terminate"]
Arguments = Literal["strict", "warn", "ignore"]


def seconds(value: float | timedelta) -> float:
    """The length of a duration in seconds, whichever way it was written.

    >>> seconds(timedelta(minutes=2)), seconds(3)
    (120.0, 3.0)
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
        raise BadOption(f"a duration is a number of seconds or a timedelta, not {value!r}")
    return float(value)


def time_limit(value: float | timedelta | None) -> float | None:
    """A time-out in seconds, or None where there is none, which is what infinity means, too.

    >>> time_limit(timedelta(minutes=2)), time_limit(None), time_limit(float("inf"))
    (120.0, None, None)
    """
    length = None if value is None else seconds(value)
    if length is None or length == inf:
        return None
    if length > WAIT_MAX_S:
        raise BadOption(f"a time-out of {length:g} seconds: at most {WAIT_MAX_S:,}, or leave it out")
    return length


# --- what fields take ------------------------------------------------------------------------------------------------


def _refuse(instance: Any, attribute: attrs.Attribute[Any], value: object, takes: str) -> NoReturn:
    raise BadOption(f"{type(instance).__name__}({attribute.name}={value!r}): {takes}")


def _positive(instance: Any, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value > 0:
        _refuse(instance, attribute, value, "has to be more than zero")


def _not_negative(instance: Any, attribute: attrs.Attribute[Any], value: float | None) -> None:
    if value is not None and not value >= 0:
        _refuse(instance, attribute, value, "cannot be less than zero")


def _number(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or value != value):
        _refuse(instance, attribute, value, "takes a number")


def _whole(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        _refuse(instance, attribute, value, "takes a whole number")


def _flag(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, bool):
        _refuse(instance, attribute, value, "takes True or False")


def _one_of(*words: str) -> Callable[[Any, attrs.Attribute[Any], str], None]:
    def check(instance: Any, attribute: attrs.Attribute[Any], value: str) -> None:
        if value not in words:
            _refuse(instance, attribute, value, f"one of {', '.join(map(repr, words))}")

    return check


def _queue(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value != "":
        queue_name(value)


def _key(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is not None or attribute.name == "key":
        queue_key(value, attribute.name)


def _priority(instance: Any, attribute: attrs.Attribute[Any], value: object) -> None:
    priority_of(value)


def _delay(instance: Any, attribute: attrs.Attribute[Any], value: float) -> None:
    if not 0 <= value <= WAIT_MAX_S:
        _refuse(instance, attribute, value, f"takes seconds or a timedelta, from zero to {WAIT_MAX_S:,} seconds")


def _need_queue(options: StepOptions | WorkflowOptions, *names: str) -> None:
    """Refuse what has a meaning only in a queue, where none is named."""
    if options.queue:
        return
    for name in names:
        if getattr(options, name):
            value, kind = getattr(options, name), "step" if isinstance(options, StepOptions) else "workflow"
            raise BadOption(f"{name}={value!r} is about a queue: name the one the {kind} waits in, with queue=")


def _errors(instance: Any, attribute: attrs.Attribute[Any], value: tuple[object, ...]) -> None:
    for kind in value:
        if not (isinstance(kind, type) and issubclass(kind, BaseException)):
            _refuse(instance, attribute, value, f"{kind!r} is no type of exception")


def _kinds(given: type[BaseException] | Iterable[type[BaseException]]) -> tuple[type[BaseException], ...]:
    """Exception types as a tuple; one alone will do."""
    return tuple(given) if isinstance(given, Iterable) else (given,)


TRANSIENT: tuple[type[BaseException], ...] = (
    TimedOut,
    TimeoutError,
    ConnectionError,
    InterruptedError,
    BlockingIOError,
)
"""What is worth another try by default: time-outs, connection errors, a temporary lack of resources."""

TRANSIENT_ERRNO = frozenset(
    {
        errno.EAGAIN,
        errno.ENOMEM,
        errno.EBUSY,
        errno.ENFILE,
        errno.EMFILE,
        errno.ENOSPC,
        errno.ENOBUFS,
        errno.ETIMEDOUT,
        errno.EHOSTUNREACH,
    }
)
"""An OSError with one of these may go away by itself."""


@attrs.frozen(kw_only=True)
class Retry:
    """How often a step is tried, and how long to wait between attempts.

    `max_attempts` counts the first one. The wait before attempt n+1 is `initial * backoff**(n-1)` seconds, at most
    `maximum`, spread by `jitter` (0.1: plus or minus a tenth) so that many runs that failed together do not return
    together. `retry_on` names exception types that are retried besides the transient ones (time-outs, connection
    errors, a temporary lack of resources); `never_on` wins over both. Raises `BadOption`.

    >>> [Retry(jitter=0).delay(n, 0.5) for n in (1, 2, 3, 7)]
    [1.0, 2.0, 4.0, 60.0]
    >>> [retry.retries(ValueError()) for retry in (Retry(), Retry(retry_on=ValueError))]
    [False, True]
    """

    max_attempts: int = attrs.field(default=5, validator=_whole)
    initial: float = attrs.field(default=1.0, converter=seconds, validator=_not_negative)
    backoff: float = attrs.field(default=2.0, validator=_number)
    maximum: float = attrs.field(default=60.0, converter=seconds, validator=_not_negative)
    jitter: float = attrs.field(default=0.1, validator=_number)
    retry_on: tuple[type[BaseException], ...] = attrs.field(default=(), converter=_kinds, validator=_errors)
    never_on: tuple[type[BaseException], ...] = attrs.field(default=(), converter=_kinds, validator=_errors)

    def __attrs_post_init__(self) -> None:
        if self.max_attempts < 1:
            raise BadOption(f"Retry(max_attempts={self.max_attempts}): the first attempt counts, so at least 1")
        if self.backoff < 1:
            raise BadOption(f"Retry(backoff={self.backoff}): below 1 the waits would shrink")
        if not 0 <= self.jitter <= 1:
            raise BadOption(f"Retry(jitter={self.jitter}): a share between 0 and 1")

    def delay(self, attempt: int, spread: float) -> float:
        """Seconds to wait after failed attempt number `attempt`; `spread` is a number drawn from [0, 1)."""
        # The exponent is bounded so that attempt 5,000 does not overflow a float.
        base = min(self.maximum, self.initial * self.backoff ** min(attempt - 1, 64))
        return base * (1 + self.jitter * (2 * spread - 1))

    def retries(self, error: BaseException) -> bool:
        """Whether this error is worth another attempt at all, leaving aside how many there were."""
        if isinstance(error, Permanent) or (self.never_on and isinstance(error, self.never_on)):
            return False
        if isinstance(error, (RetryAfter, *TRANSIENT)) or (self.retry_on and isinstance(error, self.retry_on)):
            return True
        return isinstance(error, OSError) and error.errno in TRANSIENT_ERRNO


@attrs.frozen(kw_only=True)
class StepOptions:
    """Everything that can be said about one step; `step(...)` and `.options(...)` fill it in.

    `timeout` is per attempt, in seconds. `once`: at most once; after a crash in between, the workflow sees
    `StepOutcomeUnknown`. `idempotent`: may be repeated after a crash, so its result may wait for the next checkpoint.
    `long`: expected to take long, so a checkpoint is taken before it starts.
    `transactional`: what the body writes through `step_context().connection` is committed together with the record of
    its outcome, so that the effect is there exactly once. Needs a store on PostgreSQL; see `docs/postgresql.md`.

    With a `queue`, the step waits in the store until a worker that serves it takes it (`docs/queues.md`). There, higher
    `priority` goes first, steps of different `key`s take turns, `delay` seconds pass before it stands in line, and when
    none has begun it within `start_timeout` seconds, the step fails with `TimedOut`. `total_timeout` bounds everything
    from the moment the workflow asked: waiting, all attempts, and the pauses between them; it needs no queue.
    """

    retry: Retry = attrs.field(factory=Retry)
    timeout: float | None = attrs.field(default=None, converter=time_limit, validator=_positive)
    once: bool = attrs.field(default=False, validator=_flag)
    idempotent: bool = attrs.field(default=False, validator=_flag)
    long: bool = attrs.field(default=False, validator=_flag)
    queue: str = attrs.field(default="", validator=_queue)
    key: str = attrs.field(default="", validator=_key)
    priority: int = attrs.field(default=0, validator=_priority)
    delay: float = attrs.field(default=0.0, converter=seconds, validator=_delay)
    start_timeout: float | None = attrs.field(default=None, converter=time_limit, validator=_positive)
    total_timeout: float | None = attrs.field(default=None, converter=time_limit, validator=_positive)
    transactional: bool = attrs.field(default=False, validator=_flag)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.retry, Retry):
            raise BadOption(f"StepOptions(retry={self.retry!r}): takes a Retry, like retry=Retry(max_attempts=3)")
        _need_queue(self, "key", "priority", "delay", "start_timeout")
        if self.once and self.idempotent:
            raise BadOption("once=True and idempotent=True exclude each other: may the body be repeated or not?")
        if self.transactional and (self.once or self.idempotent):
            raise BadOption(
                "transactional=True goes without once=True and idempotent=True: its effect is there exactly once anyway"
            )
        if self.transactional and self.total_timeout is not None:
            raise BadOption(
                f"transactional=True and total_timeout={self.total_timeout:g} exclude each other: that is told of a "
                "step though it was committed just before. timeout= and Retry(max_attempts=…) bound the attempts"
            )
        if self.transactional and self.queue:
            raise BadOption(
                f"transactional=True and queue={self.queue!r} exclude each other: the lease of its run is what lets it "
                "commit, and that is not the worker's who takes it from a queue"
            )


@attrs.frozen(kw_only=True)
class WorkflowOptions:
    """Everything that can be said about one workflow.

    `timeout` bounds the whole run, in seconds; when it passes, the run fails with `TimedOut`. `arguments` says what a
    replay does when only the arguments of a command differ from the recorded ones. `id` and `on_parent_close` serve
    child workflows.

    A run of a workflow with a `queue` is there as soon as it is started, and begins when the queue lets it in
    (`docs/queues.md`): higher `priority` first, different `key`s in turns, after `delay` seconds. It has its place in
    the queue until it ends. While an open run of the queue has the same `dedup`, starting another answers that one.
    """

    timeout: float | None = attrs.field(default=None, converter=time_limit, validator=_positive)
    arguments: Arguments = attrs.field(default="strict", validator=_one_of("strict", "warn", "ignore"))
    id: str | None = None
    on_parent_close: OnParentClose = attrs.field(default="cancel", validator=_one_of("cancel", "abandon", "terminate"))
    queue: str = attrs.field(default="", validator=_queue)
    key: str = attrs.field(default="", validator=_key)
    priority: int = attrs.field(default=0, validator=_priority)
    delay: float = attrs.field(default=0.0, converter=seconds, validator=_delay)
    dedup: str | None = attrs.field(default=None, validator=_key)

    def __attrs_post_init__(self) -> None:
        if self.id is not None:
            check_workflow_id(self.id)
        _need_queue(self, "key", "priority", "delay", "dedup")


ADAPTIVE_STEPS_MAX = 1000
"""Results that wait are in memory, and go in one write: so many of them take about 10 ms."""


@attrs.frozen(kw_only=True)
class CheckpointPolicy:
    """How long results of `idempotent=True` steps may wait before they are made durable.

    After `every_steps` results or `every` (a timedelta, or seconds), whichever comes first; also before a step that is
    declared long, or that has been seen to take longer than `long_step` seconds; and always before the body of a step
    that is not idempotent. While such a flush is on its way, idempotent steps go on behind it: a crash then costs its
    results and those gathered since, at most twice `every_steps`. With `every_steps=1` nothing goes on behind it.
    Raises `BadOption`.

    >>> CheckpointPolicy(every_steps=50, every=timedelta(minutes=1)).every
    60.0
    """

    every_steps: int = attrs.field(default=10, validator=_whole)
    every: float = attrs.field(default=300.0, converter=seconds, validator=_positive)
    long_step: float = attrs.field(default=10.0, converter=seconds, validator=_positive)
    measured: bool = attrs.field(default=False, validator=_flag)

    def __attrs_post_init__(self) -> None:
        if self.every_steps < 1:
            raise BadOption(f"CheckpointPolicy(every_steps={self.every_steps}): at least 1")

    @classmethod
    def adaptive(
        cls, *, every: float | timedelta = timedelta(minutes=5), every_steps: int = ADAPTIVE_STEPS_MAX
    ) -> CheckpointPolicy:
        """A policy whose interval follows the Young/Daly optimum, the square root of 2 x cost x time between failures.

        The engine measures both; `every` and `every_steps` stay the upper bounds. (J. W. Young, CACM 17(9), 1974; J. T.
        Daly, FGCS 22(3), 2006.)

        >>> CheckpointPolicy.adaptive(every=30).measured
        True
        """
        return cls(every_steps=every_steps, every=every, measured=True)


@attrs.frozen(kw_only=True)
class Completion:
    """When a `Map` is finished, and how many failures it bears.

    `min_successful`: finish as soon as so many branches succeeded, cancelling the rest. `tolerated_failures` (a count)
    and `tolerated_percentage` (of all items): as soon as more have failed, the `Map` raises `ToleranceExceeded`.
    With nothing said, every branch has to end and any number may fail. A `Map` with a `Completion` answers
    `BranchOutcome`s, one per item. Raises `BadOption`.

    >>> Completion(tolerated_percentage=20).bears(failed=2, total=10), Completion(tolerated_failures=1).bears(2, 10)
    (True, False)
    """

    min_successful: int | None = attrs.field(default=None, validator=[_whole, _not_negative])
    tolerated_failures: int | None = attrs.field(default=None, validator=[_whole, _not_negative])
    tolerated_percentage: float | None = attrs.field(default=None, validator=[_number, _not_negative])

    def __attrs_post_init__(self) -> None:
        if self.tolerated_percentage is not None and self.tolerated_percentage > 100:
            raise BadOption(f"Completion(tolerated_percentage={self.tolerated_percentage}): between 0 and 100")

    def bears(self, failed: int, total: int) -> bool:
        """Whether `failed` failures among `total` items are still within what is tolerated."""
        if self.tolerated_failures is not None and failed > self.tolerated_failures:
            return False
        return self.tolerated_percentage is None or failed * 100 <= self.tolerated_percentage * total

    def satisfied(self, succeeded: int) -> bool:
        """Whether enough branches have succeeded to stop early."""
        return self.min_successful is not None and succeeded >= self.min_successful


class _Path(Protocol):
    def __fspath__(self) -> str: ...


Archiving = Callable[[str, bytes], object]
"""A function of one's own that takes `order-42#1` and that run's history as `replay export` writes it. The run is
deleted once it has returned, so it returns when the history is safe."""


def _place(given: str | _Path | Archiving | None) -> str | Archiving | None:
    """Where an archive is, a path as its text."""
    path = getattr(given, "__fspath__", None)
    if path is not None:
        return str(path())
    if given is None or isinstance(given, str) or callable(given):
        return given
    raise BadOption(f"Retention(archive={given!r}): takes a folder, a URL of fsspec, or a function (run_id, data)")


def _kept(given: float | timedelta | None) -> float | None:
    """How long something is kept, in seconds; None, for ever, which is what infinity means, too."""
    length = None if given is None else seconds(given)
    return None if length == inf else length


@attrs.frozen(kw_only=True)
class Retention:
    """How long closed runs are kept in the store, and where their histories go before they are deleted.

    `completed` and `failed` (which counts for failed, cancelled and terminated runs) are timedeltas or seconds since
    the run closed; None keeps them for ever. Only whole closed trees go: `docs/retention.md` says what stays. Runs that
    continued as new stay as long as their chain; with `continued`, those of a chain that goes on stay so long only.

    `archive` is a folder, or any URL of fsspec (`pip install dalsegno[archive]`), where each history is written,
    compressed, and read back before its run is deleted; or a function of one's own, see `Archiving`. `archive_for` is
    how long after its end a run's history stays in that folder; None, for ever.

    >>> Retention().completed == 7 * 86400, Retention(failed=None).failed
    (True, None)
    """

    completed: float | None = attrs.field(default=7 * 86400.0, converter=_kept, validator=_not_negative)
    failed: float | None = attrs.field(default=30 * 86400.0, converter=_kept, validator=_not_negative)
    continued: float | None = attrs.field(default=None, converter=_kept, validator=_not_negative)
    archive: str | Archiving | None = attrs.field(default=None, converter=_place)
    archive_for: float | None = attrs.field(default=None, converter=_kept, validator=_not_negative)

    def __attrs_post_init__(self) -> None:
        if self.archive == "":
            raise BadOption("Retention(archive=''): name a folder")
        if self.archive_for is not None and not isinstance(self.archive, str):
            raise BadOption("Retention(archive_for=…): only what is in a folder or at a URL can be deleted there later")
