"""The store on PostgreSQL keeps the contract, agrees with the model, and shows people what it holds."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import settings
from psycopg import sql

from dalsegno.backends.postgresql import PostgresqlBackend
from dalsegno.backends.postgresql.planning import Plan
from dalsegno.core.errors import BadOption, StoreDamaged, StoreError, StoreUnusable, UnknownOutcome
from dalsegno.core.queues import NewTask, Queue
from dalsegno.core.store import Applied, Backend, Refusal, Refused, Sent, Status, Transition, open_store
from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.backend_machine import BackendMachine
from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step
from tests.postgresql_server import Server, schema_of


def opened(url: str, **options: object) -> PostgresqlBackend:
    """The store at a URL."""
    store = open_store(url, **options)
    assert isinstance(store, PostgresqlBackend)
    return store


def behind(server: Server, url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    """Do something in the schema of a store, without the store."""
    with server.connect() as connection:
        connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema_of(url))))
        answer = connection.execute(query.encode(), values)
        return answer.fetchall() if answer.description else []


class TestPostgresql(BackendContract):
    """Every promise of the port, on PostgreSQL."""

    @pytest.fixture(autouse=True)
    def _server(self, postgresql: Server):
        self.server, self.url = postgresql, postgresql.schema()

    def open_backend(self):
        return opened(self.url)

    def damage_event(self, store, run, index):
        flip = "UPDATE events SET event = set_byte(event, 0, get_byte(event, 0) # 1) WHERE run = %s AND seq = %s"
        behind(self.server, self.url, flip, run, index)


class PostgresqlMachine(BackendMachine):
    """Whatever is done to it, in whatever order."""

    server: ClassVar[Server]

    def __init__(self):
        self.url = self.server.schema()
        super().__init__()

    def open_backend(self) -> Backend:
        return opened(self.url)

    def teardown(self):
        super().teardown()
        self.server.forget()


@pytest.fixture(autouse=True, scope="module")
def _machine_has_a_server(postgresql_server: Server) -> Iterator[None]:
    """Hypothesis makes machines by itself, and asks pytest for nothing."""
    PostgresqlMachine.server = postgresql_server
    yield
    del PostgresqlMachine.server


TestPostgresqlAgrees = PostgresqlMachine.TestCase
TestPostgresqlAgrees.settings = settings(  # each example makes and drops a schema, and each look is a round trip
    max_examples=max(12, settings().max_examples // 8), stateful_step_count=30, deadline=None
)


@pytest.fixture
def url(postgresql: Server) -> str:
    """Where a store may be made."""
    return postgresql.schema()


# --- options -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("localhost/orders", "write 'postgresql://"),
        ("//h/d?schema=", "a name of 1 to 63 bytes"),
        ("//h/d?schema=pg_x", "PostgreSQL's own"),
        ("//h/d?schema=" + "x" * 64, "a name of 1 to 63 bytes"),
        ("//h/d?durability=lazy", "'full' or 'relaxed'"),
        ("//h/d?read_only=maybe", "true or false"),
        ("//h/d?statement_timeout=soon", "number of seconds"),
        ("//h/d?readers=0", "from 1 to 1000"),
        ("//u:secret@h/d?nonsense=1", "no PostgreSQL URL"),
    ],
)
def test_a_bad_url_is_refused(location: str, why: str):
    """What makes no sense is named before anything is connected to, and never with a password."""
    with pytest.raises(BadOption, match=why) as caught:
        open_store(f"postgresql:{location}")
    assert "secret" not in str(caught.value)
    with pytest.raises(BadOption, match="quota"):
        open_store("postgresql://h/d", quota=1)


def test_a_server_that_is_not_there_is_named_without_the_password():
    """An unreachable server is `StoreUnusable`, at once, with host and database."""
    with pytest.raises(StoreUnusable, match="nowhere, database orders") as caught:
        open_store("postgresql://me:secret@/orders?host=/nowhere")
    assert "secret" not in str(caught.value)
    for host in ("x" * 64, "..", "a..b"):
        with pytest.raises(StoreUnusable, match="there can be no host of this name") as caught:
            open_store(f"postgresql://me:secret@{host}/orders")
        assert "secret" not in str(caught.value)
    with pytest.raises(BadOption, match="not UTF-8"):
        open_store("postgresql://\udcff/orders")


def test_a_schema_may_have_any_name(postgresql: Server):
    """The name is quoted, whatever it holds."""
    name = 'q"; DROP SCHEMA public; -- ä'
    url = postgresql.with_options(schema=name, durability="relaxed")
    with opened(url) as store:
        begin(store)
        assert store.changes() != b"0"
    with opened(url) as store:
        assert len(store.runs()) == 1
    with postgresql.connect() as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


def test_stores_in_two_schemas_know_nothing_of_each_other(postgresql: Server):
    """Runs, numbers, changes and the place of the engine are of one schema."""
    with opened(postgresql.schema()) as one, opened(postgresql.schema()) as two:
        one.hold("one")
        two.hold("two")
        before = two.changes()
        begin(one)
        assert (two.runs(), two.changes()) == ([], before)


def test_durability_is_what_was_asked_for(postgresql: Server):
    """`full` waits for the disk, `relaxed` does not."""
    for durability, expected in (("full", "on"), ("relaxed", "off")):
        with opened(postgresql.schema(durability=durability)) as store:
            shown = store._connections.read(lambda s: s.connection.execute("SHOW synchronous_commit").fetchall())
            assert shown == [(expected,)]


# --- the tables ----------------------------------------------------------------------------------------------------


def test_what_it_holds_can_be_read_by_people(postgresql: Server, url: str):
    """Runs, histories, messages, timers and published values stand in views with readable times."""
    with opened(url) as store:
        run = begin(store, tags={"customer": "Ünal"}, timers=((2_000_000, "3.1"),), published={"state": b"v"})
        store.send([signal(name="approval")], 1_000_000)
        apply(store, step(run, 1, b"e", status=Status.BLOCKED, reason="code changed"))
    (row,) = behind(postgresql, url, "SELECT workflow_id, status, reason, events, tags->>'customer' FROM readable_runs")
    assert row == ("order-1", "blocked", "code changed", 2, "Ünal")
    ((name, sent),) = behind(postgresql, url, "SELECT name, sent AT TIME ZONE 'UTC' FROM readable_messages")
    assert (name, sent.isoformat()) == ("approval", "1970-01-01T00:00:01")
    ((due,),) = behind(postgresql, url, "SELECT due AT TIME ZONE 'UTC' FROM readable_timers")
    assert due.isoformat() == "1970-01-01T00:00:02"
    assert behind(postgresql, url, "SELECT key, bytes FROM readable_published") == [("state", 1)]
    assert behind(postgresql, url, "SELECT seq, bytes FROM readable_events ORDER BY seq") == [(0, 7), (1, 1)]


def test_texts_that_no_database_takes_are_kept(url: str):
    """NUL, half a surrogate pair and the sign that stands for them come back wherever a text may stand."""
    odd = "a\0b\ud800c\x1ad"
    with opened(url) as store:
        run = begin(store, "id \x1a", tags={odd: odd}, timers=((5, odd),), published={odd: b"v"}, workflow=odd)
        apply(store, step(run, 1, b"e", reason=odd))
        store.send([signal("id \x1a", name=odd, dedup=odd)], 1)
        found = store.find("id \x1a")
        assert found is not None
        assert (dict(found.tags), found.workflow, found.reason) == ({odd: odd}, odd, odd)
        assert [timer.key for timer in store.due(9)] == [odd]
        assert store.published(run.number) == {odd: b"v"}
        assert [message.name for message in store.inbox(run.number)] == [odd]
        assert store.send([signal("id \x1a", dedup=odd)], 1)[0][0] is Sent.DUPLICATE
        assert store.runs(tags={odd: odd}) == [found]
        assert store.check() == []


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        ("DELETE FROM events WHERE seq = 1", "another number of events"),
        ("UPDATE events SET event = 'x' WHERE seq = 1", "checksum"),
        ("UPDATE messages SET payload = 'x'", "checksum"),
        ("UPDATE published SET key = 'other'", "checksum"),
        ("UPDATE messages SET run = 99", "no open record"),
        ("UPDATE timers SET run = 99", "no open record"),
        ("INSERT INTO events VALUES (99, 0, 0, '')", "no record"),
        ("UPDATE counters SET value = 0", "beyond the counter"),
    ],
)
def test_check_finds_what_does_not_fit(postgresql: Server, url: str, spoil: str, what: str):
    """Whatever is changed behind the store's back is found, and named in words."""
    with opened(url) as store:
        begin(store, events=(b"a", b"b", b"c"), timers=((5, "t"),), published={"p": b"v"})
        store.send([signal()], 1)
        assert store.check() == []
        behind(postgresql, url, spoil)
        assert any(what in problem.what for problem in store.check())


