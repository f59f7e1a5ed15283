"""Queues on PostgreSQL where several take at once: side by side, within the limits, and when connections break."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable

import pytest

from dalsegno.backends.postgresql import migrations
from dalsegno.backends.postgresql import queue_statements as qs
from dalsegno.backends.postgresql import statements as st
from dalsegno.backends.postgresql.planning import Plan
from dalsegno.backends.postgresql.rows import event_crc
from dalsegno.core.errors import StoreDamaged, UnknownOutcome
from dalsegno.core.queues import NewTask, Place, Queue, Rate, Task
from dalsegno.core.store import Applied, Backend, Message, Refusal, Refused, RunRecord, Sent, Status, Transition
from dalsegno.testing.run_promises import apply, begin, end, new_run, step
from tests.backends.test_postgresql import behind, opened
from tests.backends.test_postgresql_faults import Breaking
from tests.postgresql_server import Server, schema_of


@pytest.fixture
def url(postgresql: Server) -> str:
    """Where a store may be made."""
    return postgresql.schema()


def new(name: str, queue: str = "q", **changes: object) -> NewTask:
    """A task of the step with this id."""
    return NewTask(queue=queue, step=name, name="pay", attempt=1, payload=b"call", **changes)  # type: ignore[arg-type]


def put(store: Backend, run: RunRecord, *tasks: NewTask) -> None:
    """Put tasks on their queues."""
    apply(store, step(run, store.head(run.number), b"e", tasks=tasks))


def outcome(task: Task) -> Message:
    """What whoever took a task says of it."""
    where = {"workflow_id": task.workflow_id, "generation": task.generation}
    return Message(**where, kind="step", name=task.step, payload=b"done", task=(task.number, task.claim))  # type: ignore[arg-type]


def all_at_once(*works: Callable[[], object]) -> None:
    """Do things in threads of their own; what one of them raises is raised here."""
    errors = list[BaseException]()

    def guarded(work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


# --- putting -------------------------------------------------------------------------------------------------------


def test_a_transition_may_drop_the_last_of_a_key_and_put_the_next(url: str):
    """The key is forgotten and there again, within one commit."""
    with opened(url) as store:
        run = begin(store)
        put(store, run, new("1"), new("2", key="k"))
        apply(store, step(run, 2, b"e", tasks_dropped=("1", "2"), tasks=(new("1"), new("3", key="k"))))
        assert [task.step for task in store.tasks_of(run.number)] == ["1", "3"]
        assert store.check() == []


# --- several take --------------------------------------------------------------------------------------------------


def test_nothing_is_given_twice(url: str):
    """Three who take and answer at once through handles of their own get every task between them, each task once."""
    with opened(url) as store:
        runs = [begin(store, f"run-{index}") for index in range(6)]
        for run in runs:
            put(store, run, *(new(str(nth), key=str(nth % 3)) for nth in range(40)))
        taken, together = list[int](), threading.Barrier(3, timeout=20)

        def work(owner: str) -> None:
            with opened(url) as mine:
                together.wait()
                while tasks := mine.take(["q"], owner, 7, 10):
                    taken.extend(task.number for task in tasks)
                    assert {sent for sent, _ in mine.send([outcome(task) for task in tasks], 5)} == {Sent.ACCEPTED}

        all_at_once(*(lambda owner=owner: work(owner) for owner in "abc"))
        assert len(taken) == len(set(taken)) == 240
        assert [len(store.inbox(run.number)) for run in runs] == [40] * 6
        assert (store.queues(), store.check()) == ([], [])


@pytest.mark.parametrize("limits", [Queue("q", concurrency=5), Queue("q", per_key=2), Queue("q", rate=Rate(count=9))])
def test_limits_hold_over_all_who_take(url: str, limits: Queue):
    """However many take at once, never more are at work, or begun, than the queue allows, and all get their turn."""
    with opened(url) as store:
        store.declare([limits])
        run = begin(store)
        put(store, run, *(new(str(nth), key=str(nth % 4)) for nth in range(60)))
        at_work, taken, lock = Counter[str](), Counter[int](), threading.Lock()

        def work(owner: str) -> None:
            now_us = 0
            with opened(url) as mine:
                while taken.total() < 60:
                    now_us += 20_000
                    tasks = mine.take(["q"], owner, 4, now_us)
                    with lock:
                        at_work.update(task.key for task in tasks)
                        taken.update(task.number for task in tasks)
                        assert limits.concurrency is None or at_work.total() <= limits.concurrency
                        assert limits.per_key is None or max(at_work.values(), default=0) <= limits.per_key
                        assert (
                            limits.rate is None or taken.total() <= 9 + 9 * now_us / 1_000_000 or now_us < furthest[0]
                        )
                        furthest[0] = max(furthest[0], now_us)
                        at_work.subtract(task.key for task in tasks)  # before it is so: the count may be low, not high
                    mine.send([outcome(task) for task in tasks], 5)

        furthest = [0]
        all_at_once(*(lambda owner=owner: work(owner) for owner in "abc"))
        assert set(taken.values()) == {1}
        assert store.check() == []


def test_who_takes_passes_over_what_another_has_in_hand(postgresql: Server, url: str):
    """Tasks that somebody is just taking or dropping hold up nobody, nor does whoever puts new ones of the key."""
    with opened(url) as store, postgresql.connect() as connection:
        run = begin(store)
        put(store, run, *(new(str(nth)) for nth in range(4)), new("later", not_before_us=5))
        connection.execute(f"SET search_path = {schema_of(url)}; BEGIN".encode())
        connection.execute("SELECT FROM tasks WHERE step IN ('0', '2') FOR UPDATE; SELECT FROM queue_keys FOR UPDATE")
        connection.execute("SELECT FROM queues FOR UPDATE")
        assert [task.step for task in store.take(["q"], "me", 9, 10)] == ["1", "3"]
        connection.execute("ROLLBACK")
        assert [task.step for task in store.take(["q"], "me", 9, 10)] == ["0", "2", "later"]


def test_all_that_can_be_done_at_once_comes_to_an_end(url: str):
    """Engines that put, drop, withdraw, close, take, answer, give back, let runs begin, declare, and end each other's
    leases, all at once and on the same keys, wait for each other, and never for ever; the counts are right after it."""
    with opened(url) as store:
        runs = [begin(store, f"run-{index}", owner="engine") for index in range(4)]

        def engine(seed: int) -> None:
            chance = random.Random(seed)
            with opened(url) as mine:
                mine_too = runs[seed::2]
                heads = {run.number: 1 for run in mine_too}
                for _ in range(40):
                    transitions = []
                    for run in chance.sample(mine_too, 2):
                        steps = [str(chance.randrange(12)) for _ in range(3)]
                        tasks = tuple(
                            new(
                                one,
                                chance.choice("qrs"),
                                key=chance.choice("kl"),
                                not_before_us=chance.choice([0, 0, 9]),
                            )
                            for one in steps
                        )
                        dropped = (str(chance.randrange(12)),)
                        change = {"tasks": tasks, chance.choice(["tasks_dropped", "tasks_withdrawn"]): dropped}
                        transitions.append(step(run, heads[run.number], b"e", **change))
                    for verdict, one in zip(mine.commit(transitions), transitions, strict=True):
                        assert isinstance(verdict, Applied) or verdict.why is Refusal.TASK, verdict
                        heads[one.run] += isinstance(verdict, Applied)
                    mine.create([new_run(f"{seed}-{chance.random()}", owner="", place=Place(queue="q", key="k"))])

        def worker(seed: int) -> None:
            chance, owner = random.Random(seed), f"worker-{seed}"
            with opened(url) as mine:
                mine.join(owner, 1000, 5)
                for now_us in range(40):
                    tasks = mine.take(chance.sample("qrs", 2), owner, 5, now_us)
                    mine.send([outcome(task) for task in chance.sample(tasks, len(tasks) // 2)], 5)
                    mine.beat(owner, {task.number: b"half" for task in tasks})
                    mine.give_back([(task.number, task.claim) for task in tasks[::3]], owner)
                    begun = mine.claim(mine.admit(["q", "r"], 2, now_us), owner)
                    mine.commit([end(run, 1, seen=2**60) for run in begun])
                    if chance.random() < 0.2:
                        for lease in mine.leases():
                            mine.expire(lease)
                        mine.join(owner, 1000, 5)
                    if chance.random() < 0.2:
                        bound = chance.choice([None, 1, 3])
                        mine.declare([Queue(chance.choice("qr"), concurrency=bound, per_key=chance.choice([None, 1]))])
                mine.join(owner, 1000, 5)  # the other one may have ended the lease
                assert mine.leave(owner)

        all_at_once(*(lambda seed=seed: engine(seed) for seed in (0, 1)), *(lambda s=s: worker(s) for s in (2, 3)))
        assert store.check() == []
        for run in runs:
            apply(store, end(run, store.head(run.number), Status.FAILED, seen=2**60))
        assert [state for state in store.queues() if state.kind == "step" and state.waiting + state.at_work] == []
        assert store.check() == []


# --- taken between the look and the write --------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, method: str, do: Callable[[], object]) -> None:
    """Have something done by somebody else after a group of writes has looked, once."""
    original, left = getattr(Plan, method), [do]

    def change(plan: Plan, *values: object) -> object:
        if left:
            left.pop()()
        return original(plan, *values)

    monkeypatch.setattr(Plan, method, change)


@pytest.mark.parametrize("field", ["tasks_withdrawn", "tasks_dropped"])
def test_a_task_that_is_just_taken(url: str, monkeypatch: pytest.MonkeyPatch, field: str):
    """What is taken after a transition looked at it counts: withdrawn, the transition is refused; dropped, it is
    cancelled."""
    with opened(url) as store, opened(url) as other:
        run = begin(store)
        put(store, run, new("1"))
        taken = list[Task]()
        meanwhile(monkeypatch, "apply", lambda: taken.extend(other.take(["q"], "other", 1, 10)))
        (verdict,) = store.commit([step(run, 2, b"e", **{field: ("1",)})])
        assert (verdict == Refused(Refusal.TASK, "1")) is (field == "tasks_withdrawn")
        assert (other.beat("other", {}) == []) is (field == "tasks_dropped")
        assert (len(taken), store.send([outcome(taken[0])], 5)[0][0] is Sent.ACCEPTED) == (
            1,
            field == "tasks_withdrawn",
        )
        assert (store.queues(), store.check()) == ([], [])


def test_an_outcome_that_comes_when_another_has_just_taken_the_task(url: str, monkeypatch: pytest.MonkeyPatch):
    """It goes nowhere, also where the store had seen it waited for."""
    with opened(url) as store, opened(url) as other:
        run = begin(store)
        put(store, run, new("1"))
        (mine,) = store.take(["q"], "me", 1, 10)

        def take_over() -> None:
            other.give_back([(mine.number, mine.claim)], "me")
            assert len(other.take(["q"], "other", 1, 10)) == 1

        meanwhile(monkeypatch, "send", take_over)
        assert store.send([outcome(mine)], 5) == [(Sent.CLOSED, run.number)]
        assert (store.inbox(run.number), len(other.beat("other", {}))) == ([], 1)


# --- connections that break ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", ["take", "beat"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_tasks_of_a_take_whose_answer_was_lost_come_back(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch, after: bool, ask: str
):
    """`UnknownOutcome`; what was taken, if it was, is in line again when the owner next takes or says that he lives."""
    with opened(url) as store, opened(url) as other:
        run = begin(store)
        put(store, run, *(new(str(nth)) for nth in range(3)), new("x", "warm"))
        assert len(store.take(["warm"], "me", 1, 10)) == 1
        with monkeypatch.context() as broken:
            Breaking(broken, postgresql, qs.TAKE_TASKS, after)
            with pytest.raises(UnknownOutcome, match="may or may not"):
                store.take(["q"], "me", 2, 10)
        owned = [task.step for task in store.tasks_of(run.number) if task.owner]
        assert owned == (["x", "0", "1"] if after else ["x"]) or sorted(owned) == (["0", "1", "x"] if after else ["x"])
        if ask == "take":
            assert [task.step for task in store.take(["q"], "me", 2, 10)] == ["0", "1"]
        else:
            assert len(store.beat("me", {})) == 1
            assert [task.step for task in other.take(["q"], "other", 3, 10)] == ["0", "1", "2"]
        assert [task.deaths for task in store.tasks_of(run.number)] == [0] * 4
        assert store.check() == []


@pytest.mark.parametrize("statement", [st.COMMIT, qs.GIVE_BACK, qs.NOTE_TASKS], ids=lambda one: one.name.decode())
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_what_is_said_again_does_no_harm(
    postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch, statement: st.Statement, after: bool
):
    """Outcomes, tasks given back and details may go again after an unknown outcome: each counts once."""
    with opened(url) as store:
        run = begin(store)
        put(store, run, new("1"), new("2"))
        one, two = store.take(["q"], "me", 2, 10)
        store.send([outcome(one)], 5)  # all statements are prepared
        store.beat("me", {two.number: b""})
        store.give_back([(two.number, two.claim)], "nobody")
        works: dict[st.Statement, Callable[[], object]] = {
            st.COMMIT: lambda: store.send([outcome(two)], 5),
            qs.GIVE_BACK: lambda: store.give_back([(two.number, two.claim)], "me"),
            qs.NOTE_TASKS: lambda: store.beat("me", {two.number: b"half"}),
        }
        with monkeypatch.context() as broken:
            Breaking(broken, postgresql, statement, after)
            with pytest.raises(UnknownOutcome):
                works[statement]()
        works[statement]()
        assert len(store.inbox(run.number)) == (2 if statement is st.COMMIT else 1)
        assert store.notes(run.number) == ({"2": b"half"} if statement is qs.NOTE_TASKS else {})
        assert [task.owner for task in store.tasks_of(run.number)] == (
            [] if statement is st.COMMIT else [""] if statement is qs.GIVE_BACK else ["me"]
        )
        assert store.check() == []


def test_tasks_of_who_held_the_store_and_died_go_to_those_who_join(url: str):
    """A holder has no lease that could end; it is over when another is at work on the store."""
    with opened(url) as store:
        store.hold("holder")
        run = begin(store)
        put(store, run, new("1"))
        assert len(store.take(["q"], "holder", 1, 10)) == 1
    with opened(url) as store:
        changes = store.changes()
        store.join("other", 1000, 5)
        assert store.changes() != changes
        (task,) = store.tasks_of(run.number)
        assert (task.owner, task.deaths) == ("", 1)


# --- hints, damage, people -----------------------------------------------------------------------------------------


def test_new_tasks_and_free_places_are_announced(url: str):
    """Who listens hears of a task that was put, and of one that ended where others had to wait for that."""
    with opened(url) as store, opened(url) as other:
        told = threading.Semaphore(0)
        other.listen(told.release)
        assert told.acquire(timeout=20)  # it listens
        store.declare([Queue("q", concurrency=1)])
        assert told.acquire(timeout=20)
        run = begin(store)
        put(store, run, new("1"), new("2"))
        assert told.acquire(timeout=20)
        (one,) = store.take(["q"], "me", 9, 10)
        store.give_back([(one.number, one.claim)], "me")
        assert told.acquire(timeout=20)
        (one,) = store.take(["q"], "me", 9, 10)
        apply(store, step(run, 2, b"e", active=False))
        assert not told.acquire(blocking=False)
        store.send([outcome(one)], 5)
        assert told.acquire(timeout=20)


def test_damaged_tasks_are_named_and_not_run(postgresql: Server, url: str):
    """A task whose bytes were changed is given to nobody, and `check` names it; so are counts that are wrong."""
    with opened(url) as store:
        run = begin(store)
        put(store, run, new("1"), new("2", key="k"))
        store.note(run.number, run.epoch, {"3": b"half"})
        behind(postgresql, url, "UPDATE tasks SET payload = 'other' WHERE step = '1'")
        assert [task.step for task in store.take(["q"], "me", 9, 10)] == ["2"]
        with pytest.raises(StoreDamaged, match="task 1 of run 1"):
            store.tasks_of(run.number)
        behind(postgresql, url, "UPDATE notes SET details = 'other'")
        with pytest.raises(StoreDamaged, match="note for step 3"):
            store.notes(run.number)
        behind(postgresql, url, "UPDATE queue_keys SET held = 7 WHERE key = 'k'")
        behind(postgresql, url, "INSERT INTO notes SELECT 99, crc, step, details FROM notes")
        behind(postgresql, url, "UPDATE runs SET queue = 'elsewhere'")
        found = {problem.key: problem.what for problem in store.check()}
        assert list(found) == [
            f"task 1 of run {run.number}",
            f"note for step 3 of run {run.number}",
            "note for step 3 of run 99",
            "queue 'q' of steps, key 'k'",
            "run 99",
            f"run {run.number}",
        ]


def test_looking_for_tasks_in_vain_writes_nothing(postgresql: Server, url: str):
    """Where nothing waits, nothing is due, or no limit lets it go, the server's log does not grow."""
    with opened(url) as store:
        store.declare([Queue("full", concurrency=1), Queue("slow", rate=Rate(count=1, per=3600))])
        run = begin(store)
        tasks = (new(f"{name} {nth}", name) for name in ("full", "slow") for nth in range(2))
        put(store, run, *tasks, new("aside", "aside", not_before_us=99), new("unknown", "other"))
        queues = ["full", "slow", "aside", "nothing"]
        assert len(store.take(queues, "me", 9, 10)) == 2
        changes = store.changes()
        (before,) = behind(postgresql, url, "SELECT pg_current_xact_id()::text::bigint")
        for _ in range(3):
            assert store.take(queues, "me", 9, 10) == store.take(["other"], "me", 9, 10, ["pay less"]) == []
            assert store.admit(queues, 9, 10) == []
        (after,) = behind(postgresql, url, "SELECT pg_current_xact_id()::text::bigint")
        assert store.changes() == changes
        assert after[0] - before[0] == 1 or postgresql.url.startswith("postgresql://")  # nobody else has written


