"""Group commit: whoever finds the writer free commits all that is queued, with one flush.

There is no writer thread. A thread that has something to record queues it and tries to lead; one that finds somebody
else leading goes on with other work, and what it queued is taken along by the next leader (leader and followers, as in
the group commit of a write-ahead log). A run alone therefore pays no hop between threads, and two hundred share a
flush.

A write that frees nothing to run (a run that ends, mostly) is *lazy*: it waits a moment for company, because the next
flush would have carried it for nothing.

When a commit fails: `StoreFull` leaves transitions queued (accepted work is not lost; they go out when there is room)
and is handed to callers who wait for a creation or a message. `UnknownOutcome` leaves open whether the batch was
applied: each transition is *doubtful*, and before it goes again its run's history is looked at, until the store says
what stands there; creations are idempotent and go again; callers of `send` are told.

Anything else that a store raises is a *breach* of its contract, or the damage of one record. The writes of the batch
are tried apart, in halves, until those are found that the store will not take: they have failed, and the others go
through. Where nothing goes through, it is the store that has failed, and the tick tries again.
"""

from __future__ import annotations

import abc
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from dalsegno.core.engine.breaches import answer_to, broken, described, receipt_of, takes_writes
from dalsegno.core.engine.edge import Clock
from dalsegno.core.errors import StoreDamaged, StoreError, StoreFull, UnknownOutcome
from dalsegno.core.store import Applied, Backend, Created, Message, NewRun, Sent, Transition, Verdict

BATCH = 1000
"""Writes per flush at most: keeps a flush under some 10 ms, and a refused map-full batch small."""

GATHER_S = 0.000_5
"""How long lazy writes wait for company: about two flushes."""

APART_MAX = 8
"""So many writes that fail alone, one after the other and with none between them that goes through, are enough to ask
whether it is the store that has failed."""

log = logging.getLogger("dalsegno.engine")

_TRANSITIONS_ONLY = {Transition}
_NONE: list[Any] = []


class Write(abc.ABC):
    """One thing to record, and who wants to hear of it: the leader calls `done` or `failed`, without the lock."""

    __slots__ = ("doubtful", "lazy", "queued_us", "what")

    queued_us: int  # set only where somebody observes

    def __init__(self, what: NewRun | Transition | Message, lazy: bool = False) -> None:
        self.what, self.lazy = what, lazy
        self.doubtful = False

    @abc.abstractmethod
    def done(self, answer: Any) -> None:
        """The store has answered."""

    @abc.abstractmethod
    def failed(self, error: Exception) -> None:
        """It was not taken."""


class Request(Write):
    """A write that a caller waits for."""

    __slots__ = ("_done", "_failed")

    def __init__(
        self, what: NewRun | Message, done: Callable[[Any], None], failed: Callable[[Exception], None]
    ) -> None:
        super().__init__(what)
        self._done, self._failed = done, failed

    def done(self, answer: Any) -> None:
        self._done(answer)

    def failed(self, error: Exception) -> None:
        self._failed(error)


def _tell(answers: Iterator[tuple[Write, Any]]) -> None:
    """Tell all of a flush; what goes wrong with one is no reason for the others never to hear of theirs."""
    while True:
        try:
            for write, answer in answers:
                write.done(answer)
            return
        except Exception:
            log.exception("what follows a commit failed in a way that it should not; it was committed all the same")


def _fail(failed: list[tuple[Write, StoreError]]) -> None:
    """Tell of writes that the store will not take."""
    for write, error in failed:
        try:
            write.failed(error)
        except Exception:
            log.exception("what follows a failed write failed in a way that it should not")


def sorted_out(batch: Sequence[Write]) -> tuple[list[Write], list[Write], list[Write]]:
    """The transitions, creations and messages of a batch."""
    kinds: dict[type, list[Write]] = {Transition: [], NewRun: [], Message: []}
    for write in batch:
        kinds[type(write.what)].append(write)
    return kinds[Transition], kinds[NewRun], kinds[Message]


class Watches(Protocol):
    """Whoever observes the writes."""

    def flushed(self, batch: Sequence[Write], took_us: int) -> None: ...
    def tell(self, hook: str, *facts: Any) -> None: ...