def test_damage_is_never_handed_out(postgresql: Server, url: str):
    """A gap in a history, a changed message and a changed value are `StoreDamaged`, with the run's number."""
    with opened(url) as store:
        run = begin(store, events=(b"a", b"b", b"c"), published={"p": b"v"})
        store.send([signal()], 1)
        behind(postgresql, url, "DELETE FROM events WHERE seq = 1")
        behind(postgresql, url, "UPDATE messages SET failed = true")
        behind(postgresql, url, "UPDATE published SET value = 'w'")
        for read in (store.history, store.inbox, store.published):
            with pytest.raises(StoreDamaged) as caught:
                read(run.number)
            assert caught.value.run == run.number


# --- many at once --------------------------------------------------------------------------------------------------


def test_many_appends_go_together_or_are_told_apart(url: str):
    """A group of appends is applied at once; one that does not fit is refused by itself."""
    with opened(url) as store:
        runs = [begin(store, f"run-{index}") for index in range(5)]
        assert store.commit([step(run, 1, b"1", b"2") for run in runs]) == [Applied()] * 5
        late = [step(run, 1 if run is runs[2] else 3, b"3") for run in runs]
        assert store.commit(late) == [Refused(Refusal.HEAD) if run is runs[2] else Applied() for run in runs]
        gone = Transition(run=10**6, epoch=1, head=0, events=(b"e",))
        assert store.commit([step(runs[0], 4, b"4"), gone]) == [Applied(), Refused(Refusal.GONE)]
        assert [store.head(run.number) for run in runs] == [5, 4, 3, 4, 4]