def test_people_can_see_the_queues(postgresql: Server, url: str):
    """Who waits where, since when, and who is at work on what, stands in views."""
    with opened(url) as store:
        run = begin(store)
        store.declare([Queue("q", concurrency=1, per_key=2)])
        put(store, run, *(new(str(nth), key="k", at_us=nth * 1_000_000) for nth in range(3)))
        begin(store, "waits", place=Place(queue="r", not_before_us=2_000_000))
        assert len(store.take(["q"], "me", 9, 10)) == 1
        tasks = "SELECT workflow_id, kind, queue, key, step, state, owner FROM readable_tasks ORDER BY number"
        assert behind(postgresql, url, tasks) == [
            ("order-1", "step", "q", "k", "0", "work", "me"),
            ("order-1", "step", "q", "k", "1", "line", ""),
            ("order-1", "step", "q", "k", "2", "behind", ""),
            ("waits", "run", "r", "", "", "aside", ""),
        ]
        queues = "SELECT name, tasks, at_work, extract(epoch FROM oldest)::int FROM readable_queues WHERE tasks > 0"
        assert sorted(behind(postgresql, url, queues)) == [("q", 3, 1, 1), ("r", 1, 0, 0)]
        waiting = "SELECT workflow_id, queue FROM readable_runs WHERE queued"
        assert behind(postgresql, url, waiting) == [("waits", "r")]


