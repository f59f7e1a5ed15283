"""Queues on plain lists: the part of the reference model that `dalsegno.core.queues` describes.

Tasks and places are entrants of one list, in the order they came. Everything is found by walking it, so that each
method reads like the sentence it stands for. A store chooses the numbers of tasks; a task has one here when it is first
seen in the store's answer (`number`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from fractions import Fraction
from math import ceil

import attrs

from dalsegno.core.queues import LOOK_THROUGH, Kind, NewTask, Place, Queue, QueueState, Task
from dalsegno.core.store import RunRecord

KINDS: tuple[Kind, ...] = ("run", "step")

UNKNOWN = 0
"""The number of a task that was not seen yet."""


@attrs.define(eq=False)
class Entrant:
    """What waits in a queue or is at work there: a task, or a run's place. `state` is "line", "behind", "aside" or
    "work"."""

    kind: Kind
    number: int
    queue: str
    key: str
    priority: int
    not_before_us: int
    at_us: int
    state: str = ""
    turn: int = 0
    task: Task | None = None
    dedup: str | None = None

    @property
    def told(self) -> Task:
        assert self.task is not None
        return self.task

    def change(self, **changes: object) -> None:
        self.task = attrs.evolve(self.told, **changes)  # type: ignore[arg-type]


@attrs.define
class Standing:
    """What a queue remembers besides its entrants. `tokens` None: the bucket is full."""

    turn: int = 0
    clock: int | None = None
    tokens: Fraction | None = None


class Queues:
    """All queues of a store."""

    def __init__(self) -> None:
        self.entrants: list[Entrant] = []
        self.limits: dict[str, Queue] = {}
        self.kept: dict[int, dict[str, bytes]] = {}
        self._standing: dict[tuple[Kind, str], Standing] = {}
        self._last: dict[tuple[Kind, str, str], int] = {}

    def __repr__(self) -> str:
        return repr((self.entrants, self.limits, {run: kept for run, kept in self.kept.items() if kept}))

    def states(self) -> list[QueueState]:
        there = {(one.kind, one.queue) for one in self.entrants}
        declared = {(kind, name) for name in self.limits for kind in KINDS}
        names = sorted({*declared, *there}, key=lambda one: (one[1], one[0]))
        found = []
        for kind, name in names:
            mine = [one for one in self.entrants if (one.kind, one.queue) == (kind, name)]
            waiting = [one.at_us for one in mine if one.state != "work"]
            state = QueueState(
                kind=kind,
                limits=self.limits_of(name),
                waiting=len(waiting),
                at_work=len(mine) - len(waiting),
                oldest_us=min(waiting, default=None),
                next_us=self._next_us(kind, name, mine),
            )
            found.append(state)
        return found

    def _next_us(self, kind: Kind, name: str, mine: list[Entrant]) -> int | None:
        """When time alone may let another one go."""
        limits, standing = self.limits_of(name), self._stand(kind, name)
        line = [one for one in mine if one.state == "line"]
        aside = [one.not_before_us for one in mine if one.state == "aside"]
        if limits.concurrency is not None and sum(one.state == "work" for one in mine) >= limits.concurrency:
            return None
        token_us = None
        if limits.rate is not None and standing.tokens is not None and standing.clock is not None:
            missing = (1 - standing.tokens) / limits.rate.count * round(limits.rate.per * 1_000_000)
            token_us = standing.clock + ceil(missing) if missing > 0 else None
        if line:
            return token_us
        return max(min(aside), token_us or min(aside)) if aside else None

    def limits_of(self, name: str) -> Queue:
        return self.limits.get(name) or Queue(name)

    def declare(self, queue: Queue) -> None:
        if self.limits_of(queue.name).rate != queue.rate:
            for kind in KINDS:
                self._stand(kind, queue.name).tokens = None
        self.limits[queue.name] = queue
        self._move_up()

    def _stand(self, kind: Kind, name: str) -> Standing:
        return self._standing.setdefault((kind, name), Standing())

    # --- coming and going ------------------------------------------------------------------------------------------

    def put_task(self, run: RunRecord, new: NewTask) -> None:
        if self._wanted(run.number, new.step) is not None:
            return
        task = Task(
            number=UNKNOWN,
            queue=new.queue,
            run=run.number,
            workflow_id=run.workflow_id,
            generation=run.generation,
            step=new.step,
            name=new.name,
            attempt=new.attempt,
            payload=new.payload,
            key=new.key,
            priority=new.priority,
            timeout_us=new.timeout_us,
            once=new.once,
            at_us=new.at_us,
        )
        self._put(Entrant("step", UNKNOWN, new.queue, new.key, new.priority, new.not_before_us, new.at_us, task=task))

    def put_run(self, run: int, place: Place, at_us: int, dedup: bool) -> None:
        named = place.dedup if dedup else None
        self._put(Entrant("run", run, place.queue, place.key, place.priority, place.not_before_us, at_us, dedup=named))

    def _put(self, one: Entrant) -> None:
        self.entrants.append(one)
        if one.not_before_us > 0:
            one.state = "aside"
        else:
            self._line_up(one)

    def _line_up(self, one: Entrant) -> None:
        per_key = self.limits_of(one.queue).per_key
        standing = [other for other in self._like(one) if other.state in ("line", "work")]
        if per_key is not None and len(standing) >= per_key:
            one.state = "behind"
            return
        place = (one.kind, one.queue, one.key)
        one.turn = self._last[place] = max(self._stand(one.kind, one.queue).turn, self._last.get(place, 0)) + 1
        one.state = "line"

    def _like(self, one: Entrant) -> list[Entrant]:
        """All of the same key of the same queue."""
        place = (one.kind, one.queue, one.key)
        return [other for other in self.entrants if (other.kind, other.queue, other.key) == place]

    def _remove(self, one: Entrant) -> None:
        self.entrants = [other for other in self.entrants if other is not one]
        if not self._like(one):
            self._last.pop((one.kind, one.queue, one.key), None)

    def _move_up(self) -> None:
        """Those who stand behind and may be in line enter it."""
        for one in sorted((one for one in self.entrants if one.state == "behind"), key=lambda one: -one.priority):
            self._line_up(one)

    def _wanted(self, run: int, step: str) -> Entrant | None:
        fits = (one for one in self._tasks() if (one.told.run, one.told.step) == (run, step))
        return next((one for one in fits if not one.told.cancelled), None)

    def _tasks(self) -> list[Entrant]:
        return [one for one in self.entrants if one.task is not None]

    def waits(self, run: int, step: str) -> bool:
        one = self._wanted(run, step)
        return one is not None and one.state != "work"

    def drop(self, run: int, steps: Iterable[str]) -> None:
        for step in steps:
            one = self._wanted(run, step)
            if one is None:
                continue
            if one.state == "work":
                one.change(cancelled=True)
            else:
                self._remove(one)
        self._move_up()

    def close(self, run: int, continues: bool) -> None:
        self.drop(run, [one.told.step for one in self._tasks() if one.told.run == run])
        self.kept.pop(run, None)
        if not continues:
            self.leave(run)

    # --- places ----------------------------------------------------------------------------------------------------

    def placed(self, place: Place) -> int | None:
        fits = (one for one in self.entrants if one.kind == "run" and one.queue == place.queue)
        return next((one.number for one in fits if place.dedup is not None and one.dedup == place.dedup), None)

    def leave(self, run: int) -> None:
        for one in self.entrants:
            if one.kind == "run" and one.number == run:
                self._remove(one)
        self._move_up()

    def hand_over(self, run: int, to: int) -> None:
        for one in self.entrants:
            if one.kind == "run" and one.number == run:
                one.number = to

    def admit(self, queues: Sequence[str], limit: int, now_us: int) -> list[int]:
        return [one.number for one in self._take("run", queues, limit, now_us, None)]

    # --- tasks -----------------------------------------------------------------------------------------------------

    def take(
        self, queues: Sequence[str], owner: str, limit: int, now_us: int, steps: Collection[str] | None
    ) -> list[Task]:
        taken = self._take("step", queues, limit, now_us, steps)
        for one in taken:
            one.change(owner=owner, claim=one.told.claim + 1)
        return [self._with_details(one) for one in taken]

    def _take(
        self, kind: Kind, queues: Sequence[str], limit: int, now_us: int, steps: Collection[str] | None
    ) -> list[Entrant]:
        taken: list[Entrant] = []
        for name in dict.fromkeys(queues):
            taken += self._take_of(kind, name, limit - len(taken), now_us, steps)
        return taken

    def _take_of(self, kind: Kind, name: str, limit: int, now_us: int, steps: Collection[str] | None) -> list[Entrant]:
        mine = [one for one in self.entrants if (one.kind, one.queue) == (kind, name)]
        limits, standing = self.limits_of(name), self._stand(kind, name)
        now_us = now_us if standing.clock is None else max(now_us, standing.clock)
        if limits.concurrency is not None:
            limit = min(limit, limits.concurrency - sum(one.state == "work" for one in mine))
        tokens = Fraction(0)
        if limits.rate is not None:
            tokens = Fraction(limits.rate.count)
            if standing.tokens is not None and standing.clock is not None:
                since = Fraction(now_us - standing.clock, round(limits.rate.per * 1_000_000))
                tokens = min(tokens, standing.tokens + since * limits.rate.count)
            limit = min(limit, int(tokens))
        if limit <= 0:
            return []
        before, last = [(one, one.state, one.turn) for one in mine], dict(self._last)
        due = [one for one in mine if one.state == "aside" and one.not_before_us <= now_us]
        for one in sorted(due, key=lambda one: one.not_before_us)[:LOOK_THROUGH]:
            self._line_up(one)
        line = sorted((one for one in mine if one.state == "line"), key=lambda one: (-one.priority, one.turn))
        known = [one for one in line if steps is None or one.told.name in steps]
        passed = [sum(other not in known for other in line[: line.index(one)]) for one in known]
        taken = [one for one, so_many in zip(known, passed, strict=True) if so_many < LOOK_THROUGH][:limit]
        if not taken:
            for one, state, turn in before:
                one.state, one.turn = state, turn
            self._last = last
            return []
        for one in taken:
            one.state = "work"
        standing.turn, standing.clock = taken[-1].turn, now_us
        standing.tokens = tokens - len(taken) if limits.rate is not None else None
        return taken

    def _with_details(self, one: Entrant) -> Task:
        return attrs.evolve(one.told, details=self.kept.get(one.told.run, {}).get(one.told.step, b""))

    def tasks_of(self, run: int) -> list[Task]:
        fits = [one for one in self._tasks() if one.told.run == run and not one.told.cancelled]
        return [self._with_details(one) for one in fits]

    def number(self, run: int, found: Sequence[Task]) -> None:
        """Be told the numbers of tasks that are new, from the store's `tasks_of` this run."""
        fits = [one for one in self._tasks() if one.told.run == run and not one.told.cancelled]
        for one, task in zip(fits, found, strict=True):
            if one.number == UNKNOWN:
                assert task.number > max((other.number for other in self._tasks()), default=0)
                one.number = task.number
                one.change(number=task.number)

    def _at_work(self, number: int, claim: int, owner: str) -> Entrant | None:
        fits = (one for one in self._tasks() if one.number == number and claim in (0, one.told.claim))
        return next((one for one in fits if one.state == "work" and one.told.owner == owner), None)

    def answer(self, number: int, claim: int, run: int | None) -> bool:
        for one in self._tasks():
            if (
                (one.number, one.told.claim) == (number, claim)
                and claim
                and (one.told.cancelled or one.told.run == run)
            ):
                self._remove(one)
                self._move_up()
                return not one.told.cancelled
        return False

    def give_back(self, tasks: Iterable[tuple[int, int]], owner: str) -> None:
        for number, claim in tasks:
            one = self._at_work(number, claim, owner)
            if one is not None:
                self._put_back(one)
        self._move_up()

    def end_owners(self, gone: Callable[[str], bool]) -> None:
        for one in self._tasks():
            if one.state == "work" and gone(one.told.owner):
                one.change(deaths=one.told.deaths + 1)
                self._put_back(one)
        self._move_up()

    def _put_back(self, one: Entrant) -> None:
        if one.told.cancelled:
            self._remove(one)
        else:
            one.change(owner="")
            one.state = "line"

    def beat(self, owner: str, details: Mapping[int, bytes]) -> list[int]:
        mine = [one for one in self._tasks() if one.state == "work" and one.told.owner == owner]
        wanted = [one for one in mine if not one.told.cancelled]
        for one in wanted:
            if one.number in details:
                self.note(one.told.run, {one.told.step: details[one.number]})
        return [one.number for one in wanted]

    def note(self, run: int, notes: Mapping[str, bytes]) -> None:
        kept = {**self.kept.get(run, {}), **notes}
        self.kept[run] = {step: note for step, note in kept.items() if note}

    def notes(self, run: int) -> dict[str, bytes]:
        return self.kept.get(run, {})