def test_news_never_miss_a_message(url: str):
    """However many send at once through handles of their own, a reader that goes on from the last number it saw has
    seen every message."""
    with opened(url) as reader:
        runs = [begin(reader, f"run-{index}") for index in range(4)]
        done = threading.Event()

        def send(number: int) -> None:
            with opened(url) as store:
                for _ in range(40):
                    store.send([signal(f"run-{number}")], 1)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        seen: list[int] = []

        def follow() -> None:
            with opened(url) as store:
                while len(seen) < 160 and not (done.is_set() and not store.news(seen[-1] if seen else 0)):
                    seen.extend(seq for seq, _ in store.news(seen[-1] if seen else 0))

        follower = threading.Thread(target=follow)
        for thread in (*threads, follower):
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        follower.join()
        assert seen == sorted(set(seen))
        assert len(seen) == 160
        assert sum(len(reader.inbox(run.number)) for run in runs) == 160


def test_two_handles_make_one_run_of_an_id(url: str):
    """Handles that create, restart and adopt the same ids at the same moment agree on one run for each."""
    ids = [f"run-{index}" for index in range(12)]
    together, made = threading.Barrier(4, timeout=20), list[tuple[str, int, bool]]()

    def work() -> None:
        with opened(url) as store:
            for one in ids:
                together.wait()
                (created,) = store.create([new_run(one, owner="")])
                made.append((one, created.record.number, created.new))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for one in ids:
        mine = [(number, new) for workflow_id, number, new in made if workflow_id == one]
        assert len({number for number, _ in mine}) == 1
        assert sum(new for _, new in mine) == 1
    with opened(url) as store:
        assert len(store.runs()) == 12
        assert store.check() == []


