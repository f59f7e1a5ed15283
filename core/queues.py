"""Queues: where steps wait for a worker, and runs for leave to begin; what a queue is told, and what it tells.

A step with `queue="gpu"` is a *task* in the store: any worker that serves the queue takes it, runs the body, and the
outcome goes to the run's inbox. A workflow with a queue is a run that is there, but begins only when the queue lets it
in; it keeps its place until it has ended. A queue of steps and a queue of runs that have one name are two queues, each
with the limits declared for that name.

**Order.** Higher priority first. Among equal ones the keys take turns: whatever enters the line gets the turn
`max(turn of the queue, last turn of its key) + 1`, where the turn of the queue is that of the last task taken, and a
smaller turn goes first, then the smaller number. A key with ten thousand tasks so delays one with a single task by one
place. (Start-time fair queueing with packets of one length: Goyal, Vin, Cheng, SIGCOMM 1996.) A key is forgotten, its
last turn with it, when nothing of it waits or is at work. "" is a key like any other.

**Limits.** `concurrency` bounds how many are at work, `per_key` how many of one key, over all workers. Of a key no more
than `per_key` stand in line or are at work at a time; the rest stand behind, by priority and number, and the first of
them enters the line when one has ended or gone: after all that ends with it (with a run's closing, an owner's lease),
and before a transition puts its own `tasks`. So a line never has to be searched for one that may go, and a smaller
`per_key` binds what comes to the line from then on: what stands there stays. `rate` is a bucket of tokens: it holds
`count`, gets `count` in every `per` seconds, evenly, and a task takes one, also if it is given back; it is full at
first and when another rate is declared. What is to wait (`not_before_us` above 0) stands aside until a `take` of that
time or later takes something of its queue; what is due then enters the line first, by time and number (`LOOK_THROUGH`
at a time).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar, Literal, NoReturn

import attrs

from dalsegno.core.errors import BadOption
from dalsegno.core.text import storable

DEFAULT = "default"
"""The queue of steps that name none, where a worker without a step pool advances their runs."""

PRIORITY_MAX = 2**31 - 1
NAME_MAX = 200

LOOK_THROUGH = 1000
"""So many tasks of steps that a worker does not know are passed over in one look for some that it knows."""

Kind = Literal["step", "run"]


def _refuse(what: str, value: object, takes: str) -> NoReturn:
    raise BadOption(f"Queue({what}={value!r}): {takes}")


def _bound(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        _refuse(attribute.name, value, "takes a whole number from 1 on, or None for no limit")


def queue_name(name: object) -> str:
    """A queue's name, checked. Raises `BadOption`.

    >>> queue_name("gpu")
    'gpu'
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or any(ord(c) < 32 for c in name):
        raise BadOption(f"{name!r} names no queue: takes a text of 1 to {NAME_MAX} characters, none of them a control")
    return storable(name, "a queue's name")


def queue_key(value: object, what: str = "key") -> str:
    """A key, or a deduplication id, checked. Raises `BadOption`.

    >>> queue_key("customer-7")
    'customer-7'
    """
    if not isinstance(value, str) or len(value) > NAME_MAX or "\0" in value:
        raise BadOption(f"{what}={value!r}: takes a text of at most {NAME_MAX} characters, without NUL")
    return storable(value, f"a queue's {what}")


def priority_of(value: object) -> int:
    """A priority, checked: a whole number, higher goes first. Raises `BadOption`."""
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_MAX:
        raise BadOption(f"priority={value!r}: takes a whole number (higher goes first), at most {PRIORITY_MAX:,}")
    return value


def _plain_seconds(value: float | timedelta) -> float:
    return value.total_seconds() if isinstance(value, timedelta) else value


@attrs.frozen(kw_only=True)
class Rate:
    """`count` begun in every `per` seconds (or a timedelta), on average. It is a bucket of tokens: after a calm up to
    `count` begin at once, and then evenly, so that within one `per` there may be twice `count`, and never more. Raises
    `BadOption`.

    >>> Rate(count=100, per=timedelta(minutes=1)).per
    60.0
    """

    count: int
    per: float = attrs.field(default=1.0, converter=_plain_seconds)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or self.count < 1:
            raise BadOption(f"Rate(count={self.count!r}): takes a whole number from 1 on")
        if isinstance(self.per, bool) or not isinstance(self.per, int | float) or not 0 < self.per < 1e9:
            raise BadOption(f"Rate(per={self.per!r}): takes seconds or a timedelta, more than zero")


@attrs.frozen
class Queue:
    """A queue and its limits over all workers of a store: `Engine(…, queues=[Queue("gpu", concurrency=4)])`.

    `concurrency`: at work at a time; `per_key`: of one key; `rate`: begun in a time. None is no limit. A queue that is
    only named, by `queue=`, has none. The store keeps what was declared last, for everybody. Raises `BadOption`.

    >>> Queue("mail", per_key=1, rate=Rate(count=10)).concurrency is None
    True
    """

    name: str = attrs.field(converter=queue_name)
    concurrency: int | None = attrs.field(default=None, validator=_bound, kw_only=True)
    per_key: int | None = attrs.field(default=None, validator=_bound, kw_only=True)
    rate: Rate | None = attrs.field(default=None, kw_only=True)

    def __attrs_post_init__(self) -> None:
        if self.rate is not None and not isinstance(self.rate, Rate):
            _refuse("rate", self.rate, "takes a Rate, like rate=Rate(count=10, per=60)")


