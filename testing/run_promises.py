"""What every store promises of its runs: how they are created, and how transitions change them.

The first half of `dalsegno.testing.backend_contract`, where the whole is explained; the functions with which its tests
say what they do stand here.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import SkipTest

from dalsegno.core.errors import BadOption
from dalsegno.core.store import (
    Applied,
    Backend,
    DueTimer,
    Message,
    NewRun,
    Refusal,
    Refused,
    RunRecord,
    Sent,
    Status,
    Transition,
)


@contextmanager
def raises(kind: type[BaseException]) -> Iterator[list[BaseException]]:
    """Asserts that the block raises `kind`; the error is then the one element of the list it gives."""
    caught: list[BaseException] = []
    try:
        yield caught
    except kind as error:
        caught.append(error)
    assert caught, f"{kind.__name__} was to be raised"


def new_run(workflow_id: str = "order-1", **changes: Any) -> NewRun:
    """A run to be created by the engine 'here', with one event."""
    given: dict[str, Any] = {"workflow": "fulfil", "events": (b"started",), "created_at_us": 1, "digest": b"same"}
    return NewRun(workflow_id=workflow_id, **{**given, "owner": "here", **changes})


def begin(store: Backend, workflow_id: str = "order-1", **changes: Any) -> RunRecord:
    """A new run in the store."""
    (created,) = store.create([new_run(workflow_id, **changes)])
    assert created.new
    return created.record


def step(run: RunRecord, head: int, *events: bytes, **changes: Any) -> Transition:
    """A transition of a run as its owner would make it."""
    return Transition(run=run.number, epoch=changes.pop("epoch", run.epoch), head=head, events=events, **changes)


def end(run: RunRecord, head: int = 1, status: Status = Status.COMPLETED, **changes: Any) -> Transition:
    """A transition that closes a run."""
    return step(run, head, b"ended", status=status, active=False, closed_at_us=9, **changes)


def signal(workflow_id: str = "order-1", payload: bytes = b"yes", **changes: Any) -> Message:
    """A signal for a run."""
    return Message(workflow_id=workflow_id, **{"kind": "signal", "name": "approval", "payload": payload, **changes})


def apply(store: Backend, transition: Transition) -> Applied:
    """Commit one transition, which must be accepted."""
    (verdict,) = store.commit([transition])
    assert isinstance(verdict, Applied), verdict
    return verdict


def refused(store: Backend, transition: Transition) -> Refused:
    """Commit one transition, which must be refused."""
    (verdict,) = store.commit([transition])
    assert isinstance(verdict, Refused), verdict
    return verdict


def everything(store: Backend, run: int) -> tuple[object, ...]:
    """All that a store knows of a run, to see that something left it alone."""
    timers = [timer for timer in store.due(2**60) if timer.run == run]
    return store.record(run), store.history(run), store.inbox(run), store.published(run), timers


class RunPromises(ABC):
    """Creating runs, applying transitions, adopting children."""

    @abstractmethod
    def open_backend(self) -> Backend:
        """Open the store of this test; empty at the first call."""

    def damage_event(self, store: Backend, run: int, index: int) -> None:
        """Flip a bit in a stored event, behind the store's back. Override it if you can."""
        raise SkipTest("this suite does not say how to damage an event")

    def _reopened(self, store: Backend) -> Backend:
        """The same store through another handle; where nothing outlives the last handle, that one comes first."""
        if store.survives_reopen:
            store.close()
            return self.open_backend()
        again = self.open_backend()
        store.close()
        return again

    # --- creating --------------------------------------------------------------------------------------------------

    def test_a_new_store_is_empty(self) -> None:
        """Nothing is there that nobody put there."""
        with self.open_backend() as store:
            assert store.runs() == []
            assert store.news() == []
            assert store.active() == []
            assert store.due(2**60) == []
            assert store.find("order-1") is None
            assert store.record(1) is None
            assert store.next_deadline_us() is None
            assert store.history(1) == []
            assert store.head(1) == 0
            assert store.inbox(1) == []
            assert store.published(1) == {}
            assert store.stats()["runs"] == 0
            assert store.check() == []

    def test_a_created_run_is_all_there(self) -> None:
        """Record, history, timers and published values of a new run are those it was created with."""
        parent = ("parent", 1, "3.2")
        with self.open_backend() as store:
            run = begin(
                store,
                events=(b"a", b"", b"c" * 3000),
                tags={"customer": "Ünal", "": ""},
                parent=parent,
                timers=((50, "2"),),
                published={"state": b"\0\xff", "": b""},
                restore=True,
            )
            assert (run.workflow_id, run.workflow, run.digest, run.created_at_us) == ("order-1", "fulfil", b"same", 1)
            assert (run.status, run.active, run.owner, run.restore) == (Status.RUNNING, True, "here", True)
            assert (dict(run.tags), run.parent, run.deaths) == ({"customer": "Ünal", "": ""}, parent, 0)
            assert store.record(run.number) == run == store.find("order-1")
            assert store.history(run.number) == [b"a", b"", b"c" * 3000]
            assert store.head(run.number) == 3
            assert store.due(50) == [DueTimer(50, run.number, "2")]
            assert store.published(run.number) == {"state": b"\0\xff", "": b""}

    def test_creating_again_answers_the_run_that_is_there(self) -> None:
        """An id that is taken answers its run and writes nothing, whatever else is asked for."""
        with self.open_backend() as store:
            run = begin(store)
            before = everything(store, run.number)
            again = [new_run(events=(b"other",), digest=b"other", on_conflict=way) for way in ("attach", "reject")]
            assert [(one.record, one.new) for one in store.create(again)] == [(run, False)] * 2
            assert everything(store, run.number) == before
            assert len(store.runs()) == 1

    def test_one_call_may_name_an_id_twice(self) -> None:
        """The second of two creations of one id in one commit finds the first."""
        with self.open_backend() as store:
            first, second = store.create([new_run(), new_run(digest=b"other")])
            assert (first.new, second.new) == (True, False)
            assert first.record == second.record

    def test_a_closed_run_is_followed_only_if_asked(self) -> None:
        """Only `restart_closed` makes the next generation of a closed run, and not of an open one."""
        with self.open_backend() as store:
            run = begin(store)
            assert [one.new for one in store.create([new_run(on_conflict="restart_closed")])] == [False]
            apply(store, end(run))
            assert [one.new for one in store.create([new_run(), new_run(on_conflict="reject")])] == [False, False]
            (second,) = store.create([new_run(on_conflict="restart_closed")])
            assert second.new
            assert second.record.generation == run.generation + 1
            assert second.record.number > run.number
            assert store.history(second.record.number) == [b"started"]
            assert store.find("order-1") == second.record
            assert store.find("order-1", run.generation) == store.record(run.number)
            assert store.find("order-1", run.generation + 2) is None

    def test_ids_of_every_kind_are_kept_apart(self) -> None:
        """Ids are any text up to 1,000 characters, and one that begins like another is another."""
        ids = ["a", "ab", "a#1", "a/../b", " ", "ä", "😀" * 1000, "x" * 1000, "x" * 999, "a\x01", "w\xff", "\uffff"]
        with self.open_backend() as store:
            made = store.create([new_run(one) for one in ids])
            assert [one.new for one in made] == [True] * len(ids)
            for workflow_id, one in zip(ids, made, strict=True):
                assert store.find(workflow_id) == one.record
                assert one.record.workflow_id == workflow_id

    def test_what_is_no_id_is_refused(self) -> None:
        """An empty id, one with NUL or half a surrogate pair, and one of over 1,000 characters create nothing."""
        with self.open_backend() as store:
            for workflow_id in ("", "a\0b", "\ud800", "x" * 1001):
                with raises(BadOption):
                    store.create([new_run("fine"), new_run(workflow_id)])
                assert store.find(workflow_id) is None
                assert store.send([signal(workflow_id)], 1) == [(Sent.NOT_FOUND, 0)]
            assert store.runs() == []

    def test_an_unowned_run_announces_itself(self) -> None:
        """A run created without an owner is active and has a wake in its inbox, which makes it news."""
        with self.open_backend() as store:
            run, owned = begin(store, owner=""), begin(store, "owned")
            (message,) = store.inbox(run.number)
            assert (message.kind, run.owner, run.active) == ("wake", "", True)
            assert store.news() == [(message.seq, run.number)]
            assert store.inbox(owned.number) == []

    def test_an_imported_run_may_be_closed(self) -> None:
        """A run created closed is that at once: it is not active, takes no messages, and can be purged."""
        with self.open_backend() as store:
            run = begin(store, status=Status.FAILED, closed_at_us=7, owner="")
            assert (run.status, run.active, run.closed_at_us) == (Status.FAILED, False, 7)
            assert store.active() == []
            assert store.news() == []
            assert store.send([signal()], 1) == [(Sent.CLOSED, run.number)]
            assert store.purge([run.number]) == 1

    # --- transitions -----------------------------------------------------------------------------------------------

    def test_a_step_is_appended(self) -> None:
        """An accepted transition's events are the next of the history, and nothing else changes."""
        with self.open_backend() as store:
            run = begin(store)
            assert store.commit([step(run, 1, b"one"), step(run, 2, b"two", b"three"), step(run, 4)]) == [Applied()] * 3
            assert store.history(run.number) == [b"started", b"one", b"two", b"three"]
            assert store.record(run.number) == run
            assert store.head(run.number) == 4

    def test_history_is_read_in_pages(self) -> None:
        """`start` and `limit` cut a page out of a history; beyond its end there is nothing."""
        events = tuple(b"%d" % index for index in range(700))
        with self.open_backend() as store:
            run = begin(store, events=events)
            begin(store, "neighbour")
            assert store.history(run.number, 3, 5) == list(events[3:8])
            assert store.history(run.number, 695) == list(events[695:]) == store.history(run.number, 695, 100)
            assert store.history(run.number, 700) == [] == store.history(run.number, 5, 0)

    def test_every_field_of_a_transition_is_applied(self) -> None:
        """Events, messages, timers, published values, status, reason and children go in together."""
        with self.open_backend() as store:
            run, target = begin(store, restore=True, timers=((5, "old"),)), begin(store, "target")
            store.send([signal()], 3)
            (message,) = store.inbox(run.number)
            applied = apply(
                store,
                step(
                    run,
                    1,
                    b"e",
                    consumed=(message.seq,),
                    timers_set=((70, "3.1"), (60, "é")),
                    timers_cleared=((5, "old"),),
                    messages=(signal("target", b"hi"),),
                    children=(new_run("child", parent=("order-1", 1, "4")),),
                    published={"a": b"1"},
                    status=Status.PAUSED,
                    active=False,
                    reason="asked to",
                    restored=True,
                ),
            )
            (child,) = applied.created
            assert child == store.find("child")
            assert applied.sent == (target.number,)
            found = store.record(run.number)
            assert found is not None
            assert (found.status, found.active) == (Status.PAUSED, False)
            assert (found.reason, found.restore) == ("asked to", False)
            assert store.inbox(run.number) == []
            assert [one.payload for one in store.inbox(target.number)] == [b"hi"]
            assert store.due(100) == [DueTimer(60, run.number, "é"), DueTimer(70, run.number, "3.1")]
            assert store.published(run.number) == {"a": b"1"}
            assert store.check() == []

    def test_a_refused_transition_leaves_nothing(self) -> None:
        """Whatever it is refused for, nothing of a transition is applied, and its neighbours in the commit are."""
        with self.open_backend() as store:
            run, other, closed = begin(store), begin(store, "other"), begin(store, "closed")
            apply(store, end(closed))
            store.send([signal()], 1)
            (message,) = store.inbox(run.number)
            full: dict[str, Any] = {
                "consumed": (message.seq,),
                "timers_set": ((5, "t"),),
                "published": {"a": b"1"},
                "children": (new_run("child", parent=("order-1", 1, "4")),),
                "messages": (signal("other"),),
            }
            taken = {**full, "children": (*full["children"], new_run("other", parent=("order-1", 1, "5")))}
            gone = {**full, "messages": (*full["messages"], signal("nobody"))}
            deaf = {**full, "messages": (*full["messages"], signal("closed"))}
            before = everything(store, run.number), everything(store, other.number)
            attempts = [
                (step(run, 0, b"e", **full), Refused(Refusal.HEAD)),
                (step(run, 2, b"e", **full), Refused(Refusal.HEAD)),
                (step(run, 1, b"e", epoch=run.epoch + 1, **full), Refused(Refusal.EPOCH)),
                (step(run, 1, b"e", epoch=run.epoch - 1, **full), Refused(Refusal.EPOCH)),
                (end(run, **{**full, "consumed": ()}), Refused(Refusal.UNSEEN)),
                (step(run, 1, b"e", **taken), Refused(Refusal.CHILD, "other")),
                (step(run, 1, b"e", **gone), Refused(Refusal.TARGET, "nobody")),
                (step(run, 1, b"e", **deaf), Refused(Refusal.TARGET, "closed")),
                (step(closed, 2, b"e", **full), Refused(Refusal.CLOSED)),
                (Transition(run=10**6, epoch=1, head=0, events=(b"e",)), Refused(Refusal.GONE)),
            ]
            for transition, expected in attempts:
                assert store.commit([transition]) == [expected]
                assert (everything(store, run.number), everything(store, other.number)) == before
                assert store.find("child") is None
            verdicts = store.commit([step(other, 1, b"1"), *(one for one, _ in attempts), step(other, 2, b"2")])
            assert verdicts == [Applied(), *(expected for _, expected in attempts), Applied()]
            assert everything(store, run.number) == before[0]
            assert store.check() == []

    def test_a_repeated_transition_is_refused_by_its_head(self) -> None:
        """Committing again what was applied already changes nothing: the history has grown."""
        with self.open_backend() as store:
            run = begin(store)
            once = step(run, 1, b"paid")
            assert store.commit([once, once]) == [Applied(), Refused(Refusal.HEAD)]
            assert store.history(run.number) == [b"started", b"paid"]

    def test_a_waiting_run_is_not_active(self) -> None:
        """`active` lists running runs with work to do: not those that wait, are paused, blocked or closed."""
        with self.open_backend() as store:
            runs = [begin(store, f"run-{index}") for index in range(6)]
            apply(store, step(runs[1], 1, b"e", active=False))
            apply(store, step(runs[2], 1, b"e", status=Status.PAUSED))
            apply(store, step(runs[3], 1, b"e", status=Status.BLOCKED, reason="code changed"))
            apply(store, end(runs[4]))
            assert store.active() == [runs[0].number, runs[5].number]
            assert store.active(after=runs[0].number) == [runs[5].number]
            assert store.active(limit=1) == [runs[0].number]
            apply(store, step(runs[1], 2, b"e"))
            apply(store, step(runs[2], 2, b"e", status=Status.RUNNING))
            assert store.active() == [runs[0].number, runs[1].number, runs[2].number, runs[5].number]

    def test_a_closed_run_keeps_what_it_was(self) -> None:
        """After its close a run's history, reason and published values are there; its timers and inbox are not."""
        with self.open_backend() as store:
            run = begin(store, timers=((5, "t"),))
            store.send([signal(), signal(payload=b"2")], 1)
            seqs = [message.seq for message in store.inbox(run.number)]
            closing = end(
                run, status=Status.FAILED, consumed=(seqs[0],), seen=seqs[1], published={"p": b"v"}, reason="x"
            )
            apply(store, closing)
            found = store.record(run.number)
            assert found is not None
            assert (found.status, found.active, found.closed_at_us) == (Status.FAILED, False, 9)
            assert found.reason == "x"
            assert store.history(run.number) == [b"started", b"ended"]
            assert store.published(run.number) == {"p": b"v"}
            assert store.due(2**60) == []
            assert store.inbox(run.number) == []
            assert store.news() == []

    def test_continuing_makes_the_next_generation(self) -> None:
        """The closing commit of a run that continues as new creates the next generation under its id."""
        with self.open_backend() as store:
            run = begin(store)
            following = new_run(events=(b"again",))
            applied = apply(store, end(run, status=Status.CONTINUED, continued=following, messages=(signal(),)))
            (record,) = applied.created
            assert record.generation == run.generation + 1
            assert store.find("order-1") == record
            assert store.history(record.number) == [b"again"]
            assert applied.sent == (record.number,)

    # --- children --------------------------------------------------------------------------------------------------

    def test_a_redone_activation_adopts_its_children(self) -> None:
        """A child that is there with the same parent is taken for the one asked for, also when it has closed."""
        with self.open_backend() as store:
            run = begin(store)
            child = new_run("child", parent=("order-1", 1, "2"))
            (first,) = apply(store, step(run, 1, b"e", children=(child,))).created
            assert apply(store, step(run, 2, b"e", children=(child,))).created == (first,)
            apply(store, end(first))
            (again,) = apply(store, step(run, 3, b"e", children=(child,))).created
            assert again == store.record(first.number)
            assert store.history(first.number) == [b"started", b"ended"]

    def test_anothers_child_is_a_conflict(self) -> None:
        """An id held by a run of another parent, generation or command is not adopted."""
        with self.open_backend() as store:
            run = begin(store)
            apply(store, step(run, 1, b"e", children=(new_run("child", parent=("order-1", 1, "2")),)))
            for parent in (("order-1", 2, "2"), ("order-1", 1, "3"), ("order-2", 1, "2"), ()):
                transition = step(run, 2, b"e", children=(new_run("child", parent=parent),))
                assert refused(store, transition) == Refused(Refusal.CHILD, "child")
            same = step(run, 2, b"e", children=(new_run("order-1", parent=("order-1", 1, "9")),))
            assert refused(store, same) == Refused(Refusal.CHILD, "order-1")

    def test_a_run_may_talk_to_what_it_just_created(self) -> None:
        """A signal in the transition that creates its target arrives."""
        with self.open_backend() as store:
            run = begin(store)
            child = new_run("child", parent=("order-1", 1, "2"))
            applied = apply(store, step(run, 1, b"e", children=(child,), messages=(signal("child", b"hello"),)))
            assert [one.payload for one in store.inbox(applied.created[0].number)] == [b"hello"]