def test_handles_that_lock_the_same_runs_do_not_wait_for_each_other_for_ever(url: str):
    """Groups that name the same runs in any order are all applied."""
    with opened(url) as store:
        names = [f"run-{index}" for index in range(6)]
        for name in names:
            begin(store, name)

        def work(order: list[str]) -> None:
            with opened(url) as mine:
                for _ in range(15):
                    sent = mine.send([signal(name) for name in order], 1)
                    assert all(what is Sent.ACCEPTED for what, _ in sent)
                    mine.claim([number for _, number in sent], "one")

        threads = [threading.Thread(target=work, args=(order,)) for order in (names, names[::-1], names[3:] + names)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(len(store.inbox(run.number)) for run in store.runs()) == 15 * (6 + 6 + 9)


def test_messages_find_the_newest_run_while_it_continues_as_new(url: str):
    """Whoever sends to an id whose run is just being followed by the next generation reaches one of the two, and no
    message is lost or told that there is nobody."""
    with opened(url) as store:
        run, closed = begin(store), threading.Event()
        allowed = threading.Semaphore(0)  # a few for each generation: with no end of them no run would ever close
        answers: list[Sent] = []

        def send() -> None:
            with opened(url) as mine:
                while allowed.acquire() and not closed.is_set():
                    answers.extend(sent for sent, _ in mine.send([signal()], 1))

        threads = [threading.Thread(target=send) for _ in range(3)]
        for thread in threads:
            thread.start()
        taken, generations = 0, 0
        allowed.release(3)
        while generations < 40:
            seqs = tuple(message.seq for message in store.inbox(run.number))
            closing = end(run, seen=max(seqs, default=0), consumed=seqs, status=Status.CONTINUED, continued=new_run())
            (verdict,) = store.commit([closing])
            if isinstance(verdict, Applied):
                taken, generations, run = taken + len(seqs), generations + 1, verdict.created[0]
                allowed.release(3)
        closed.set()
        allowed.release(3)
        for thread in threads:
            thread.join()
        assert set(answers) == {Sent.ACCEPTED}
        assert len(answers) == taken + len(store.inbox(run.number))
        assert store.check() == []


def test_who_stops_in_a_transaction_gives_its_locks_back(url: str, monkeypatch: pytest.MonkeyPatch):
    """A process that is frozen between looking and writing has its session ended by the server; others go on, and what
    it writes when it thaws is not applied."""
    monkeypatch.setattr("dalsegno.backends.postgresql.session.IDLE_IN_TRANSACTION_S", 0.2)
    with opened(url) as frozen, opened(url) as other:
        run = begin(other)
        begin(frozen, "warm")  # its statements are prepared, and its place among the writers is taken
        looked, thaw = threading.Event(), threading.Event()
        apply_one = Plan.apply

        def stop(plan: Plan, transition: Transition) -> object:
            looked.set()
            assert thaw.wait(60)
            return apply_one(plan, transition)

        monkeypatch.setattr(Plan, "apply", stop)
        said = list[type[BaseException]]()

        def work() -> None:
            try:
                frozen.commit([step(run, 1, b"late", active=False)])
            except StoreError as error:
                said.append(type(error))

        thread = threading.Thread(target=work)
        thread.start()
        assert looked.wait(60)
        monkeypatch.setattr(Plan, "apply", apply_one)
        (claimed,) = other.claim([run.number], "other")
        thaw.set()
        thread.join()
        assert other.history(run.number) == [b"started"]
        assert said in ([UnknownOutcome], [])  # or, where it was done again on a new connection, refused by its epoch
        apply(other, step(claimed, 1, b"mine"))


def test_a_long_purge_goes_in_bounded_commits(postgresql: Server, url: str, monkeypatch: pytest.MonkeyPatch):
    """A purge that dies in its sweep leaves a mark, and the next one deletes what is left."""
    monkeypatch.setattr("dalsegno.backends.postgresql.keeping.ROWS_A_COMMIT", 40)
    with opened(url) as store:
        gone = begin(store, "gone", events=(b"e",) * 100, published={"p": b"v"})
        apply(store, end(gone, 100))
        store._connections.write(lambda s: s.connection.execute("SELECT 1"))  # the writer is there
        hidden = "WITH one AS (DELETE FROM runs RETURNING number) INSERT INTO purging SELECT number FROM one"
        behind(postgresql, url, hidden)
        assert store.record(gone.number) is None
        assert store.check() == []
        assert store.purge([]) == 0
        for table in ("events", "published", "purging"):
            assert behind(postgresql, url, f"SELECT count(*) FROM {table}") == [(0,)]


def test_news_are_announced(postgresql: Server, url: str):
    """Who listens is told of a message soon after it came, and to look again after his connection broke; what an engine
    does to its own runs is not announced."""
    with opened(url) as store, opened(url) as other:
        told = threading.Semaphore(0)
        other.listen(told.release)
        assert told.acquire(timeout=20)  # it listens
        run = begin(store, owner="")
        assert told.acquire(timeout=20)
        store.send([signal()], 1)
        assert told.acquire(timeout=20)
        with postgresql.connect() as connection:
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN \"dalsegno_%'"
            assert connection.execute(ended).fetchall() == [(True,)]
        assert told.acquire(timeout=20)
        (mine,) = store.claim([run.number], "me")
        seqs = tuple(message.seq for message in store.inbox(run.number))
        apply(store, step(mine, 1, b"e", consumed=seqs, messages=(signal(),)))
        assert not told.acquire(blocking=False)


def test_what_the_guide_asks_can_be_asked(postgresql: Server, url: str):
    """Every statement of docs/postgresql.md runs as it stands there, and finds something where there is something."""
    guide = Path(__file__).resolve().parents[2].joinpath("docs/postgresql.md").read_text("utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```$", guide, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 11
    with opened(url) as store:
        order = begin(store, "order-17", tags={"customer": "Ünal"}, timers=((5, "1"),))
        task = NewTask(queue="gpu", step="1", name="render", attempt=1, payload=b"call")
        apply(store, step(order, 1, b"e", tasks=(task,)))
        store.send([signal("order-17")], 1)
        begin(store, "child", parent=("order-17", 1, "2"))
        with postgresql.connect() as connection:
            connection.execute(sql.SQL("SET search_path = {}").format(sql.Identifier(schema_of(url))))
            for block in blocks:
                statements = block.replace("dalsegno", schema_of(url)).replace("ROLE ", f"ROLE {schema_of(url)}_")
                statements = re.sub(r"TO (\w+);", rf"TO {schema_of(url)}_\1;", statements)
                answer = connection.execute(statements.encode())
                if "blocked" not in block and "7 days" not in block and "GRANT" not in block:
                    assert answer.fetchall(), block
            for role in ("worker", "onlooker"):
                name = f"{schema_of(url)}_{role}"
                mine = url.replace("user=postgres", f"user={name}")
                if role == "worker" and mine != url:
                    connection.execute(f"ALTER ROLE {name} LOGIN".encode())
                    with opened(mine) as working:
                        working.hold("worker")
                        working.declare([Queue("gpu", concurrency=1)])
                        assert len(working.take(["gpu"], "worker", 9, 10)) == 1
                        apply(working, end(begin(working, "mine")))
                        assert working.purge([working.runs()[0].number]) == 1
                        assert working.stats()["runs"] == 2
                connection.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())