class Committer:
    """The queue of writes to one store, and the right to flush it."""

    def __init__(self, backend: Backend, clock: Clock, told: Callable[[], object] = lambda: None) -> None:
        self._backend, self._clock = backend, clock
        self._told = told
        self._queue: deque[Write] = deque()
        self._leading = threading.Lock()
        self._watcher = 0  # the thread that waits for company to join what is lazy
        self.eager = 0
        self.cost_us = 200.0  # of a flush; a running mean, for the adaptive checkpoint policy
        self.flushes = 0
        self.writes = 0
        self.stalled: StoreError | None = None
        self.observed: Watches | None = None
        self._doubting = False  # whether a write in the queue may have been applied already
        self._wrote_us = 0  # what the last write was said to be the time of

    def __len__(self) -> int:
        return len(self._queue)

    def submit(self, write: Write) -> None:
        """Queue a write; nothing is recorded before somebody leads."""
        if self.observed is not None:
            write.queued_us = self._clock.steady_us()
        self._queue.append(write)
        if not write.lazy:
            self.eager += 1  # a hint for `idle` only: a lost count costs half a millisecond, not a write

    @property
    def oldest_us(self) -> int | None:
        """Since when the first write has waited, where somebody observes."""
        try:
            return self._queue[0].queued_us
        except (IndexError, AttributeError):
            return None

    def idle(self, waited: bool) -> float | None:
        """What a thread without a job does about the queue: flush it, or wait for company first.

        One thread at a time waits so, the others park: sixteen that wake up every half a millisecond to find another
        one flushing take the interpreter lock from it, and cost half the throughput of short steps.
        """
        me = threading.get_ident()
        if self._watcher == me:
            self._watcher = 0
        if not self._queue or self.stalled is not None:
            return None
        if (self.eager or waited) and self.lead():
            return 0
        if self._watcher:
            return None
        self._watcher = me
        return GATHER_S

    def lead(self) -> bool:
        """Commit everything queued, unless somebody else is at it. Answers whether this thread did."""
        led = False
        while self._queue and self.stalled is None:
            if not self._leading.acquire(blocking=False):
                return led
            try:
                batch = self._take()
                finish = self._commit(batch) if batch else None
            finally:
                self._leading.release()
            led = True
            if finish is not None:
                finish()
                self._told()
            if not self.eager:
                break  # what came meanwhile is lazy: let it gather
        return led

    def retry(self) -> None:
        """Try again after the store was full or failed; called by the engine's tick."""
        self.stalled = None
        self.lead()

    def _take(self) -> list[Write]:
        queue, batch = self._queue, list[Write]()
        self.eager = 0
        while queue and len(batch) < BATCH:
            batch.append(queue.popleft())
        if queue:
            self.eager = 1
        return batch

    def _commit(self, batch: list[Write]) -> Callable[[], None]:
        """Write a batch; answers what is to be told to whom, to be called without the lock."""
        if self._doubting and any(write.doubtful for write in batch):
            return self._after_doubt(batch)
        try:
            return self._write(batch)
        except Exception as error:
            return self._after_breach(batch, error)
        except BaseException as error:  # Ctrl-C, while a caller's own thread leads: the others' writes are not lost
            transitions, creations, messages = sorted_out(batch)
            self._after_unknown(transitions, creations, messages, UnknownOutcome(f"interrupted: {error!r}"))()
            raise

    def _write(self, batch: list[Write]) -> Callable[[], None]:
        """The same, for writes of which none is doubtful. Raises what no store may raise, and `StoreDamaged`."""
        whats: list[Any] = [write.what for write in batch]
        begun = self._clock.steady_us()
        transitions, creations, messages = batch, _NONE, _NONE
        created, sent = list[Created](), list[tuple[Sent, int]]()
        try:
            if set(map(type, whats)) == _TRANSITIONS_ONLY:
                verdicts = self._backend.commit(whats)
            else:
                transitions, creations, messages = sorted_out(batch)
                self._wrote_us = self._clock.now_us()
                created, verdicts, sent = self._backend.write(
                    [w.what for w in creations],  # type: ignore[misc]
                    [w.what for w in transitions],  # type: ignore[misc]
                    [w.what for w in messages],  # type: ignore[misc]
                    self._wrote_us,
                )
        except UnknownOutcome as error:
            return self._after_unknown(transitions, creations, messages, error)
        except StoreDamaged:
            raise  # one record; the others of the batch are whole
        except StoreError as error:
            return self._after_failure(transitions, creations + messages, error)
        self.flushes += 1
        self.writes += len(batch)
        took_us = self._clock.steady_us() - begun
        self.cost_us += (took_us - self.cost_us) / 16
        if self.observed is not None:
            self.observed.flushed(batch, took_us)

        def tell() -> None:
            _tell(zip(creations, created, strict=True))
            _tell(zip(transitions, verdicts, strict=True))
            _tell(zip(messages, sent, strict=True))

        return tell

    def _after_failure(self, kept: list[Write], told: list[Write], error: StoreError) -> Callable[[], None]:
        """Nothing was applied: transitions stay queued in their order, callers are told."""
        self._queue.extendleft(reversed(kept))
        self.stalled = error
        if self.observed is not None:
            self.observed.tell("store_failed", error)
        log.warning("the store takes no writes (%s); %d transitions wait for it", error, len(kept))
        if not isinstance(error, StoreFull):
            log.warning("trying again with every tick")

        def tell() -> None:
            for write in told:
                write.failed(error)

        return tell

    def _after_unknown(
        self, transitions: list[Write], creations: list[Write], messages: list[Write], error: UnknownOutcome
    ) -> Callable[[], None]:
        """The batch may or may not be there: transitions are looked up before they go again."""
        for write in transitions:
            write.doubtful = self._doubting = True
        self._queue.extendleft(reversed(creations + transitions))
        self.eager = 1

        def tell() -> None:
            for write in messages:
                write.failed(error)

        return tell

    def _after_doubt(self, batch: list[Write]) -> Callable[[], None]:
        """Ask the histories which doubtful transitions are there; the rest of the batch is still to be written. If the
        store cannot say, nobody is told anything: a guess would start what is there a second time, or forget it."""
        settled: list[tuple[Write, Verdict]] = []
        again: list[Write] = []
        for at, write in enumerate(batch):
            try:
                verdict = self._found(write.what) if write.doubtful else None  # type: ignore[arg-type]
            except StoreDamaged:
                verdict = None  # it goes again: where the history has grown by it, it is refused
            except StoreError as error:
                self.stalled = error
                again.extend(batch[at:])
                break
            except Exception:
                log.exception("the store %s cannot be read", type(self._backend).__qualname__)
                verdict = None
            write.doubtful = False
            if verdict is None:
                again.append(write)
            else:
                settled.append((write, verdict))
        self._queue.extendleft(reversed(again))
        self.eager = 1

        def tell() -> None:
            _tell(iter(settled))

        return tell

    def _after_breach(self, batch: list[Write], error: Exception) -> Callable[[], None]:
        """The store raised what no store may raise, and nobody knows because of which write: find it."""
        log.error("the store %s failed at %d writes", type(self._backend).__qualname__, len(batch), exc_info=error)
        if self.observed is not None:
            self.observed.tell("store_failed", error)
        flushes, tells, failed = self.flushes, list[Callable[[], None]](), list[tuple[Write, StoreError]]()
        self._try_apart(batch, tells, failed, flushes)
        if failed and self.flushes == flushes and not takes_writes(self._backend):
            transitions, creations, messages = sorted_out([write for write, _ in failed])
            tells.append(self._after_failure(transitions, creations + messages, failed[0][1]))
        else:
            tells.append(lambda: _fail(failed))

        def tell() -> None:
            for each in tells:
                each()

        return tell

    def _try_apart(
        self, batch: list[Write], tells: list[Callable[[], None]], failed: list[tuple[Write, StoreError]], flushes: int
    ) -> None:
        """Write what is not there yet in halves, down to single ones, each of which is tried once more."""
        rest, middle = self._not_there(batch, tells, failed), len(batch) // 2
        for part in filter(None, (rest[:middle], rest[middle:])):
            if self.stalled is not None or (len(failed) >= APART_MAX and self.flushes == flushes):
                self._queue.extendleft(reversed(part))
                self.eager = 1
                continue
            try:
                tells.append(self._write(part))
            except Exception as error:
                if len(part) > 1:
                    self._try_apart(part, tells, failed, flushes)
                    continue
                for write in self._not_there(part, tells, failed):
                    known = isinstance(error, StoreError)
                    failed.append((write, error if known else broken(self._backend, error, described(write.what))))  # type: ignore[arg-type]

    def _not_there(
        self, batch: list[Write], tells: list[Callable[[], None]], failed: list[tuple[Write, StoreError]]
    ) -> list[Write]:
        """Those of a batch that the store has not taken. A transition that cannot be looked for counts as one: it is
        fenced, and refused where it is there."""
        settled, rest = list[tuple[Write, Any]](), list[Write]()
        for write in batch:
            what, answer = write.what, None  # type: Any, Any
            try:
                if isinstance(what, Message):
                    answer = receipt_of(self._backend, what, self._wrote_us)
                else:
                    answer = answer_to(self._backend, what) if isinstance(what, NewRun) else self._found(what)
            except UnknownOutcome as error:
                failed.append((write, error))
                continue
            except Exception as error:
                log.warning("%s cannot be looked for in the store: %s", described(what), error)
            if answer is None:
                rest.append(write)
            else:
                settled.append((write, answer))
        tells.append(lambda: _tell(iter(settled)))
        return rest

    def _found(self, transition: Transition) -> Verdict | None:
        """`Applied` if the history holds just the events this transition would have appended."""
        count = len(transition.events)
        there = self._backend.history(transition.run, transition.head, count) if count else []
        if not count or tuple(there) != transition.events:
            return None  # without events it changes only marks and may be applied twice
        created = [self._backend.find(child.workflow_id) for child in transition.children]
        if transition.continued is not None:
            created.append(self._backend.find(transition.continued.workflow_id))
        targets = [self._backend.find(m.workflow_id, m.generation) for m in transition.messages]
        return Applied(tuple(r for r in created if r), tuple(r.number for r in targets if r))
