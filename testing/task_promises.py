"""What every store that has queues promises of tasks: the first part of what `BackendContract` says of queues.

Where a store says that it has none (`has_queues`), these tests skip themselves. The functions with which they say what
they do stand here.
"""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from dalsegno.core.errors import BadOption
from dalsegno.core.queues import NewTask, Queue, Task
from dalsegno.core.store import Backend, Message, Refusal, RunRecord, Sent
from dalsegno.testing.run_promises import RunPromises, apply, begin, end, raises, refused, step


def task(step: str = "1", **changes: Any) -> NewTask:
    """A task of the step with this id."""
    given: dict[str, Any] = {"queue": "q", "name": "pay", "attempt": 1, "payload": b"call", "at_us": 5}
    return NewTask(step=step, **{**given, **changes})


def put(store: Backend, run: RunRecord, *tasks: NewTask) -> list[Task]:
    """Put tasks on their queues; all that the run then has."""
    apply(store, step(run, store.head(run.number), tasks=tasks))
    return store.tasks_of(run.number)


def take(store: Backend, limit: int = 100, owner: str = "w", now_us: int = 10, **asked: Any) -> list[str]:
    """Take from the queue "q"; the ids of the steps."""
    return [one.step for one in store.take(asked.pop("queues", ["q"]), owner, limit, now_us, **asked)]


def outcome(one: Task, payload: bytes = b"done", **changes: Any) -> Message:
    """The outcome of a task as whoever took it sends it."""
    given: dict[str, Any] = {"kind": "step", "name": one.step, "payload": payload, "task": (one.number, one.claim)}
    return Message(workflow_id=one.workflow_id, generation=one.generation, **{**given, **changes})


def answer(store: Backend, one: Task) -> Sent:
    """Send the outcome of a task."""
    ((sent, _),) = store.send([outcome(one)], 9)
    return sent


def places(store: Backend) -> dict[str, tuple[int, int]]:
    """How many wait and are at work, of each queue of steps."""
    return {state.name: (state.waiting, state.at_work) for state in store.queues() if state.kind == "step"}


