"""What every store that has queues promises of them: the part of `BackendContract` about tasks and places.

Where a store says that it has none (`has_queues`), these tests skip themselves.
"""

from __future__ import annotations

from typing import Any
from unittest import SkipTest

from dalsegno.core.errors import BadOption
from dalsegno.core.queues import LOOK_THROUGH, NewTask, Place, Queue, QueueState, Rate, Task
from dalsegno.core.store import Backend, Message, Refusal, RunRecord, Sent, Status
from dalsegno.testing.run_promises import RunPromises, apply, begin, end, new_run, raises, refused, signal, step

SECOND = 1_000_000


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


class QueuePromises(RunPromises):
    """Tasks, places, their order and their limits."""

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

    # --- tasks -----------------------------------------------------------------------------------------------------

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

    # --- order -----------------------------------------------------------------------------------------------------

    def test_higher_priority_goes_first(self) -> None:
        """Among equal ones, of one key, they go as they came."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1"), task("2", priority=1), task("3", priority=-1), task("4"), task("5", priority=1))
            assert (take(store, 3), take(store)) == (["2", "5", "1"], ["4", "3"])

    def test_keys_take_turns(self) -> None:
        """A key with many tasks delays one with a single task by one place, whenever that one comes."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, *(task(f"a{n}", key="a") for n in range(6)), task("b", key="b"))
            assert take(store, 3) == ["a0", "b", "a1"]
            put(store, run, task("c", key="c"))
            assert take(store) == ["a2", "c", "a3", "a4", "a5"]

    def test_a_key_is_forgotten_with_its_last(self) -> None:
        """When nothing of a key is there, its turns do not count against it."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, *(task(f"a{n}", key="a") for n in range(3)))
            for one in store.take(["q"], "w", 3, 10):
                answer(store, one)
            put(store, run, task("b0", key="b"), task("b1", key="b"), task("a", key="a"))
            assert take(store) == ["b0", "a", "b1"]

    def test_queues_are_served_as_they_are_named(self) -> None:
        """The first that is named goes first, as far as it has something; others are left alone."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1", queue="r"), task("2"), task("3", queue="other"), task("4"))
            assert take(store, 1, queues=["q", "r", "q"]) == ["2"]
            assert take(store, queues=["q", "nothing", "r"]) == ["4", "1"]
            assert (take(store, 0, queues=["other"]), take(store, queues=[])) == ([], [])

    def test_a_worker_takes_the_steps_it_knows(self) -> None:
        """Others stay where they are; for those that nobody who asks knows, it does not look for ever."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1", name="ship"), task("2"), task("3", name="ship"))
            assert take(store, steps=["pay", "é"]) == ["2"]
            assert (take(store, steps=[]), take(store, steps={"ship"})) == ([], ["1", "3"])
            put(store, run, *(task(f"u{n}", name="unknown") for n in range(LOOK_THROUGH + 1)), task("last"))
            assert take(store, steps=["pay"]) == []
            assert len(take(store, 1)) == 1

    def test_what_is_to_wait_stands_aside(self) -> None:
        """Until its time; then it enters behind the others, those that are due by their times."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1", not_before_us=30), task("2", not_before_us=20), task("3"), task("4"))
            assert take(store, 1, now_us=19) == ["3"]
            assert places(store) == {"q": (3, 1)}
            assert take(store, now_us=29) == ["4", "2"]
            assert (take(store, now_us=29), take(store, now_us=30)) == ([], ["1"])

    def test_a_clock_that_goes_back_undoes_nothing(self) -> None:
        """A time before that of the last taking counts as that."""
        with self._with_queues() as store:
            run = begin(store)
            put(store, run, task("1", not_before_us=20))
            assert take(store, now_us=20) == ["1"]
            put(store, run, task("2", not_before_us=15), task("3", not_before_us=21))
            assert (take(store, now_us=3), take(store, now_us=21)) == (["2"], ["3"])

    # --- limits ----------------------------------------------------------------------------------------------------

    def test_no_more_are_at_work_than_may_be(self) -> None:
        """`concurrency` counts over all workers, and what is given out again counts no more."""
        with self._with_queues() as store:
            store.declare([Queue("q", concurrency=2)])
            run = begin(store)
            put(store, run, *(task(str(n), key=str(n)) for n in range(5)))
            (one,) = store.take(["q"], "w", 1, 10)
            (two,) = store.take(["q"], "v", 5, 10)
            assert take(store) == []
            answer(store, two)
            assert take(store) == ["2"]
            store.give_back([(one.number, one.claim)], "w")
            assert (take(store), take(store)) == (["0"], [])
            store.declare([Queue("q", concurrency=1)])
            assert take(store) == []
            store.declare([Queue("q")])
            assert take(store) == ["3", "4"]

    def test_no_more_of_a_key_are_at_work_than_may_be(self) -> None:
        """The rest stand behind it, by priority, and one enters the line when one has ended."""
        with self._with_queues() as store:
            store.declare([Queue("q", per_key=1)])
            run = begin(store)
            put(store, run, task("a0", key="a"), task("a1", key="a"), task("a2", key="a", priority=1))
            put(store, run, task("b0", key="b"), task("b1", key="b"))
            one, two = store.take(["q"], "w", 9, 10)
            assert (one.step, two.step, take(store), places(store)) == ("a0", "b0", [], {"q": (3, 2)})
            answer(store, one)
            assert (take(store), take(store)) == (["a2"], [])
            store.declare([Queue("q", per_key=2)])
            assert take(store) == ["a1", "b1"]
            assert store.check() == []

    def test_no_more_are_begun_than_the_rate_allows(self) -> None:
        """A bucket of tokens: full after a calm, and filled evenly; a clock that goes back fills nothing."""
        with self._with_queues() as store:
            store.declare([Queue("q", rate=Rate(count=2, per=1.0))])
            run = begin(store)
            put(store, run, *(task(str(n)) for n in range(9)))
            at = 100 * SECOND
            assert (take(store, now_us=at), take(store, now_us=at + 499_999)) == (["0", "1"], [])
            assert take(store, now_us=at + SECOND // 2) == ["2"]
            assert take(store, now_us=at) == []
            assert take(store, now_us=at + SECOND) == ["3"]
            assert take(store, now_us=at + 60 * SECOND) == ["4", "5"]
            assert take(store, now_us=at + 60 * SECOND) == []
            store.declare([Queue("q", concurrency=99, rate=Rate(count=2, per=1))])
            assert take(store, now_us=at + 60 * SECOND) == []
            store.declare([Queue("q")])
            assert take(store, now_us=at + 60 * SECOND) == ["6", "7", "8"]

    def test_what_was_declared_holds_for_all(self) -> None:
        """The last word counts, over handles; declaring the same again writes nothing."""
        store = self._with_queues()
        first = Queue("q", concurrency=3, per_key=2, rate=Rate(count=5, per=60))
        store.declare([first, Queue("long name " * 20)])
        store = self._reopened(store)
        changes = store.changes()
        store.declare([first])
        assert store.changes() == changes
        second = Queue("q", concurrency=1)
        store.declare([second])
        states = [(state.kind, state.limits) for state in store.queues()]
        assert states == [(kind, limits) for limits in (Queue("long name " * 20), second) for kind in ("run", "step")]
        store.close()

    def test_queues_tell_how_they_stand(self) -> None:
        """By name; how many wait, wherever they stand, how many are at work, and since when the oldest waits."""
        with self._with_queues() as store:
            store.declare([Queue("q", per_key=1)])
            run = begin(store)
            put(store, run, task("1", at_us=7), task("2", at_us=8), task("3", at_us=6, not_before_us=99))
            put(store, run, task("4", queue="b", at_us=3))
            take(store, 1)
            step_of = {state.name: state for state in store.queues() if state.kind == "step"}
            assert [state.name for state in store.queues()] == ["b", "q", "q"]
            limits = Queue("q", per_key=1)
            assert [state.oldest_us for state in store.queues(ages=False)] == [None] * 3
            assert step_of["q"] == QueueState(kind="step", limits=limits, waiting=2, at_work=1, oldest_us=6, next_us=99)
            assert step_of["b"] == QueueState(kind="step", limits=Queue("b"), waiting=1, at_work=0, oldest_us=3)
            assert (store.stats()["tasks"], store.stats()["queues"]) == (4, 3)

    def test_a_queue_tells_when_to_look_again(self) -> None:
        """When time alone lets the next one go: the first of those aside is due, or a token comes."""
        with self._with_queues() as store:

            def next_us() -> int | None:
                return next(state.next_us for state in store.queues(ages=False) if state.kind == "step")

            run = begin(store)
            put(store, run, task("1", not_before_us=3 * SECOND), task("2", not_before_us=2 * SECOND))
            assert next_us() == 2 * SECOND
            put(store, run, task("3"))
            assert next_us() is None
            assert take(store, 1, now_us=SECOND) == ["3"]
            assert next_us() == 2 * SECOND
            store.declare([Queue("q", rate=Rate(count=1, per=4.0))])
            assert take(store, now_us=2 * SECOND) == ["2"]
            assert next_us() == 6 * SECOND
            store.declare([Queue("q", concurrency=2)])
            assert next_us() is None

    # --- owners ----------------------------------------------------------------------------------------------------

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

    # --- places ----------------------------------------------------------------------------------------------------

    def test_a_run_with_a_place_waits_to_be_let_in(self) -> None:
        """It is not active, nothing announces it and nobody can claim it, until `admit` wakes it."""
        with self._with_queues() as store:
            store.declare([Queue("q", concurrency=1)])
            one, two = (begin(store, name, owner="", place=Place(queue="q")) for name in ("one", "two"))
            assert (one.queue, one.queued, one.active, one.owner, one.epoch) == ("q", True, False, "", 0)
            assert (store.active(), store.news(), store.claim([one.number], "here")) == ([], [], [])
            assert store.send([signal("one")], 5) == [(Sent.ACCEPTED, one.number)]
            assert store.admit(["q", "r"], 9, 20) == [one.number]
            assert store.admit(["q"], 9, 20) == []
            assert [message.kind for message in store.inbox(one.number)] == ["signal", "wake"]
            (claimed,) = store.claim([one.number, two.number], "here")
            assert (claimed.queue, claimed.queued, claimed.active, claimed.epoch) == ("q", False, True, 1)
            assert store.active() == [one.number]
            (state,) = (state for state in store.queues() if state.kind == "run")
            assert (state.waiting, state.at_work, state.oldest_us) == (1, 1, two.created_at_us)
            seen = store.inbox(one.number)[-1].seq
            apply(store, end(claimed, seen=seen))
            ended = store.record(one.number)
            assert ended is not None
            assert (ended.queue, ended.queued) == ("", False)
            assert (store.admit(["q"], 9, 20), store.check()) == ([two.number], [])

    def test_places_have_the_order_and_limits_of_tasks(self) -> None:
        """Priority, turns of keys, a time to wait for, and what may be of a key."""
        with self._with_queues() as store:
            store.declare([Queue("q", per_key=1)])
            asked = {"a": ("k", 0, 0), "b": ("k", 5, 0), "c": ("l", 9, 0), "d": ("m", 0, 50)}
            for name, (key, priority, not_before_us) in asked.items():
                begin(store, name, place=Place(queue="q", key=key, priority=priority, not_before_us=not_before_us))

            def admit(limit: int, now_us: int) -> list[str]:
                records = map(store.record, store.admit(["q"], limit, now_us))
                return [record.workflow_id for record in records if record is not None]

            assert (admit(1, 10), admit(9, 10), admit(9, 49), admit(9, 50)) == (["c"], ["a"], [], ["d"])
            (claimed,) = store.claim([found.number for found in [store.find("a")] if found], "here")
            apply(store, end(claimed, seen=2**40))
            assert admit(9, 50) == ["b"]

    def test_queues_of_steps_and_of_runs_are_two(self) -> None:
        """One name, two queues, each with the limits declared for it."""
        with self._with_queues() as store:
            store.declare([Queue("q", concurrency=1, rate=Rate(count=1, per=60))])
            run = begin(store)
            put(store, run, task())
            waiting = begin(store, "two", place=Place(queue="q"))
            assert (take(store), store.admit(["q"], 9, 10)) == (["1"], [waiting.number])

    def test_cancelling_a_waiting_run_takes_it_out(self) -> None:
        """It has no place any more, can be claimed, and is news; its key and its `dedup` are free."""
        with self._with_queues() as store:
            store.declare([Queue("q", per_key=1)])
            for kind in ("cancel", "terminate"):
                one = begin(store, f"one {kind}", place=Place(queue="q", key=kind, dedup=kind))
                two = begin(store, f"two {kind}", place=Place(queue="q", key=kind))
                store.send([Message(workflow_id=one.workflow_id, kind="pause")], 5)
                assert store.admit(["q"], 0, 10) == []
                store.send([Message(workflow_id=one.workflow_id, kind=kind)], 5)
                assert [run for _, run in store.news()].count(one.number) == 2
                (claimed,) = store.claim([one.number, two.number], "here")
                assert (claimed.number, claimed.queue, claimed.queued) == (one.number, "", False)
                (created,) = store.create(
                    [new_run(f"three {kind}", place=Place(queue="q", key=f"not {kind}", dedup=kind))]
                )
                assert created.new
                assert store.admit(["q"], 9, 10) == [created.record.number, two.number]
            assert store.check() == []

    def test_a_place_is_had_once(self) -> None:
        """While an open run of a queue has a `dedup`, creating another answers that one; then it is free."""
        with self._with_queues() as store:
            place = Place(queue="q", dedup="day 1")
            first = begin(store, "one", place=place)
            (again,) = store.create([new_run("two", place=place)])
            assert (again.record.number, again.new) == (first.number, False)
            assert store.find("two") is None
            begin(store, "three", place=Place(queue="r", dedup="day 1"))
            begin(store, "four", place=Place(queue="q", dedup="day 2"))
            begin(store, "five", place=Place(queue="q"))
            assert store.admit(["q"], 1, 10) == [first.number]
            assert not store.create([new_run("two", place=place)])[0].new
            (claimed,) = store.claim([first.number], "here")
            apply(store, end(claimed, seen=2**40))
            two, same = store.create([new_run("two", place=place), new_run("six", place=place)])
            assert (two.new, same.new, same.record.number) == (True, False, two.record.number)
            assert store.check() == []

    def test_a_continuation_has_the_place_of_the_run_before(self) -> None:
        """At work, with its `dedup`; nobody else is let in meanwhile."""
        with self._with_queues() as store:
            store.declare([Queue("q", concurrency=1)])
            place = Place(queue="q", dedup="d")
            one, two = begin(store, place=place), begin(store, "two", place=Place(queue="q"))
            assert store.admit(["q"], 1, 10) == [one.number]
            (claimed,) = store.claim([one.number], "here")
            following = end(claimed, seen=2**40, status=Status.CONTINUED, continued=new_run())
            (now,) = apply(store, following).created
            assert (now.queue, now.queued, now.active, now.epoch) == ("q", False, True, 1)
            assert (store.admit(["q"], 1, 10), store.create([new_run("x", place=place)])[0].record) == ([], now)
            apply(store, end(now))
            assert (store.admit(["q"], 1, 10), store.check()) == ([two.number], [])

    def test_a_child_waits_in_its_queue(self) -> None:
        """A run that another creates has a place like any."""
        with self._with_queues() as store:
            run = begin(store)
            child = new_run("child", parent=("order-1", 1, "3"), place=Place(queue="q", dedup="d"))
            second = new_run("second", parent=("order-1", 1, "4"), place=Place(queue="q", dedup="d"))
            created = apply(store, step(run, 1, b"e", children=(child, second))).created
            assert [(record.queued, record.active) for record in created] == [(True, False)] * 2
            assert store.admit(["q"], 9, 10) == [record.number for record in created]
            assert store.check() == []

    def test_queues_last(self) -> None:
        """What was acknowledged is there after reopening: limits, lines, tasks at work, places, notes."""
        store = self._with_queues()
        run = begin(store)
        store.declare([Queue("q", per_key=1)])
        put(store, run, task("1"), task("2"), task("3", queue="r", not_before_us=99))
        begin(store, "two", place=Place(queue="q"))
        store.note(run.number, run.epoch, {"1": b"x"})
        store.take(["q"], "w", 1, 10)
        before = store.queues(), store.tasks_of(run.number), store.notes(run.number)
        store = self._reopened(store)
        assert (store.queues(), store.tasks_of(run.number), store.notes(run.number)) == before
        assert store.check() == []
        store.close()
