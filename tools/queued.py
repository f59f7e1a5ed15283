"""What queues have to do with a run's waiting: its own place, the steps of it that are out, and what holds them there.

A store knows who has taken a task, how much is at work, and what was declared. It does not know which queues a worker
serves, or how many hands it has; so where nothing else holds a task, both are named as what may be the reason. Pure,
like `explaining`, of which this is a part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from dalsegno.core.queues import QueueState, Task
from dalsegno.core.store import Backend, Lease, RunRecord
from dalsegno.tools.queues import queue_data
from dalsegno.tools.text import clock, duration, iso


@attrs.frozen
class Look:
    """What the queues of a store say of a run. `states` are those it is about, by kind and name; `leases` of all."""

    tasks: Sequence[Task] = ()
    states: Mapping[tuple[str, str], QueueState] = attrs.field(factory=dict)
    leases: Mapping[str, Lease] = attrs.field(factory=dict)
    now_us: int = 0

    @classmethod
    def at(cls, store: Backend, record: RunRecord, leases: Mapping[str, Lease], now_us: int) -> Look:
        """Look. A run that has ended has nothing there, and is not asked for."""
        if not store.has_queues or not record.status.open:
            return cls(now_us=now_us)
        tasks = store.tasks_of(record.number)
        if not tasks and not record.queued:
            return cls(now_us=now_us)
        states: dict[tuple[str, str], QueueState] = {
            (state.kind, state.name): state for state in store.queues(ages=False)
        }
        return cls(tasks, states, leases, now_us)

    def lives(self, owner: str) -> bool:
        """Whether a worker has renewed its lease in time, as far as the clocks of both agree, and lives."""
        lease = self.leases.get(owner)
        return lease is not None and not lease.ended and self.now_us - lease.renewed_us <= lease.length_us

    @property
    def living(self) -> int:
        """How many workers that share the store live."""
        return sum(map(self.lives, self.leases))

    def task_of(self, step: str) -> Task | None:
        """The task of a step, by the command's id."""
        return next((task for task in self.tasks if task.step == step), None)

    # --- in words ----------------------------------------------------------------------------------------------------

    def sentences(self, record: RunRecord) -> list[str]:
        """That a run has not begun, and what holds it, or its steps, in the queues they wait in."""
        said = [f"It has not begun: it waits in queue {record.queue!r} to be let in."] if record.queued else []
        for kind, name in self._waiting(record):
            of = "runs" if kind == "run" else "steps"
            said.append(f"In queue {name!r}, of {of}, {self.holds(self.states.get((kind, name)))}.")
        return said

    def _waiting(self, record: RunRecord) -> list[tuple[str, str]]:
        """The queues in which something of the run waits, each once."""
        names = [("run", record.queue)] if record.queued else []
        return list(dict.fromkeys([*names, *(("step", task.queue) for task in self.tasks if not task.owner)]))

    def task(self, task: Task, dated: bool = False) -> str:
        """Where a task is."""
        about = [f"since {clock(task.at_us)[:19]}, {duration(max(self.now_us - task.at_us, 0))} ago"] if dated else []
        about += [f"key {task.key!r}"] if task.key else []
        about += [f"priority {task.priority}"] if task.priority else []
        about += [f"attempt {task.attempt}"] if task.attempt > 1 else []
        said = f"at queue {task.queue!r}" + (f" ({', '.join(about)})" if about else "")
        if not task.owner:
            said += ", and no worker has taken it"
        elif self.lives(task.owner):
            said += f", at work at {task.owner}, whose lease is valid"
        else:
            said += f", and {task.owner} took it, whose lease has ended or run out: others put it back in line"
        return said + (f"; {task.deaths} of its workers died at it" if task.deaths else "")

    def holds(self, state: QueueState | None) -> str:
        """What keeps the next of a queue from going, as far as the store tells."""
        if state is None:
            return "something has just changed"
        at_work = f"{state.at_work:,} {'is' if state.at_work == 1 else 'are'} at work" if state.at_work else "none is"
        there = f"{state.waiting:,} wait{'s' * (state.waiting == 1)} and {at_work}"
        there += " at work" if not state.at_work else ""
        alive = f"{self.living} worker{'s' * (self.living != 1)} alive"
        if self._deserted(state):
            return f"{there}: no worker that shares this store is alive"
        if is_full(state):
            return f"{there}, which is its limit"
        if state.next_us is not None and state.next_us > self.now_us:
            why = "its rate, or a delay," if state.limits.rate is not None else "a delay"
            return f"{there}: {why} lets the next one go in {duration(state.next_us - self.now_us)}"
        if not state.at_work:
            return f"{there}: of the {alive}, none serves it, knows the code and has room"
        keys = ", the limit of a key is reached" if state.limits.per_key is not None else ""
        return f"{there}: others go before{keys}, or none of the {alive} that serves it has room"

    def _deserted(self, state: QueueState) -> bool:
        return not self.living and not state.at_work

    # --- what would help ---------------------------------------------------------------------------------------------

    def remedies(self, record: RunRecord) -> list[tuple[str, tuple[str, ...]]]:
        """What would make those go on that nobody has taken, each with the words of a command."""
        found: dict[str, tuple[str, ...]] = {}
        for kind, name in self._waiting(record):
            state = self.states.get((kind, name))
            if state is None:
                continue
            if is_full(state) and state.limits.concurrency is not None:
                more = f"{name}=concurrency:{2 * state.limits.concurrency}"
                what = f"wait until one of those at work ends, or let more of {name!r} be at work"
                found[what] = ("dalsegno", "queues", "--set", more)
            elif not state.at_work and (state.next_us is None or state.next_us <= self.now_us or not self.living):
                found[f"start a worker that serves the queue {name!r}"] = ("dalsegno", "worker", "--queue", name)
            else:
                found[f"look whether the queue {name!r} moves"] = ("dalsegno", "queues", name)
        return list(found.items())

    # --- as data -----------------------------------------------------------------------------------------------------

    def data(self, record: RunRecord) -> dict[str, Any]:
        """What `why --json` prints of it."""
        state = self.states.get(("run", record.queue)) if record.queued else None
        return {
            "queue": None if state is None else {**queue_data(state), "holds": self.holds(state)},
            "tasks": [self._task_data(task) for task in self.tasks],
            "workers": self.living,
        }

    def _task_data(self, task: Task) -> dict[str, Any]:
        return {
            "id": task.step,
            "name": task.name,
            "queue": task.queue,
            "key": task.key,
            "priority": task.priority,
            "attempt": task.attempt,
            "since": iso(task.at_us),
            "owner": task.owner,
            "lease_valid": self.lives(task.owner) if task.owner else None,
            "taken": task.claim,
            "deaths": task.deaths,
            "holds": "" if task.owner else self.holds(self.states.get(("step", task.queue))),
        }


def is_full(state: QueueState) -> bool:
    """Whether as many are at work as may be."""
    return state.limits.concurrency is not None and state.at_work >= state.limits.concurrency
