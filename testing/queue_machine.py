"""What the state machine does about queues: rules of `BackendMachine`, for stores that have them.

Times and rates are such that the tokens of a bucket are whole or half, so that a store may count them as it likes.
"""

from __future__ import annotations

from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from dalsegno.core.queues import NewTask, Place, Queue, Rate, Task
from dalsegno.core.store import Backend, Message, NewRun
from dalsegno.testing.backend_model import Model

QUEUES = ("q", "r", "long" * 50)
STEPS = ("1", "2", "3", "1.2", "4" * 600)
NAMES = ("pay", "post", "é")
TICK_US = 250_000  # a quarter of a second

names = st.sampled_from(QUEUES)
keys = st.sampled_from(["", "k", "k", "l" * 700])
priorities = st.sampled_from([0, 0, 0, 1, -1, 2**31 - 1, -(2**31 - 1)])
times = st.integers(0, 12).map(lambda tick: tick * TICK_US)
begins = st.sampled_from([0, 0, 0, 2 * TICK_US, 2 * TICK_US, 5 * TICK_US])
limits = st.integers(0, 3)
owners = st.sampled_from(["one", "two"])
rates = st.sampled_from([None, None, Rate(count=1, per=0.5), Rate(count=2, per=1.0), Rate(count=4, per=1)])
bounds = st.sampled_from([None, None, 1, 2])
declared = st.builds(Queue, names, concurrency=bounds, per_key=bounds, rate=rates)
queue_lists = st.lists(names, min_size=1, max_size=3)
notes = st.dictionaries(st.sampled_from(STEPS), st.binary(max_size=3), max_size=2)
picks = st.integers(0, 20)
places = st.builds(
    Place,
    queue=names,
    key=keys,
    priority=priorities,
    not_before_us=begins,
    dedup=st.sampled_from([None, None, "d", ""]),
)
tasks = st.builds(
    NewTask,
    queue=names,
    step=st.sampled_from(STEPS),
    name=st.sampled_from(NAMES),
    attempt=st.integers(1, 3),
    payload=st.binary(max_size=3),
    key=keys,
    priority=priorities,
    timeout_us=st.sampled_from([None, 5]),
    once=st.booleans(),
    not_before_us=begins,
    at_us=st.integers(-3, 9),
)


class QueueRules(RuleBasedStateMachine):
    """The rules about queues. `BackendMachine` has the store and the model."""

    store: Backend
    model: Model

    def __init__(self) -> None:
        super().__init__()
        self.claims: list[Task] = []  # every task that was ever taken, as it was then

    def placed(self, new: NewRun) -> NewRun:
        """A run as it can be created here: without a place where there are no queues."""
        return new if self.store.has_queues else attrs.evolve(new, place=None)

    def draw_tasks(self, data: st.DataObject, run: int, closes: bool) -> dict[str, Any]:
        """What a transition says of tasks."""
        if not self.store.has_queues:
            return {}
        own = [task.step for task in self.model.queues.tasks_of(run)]
        some = st.lists(st.sampled_from(own), max_size=2, unique=True) if own else st.just(list[str]())
        waiting = [step for step in own if self.model.queues.waits(run, step)]
        withdrawn = st.sampled_from([[]] * 9 + [[step] for step in waiting] + [["1"]])
        return {
            "tasks": () if closes else tuple(data.draw(st.lists(tasks, max_size=4))),
            "tasks_dropped": tuple(data.draw(some)),
            "tasks_withdrawn": tuple(data.draw(withdrawn)),
        }

    @precondition(lambda self: self.store.has_queues)
    @rule(queues=st.lists(declared, min_size=1, max_size=2))
    def declare(self, queues: list[Queue]) -> None:
        self.store.declare(queues)
        for queue in queues:
            self.model.queues.declare(queue)

    @precondition(lambda self: self.store.has_queues)
    @rule(
        queues=queue_lists,
        owner=owners,
        limit=limits,
        now_us=times,
        steps=st.none() | st.none() | st.sets(st.sampled_from(NAMES)),
    )
    def take(self, queues: list[str], owner: str, limit: int, now_us: int, steps: set[str] | None) -> None:
        expected = self.model.take(queues, owner, limit, now_us, steps)
        assert self.store.take(queues, owner, limit, now_us, steps) == expected
        self.claims += expected

    @precondition(lambda self: self.store.has_queues)
    @rule(queues=queue_lists, limit=limits, now_us=times)
    def admit(self, queues: list[str], limit: int, now_us: int) -> None:
        assert self.store.admit(queues, limit, now_us) == self.model.admit(queues, limit, now_us)

    @precondition(lambda self: self.store.has_queues)
    @rule(
        what=st.sampled_from(["answer", "answer", "give back", "beat", "note"]),
        chosen=st.lists(picks, min_size=1, max_size=3),
        owner=owners,
        notes=notes,
        astray=st.integers(0, 5).map(lambda one: not one),
    )
    def report(self, what: str, chosen: list[int], owner: str, notes: dict[str, bytes], astray: bool) -> None:
        """Somebody tells of tasks that he has, or has had, or of none."""
        tasks = [self.claims[-pick % len(self.claims)] for pick in chosen] if self.claims else []
        if what == "answer":
            self._answer(tasks, astray)
        elif what == "give back":
            given = [(task.number, task.claim) for task in tasks]
            self.store.give_back(given, owner)
            self.model.queues.give_back(given, owner)
        elif what == "beat":
            details = {task.number: note for task, note in zip(tasks, notes.values(), strict=False)}
            assert sorted(self.store.beat(owner, details)) == self.model.queues.beat(owner, details)
        else:
            number = self.model.made[-chosen[0] % len(self.model.made)] if chosen[0] else 10**6
            run = self.model.runs.get(number)
            epoch = (run.record.epoch if run else 1) - astray
            assert self.store.note(number, epoch, notes) is self.model.note(number, epoch, notes)

    def _answer(self, tasks: list[Task], stale: bool) -> None:
        """Outcomes of tasks, now and then once more, or of a claim that is another."""
        answers = [
            Message(
                workflow_id=task.workflow_id,
                generation=task.generation,
                kind="step",
                name=task.step,
                payload=b"done",
                task=(task.number, task.claim - stale),
            )
            for task in tasks
        ]
        assert self.store.send(answers, 7) == [self.model.send(message, 7) for message in answers]

    @invariant()
    def queues_read_as_in_the_model(self) -> None:
        """All that can be read of queues is what the model holds."""
        store, model = self.store, self.model
        if not store.has_queues:
            assert (store.queues(), store.tasks_of(1), store.notes(1)) == ([], [], {})
            return
        for number in model.made:
            found = store.tasks_of(number)
            model.queues.number(number, found)
            assert found == model.queues.tasks_of(number)
            assert store.notes(number) == model.queues.notes(number)
        states, stats = model.queues.states(), store.stats()
        assert store.queues() == states
        assert store.queues(ages=False) == [attrs.evolve(state, oldest_us=None) for state in states]
        tasks = sum(state.waiting + state.at_work for state in states if state.kind == "step")
        assert (stats["queues"], stats["tasks"]) == (len(states), tasks)
