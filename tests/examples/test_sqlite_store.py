"""The store on SQLite keeps the contract, agrees with the model, and answers what SQLite leaves to its users."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import settings

from dalsegno import Engine
from dalsegno.backends import layout
from dalsegno.core.errors import BadOption, StoreDamaged, StoreFull, StoreInUse, StoreUnusable, UnknownOutcome
from dalsegno.core.store import Backend, open_store
from dalsegno.examples import hello
from dalsegno.examples.sqlite_store import SqliteStore
from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.backend_machine import BackendMachine
from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step
from tests.examples.test_hello import run_hello


class TestSqlite(BackendContract):
    """Every promise of the port, on SQLite."""

    @pytest.fixture(autouse=True)
    def _path(self, path: Path):
        self.path = path

    def open_backend(self):
        return SqliteStore.open(str(self.path))

    def damage_event(self, store, run, index):
        with store.begin(True) as txn:
            key = layout.HISTORY + layout.run_bytes(run) + layout.index_bytes(index)
            value = txn.get(key)
            txn.put(key, bytes([value[0] ^ 1]) + value[1:])
            txn.commit()


class SqliteMachine(BackendMachine):
    """Whatever is done to it, in whatever order."""

    def open_backend(self) -> Backend:
        return SqliteStore.open(str(self.folder / "store.db"))


TestSqliteAgrees = SqliteMachine.TestCase
TestSqliteAgrees.settings = settings(max_examples=max(20, settings().max_examples // 3), deadline=None)  # it flushes


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a store may be made."""
    return tmp_path / "store.db"


def child(source: str, path: Path) -> subprocess.Popen[str]:
    """Another process, with the store open as `store`."""
    lines = [
        "import sys, os, resource, sqlite3",
        "from dalsegno.core.errors import *",
        "from dalsegno.examples.sqlite_store import SqliteStore",
        "from dalsegno.testing.run_promises import *",
        "store = SqliteStore.open(sys.argv[1])",
        source,
    ]
    command = [sys.executable, "-c", "\n".join(lines), str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


# --- with an engine ------------------------------------------------------------------------------------------------


def test_a_workflow_runs_on_it(path: Path, capfd: pytest.CaptureFixture[str]):
    """An engine finds the store by its URL, and another engine on the same file finds the result."""
    for greeted in (["Hello, Ada!", "Hello, Bob!"], []):
        with Engine(f"sqlite:{path}", workflows=[hello.greet_all], steps=[hello.greet]) as engine:
            assert engine.start(hello.greet_all, ["Ada", "Bob"], id="hello").result(timeout=20) == 2
        assert capfd.readouterr().out.splitlines() == greeted


def test_a_workflow_survives_a_crash_on_it(tmp_path: Path):
    """What was greeted before the crash is not greeted again, and no engine's lock outlives its process."""
    store = ("--store", "sqlite:./hello.db")
    assert run_hello(tmp_path, "--crash", *store) == (1, ["Hello, Ada!"])
    assert run_hello(tmp_path, *store) == (0, ["Hello, Bob!", "Hello, Cyd!", "3 greeted"])


# --- the file ------------------------------------------------------------------------------------------------------


def test_every_commit_is_flushed_to_a_log(path: Path):
    """The file is in WAL mode, and every connection flushes what it commits."""
    with SqliteStore.open(str(path)) as store, store._lent() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


@pytest.mark.parametrize("location", ["", "a\0b", ":memory:", "file.db?durability=full"])
def test_a_location_names_a_file(location: str):
    """What names no file, or carries options, is refused."""
    with pytest.raises(BadOption):
        open_store(f"sqlite:{location}")
    with pytest.raises(BadOption, match="quota"):
        open_store("sqlite:file.db", quota=1)


def test_what_is_no_store_is_left_alone(tmp_path: Path):
    """A folder, a text, another program's database, and a path in no folder are refused as they are."""
    text, foreign = tmp_path / "notes.txt", tmp_path / "other.db"
    text.write_text("precious " * 500)
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE songs (name)")
    connection.close()
    before = text.read_bytes(), foreign.read_bytes()
    for location, why in [
        (tmp_path, "unable to open"), (tmp_path / "no/such", "unable to open"), (text, "not a database"),
        (foreign, "another program's database: it has a table 'songs'"),
    ]:  # fmt: skip
        with pytest.raises(StoreUnusable, match=why) as caught:
            SqliteStore.open(str(location))
        assert str(caught.value).startswith(str(location))
    assert (text.read_bytes(), foreign.read_bytes()) == before
    assert sorted(file.name for file in tmp_path.iterdir()) == ["notes.txt", "other.db"]


def test_opened_to_look(path: Path):
    """With `read_only` nothing is made of what is not there or empty, and a store that is there is not written to."""
    with pytest.raises(StoreUnusable, match=f"^{path} .*nothing to read"):
        SqliteStore.open(str(path), read_only=True)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreUnusable, match=f"^{path} .*nothing to read"):
        SqliteStore.open(str(path), read_only=True)
    assert path.stat().st_size == 0
    with SqliteStore.open(str(path)) as store:
        begin(store, "one")
        with SqliteStore.open(str(path), read_only=True) as reader:
            assert reader.find("one") is not None
            before = reader.changes()
            begin(store, "two")
            assert reader.changes() != before
            assert len(reader.runs()) == 2
            for write in (lambda: begin(reader, "three"), lambda: reader.hold("engine")):
                with pytest.raises(StoreUnusable, match="reading only"):
                    write()
        store.hold("engine")


