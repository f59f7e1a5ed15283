"""Deciding what a group of writes does to queues, in memory, as `planning` does for runs; and saying it as statements.

The rows of the runs that are concerned are locked meanwhile. So nobody else puts, drops or answers tasks of theirs, and
what may happen to one between the look and the write is that somebody takes it, or gives it back. Where that makes a
difference the statement that finds it is undone by an error, and the group is looked at anew.

What is to be done is kept in its order (`steps`): whoever ends first leaves his place to who is put after him. All
locks come before all of it, in one call, in one order (`migrations/003_queues.sql`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import attrs
from psycopg.pq.abc import PGresult

from dalsegno.backends.postgresql import queue_statements as qs
from dalsegno.backends.postgresql import wire
from dalsegno.backends.postgresql.rows import Row, task_crc
from dalsegno.backends.postgresql.session import Call
from dalsegno.core.queues import NewTask, Place
from dalsegno.core.store import Message, NewRun, Transition

STEP, RUN = "step", "run"


@attrs.define(slots=True, eq=False)
class KnownTask:
    """A task of a step as it was found; `number` 0 where this group puts it."""

    number: int
    run: int
    step: str
    claim: int = 0
    at_work: bool = False
    cancelled: bool = False


@attrs.define(slots=True, eq=False)
class Entry:
    """A row to be put into `tasks`."""

    kind: str
    run: int
    new: NewTask
    dedup: str | None = None
    task: KnownTask | None = None


@attrs.define(slots=True)
class Put:
    """What comes to queues: tasks, and places of runs."""

    entries: list[Entry] = attrs.field(factory=list)


@attrs.define(slots=True)
class End:
    """Tasks, as (number, claim), that have their outcome and free their places."""

    tasks: list[tuple[int, int]] = attrs.field(factory=list)


@attrs.define(slots=True)
class Drop:
    """`waiting` are those of `numbers` that have to wait yet; `leaving` runs that lose their places."""

    numbers: list[int] = attrs.field(factory=list)
    waiting: list[int] = attrs.field(factory=list)
    leaving: list[int] = attrs.field(factory=list)


@attrs.define(slots=True)
class Inherit:
    """Places that go from a run to its continuation, as (run, continuation)."""

    places: list[tuple[int, int]] = attrs.field(factory=list)


class Asked:
    """What a group of writes names of tasks and places, and so must be known."""

    __slots__ = ("closing", "dedups", "numbers", "steps")

    def __init__(
        self,
        creations: Sequence[NewRun],
        transitions: Sequence[Transition],
        sent: Sequence[Message],
        closing: list[int],
    ) -> None:
        self.closing = closing
        self.numbers = [message.task[0] for message in sent if message.task is not None]
        self.steps: list[tuple[int, str]] = []
        for t in transitions:
            if t.tasks or t.tasks_dropped or t.tasks_withdrawn:
                named = (*t.tasks_dropped, *t.tasks_withdrawn, *(task.step for task in t.tasks))
                self.steps += [(t.run, step) for step in named]
        places = (new.place for new in creations if new.place is not None and new.place.dedup is not None)
        self.dedups = list({(place.queue, place.dedup or ""): None for place in places})

    def calls(self) -> list[Call]:
        """The statements that look."""
        calls: list[Call] = []
        if self.closing or self.numbers or self.steps:
            steps = [(run, step) for run, step in dict.fromkeys(self.steps) if 0 < run <= wire.INT8_MAX]
            numbers = [number for number in dict.fromkeys(self.numbers) if 0 < number <= wire.INT8_MAX]
            calls.append(
                (
                    qs.LOOK_TASKS,
                    (
                        wire.int8s(numbers),
                        wire.int8s([run for run, _ in steps]),
                        wire.texts(step for _, step in steps),
                        wire.int8s([run for run in self.closing if 0 < run <= wire.INT8_MAX]),
                    ),
                )
            )
        if self.dedups:
            hashes = wire.uuids([wire.digest(dedup) for _, dedup in self.dedups])
            calls.append((qs.LOOK_PLACES, (wire.texts(queue for queue, _ in self.dedups), hashes)))
        return calls

    def known(self, answers: dict[bytes, PGresult]) -> Queues:
        """What was found."""
        found = Queues()
        if (tasks := answers.get(qs.LOOK_TASKS.name)) is not None:
            for at in range(tasks.ntuples):
                cells = [tasks.get_value(at, column) or b"" for column in range(6)]
                number, run = wire.read_int8(cells[0]), wire.read_int8(cells[1])
                found.noted.add(run)
                if not number:
                    continue
                found.add(
                    KnownTask(
                        number=number,
                        run=run,
                        step=wire.read_text(cells[5]),
                        claim=wire.read_int4(cells[2]),
                        at_work=cells[3] == b"\x01",
                        cancelled=cells[4] == b"\x01",
                    )
                )
        if (places := answers.get(qs.LOOK_PLACES.name)) is not None:
            for at in range(places.ntuples):
                nth = wire.read_int8(places.get_value(at, 22) or b"")
                found.places[self.dedups[nth - 1]] = Row.read(places, at)
        return found


class Queues:
    """Tasks and places that a group of writes is about, and what it does to them."""

    __slots__ = ("_of_run", "_tasks", "_wanted", "moved", "noted", "places", "steps")

    def __init__(self) -> None:
        self._tasks: dict[int, KnownTask] = {}
        self._wanted: dict[tuple[int, str], KnownTask] = {}
        self._of_run: dict[int, list[KnownTask]] = {}
        self.places: dict[tuple[str, str], Row] = {}
        self.steps: list[Put | End | Drop | Inherit] = []
        self.moved: dict[int, Row] = {}  # runs whose place is another one
        self.noted: set[int] = (
            set()
        )  # runs of which something is noted, or may be: by whoever works on a task of theirs

    def add(self, task: KnownTask) -> None:
        """Know of a task."""
        if task.number:
            self._tasks[task.number] = task
        self._of_run.setdefault(task.run, []).append(task)
        if not task.cancelled:
            self._wanted[task.run, task.step] = task

    # --- tasks -----------------------------------------------------------------------------------------------------

    def unready(self, t: Transition) -> str | None:
        """The first step whose task is to be withdrawn, and is not there or does not wait."""
        for step in t.tasks_withdrawn:
            task = self._wanted.get((t.run, step))
            if task is None or task.at_work:
                return step
        return None

    def change(self, t: Transition) -> None:
        """Drop and put what a transition drops and puts."""
        self._drop(t.run, (*t.tasks_withdrawn, *t.tasks_dropped), t.tasks_withdrawn)
        for new in t.tasks:
            if (t.run, new.step) not in self._wanted:
                task = KnownTask(0, t.run, new.step)
                self.add(task)
                self._put(Entry(STEP, t.run, new, task=task))

    def close(self, t: Transition, row: Row) -> None:
        """A run has ended: drop all of its tasks, and its place, unless its continuation has that."""
        wanted = [task.step for task in self._of_run.get(t.run, ()) if not task.cancelled]
        leaving = [row.number] if row.queue and t.continued is None else []
        self._drop(t.run, wanted, t.tasks_withdrawn, leaving)
        if row.queue:
            self._forget_place(row, t.continued is None)

    def _forget_place(self, row: Row, free: bool = True) -> None:
        row.queue, row.queued = "", False
        self.moved[row.number] = row
        if free:
            self.places = {name: one for name, one in self.places.items() if one.number != row.number}

    def _drop(self, run: int, steps: Iterable[str], withdrawn: Sequence[str], leaving: Sequence[int] = ()) -> None:
        drop = Drop(leaving=list(leaving))
        for step in dict.fromkeys(steps):
            task = self._wanted.pop((run, step), None)
            if task is None:
                continue
            task.cancelled = True
            if not task.number:
                self._forget(task)
                continue
            drop.numbers.append(task.number)
            if step in withdrawn:
                drop.waiting.append(task.number)
        drop.numbers.sort()  # as everybody locks rows
        if drop.numbers or drop.leaving:
            self.steps.append(drop)

    def _forget(self, task: KnownTask) -> None:
        for step in self.steps:
            if isinstance(step, Put):
                step.entries = [entry for entry in step.entries if entry.task is not task]

    def _put(self, entry: Entry) -> None:
        if not self.steps or not isinstance(last := self.steps[-1], Put):
            self.steps.append(last := Put())
        last.entries.append(entry)

    def answer(self, asked: tuple[int, int], run: int) -> bool:
        """Whether a run waits for the outcome of this claim of a task, which ends it. So does the outcome of one that
        is cancelled."""
        number, claim = asked
        task = self._tasks.get(number)
        if task is None or task.claim != claim or claim <= 0 or not (task.cancelled or task.run == run):
            return False
        del self._tasks[number]
        self._of_run[task.run].remove(task)
        if task.cancelled and not task.at_work:
            return False  # it has gone, with a write of this very group
        if not task.cancelled:
            del self._wanted[task.run, task.step]
        if not self.steps or not isinstance(last := self.steps[-1], End):
            self.steps.append(last := End())
        last.tasks.append((number, claim))
        return not task.cancelled

    # --- places ----------------------------------------------------------------------------------------------------

    def enter(self, row: Row, place: Place, at_us: int, dedup: bool) -> None:
        """A new run waits in a queue, with its deduplication id, if that is to count."""
        row.queue, row.queued, row.active = place.queue, True, False
        row.owner, row.epoch = "", 0
        self.moved[row.number] = row
        new = NewTask(
            queue=place.queue,
            step="",
            name="",
            attempt=0,
            payload=b"",
            key=place.key,
            priority=place.priority,
            not_before_us=place.not_before_us,
            at_us=at_us,
        )
        name = place.dedup if dedup else None
        self._put(Entry(RUN, row.number, new, name))
        if name is not None:
            self.places[place.queue, name] = row

    def leave(self, row: Row) -> None:
        """A run that waited is taken out of its queue."""
        self.steps.append(Drop(leaving=[row.number]))
        self._forget_place(row)

    def inherit(self, before: Row, queue: str, following: Row) -> None:
        """A run that goes on as another one has left it its place."""
        following.queue = queue
        self.moved[following.number] = following
        self.places = {name: following if one.number == before.number else one for name, one in self.places.items()}
        self.steps.append(Inherit([(before.number, following.number)]))

    # --- as statements ---------------------------------------------------------------------------------------------

    def calls(self, channel: bytes) -> list[Call]:
        """The statements that do all of it, after the rows of new runs are there."""
        calls: list[Call] = []
        if self.moved:
            rows = sorted(self.moved.values(), key=_number_of)
            numbers, queues = wire.int8s([row.number for row in rows]), wire.texts(row.queue for row in rows)
            calls.append((qs.PLACE_RUNS, (numbers, queues, wire.bools(row.queued for row in rows))))
        if not self.steps:
            return calls
        entries = [entry for step in self.steps if isinstance(step, Put) for entry in step.entries]
        drops = [step for step in self.steps if isinstance(step, Drop)]
        calls.append(
            (
                qs.LOCK_QUEUES,
                (
                    wire.int8s([number for step in self.steps if isinstance(step, End) for number, _ in step.tasks]),
                    wire.int8s([number for drop in drops for number in drop.numbers]),
                    wire.int8s([run for drop in drops for run in drop.leaving]),
                    *_places_of(entries),
                    wire.texts(entry.new.key for entry in entries),
                ),
            )
        )
        return calls + [_call(step, channel) for step in self.steps if not isinstance(step, Put) or step.entries]


def _number_of(row: Row) -> int:
    return row.number


def _places_of(entries: Sequence[Entry]) -> tuple[bytes, bytes, bytes]:
    return (
        wire.texts(entry.kind for entry in entries),
        wire.texts(entry.new.queue for entry in entries),
        wire.uuids([wire.digest(entry.new.key) for entry in entries]),
    )


def _call(step: Put | End | Drop | Inherit, channel: bytes) -> Call:
    if isinstance(step, Put):
        return qs.PUT_TASKS, _new_tasks(step.entries)
    if isinstance(step, End):
        ended = sorted(step.tasks)
        numbers, claims = wire.int8s([number for number, _ in ended]), wire.int4s([claim for _, claim in ended])
        return qs.END_TASKS, (numbers, claims, channel)
    if isinstance(step, Drop):
        lists = wire.int8s(step.numbers), wire.int8s(step.waiting), wire.int8s(step.leaving)
        return qs.DROP_TASKS, (*lists, channel)
    before, following = [one for one, _ in step.places], [one for _, one in step.places]
    return qs.INHERIT_PLACES, (wire.int8s(before), wire.int8s(following))


def _new_tasks(entries: Sequence[Entry]) -> tuple[bytes, ...]:
    news = [entry.new for entry in entries]
    hashes = [None if entry.dedup is None else wire.digest(entry.dedup) for entry in entries]
    return (
        *_places_of(entries),
        wire.texts(new.key for new in news),
        wire.int4s([new.priority for new in news]),
        wire.int8s([entry.run for entry in entries]),
        wire.texts(new.step for new in news),
        wire.texts(new.name for new in news),
        wire.int4s([new.attempt for new in news]),
        wire.byteas([new.payload for new in news]),
        wire.int4s([task_crc(entry.run, entry.new.step, entry.new.name, entry.new.payload) for entry in entries]),
        wire.optional_int8s(None if new.timeout_us is None else wire.in_range(new.timeout_us) for new in news),
        wire.bools(new.once for new in news),
        wire.int8s([wire.in_range(new.not_before_us) for new in news]),
        wire.int8s([wire.in_range(new.at_us) for new in news]),
        wire.optional_texts(entry.dedup for entry in entries),
        wire.optional_uuids(hashes),
    )
