"""Memory, LMDB and a model in plain dicts agree on everything, whatever is done to them in whatever order.

The model is the port's text once more, written without keys, indexes or transactions; where the three differ, one of
them is wrong.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.store import (
    Applied,
    Message,
    NewRun,
    Refusal,
    Refused,
    Sent,
    Status,
    Transition,
    Verdict,
)

IDS = ("a", "ab", "x" * 600)
OPEN = {Status.RUNNING, Status.PAUSED, Status.BLOCKED}


@attrs.define
class Run:
    """A run of the model."""

    new: NewRun
    generation: int
    status: Status
    active: bool
    epoch: int
    owner: str
    events: list[bytes]
    deaths: int = 0
    closed_at_us: int | None = None
    reason: str = ""
    restore: bool = False
    inbox: dict[int, Message] = attrs.field(factory=dict)
    timers: set[tuple[int, str]] = attrs.field(factory=set)
    published: dict[str, bytes] = attrs.field(factory=dict)

    def facts(self) -> tuple[object, ...]:
        return (
            self.generation,
            self.status,
            self.active,
            self.epoch,
            self.owner,
            self.deaths,
            self.closed_at_us,
            self.reason,
        )


class Model:
    """The port, on dicts."""

    def __init__(self) -> None:
        self.runs: dict[int, Run] = {}
        self.last_run = self.last_seq = 0
        self.used: dict[tuple[str, str], int] = {}

    def newest(self, workflow_id: str) -> int | None:
        return max((n for n, run in self.runs.items() if run.new.workflow_id == workflow_id), default=None)

    def create(self, new: NewRun) -> tuple[int, bool]:
        found = self.newest(new.workflow_id)
        if found is not None and (self.runs[found].status in OPEN or new.on_conflict != "restart_closed"):
            return found, False
        return self.add(new, 1 if found is None else self.runs[found].generation + 1), True

    def add(self, new: NewRun, generation: int) -> int:
        self.last_run += 1
        run = Run(new, generation, new.status, new.status in OPEN, int(bool(new.owner)), new.owner, list(new.events))
        run.timers |= set(new.timers)
        self.runs[self.last_run] = run
        if not new.owner and new.status in OPEN:
            self.deliver(run, Message(workflow_id=new.workflow_id, kind="wake"))
        return self.last_run

    def deliver(self, run: Run, message: Message) -> None:
        self.last_seq += 1
        run.inbox[self.last_seq] = message

    def send(self, message: Message) -> tuple[Sent, int]:
        key = (message.workflow_id, message.dedup or "")
        if message.dedup is not None and key in self.used:
            return Sent.DUPLICATE, self.used[key]
        number = self.newest(message.workflow_id)
        if number is None:
            return Sent.NOT_FOUND, 0
        if self.runs[number].status not in OPEN:
            return Sent.CLOSED, number
        self.deliver(self.runs[number], message)
        if message.dedup is not None:
            self.used[key] = number
        return Sent.ACCEPTED, number

    def refusal(self, t: Transition) -> Verdict | None:
        run = self.runs.get(t.run)
        if run is None:
            return Refused(Refusal.GONE)
        if run.status not in OPEN:
            return Refused(Refusal.CLOSED)
        if run.epoch != t.epoch:
            return Refused(Refusal.EPOCH)
        if len(run.events) != t.head:
            return Refused(Refusal.HEAD)
        closes = t.status is not None and t.status not in OPEN
        unseen = [s for s, m in run.inbox.items() if s > t.seen and m.kind != "wake" and s not in t.consumed]
        if closes and unseen:
            return Refused(Refusal.UNSEEN)
        for child in t.children:
            found = self.newest(child.workflow_id)
            if found is not None and self.runs[found].new.parent != child.parent:
                return Refused(Refusal.CHILD, child.workflow_id)
        children = {child.workflow_id for child in t.children if self.newest(child.workflow_id) is None}
        for message in t.messages:
            if message.dedup is not None and (message.workflow_id, message.dedup) in self.used:
                continue
            number = self.newest(message.workflow_id)
            stays = number != t.run or not closes or t.continued is not None
            there = number is not None and self.runs[number].status in OPEN and stays
            if not there and message.workflow_id not in children:
                return Refused(Refusal.TARGET, message.workflow_id)
        return None

    def commit(self, t: Transition) -> tuple[Verdict | None, list[int], list[int]]:
        refused = self.refusal(t)
        if refused is not None:
            return refused, [], []
        run = self.runs[t.run]
        run.events += t.events
        run.inbox = {seq: message for seq, message in run.inbox.items() if seq not in t.consumed}
        run.timers = (run.timers - set(t.timers_cleared)) | set(t.timers_set)
        run.published.update(t.published)
        run.status, run.active, run.deaths = t.status or run.status, t.active, 0
        run.reason = run.reason if t.reason is None else t.reason
        if run.status not in OPEN:
            run.active, run.inbox, run.timers, run.closed_at_us = False, {}, set(), t.closed_at_us
        created = [self.create(child)[0] for child in t.children]
        if t.continued is not None:
            created.append(self.add(t.continued, run.generation + 1))
        sent = [number for what, number in map(self.send, t.messages) if what is Sent.ACCEPTED]
        return None, created, list(dict.fromkeys(sent))

    def claim(self, number: int, owner: str) -> bool:
        run = self.runs.get(number)
        if run is None or run.status not in OPEN:
            return False
        run.deaths += run.active and run.owner not in ("", owner)
        run.epoch, run.owner = run.epoch + 1, owner
        return True

    def purge(self, number: int) -> bool:
        if number not in self.runs or self.runs[number].status in OPEN:
            return False
        del self.runs[number]
        self.used = {key: run for key, run in self.used.items() if run != number}
        return True


ids = st.sampled_from(IDS)
numbers = st.integers(0, 6)
statuses = st.sampled_from(list(Status))
payloads = st.binary(max_size=5)
deadlines = st.integers(-3, 3)
owners = st.sampled_from(["", "one", "two"])
dedups = st.none() | st.sampled_from(["", "k"])
timers = st.lists(st.tuples(deadlines, st.sampled_from(["1", "2.1"])), max_size=3, unique=True).map(tuple)
signals = st.builds(Message, workflow_id=ids, kind=st.just("signal"), name=st.just("n"), payload=payloads, dedup=dedups)


def new_runs(**fixed: Any) -> st.SearchStrategy[NewRun]:
    given: dict[str, Any] = {
        "workflow_id": ids,
        "workflow": st.just("w"),
        "events": st.lists(payloads, min_size=1, max_size=3).map(tuple),
        "created_at_us": st.integers(0, 9),
        "digest": payloads,
        "owner": owners,
        "timers": timers,
        "on_conflict": st.sampled_from(["attach", "restart_closed"]),
    }
    return st.builds(NewRun, **{**given, **fixed})


class Agreement(RuleBasedStateMachine):
    """Does the same to a memory store, an LMDB store and the model."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.memory = MemoryBackend.open()
        self.lmdb = LmdbBackend.open(str(self.folder / "store"), durability="relaxed")
        self.model = Model()

    def teardown(self) -> None:
        assert self.memory.check() == self.lmdb.check() == []
        self.memory.close()
        self.lmdb.close()
        shutil.rmtree(self.folder)

    def both(self, verb: str, *arguments: Any, **options: Any) -> Any:
        """What both stores answer, which is the same."""
        answers = [getattr(store, verb)(*arguments, **options) for store in (self.memory, self.lmdb)]
        assert answers[0] == answers[1]
        return answers[0]

    @rule(new=st.lists(new_runs(), min_size=1, max_size=3))
    def create(self, new: list[NewRun]) -> None:
        expected = [self.model.create(one) for one in new]
        assert [(one.record.number, one.new) for one in self.both("create", new)] == expected

    @rule(data=st.data(), number=numbers, right=st.integers(0, 9))
    def commit(self, data: st.DataObject, number: int, right: int) -> None:
        run = self.model.runs.get(number)
        epoch, head = (run.epoch, len(run.events)) if run else (0, 0)
        status = data.draw(st.none() | statuses)
        closes = status is not None and status not in OPEN
        child = new_runs(parent=st.sampled_from([("a", 1, "1"), ("ab", 1, "1")]), on_conflict=st.just("attach"))
        following = new_runs(workflow_id=st.just(run.new.workflow_id)) if run else st.none()
        inbox = sorted(run.inbox) if run else []
        transition = Transition(
            run=number,
            epoch=epoch if right else epoch - 1,
            head=head if right > 1 else head + 1 - 2 * right,
            events=tuple(data.draw(st.lists(payloads, max_size=3))),
            seen=max([0, *inbox]) if right > 3 else 0,
            consumed=tuple(inbox[: data.draw(st.integers(0, 2))]),
            timers_set=data.draw(timers),
            timers_cleared=data.draw(timers),
            messages=tuple(data.draw(st.lists(signals, max_size=2))),
            children=tuple(data.draw(st.lists(child, max_size=1))) if not closes else (),
            published=data.draw(st.dictionaries(st.sampled_from(["", "p"]), payloads, max_size=2)),
            status=status,
            active=data.draw(st.booleans()),
            closed_at_us=7 if closes else None,
            reason=data.draw(st.none() | st.sampled_from(["", "why"])),
            continued=data.draw(following) if status is Status.CONTINUED else None,
        )
        refused, created, sent = self.model.commit(transition)
        (verdict,) = self.both("commit", [transition])
        if refused is None:
            assert isinstance(verdict, Applied)
            assert ([record.number for record in verdict.created], list(verdict.sent)) == (created, sent)
        else:
            assert verdict == refused

    @rule(messages=st.lists(signals, min_size=1, max_size=3))
    def send(self, messages: list[Message]) -> None:
        assert self.both("send", messages, 5) == [self.model.send(message) for message in messages]

    @rule(runs=st.lists(numbers, max_size=3), owner=st.sampled_from(["one", "two"]))
    def claim(self, runs: list[int], owner: str) -> None:
        expected = [number for number in runs if self.model.claim(number, owner)]
        assert [record.number for record in self.both("claim", runs, owner)] == expected

    @rule(runs=st.lists(numbers, max_size=3), owner=owners)
    def release(self, runs: list[int], owner: str) -> None:
        self.both("release", runs, owner)
        for run in (self.model.runs[number] for number in runs if number in self.model.runs):
            if run.owner == owner and run.status in OPEN:
                run.owner = ""

    @rule(runs=st.lists(numbers, max_size=3, unique=True))
    def purge(self, runs: list[int]) -> None:
        assert self.both("purge", runs) == sum(self.model.purge(number) for number in runs)

    @rule()
    def reopen(self) -> None:
        self.lmdb.close()
        self.lmdb = LmdbBackend.open(str(self.folder / "store"), durability="relaxed")

    @rule(
        statuses=st.sets(st.sampled_from(list(Status)), max_size=3), before=st.none() | numbers, limit=st.integers(0, 4)
    )
    def list_runs(self, statuses: set[Status], before: int | None, limit: int) -> None:
        fits = [n for n, run in self.model.runs.items() if not statuses or run.status in statuses]
        expected = sorted((n for n in fits if before is None or n < before), reverse=True)[:limit]
        found = self.both("runs", status=statuses, before=before, limit=limit)
        assert [record.number for record in found] == expected

    @invariant()
    def all_is_the_same(self) -> None:
        """Everything that can be read is what the model holds."""
        runs = self.model.runs
        news = sorted((seq, number) for number, run in runs.items() for seq in run.inbox)
        assert self.both("news") == news
        due = sorted((when, number, key) for number, run in runs.items() for when, key in run.timers)
        assert [(t.deadline_us, t.run, t.key) for t in self.both("due", 9)] == due
        assert self.both("next_deadline_us") == (due[0][0] if due else None)
        active = [number for number, run in runs.items() if run.active and run.status is Status.RUNNING]
        assert self.both("active") == sorted(active)
        for workflow_id in IDS:
            found = self.both("find", workflow_id)
            assert (found and found.number) == self.model.newest(workflow_id)
        for number, run in runs.items():
            record = self.both("record", number)
            facts = (record.generation, record.status, record.active, record.epoch, record.owner)
            assert (*facts, record.deaths, record.closed_at_us, record.reason) == run.facts()
            assert self.both("history", number) == run.events
            assert self.both("head", number) == len(run.events)
            waiting = [(m.seq, m.kind, m.payload) for m in self.both("inbox", number)]
            assert waiting == [(seq, message.kind, message.payload) for seq, message in sorted(run.inbox.items())]
            assert self.both("published", number) == run.published


Agreement.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAgreement = Agreement.TestCase
