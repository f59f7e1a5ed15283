"""A Hypothesis state machine that compares any store with a small model of the port.

`BackendContract` has a test for each promise; this looks for what nobody thought of. It creates, commits, sends, claims
and purges in whatever order, in the store and in a model on plain dicts (`dalsegno.testing.backend_model`), and after
each call reads everything there is to read. What it finds is printed as the few calls that lead there.

    class MyMachine(BackendMachine):
        def open_backend(self):
            return MyStore.open(str(self.folder / "store"))

    TestMyStore = MyMachine.TestCase

`open_backend` is called once or more in an example and opens the same store each time; `self.folder` is a folder of its
own for each example, deleted afterwards. Whether the store is closed and opened again in the middle, and through a
second handle, is taken from its class (`survives_reopen`, `shared`). How long it looks is the settings' business:
`MyMachine.TestCase.settings = settings(max_examples=1000)`, or a profile.
"""

from __future__ import annotations

import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from dalsegno.core.errors import BadOption
from dalsegno.core.store import Applied, Backend, Created, Message, NewRun, Status, Transition, Verdict
from dalsegno.testing import queue_machine
from dalsegno.testing.backend_model import Model, Waiting, agrees
from dalsegno.testing.queue_machine import QueueRules

IDS = ("a", "ab", "x" * 600)  # one that begins like another, and one too long for a key; beside them "child"
TAGS: tuple[dict[str, str], ...] = ({}, {"who": "me"}, {"who": "you", "é": ""})
PARENTS = (("a", 1, "1"), ("a", 1, "1"), ("ab", 1, "1"))
LATE = 9  # beyond all deadlines

ids = st.sampled_from(IDS)
places = st.integers(0, 9)  # which run is meant: see `_number`
payloads = st.binary(max_size=5)
owners = st.sampled_from(["", "one", "two"])
dedups = st.sampled_from([None, None, "", "k"])
published = st.dictionaries(st.sampled_from(["", "p", "p" * 700]), payloads, max_size=2)
timers = st.lists(st.tuples(st.integers(-3, 3), st.sampled_from(["1", "2.1", "k" * 700])), max_size=3, unique=True).map(
    tuple
)
kinds = st.sampled_from(["signal", "signal", "signal", "cancel", "terminate", "child", "callback", "wake", "step"])
messages = st.builds(
    Message,
    workflow_id=ids,
    generation=st.sampled_from([None, None, 1, 2, 3]),
    kind=kinds,
    name=st.sampled_from(["", "n\0é"]),
    payload=payloads,
    failed=st.booleans(),
    dedup=dedups,
)


def new_runs(**fixed: Any) -> st.SearchStrategy[NewRun]:
    """Runs to be created, mostly open ones."""
    given: dict[str, Any] = {
        "workflow_id": ids,
        "workflow": st.sampled_from(["v", "w"]),
        "events": st.lists(payloads, min_size=1, max_size=3).map(tuple),
        "created_at_us": st.integers(0, 9),
        "digest": payloads,
        "owner": owners,
        "tags": st.sampled_from(TAGS),
        "parent": st.sampled_from([(), PARENTS[0]]),
        "timers": timers,
        "restore": st.booleans(),
        "published": published,
        "on_conflict": st.sampled_from(["attach", "reject", "restart_closed"]),
        "generation": st.sampled_from([None, None, 1, 3]),
        "messages_above": st.sampled_from([0, 0, 0, 2, 1000]),
        "place": st.none() | st.none() | queue_machine.places,
    }
    return st.builds(NewRun, **{**given, **fixed})


children = st.lists(
    new_runs(workflow_id=st.sampled_from(["child", "child", *IDS]), parent=st.sampled_from(PARENTS)),
    max_size=2,
    unique_by=lambda child: child.workflow_id,
)
ended_runs = new_runs(status=st.just(Status.FAILED), closed_at_us=st.just(7), timers=st.just(()))


