"""What every store that has queues promises of their order, their limits and the places of runs: the second part of
what `BackendContract` says of queues.
"""

from __future__ import annotations

from dalsegno.core.queues import LOOK_THROUGH, Place, Queue, QueueState, Rate
from dalsegno.core.store import Message, Sent, Status
from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step
from dalsegno.testing.task_promises import TaskPromises, answer, places, put, take, task

SECOND = 1_000_000


class QueuePromises(TaskPromises):
    """The order and the limits of queues, and places of runs in them."""

    # --- order -------------------------------------------------------------------------------------------------------

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

    # --- limits ------------------------------------------------------------------------------------------------------

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

    # --- places ------------------------------------------------------------------------------------------------------

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