# --- tables of the release before ----------------------------------------------------------------------------------


def test_a_store_of_the_release_before_gets_queues(postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch):
    """Opened by two at once, the tables are brought up to date once; what was there goes on, now with tasks."""
    before = {version: script for version, script in migrations.scripts().items() if version < 3}
    with monkeypatch.context() as older:
        older.setattr(migrations, "scripts", lambda: before)
        opened(url).close()
    behind(
        postgresql,
        url,
        """INSERT INTO runs (number, created_at_us, last_message, workflow_key, generation, head, epoch, deaths, active,
            restore, status, owner, workflow_id, workflow, reason, digest, tags)
        SELECT nextval('run_numbers'), 1, 0, gen_random_uuid(), 1, 1, 1, 0, true, false, 'running', 'here', 'order-1',
            'fulfil', '', '', '{}'""",
    )
    crc = event_crc(1, 0, b"started")
    behind(postgresql, url, "INSERT INTO events (run, seq, crc, event) VALUES (1, 0, %s, 'started')", crc)
    together, found = threading.Barrier(2, timeout=20), list[RunRecord]()

    def start() -> None:
        together.wait()
        with opened(url) as store:
            found.extend(store.runs())

    all_at_once(start, start)
    assert [(run.workflow_id, run.queue, run.queued) for run in found] == [("order-1", "", False)] * 2
    assert behind(postgresql, url, "SELECT count(*), max(version) FROM migrations") == [
        (len(migrations.scripts()), max(migrations.scripts()))
    ]
    with opened(url) as store:
        assert isinstance(store.commit([Transition(run=1, epoch=1, head=1, tasks=(new("1"),))])[0], Applied)
        assert [task.step for task in store.take(["q"], "me", 9, 10)] == ["1"]
        assert store.check() == []