class BackendMachine(QueueRules):
    """Subclass this, write `open_backend`, and let your test runner find the subclass's `TestCase`."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.model = Model()
        self.store = self.open_backend()
        self._noted: tuple[str, object] | None = None

    @abstractmethod
    def open_backend(self) -> Backend:
        """Open the store of this example; empty at the first call."""

    def teardown(self) -> None:
        try:
            assert self.store.check() == [], "check() finds something wrong with the store"
        finally:
            self.store.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    # --- what is done to it ----------------------------------------------------------------------------------------

    @initialize(one=new_runs(), two=new_runs())
    def begin(self, one: NewRun, two: NewRun) -> None:
        """Without a run in it, a store has little to get wrong."""
        self.create([one, two])

    @rule(new=st.lists(new_runs() | new_runs() | ended_runs, min_size=1, max_size=3), spoiled=st.integers(0, 5))
    def create(self, new: list[NewRun], spoiled: int = 5) -> None:
        new = [self.placed(one) for one in new]
        if spoiled:
            self._created(new, self.store.create(new))
            return
        try:  # one that cannot be takes the whole call with it: the readings that follow find nothing new
            self.store.create([*new, NewRun(workflow_id="", workflow="w", events=(b"",), created_at_us=1, digest=b"")])
        except BadOption:
            return
        raise AssertionError("a run without an id was created")

    @rule(data=st.data(), place=places)
    def commit(self, data: st.DataObject, place: int) -> None:
        transition = self._transition(data, place)
        (verdict,) = self.store.commit([transition])
        self._committed(transition, verdict)

    @rule(sent=st.lists(messages, min_size=1, max_size=3), at_us=st.integers(0, 9), again=st.booleans())
    def send(self, sent: list[Message], at_us: int, again: bool) -> None:
        if again:  # what was accepted once is still known, whatever has happened since
            used = sorted(self.model.used)
            sent = [*(Message(workflow_id=one, kind="signal", dedup=key) for one, key in used), *sent]
        assert self.store.send(sent, at_us) == [self.model.send(message, at_us) for message in sent]

    @rule(new=st.lists(new_runs(), max_size=1), data=st.data(), place=places, sent=st.lists(messages, max_size=1))
    def write(self, new: list[NewRun], data: st.DataObject, place: int, sent: list[Message]) -> None:
        new = [self.placed(one) for one in new]
        transition = self._transition(data, place)
        created, (verdict,), answers = self.store.write(new, [transition], sent, 4)
        self._created(new, created, verdict)
        self._committed(transition, verdict)
        assert answers == [self.model.send(message, 4) for message in sent]

    @rule(asked=st.lists(places, max_size=3, unique=True), owner=st.sampled_from(["one", "two"]))
    def claim(self, asked: list[int], owner: str) -> None:
        runs = self._numbers(asked)
        expected = [record for run in runs if (record := self.model.claim(run, owner)) is not None]
        assert self.store.claim(runs, owner) == expected

    @precondition(lambda self: self.store.several)
    @rule(owner=st.sampled_from(["one", "two"]), what=st.sampled_from(["join", "renew", "leave", "expire", "too late"]))
    def lease(self, owner: str, what: str) -> None:
        """Begin a lease, renew or end it, or let it expire by what was seen of it, perhaps before it was renewed."""
        has, store, leases = owner in self.model.leases, self.store, self.model.leases
        if what == "join":
            store.join(owner, 1000, 7)
            self.model.begin_lease(owner)
        elif what == "renew":
            assert store.renew(owner, 8) is has
        elif what == "leave":
            assert store.leave(owner) is has
            if has:
                self.model.end_lease(owner)
        elif has:
            (seen,) = (lease for lease in store.leases() if lease.owner == owner)
            renewed = what == "too late" and store.renew(owner, 9)
            assert store.expire(seen) is not renewed
            if not renewed:
                self.model.end_lease(owner)
        assert {lease.owner for lease in store.leases()} == leases

    @rule(asked=st.lists(places, max_size=3, unique=True), owner=owners)
    def release(self, asked: list[int], owner: str) -> None:
        runs = self._numbers(asked)
        self.store.release(runs, owner)
        for run in runs:
            self.model.release(run, owner)

    @rule(asked=st.lists(places, max_size=3, unique=True))
    def purge(self, asked: list[int]) -> None:
        runs = self._numbers(asked, closed=True)
        assert self.store.purge(runs) == sum(self.model.purge(run) for run in runs)

    @precondition(lambda self: self.store.survives_reopen or self.store.shared)
    @rule(beside=st.booleans())
    def reopen(self, beside: bool) -> None:
        """Close it and open it, or open it a second time beside, as another process would, and go on there."""
        if not self.store.survives_reopen or (beside and self.store.shared):
            before, self.store = self.store, self.open_backend()
            self.everything_reads_as_in_the_model()
            before.close()
        else:
            self.store.close()
            self.store = self.open_backend()
        self._noted = None

    def _number(self, place: int, *, closed: bool = False) -> int:
        """The number of a run: now and then one that no run has, or of any that was made; else of an open one, or of a
        closed one where that is of more use."""
        if not place:
            return 0 if closed else 10**6
        made, runs = self.model.made, self.model.runs
        fit = [number for number in made if number in runs and runs[number].open is not closed]
        numbers = made if place < 4 or not fit else fit
        return numbers[-place % len(numbers)]

    def _numbers(self, asked: list[int], *, closed: bool = False) -> list[int]:
        return list(dict.fromkeys(self._number(place, closed=closed) for place in asked))

    def _transition(self, data: st.DataObject, place: int) -> Transition:
        """One that mostly fits the run."""
        draw, number = data.draw, self._number(place)
        run = self.model.runs.get(number)
        seqs = [waiting.seq for waiting in run.inbox] if run else []
        own_timers = sorted(run.timers) if run else []
        epoch, head = (run.record.epoch, len(run.events)) if run else (1, 1)
        if run and run.record.queued:
            epoch = 10**6  # nobody can hold it
        astray = draw(st.integers(0, 15))  # one of three numbers is wrong
        latest = max([0, *seqs])
        status = draw(st.none() | st.none() | st.sampled_from(Status))
        closes = status is not None and not status.open
        following = run and status is Status.CONTINUED
        return Transition(
            run=number,
            epoch=epoch - (astray == 0),
            head=max(0, head - (astray == 1) + (astray == 2)),
            events=tuple(draw(st.lists(payloads, max_size=3))),
            seen=draw(st.sampled_from([latest, latest, 0, *seqs])),
            consumed=tuple(draw(st.lists(st.sampled_from(seqs), unique=True))) if seqs else (),
            timers_set=draw(timers),
            timers_cleared=tuple(draw(st.lists(st.sampled_from(own_timers), unique=True))) if own_timers else (),
            messages=tuple(draw(st.lists(messages, max_size=2))),
            children=() if closes else tuple(map(self.placed, draw(children))),
            published=draw(published),
            status=status,
            active=not closes and draw(st.booleans()),
            closed_at_us=7 if closes else None,
            reason=draw(st.sampled_from([None, "", "why"])),
            continued=draw(new_runs(workflow_id=st.just(run.record.workflow_id), place=st.none()))
            if run and following
            else None,
            restored=draw(st.booleans()),
            **self.draw_tasks(data, number, closes),
        )

    def _created(self, new: Sequence[NewRun], answers: Sequence[Created], *verdicts: Verdict) -> None:
        """The model does as the store did; `verdicts` of the same call, for the numbers they hold."""
        later = [record.number for verdict in verdicts if isinstance(verdict, Applied) for record in verdict.created]
        self.model.given([*(one.record.number for one in answers), *later])
        assert len(answers) == len(new)
        for one, answer in zip(new, answers, strict=True):
            assert (answer.record.number, answer.new) == self.model.create(one)
            assert answer.record == self.model.runs[answer.record.number].record

    def _committed(self, transition: Transition, verdict: Verdict) -> None:
        if isinstance(verdict, Applied):
            self.model.given(record.number for record in verdict.created)
        refused, created, sent = self.model.commit(transition)
        assert agrees(verdict, refused, created, sent), f"{verdict}, and the model: {refused or (created, sent)}"

    # --- what must hold after each ---------------------------------------------------------------------------------

    @invariant()
    def everything_reads_as_in_the_model(self) -> None:
        """All that can be read of the store is what the model holds."""
        self._check_news()
        store, runs = self.store, self.model.runs
        due = [(timer.deadline_us, timer.run, timer.key) for timer in store.due(LATE)]
        assert sorted(due) == sorted((when, number, key) for number, run in runs.items() for when, key in run.timers)
        assert [when for when, *_ in due] == sorted(when for when, *_ in due)
        assert store.next_deadline_us() == (due[0][0] if due else None)
        running = [n for n, run in runs.items() if run.record.active and run.record.status is Status.RUNNING]
        assert store.active() == sorted(running)
        for workflow_id in (*IDS, "child"):
            for generation in (None, 1, 2, 3, 4):
                number = self.model.find(workflow_id, generation)
                assert store.find(workflow_id, generation) == (None if number is None else runs[number].record)
        for number, run in runs.items():
            assert store.record(number) == run.record
            assert store.history(number) == run.events
            assert store.head(number) == len(run.events)
            assert store.published(number) == run.published
            inbox = store.inbox(number)
            assert len(inbox) == len(run.inbox)
            assert all(mine.fits(stored) for mine, stored in zip(run.inbox, inbox, strict=True)), inbox
        statuses, stats = [run.record.status for run in runs.values()], store.stats()
        assert stats["runs"] == len(statuses)
        assert {status: stats[status.value] for status in Status} == {one: statuses.count(one) for one in Status}
        for gone in {*self.model.made} - {*runs}:
            assert store.record(gone) is None
            assert (store.history(gone), store.head(gone), store.inbox(gone), store.published(gone)) == ([], 0, [], {})

    def _check_news(self) -> None:
        """News come in the order in which messages were accepted, and a number once given stays and is never reused."""
        news, expected = self.store.news(), self.model.news()
        assert [run for _, run in news] == [run for run, _ in expected]
        for (seq, _), (_, waiting) in zip(news, expected, strict=True):
            self._check_number(seq, waiting)

    def _check_number(self, seq: int, waiting: Waiting) -> None:
        if waiting.seq > self.model.last_seq:
            assert seq > max(self.model.last_seq, waiting.above)
            waiting.seq = self.model.last_seq = seq
        assert waiting.seq == seq

    @invariant()
    def writing_is_a_change(self) -> None:
        """`changes` differs where anything does, and is calm while nobody writes."""
        image, changes = repr((self.model.runs, self.model.used, self.model.queues)), self.store.changes()
        assert self.store.changes() == changes
        if self._noted is not None and self._noted[0] != image:
            assert changes != self._noted[1]
        self._noted = image, changes

    @rule(
        status=st.sets(st.sampled_from(Status), max_size=3),
        workflow=st.sampled_from([None, "v", "w"]),
        tags=st.sampled_from([None, *TAGS]),
        before=st.none() | places,
        limit=st.integers(0, 4),
    )
    def list_runs(
        self,
        status: set[Status],
        workflow: str | None,
        tags: dict[str, str] | None,
        before: int | None,
        limit: int,
    ) -> None:
        below = None if before is None else self._number(before)
        asked = (tags or {}).items()
        fits = [
            run.record
            for number, run in sorted(self.model.runs.items(), reverse=True)
            if (not status or run.record.status in status)
            and workflow in (None, run.record.workflow)
            and asked <= run.record.tags.items()
            and (below is None or number < below)
        ]
        found = self.store.runs(status=status, workflow=workflow, tags=tags, before=below, limit=limit)
        assert found == fits[:limit]

    @rule(place=places, limit=st.integers(0, 2), skip=st.integers(0, 3))
    def read_in_pages(self, place: int, limit: int, skip: int) -> None:
        """A page is a piece of the whole, for everything that is read in pages."""
        store, number = self.store, self._number(place)
        assert store.history(number, skip, limit) == store.history(number)[skip : skip + limit]
        active, news, inbox, due = store.active(), store.news(), store.inbox(number), store.due(LATE)
        last = active[skip] if skip < len(active) else 0
        assert store.active(last, limit) == [one for one in active if one > last][:limit]
        seq = news[skip][0] if skip < len(news) else 0
        assert store.news(seq, limit) == [one for one in news if one[0] > seq][:limit]
        assert store.inbox(number, seq, limit) == [one for one in inbox if one.seq > seq][:limit]
        assert store.due(skip) == [timer for timer in due if timer.deadline_us <= skip]
        assert [one.deadline_us for one in store.due(LATE, limit)] == [one.deadline_us for one in due[:limit]]