class TaskPromises(RunPromises):
    """Tasks, what becomes of them, and who has them."""

    def _with_queues(self) -> Backend:
        store = self.open_backend()
        if not store.has_queues:
            store.close()
            raise SkipTest("a store of this kind keeps no queues")
        return store

    def test_a_store_without_queues_says_so(self) -> None:
        """It has nothing to take, and refuses limits and notes."""
        with self.open_backend() as store:
            if store.has_queues:
                raise SkipTest("this store keeps queues")
            run = begin(store)
            assert (store.queues(), store.tasks_of(run.number), store.notes(run.number)) == ([], [], {})
            assert store.take(["q"], "w", 1, 1) == [] == store.admit(["q"], 1, 1)
            with raises(BadOption):
                store.declare([Queue("q")])
            with raises(BadOption):
                store.note(run.number, run.epoch, {"1": b"x"})

    # --- tasks -------------------------------------------------------------------------------------------------------

    def test_a_task_is_there_as_it_was_put(self) -> None:
        """All that was said of a task comes back, before and after it was taken, and the run answers for it."""
        with self._with_queues() as store:
            run = begin(store)
            new = task(key="é", priority=-7, timeout_us=9, once=True, payload=b"\0" * 9000, attempt=3, at_us=-4)
            (found,) = put(store, run, new)
            facts: dict[str, Any] = {
                "number": found.number,
                "run": run.number,
                "workflow_id": run.workflow_id,
                "generation": 1,
            }
            named = {name: getattr(new, name) for name in ("queue", "step", "name", "attempt", "payload", "key")}
            more = {name: getattr(new, name) for name in ("priority", "timeout_us", "once", "at_us")}
            assert found == Task(**facts, **named, **more)
            (taken,) = store.take(["q"], "w", 5, 10)
            assert (taken.owner, taken.claim, taken.number) == ("w", 1, found.number)
            assert store.tasks_of(run.number) == [taken]
            assert store.take(["q"], "other", 5, 10) == []
            assert store.check() == []

    def test_a_step_has_one_task(self) -> None:
        """A second task for a step changes nothing, whoever puts it; after the first has ended there may be another."""
        with self._with_queues() as store:
            run = begin(store)
            (first,) = put(store, run, task(payload=b"first"), task(payload=b"second", queue="r"))
            assert put(store, run, task(payload=b"third", priority=9)) == [first]
            (taken,) = store.take(["q", "r"], "w", 5, 10)
            assert (taken.payload, answer(store, taken)) == (b"first", Sent.ACCEPTED)
            (second,) = put(store, run, task(payload=b"fourth", attempt=2))
            assert (second.payload, second.attempt) == (b"fourth", 2)
            assert second.number > first.number

    def test_tasks_of_a_run_come_in_their_order(self) -> None:
        """Those that are wanted, by number, whatever their ids and priorities are."""
        with self._with_queues() as store:
            run, other = begin(store), begin(store, "other")
            put(store, run, task("9"), task("10", priority=5))
            put(store, other, task("1"))
            put(store, run, task("1" * 700), task("0"))
            found = store.tasks_of(run.number)
            assert [one.step for one in found] == ["9", "10", "1" * 700, "0"]
            assert sorted(one.number for one in found) == [one.number for one in found]
            assert store.tasks_of(10**6) == []

    def test_a_refused_transition_puts_no_task(self) -> None:
        """What is refused leaves nothing on a queue."""
        with self._with_queues() as store:
            run = begin(store)
            refused(store, step(run, 7, tasks=(task(),)))
            assert (store.tasks_of(run.number), store.queues(), take(store)) == ([], [], [])

    def test_an_outcome_goes_to_the_inbox_once(self) -> None:
        """It ends its task; said again, it goes nowhere, and so does that of a claim that never was."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task())
            (taken,) = store.take(["q"], "w", 1, 10)
            wrong = outcome(taken, task=(taken.number, taken.claim + 1))
            missing = outcome(taken, task=(taken.number + 1000, taken.claim))
            assert store.send([wrong, missing], 9) == [(Sent.CLOSED, run.number)] * 2
            assert [answer(store, taken), answer(store, taken)] == [Sent.ACCEPTED, Sent.CLOSED]
            (message,) = store.inbox(run.number)
            assert (message.kind, message.name, message.payload) == ("step", "1", b"done")
            assert (store.tasks_of(run.number), places(store)) == ([], {})

    def test_an_outcome_of_a_claim_before_is_refused(self) -> None:
        """Once somebody else has taken a task, only his outcome counts; until then, that of the one who had it."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1"), task("2"))
            one, two = store.take(["q"], "w", 2, 10)
            store.give_back([(one.number, one.claim), (two.number, two.claim)], "w")
            (again,) = store.take(["q"], "v", 1, 10)
            assert (again.number, again.claim, again.deaths) == (one.number, 2, 0)
            assert [answer(store, one), answer(store, two), answer(store, again)] == [
                Sent.CLOSED,
                Sent.ACCEPTED,
                Sent.ACCEPTED,
            ]
            assert (store.tasks_of(run.number), places(store), store.check()) == ([], {}, [])

    def test_a_dropped_task_that_waits_is_gone(self) -> None:
        """Nobody takes it any more, and its place is free for another of its key."""
        with self._with_queues() as store:
            store.declare([Queue("q", per_key=1)])
            run = begin(store)
            put(store, run, task("1"), task("2"), task("3", not_before_us=10**9))
            apply(store, step(run, 1, tasks_dropped=("1", "3", "nothing")))
            assert [one.step for one in store.tasks_of(run.number)] == ["2"]
            assert (take(store), places(store)) == (["2"], {"q": (0, 1)})

    def test_a_dropped_task_at_work_keeps_its_place(self) -> None:
        """It is cancelled, and not its run's any more; its place is free when its owner has answered, which nobody
        hears."""
        with self._with_queues() as store:
            store.declare([Queue("q", concurrency=1)])
            run = begin(store)
            put(store, run, task("1"), task("2"))
            (taken,) = store.take(["q"], "w", 5, 10)
            apply(store, step(run, 1, tasks_dropped=("1",)))
            assert [one.step for one in store.tasks_of(run.number)] == ["2"]
            assert (store.beat("w", {taken.number: b"late"}), store.notes(run.number)) == ([], {})
            assert (take(store), places(store)) == ([], {"q": (1, 1)})
            assert put(store, run, task("1", attempt=2))[1].attempt == 2  # nobody is in the way of another attempt
            assert answer(store, taken) is Sent.CLOSED
            assert (take(store, 1), places(store), store.inbox(run.number)) == (["2"], {"q": (1, 1)}, [])
            assert store.check() == []

    def test_a_task_is_withdrawn_only_while_it_waits(self) -> None:
        """Once it has begun or has ended the transition is refused, with all that is in it."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1"), task("2"))
            (taken,) = store.take(["q"], "w", 1, 10)
            for steps in (("1",), ("2", "1"), ("9",)):
                why = refused(store, step(run, 1, b"e", tasks_withdrawn=steps, tasks_dropped=("2",)))
                assert (why.why, why.detail) == (Refusal.TASK, steps[-1])
            assert (len(store.tasks_of(run.number)), store.head(run.number)) == (2, 1)
            apply(store, step(run, 1, b"e", tasks_withdrawn=("2",), tasks=(task("2", attempt=2),)))
            assert [one.attempt for one in store.tasks_of(run.number)] == [1, 2]
            answer(store, taken)
            assert refused(store, step(run, 2, tasks_withdrawn=("1",))).why is Refusal.TASK

    def test_closing_a_run_drops_all_that_is_its_own(self) -> None:
        """Tasks that wait go, one at work keeps its place until it is answered, notes are forgotten."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1"), task("2"), task("3", not_before_us=10**9))
            (taken,) = store.take(["q"], "w", 1, 10)
            assert store.note(run.number, run.epoch, {"1": b"half"})
            apply(store, end(run))
            assert (store.tasks_of(run.number), store.notes(run.number)) == ([], {})
            assert (places(store), take(store)) == ({"q": (0, 1)}, [])
            assert store.purge([run.number]) == 1
            assert places(store) == {"q": (0, 1)}
            assert store.send([outcome(taken)], 9) == [(Sent.CLOSED, 0)]
            assert (places(store), store.check()) == ({}, [])

    # --- owners ------------------------------------------------------------------------------------------------------

    def test_what_is_given_back_stands_where_it_stood(self) -> None:
        """Before those that came after it; only its owner can give it back, and only the claim he has."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, *(task(str(n)) for n in range(3)))
            one, two = store.take(["q"], "w", 2, 10)
            store.give_back([(one.number, one.claim), (two.number, two.claim)], "thief")
            store.give_back([(one.number, one.claim + 1), (10**6, 1)], "w")
            assert places(store) == {"q": (1, 2)}
            store.give_back([(two.number, two.claim), (one.number, one.claim)], "w")
            again = store.take(["q"], "v", 9, 10)
            assert [(task.step, task.claim, task.deaths) for task in again] == [("0", 2, 0), ("1", 2, 0), ("2", 1, 0)]

    def test_tasks_of_a_lease_that_ends_are_in_line_again(self) -> None:
        """In the same commit, in the place they had, with a death more; cancelled ones are gone."""
        with self._with_queues() as store:
            if not store.several:
                raise SkipTest("one engine at a time can work on a store of this kind")
            run = begin(store)
            put(store, run, *(task(str(n)) for n in range(5)))
            for owner in ("w", "v"):
                store.join(owner, 1000, 7)
            store.take(["q"], "w", 2, 10)
            (kept,) = store.take(["q"], "v", 1, 10)
            apply(store, step(run, 1, tasks_dropped=("1",)))
            (lease,) = (lease for lease in store.leases() if lease.owner == "w")
            assert store.expire(lease)
            assert places(store) == {"q": (3, 1)}
            assert store.beat("v", {}) == [kept.number]
            again = store.take(["q"], "v", 9, 10)
            assert [(task.step, task.claim, task.deaths) for task in again] == [("0", 2, 1), ("3", 1, 0), ("4", 1, 0)]
            assert store.leave("v")
            assert [one.deaths for one in store.tasks_of(run.number)] == [2, 1, 1, 1]
            assert (places(store), store.check()) == ({"q": (4, 0)}, [])

    def test_who_holds_a_store_gets_the_tasks_of_those_before(self) -> None:
        """Whoever had tasks is gone when another has the store for himself."""
        store = self._with_queues()
        store.hold("before")
        run = begin(store)
        put(store, run, task())
        assert take(store, owner="before") == ["1"]
        store = self._reopened(store)
        store.hold("after")
        (one,) = store.tasks_of(run.number)
        assert (one.owner, one.deaths, take(store, owner="after")) == ("", 1, ["1"])
        store.hold("after")
        assert store.tasks_of(run.number)[0].owner == "after"
        store.close()

    def test_a_beat_tells_what_is_wanted(self) -> None:
        """And keeps the details, which the next attempt reads; without any it writes nothing."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1"), task("2" * 700), task("3"))
            one, two = store.take(["q"], "w", 2, 10)
            (other,) = store.take(["q"], "v", 1, 10)
            details = {two.number: b"half", other.number: b"not mine", 10**6: b"nothing"}
            assert sorted(store.beat("w", details)) == [one.number, two.number]
            assert store.notes(run.number) == {two.step: b"half"}
            changes = store.changes()
            assert sorted(store.beat("w", {})) == [one.number, two.number]
            assert (store.beat("nobody", {one.number: b"x"}), store.changes()) == ([], changes)
            store.give_back([(two.number, two.claim)], "w")
            (again,) = store.take(["q"], "v", 1, 10)
            assert (again.step, again.details) == (two.step, b"half")
            answer(store, again)
            assert store.notes(run.number) == {two.step: b"half"}
            assert put(store, run, task(two.step))[2].details == b"half"

    def test_notes_are_kept_by_step(self) -> None:
        """Over what was kept before, empty ones forgotten; only for the epoch that holds the run."""
        with self._with_queues() as store:
            run = begin(store)
            assert store.note(run.number, run.epoch, {"1": b"a", "2": b"b" * 9000})
            assert store.note(run.number, run.epoch, {"1": b"c", "3" * 700: b"d", "2": b""})
            assert not store.note(run.number, run.epoch + 1, {"1": b"no"})
            assert not store.note(10**6, 1, {"1": b"no"})
            assert store.notes(run.number) == {"1": b"c", "3" * 700: b"d"}
            apply(store, end(run))
            assert not store.note(run.number, run.epoch, {"1": b"no"})
            assert (store.notes(run.number), store.notes(10**6), store.check()) == ({}, {}, [])