def test_a_later_format_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store written by a later release is named with its file, and not opened."""
    with monkeypatch.context() as later:
        later.setattr(layout, "FORMAT_WITHOUT_QUEUES", 3)
        SqliteStore.open(str(path)).close()
    with pytest.raises(StoreUnusable, match=f"^{path} has format 3"):
        SqliteStore.open(str(path))


def test_many_make_the_same_new_file(path: Path):
    """Opened for the first time by many at once, it is made once, and each of them can use it."""
    together, problems = threading.Barrier(8), list[Exception]()

    def make(number: int) -> None:
        together.wait()
        try:
            with SqliteStore.open(str(path)) as store:
                begin(store, f"run-{number}")
        except Exception as error:
            problems.append(error)

    threads = [threading.Thread(target=make, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    with SqliteStore.open(str(path)) as store:
        assert len(store.runs()) == 8
        assert store.check() == []


# --- transactions --------------------------------------------------------------------------------------------------


def test_a_reader_sees_one_state(path: Path):
    """What is committed while a transaction reads is not seen by it, also when it walks, and waits for nobody."""
    with SqliteStore.open(str(path)) as store:
        begin(store, "one")
        with store.begin(False) as txn:
            before = list(txn.scan(b"\0", b"\xff"))
            walk = txn.scan(b"\0", b"\xff", reverse=True)
            last = next(walk)
            begin(store, "two")
            assert [last, *walk] == before[::-1]
            assert list(txn.scan(b"\0", b"\xff")) == before


def test_a_walk_left_half_way_keeps_nothing_open(path: Path):
    """An iterator that outlives its transaction neither holds on to the old state nor gives more of it."""
    with SqliteStore.open(str(path)) as store:
        run = begin(store, events=(b"e",) * 9)
        with store.begin(False) as txn:
            walk = txn.scan(b"\0", b"\xff")
            next(walk)
        with pytest.raises(sqlite3.ProgrammingError):
            next(walk)
        apply(store, step(run, 9, b"f"))
        assert store.head(run.number) == 10
        with store._lent() as connection:
            assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_what_is_raised_inside_undoes_everything(path: Path):
    """A transaction that does not come to its commit leaves the store as it was, and the next one is undisturbed."""
    with SqliteStore.open(str(path)) as store:
        run = begin(store)
        changes = store.changes()
        with pytest.raises(TypeError):
            store.write([new_run("other")], [step(run, 1, b"fine", "not bytes")], [], 1)  # type: ignore[arg-type]
        assert (store.find("other"), store.changes()) == (None, changes)
        apply(store, step(run, 1, b"e"))


def test_connections_are_used_again(path: Path):
    """However many transactions follow each other, one connection does them; closing the store closes it."""
    with SqliteStore.open(str(path)) as store:
        run = begin(store)
        for head in range(1, 20):
            apply(store, step(run, head, b"e"))
        (connection,) = store._idle
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("SELECT 1")
    assert sorted(file.name for file in path.parent.iterdir()) == ["store.db"]


def test_a_transaction_may_end_after_its_store(path: Path):
    """Closing the store while a thread reads lets it finish, and its connection is closed then."""
    store = SqliteStore.open(str(path))
    begin(store)
    with store.begin(False) as txn:
        store.close()
        assert list(txn.scan(b"r", b"s"))
    assert store._idle == []
    with pytest.raises(StoreUnusable, match="closed"):
        store.changes()


# --- other processes -----------------------------------------------------------------------------------------------


def test_another_process_writes_at_the_same_time(path: Path):
    """Commits of two processes are all applied, and each is noticed."""
    with SqliteStore.open(str(path)) as store:
        run, changes = begin(store, "mine"), store.changes()
        source = "run = begin(store, 'theirs')\nfor head in range(1, 41): apply(store, step(run, head, b'e'))"
        with child(source, path) as process:
            for head in range(1, 41):
                apply(store, step(run, head, b"e"))
            assert process.wait(60) == 0
        assert [store.head(record.number) for record in store.runs()] == [41, 41]
        assert store.check() == []
        mine = store.changes()
        assert mine != changes
        with child("store.send([signal('mine')], 1)", path) as process:
            assert process.wait(60) == 0
        assert store.changes() != mine


def test_an_engine_that_is_killed_leaves_its_store(path: Path):
    """While another process is the engine it is named; when it is killed, the next can be, and nothing is lost."""
    source = "store.hold('first')\nbegin(store)\nprint(os.getpid(), flush=True)\nsys.stdin.read()"
    with child(source, path) as process, SqliteStore.open(str(path)) as store:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        with pytest.raises(StoreInUse, match=rf"process {pid} on .* \(first\)") as caught:
            store.hold("second")
        assert (caught.value.owner, caught.value.pid) == ("first", pid)
        process.kill()
        process.wait()
        store.hold("second")
        store.hold("second")
        with pytest.raises(BadOption, match="second"):
            store.hold("third")
        assert store.history(1) == [b"started"]


def test_a_forked_child_has_to_open_it_again(path: Path):
    """In a child an inherited store says so, and opening it anew works; the place of the engine is not inherited."""

    def in_child(queue: multiprocessing.Queue[list[str]]) -> None:
        said = []
        for use in (lambda: store.record(1), store.changes, lambda: store.hold("child"), lambda: begin(store)):
            try:
                use()
            except StoreUnusable as error:
                said.append(str(error).split(";")[0])
        store.close()
        with SqliteStore.open(str(path)) as mine:
            said.append(mine.runs()[0].workflow_id)
            try:
                mine.hold("child")
            except StoreInUse as error:
                said.append(error.owner)
        queue.put(said)

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with SqliteStore.open(str(path)) as store:
        begin(store)
        store.hold("parent")
        process = context.Process(target=in_child, args=(queue,))
        process.start()
        said = queue.get(timeout=60)
        process.join()
        apply(store, step(store.runs()[0], 1, b"e"))
    assert said == ["this store was opened before the process was forked"] * 4 + ["order-1", "parent"]


# --- faults --------------------------------------------------------------------------------------------------------


def test_a_full_store_says_so_and_goes_on(path: Path):
    """Without room nothing is applied and reading goes on; a full store can be held, and when there is room it is
    written again."""
    with SqliteStore.open(str(path)) as store:
        run, closed = begin(store), begin(store, "closed", events=(b"x" * 60_000,))
        apply(store, end(closed))
        (connection,) = store._idle
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        changes = store.changes()
        with pytest.raises(StoreFull, match="no more room"):
            store.create([new_run("large", events=(b"x" * 100_000,))])
        assert (store.find("large"), store.changes()) == (None, changes)
        assert store.history(run.number) == [b"started"]
        store.hold("engine")
        assert store.purge([closed.number]) == 1
        begin(store, "large", events=(b"x" * 40_000,))
        assert store.check() == []


def test_a_commit_that_fails_leaves_its_outcome_open(path: Path):
    """A log that cannot be written to the end is told as `UnknownOutcome`; re-reading tells, and then it goes on."""
    source = """