@attrs.frozen(slots=True, kw_only=True)
class NewTask:
    """A task to be put on a queue with a transition of its run. There is one at most that is wanted for a run and step
    id: where one is, it is left as it is. (One that is cancelled and at work yet is in nobody's way.)

    `step` is the command's id, `name` the step's, `payload` the encoded call. `timeout_us` bounds the attempt once it
    has begun. `not_before_us` (0: at once) keeps it aside until then. `at_us` is when it is put there, by the clock of
    who puts it.
    """

    queue: str
    step: str
    name: str
    attempt: int
    payload: bytes
    key: str = ""
    priority: int = 0
    timeout_us: int | None = None
    once: bool = False
    not_before_us: int = 0
    at_us: int = 0


@attrs.frozen(slots=True, kw_only=True)
class Task:
    """A task as the store knows it.

    `number` ascends and is never given twice. `owner` is the worker that has it ("": nobody), `claim` how often it was
    taken: an outcome is accepted only with the number and claim it belongs to. `deaths` counts the owners that had it
    when their lease ended. `details` is what was told of this step last (`note`). `at_us` is when it was put there.
    """

    number: int
    queue: str
    run: int
    workflow_id: str
    generation: int
    step: str
    name: str
    attempt: int
    payload: bytes
    key: str = ""
    priority: int = 0
    timeout_us: int | None = None
    once: bool = False
    at_us: int = 0
    owner: str = ""
    claim: int = 0
    deaths: int = 0
    cancelled: bool = False
    details: bytes = b""


@attrs.frozen(slots=True, kw_only=True)
class Place:
    """A run's place in a queue, from when it is created until it has ended.

    While an open run of this queue has the same `dedup`, creating another answers that one (where the workflow id
    itself is not answered by a run). It is for `create`: at children and continuations nobody looks at it, though a
    continuation has that of the run before. A place goes when its run closes or is taken out of the queue.
    """

    queue: str
    key: str = ""
    priority: int = 0
    not_before_us: int = 0
    dedup: str | None = None


@attrs.frozen(slots=True, kw_only=True)
class QueueState:
    """How a queue stands. `waiting` counts those in line, behind, and aside; `oldest_us` is when the oldest of them was
    put there, a run: created (None: nothing waits); `limits` what was declared for the name (without limits if nothing
    was). `next_us`: when time alone may let another one go, because the first of those aside is due, or a token comes
    (for what is in line while the rate holds it back); None if nothing waits for time."""

    kind: Kind
    limits: Queue
    waiting: int = 0
    at_work: int = 0
    oldest_us: int | None = None
    next_us: int | None = None

    @property
    def name(self) -> str:
        return self.limits.name


class KeepsQueues:
    """The part of the store port that is about queues. A store without them inherits this: it has nothing to take, and
    says so where it is asked to keep something.

    Tasks of an owner whose lease ends (`leave`, `expire`, or another's `hold`) are in line again in the same commit,
    with `deaths` + 1, in the place they had; cancelled ones are gone. So are, when another joins, those of an owner who
    has none: he took them when it had ended and he did not know yet. While others have a lease, he gets nothing.
    """

    has_queues: ClassVar[bool] = False
    """Whether it keeps tasks and places."""

    def declare(self, queues: Sequence[Queue]) -> None:
        """Have these limits hold for the queues of these names, of both kinds, from now on; others stay as they are.
        What stands behind its key and may now be in line enters it. Writes nothing where all is so already."""
        raise self._without_queues()

    def queues(self, *, ages: bool = True) -> list[QueueState]:
        """All queues that were declared (both kinds) or hold something, by name, then kind ("run" before "step").
        Without `ages`, which may take as long as there is much that waits, `oldest_us` is None."""
        return []

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None = None
    ) -> list[Task]:
        """Give at most `limit` tasks to `owner`, from these queues of steps in the order they are named, as far as
        their limits allow; of steps with these names only (None: any), looking through `LOOK_THROUGH` tasks of a queue.
        Only those whose time has come by `now_us`; a clock that is behind the queue's last `now_us` counts as that.
        Each gets `claim` + 1. One atomic commit; none where there is nothing to take, and a queue of which nothing is
        taken stays as it is, its last `now_us` with it."""
        return []

    def give_back(self, tasks: Sequence[tuple[int, int]], owner: str) -> None:
        """Put tasks (number, claim) of this owner back where they were; their bodies have not begun. No death.
        Cancelled ones are gone; those that are not his, or not of that claim, stay as they are. A claim of 0 is any:
        for what a `take` of unknown outcome may have given to him."""
        raise self._without_queues()

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        """Note what tasks of this owner have told (see `note`); answers the numbers of all tasks he has and that are
        still wanted. A task that is missing is cancelled or somebody else's. With no details nothing is written."""
        return []

    def tasks_of(self, run: int) -> list[Task]:
        """The tasks of a run that are wanted, in the order they came."""
        return []

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        """Let at most `limit` runs of these queues of runs begin, as `take` does for tasks: each has a message of kind
        "wake" from now on, is active, and is at work in its queue until it closes. Answers their numbers, in the order
        they were let in."""
        return []

    def note(self, run: int, epoch: int, notes: Mapping[str, bytes]) -> bool:
        """Keep something for steps of an open run, by step id, over what was kept before; b"" forgets it. False, and
        nothing is written, if the run's epoch is another. All goes when the run closes."""
        raise self._without_queues()

    def notes(self, run: int) -> dict[str, bytes]:
        """What is kept for the steps of a run."""
        return {}

    def _without_queues(self) -> BadOption:
        return BadOption(
            f"{type(self).__name__} keeps no queues: use a store that does (lmdb:, memory:, postgresql://)"
        )