import json
run = begin(store)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
size = os.stat(sys.argv[1] + "-wal").st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10_000, limits[1]))
said = []
try:
    apply(store, step(run, 1, b"x" * 50_000))
except StoreError as error:
    said.append(type(error).__name__)
said.append(store.head(run.number))
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
apply(store, step(run, 1, b"e"))
said += [store.head(run.number), len(store.check())]
print(json.dumps(said))
"""
    with child(source, path) as process:
        output, _ = process.communicate(timeout=60)
    assert json.loads(output) == [UnknownOutcome.__name__, 1, 2, 0]


def test_a_damaged_file_is_told(path: Path):
    """Pages that are no pages any more are damage, and named with the file."""
    with SqliteStore.open(str(path)) as store:
        begin(store, events=(b"x" * 200,) * 300)
    content = bytearray(path.read_bytes())
    content[4096 * 3 :] = b"\xa5" * (len(content) - 4096 * 3)
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=str(path)), SqliteStore.open(str(path)) as store:
        store.check()


def test_sizes_count_the_log(path: Path):
    """The size of the file is that of file and log, and what is deleted is no longer counted as events."""
    with SqliteStore.open(str(path)) as store:
        run = begin(store, events=(b"x" * 1000,) * 200)
        sizes = store.stats()
        assert sizes["file_bytes"] > sizes["events_bytes"] > 200_000
        apply(store, end(run, 200))
        store.purge([run.number])
        assert store.stats()["events_bytes"] < 50_000
        assert store.send([signal()], 1)[0][1] == 0
