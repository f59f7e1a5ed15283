"""The LMDB store keeps the contract, and answers everything LMDB leaves to its users.

Nothing here sleeps: other processes are waited for by what they write, and faults are put where they are wanted.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import resource
import shutil
import signal as signals
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections import deque
from pathlib import Path

import lmdb
import pytest

from dalsegno.backends import layout, lmdb_folder
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.lmdb_environments import ENVIRONMENTS
from dalsegno.backends.lmdb_folder import file_system
from dalsegno.backends.lmdb_pages import missing_page
from dalsegno.backends.records import seal
from dalsegno.core.errors import BadOption, StoreDamaged, StoreFull, StoreInUse, StoreUnusable, UnknownOutcome
from dalsegno.core.store import Applied, Sent, Status, open_store
from dalsegno.testing.backend_contract import BackendContract
from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step


class TestLmdb(BackendContract):
    """Every promise of the port, on LMDB."""

    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path):
        self.folder = tmp_path / "store"

    def open_backend(self):
        return LmdbBackend.open(str(self.folder), durability="relaxed")

    def damage_event(self, store, run, index):
        key = layout.HISTORY + layout.run_bytes(run) + layout.index_bytes(index)
        damage(store, key)


def damage(store: LmdbBackend, key: bytes, bit: int = 0) -> None:
    """Flip a bit of the record under a key."""
    with store.begin(True) as txn:
        value = bytearray(txn.get(key) or b"")
        value[bit // 8] ^= 1 << bit % 8
        txn.put(key, bytes(value))
        txn.commit()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store may be created."""
    return tmp_path / "store"


def python(source: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Another process that runs `source`."""
    prelude = """
        import os, sys
        from dalsegno.backends.lmdb import LmdbBackend
        from dalsegno.core.errors import *
        from dalsegno.core.store import *
        from dalsegno.testing.run_promises import apply, begin, end, new_run, signal, step
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(source)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, **options}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], **pipes)  # type: ignore[call-overload,no-any-return]


def output_of(source: str, *arguments: object) -> str:
    """What another process that runs `source` prints; it must end well."""
    with python(source, *arguments) as process:
        output, _ = process.communicate()
        assert process.returncode == 0
    return output


# --- the folder ----------------------------------------------------------------------------------------------------


def test_a_store_is_opened_by_its_url(folder: Path):
    """Path and options stand in the URL; a store made once is found again."""
    with open_store(f"lmdb:{folder}?durability=relaxed&quota=1GiB") as store:
        run = begin(store)
    with open_store(f"lmdb:{folder}") as store:
        assert store.find("order-1") == run
    assert {file.name for file in folder.iterdir()} == {"data.mdb", "lock.mdb"}


@pytest.mark.parametrize(
    "query", ["durability=none", "quota=lots", "quota=0", "map_size=-1", "sync=False", "read_only=perhaps"]
)
def test_an_option_that_means_nothing_is_refused(folder: Path, query: str):
    """An unknown option, or a value outside its range, is named and nothing is created."""
    with pytest.raises(BadOption, match=query.split("=")[0]):
        open_store(f"lmdb:{folder}?{query}")
    assert not folder.exists()


def test_a_location_has_to_name_a_folder():
    """An empty path, or one with NUL, is refused."""
    for location in ("", "a\0b"):
        with pytest.raises(BadOption):
            LmdbBackend.open(location)


def test_a_file_is_no_store(folder: Path):
    """A path that is a file is refused, and the file left alone."""
    folder.write_text("precious")
    with pytest.raises(StoreUnusable, match="is a file"):
        LmdbBackend.open(str(folder))
    assert folder.read_text() == "precious"


def test_a_path_that_the_system_refuses(folder: Path):
    """A name too long for the file system, a link to itself, and the home of nobody are said in a sentence."""
    folder.symlink_to(folder)
    for location, why in ((str(folder.parent / ("x" * 300)), "too long"), ("~nobody-of-that-name/x", "home")):
        with pytest.raises(StoreUnusable, match=why):
            LmdbBackend.open(location)
        with pytest.raises(StoreUnusable, match=why):
            LmdbBackend.open(location, read_only=True)
    with pytest.raises(StoreUnusable):
        LmdbBackend.open(str(folder))
    with LmdbBackend.open(str(folder.parent / "sound")) as store, pytest.raises(StoreUnusable, match="too long"):
        store.compact("x" * 300)
    with LmdbBackend.open(str(folder.parent / "sound")) as store, pytest.raises(BadOption, match="not UTF-8"):
        store.compact(folder.parent / "\udcff")


def test_looking_says_what_is_there_instead(folder: Path):
    """Who only looks is told whether the path is a file or nothing, and how a store comes to be."""
    with pytest.raises(StoreUnusable, match=r"holds no store.*Is the path right\?"):
        LmdbBackend.open(str(folder), read_only=True)
    folder.write_text("precious")
    with pytest.raises(StoreUnusable, match=r"is a file, so it holds no store"):
        LmdbBackend.open(str(folder), read_only=True)


def test_a_store_whose_file_was_emptied_is_not_begun_anew(folder: Path):
    """LMDB would make a new store of an empty file. Where an engine has worked, there was something in it."""
    with LmdbBackend.open(str(folder)) as store:
        store.hold("engine")
    os.truncate(folder / "data.mdb", 0)
    for read_only in (False, True):
        with pytest.raises(StoreUnusable, match="was cut short: the file is empty, and an engine has worked on it"):
            LmdbBackend.open(str(folder), read_only=read_only)
    (folder / "engine.lock").unlink()
    LmdbBackend.open(str(folder)).close()


def test_a_missing_parent_is_not_created(folder: Path):
    """A mistyped path makes no tree of folders."""
    with pytest.raises(StoreUnusable, match="Create that one first"):
        LmdbBackend.open(str(folder / "deeper"))
    assert not folder.exists()


def test_somebody_elses_folder_is_left_alone(folder: Path):
    """A folder with other files, and another program's LMDB environment, are refused untouched."""
    folder.mkdir()
    (folder / "thesis.txt").write_text("precious")
    with pytest.raises(StoreUnusable, match=r"thesis\.txt"):
        LmdbBackend.open(str(folder))
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]
    (folder / "thesis.txt").unlink()
    with lmdb.open(str(folder)) as foreign, foreign.begin(write=True) as txn:
        txn.put(b"theirs", b"1")
    with pytest.raises(StoreUnusable, match="another program"):
        LmdbBackend.open(str(folder))


def test_an_empty_folder_becomes_a_store(folder: Path):
    """A folder somebody made for the store is taken."""
    folder.mkdir()
    with LmdbBackend.open(str(folder)) as store:
        begin(store)


def test_a_folder_without_permission_is_refused():
    """A folder that cannot be written is refused by name. Root may write anywhere, so a child of it is nobody."""
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        folder = Path(above) / "store"
        folder.mkdir(mode=0o555)
        answer, told = os.pipe()
        child = os.fork()
        if child == 0:
            if os.geteuid() == 0:
                os.setuid(65534)
            try:
                LmdbBackend.open(str(folder))
            except BaseException as error:
                os.write(told, f"{type(error).__name__}: {error}".encode())
            os._exit(0)
        os.close(told)
        os.waitpid(child, 0)
        said = os.read(answer, 1000).decode()
        os.close(answer)
    assert said.startswith("StoreUnusable")
    assert "not writable" in said


def test_reading_only_writes_nothing(folder: Path):
    """A handle for reading sees everything, refuses to write, and creates no store."""
    with pytest.raises(StoreUnusable, match="nothing to read"):
        LmdbBackend.open(str(folder), read_only=True)
    assert not folder.exists()
    with LmdbBackend.open(str(folder)) as store:
        run = begin(store)
    with LmdbBackend.open(f"{folder}?read_only=true") as store:
        assert store.find("order-1") == run
        for write in (lambda: store.create([new_run("b")]), lambda: store.hold("x"), lambda: store.purge([1])):
            with pytest.raises(StoreUnusable, match="reading only"):
                write()


def test_a_truncated_file_is_refused_before_it_kills(folder: Path):
    """A data file that ends before a page in use is refused; reading it would end the process with SIGBUS."""
    with LmdbBackend.open(str(folder)) as store:
        begin(store, events=(b"e" * 1000,) * 200)
        store.create([new_run("large", events=(b"e" * 100_000,))])
    whole = (folder / "data.mdb").read_bytes()
    for length in (len(whole) - 4096, len(whole) // 2, 3 * 4096):
        (folder / "data.mdb").write_bytes(whole[:length])
        with pytest.raises(StoreUnusable, match="cut short"):
            LmdbBackend.open(str(folder))
    for length in (4096, 100):
        (folder / "data.mdb").write_bytes(whole[:length])
        with pytest.raises(StoreUnusable):
            LmdbBackend.open(str(folder))
    (folder / "data.mdb").write_bytes(whole)
    with LmdbBackend.open(str(folder)) as store:
        assert store.check() == []


def test_a_file_without_unused_pages_at_its_end_is_whole(folder: Path):
    """A file may lack pages its header counts, if none of them is in use."""
    with LmdbBackend.open(str(folder)) as store:
        for index in range(20):
            begin(store, f"run-{index}", events=(b"e" * 5000,) * 3)
        assert missing_page(folder / "data.mdb") == ""
    data = bytearray((folder / "data.mdb").read_bytes())
    for page in (0, 4096):
        last = int.from_bytes(data[page + 136 : page + 144], "little")
        data[page + 136 : page + 144] = (last + 3).to_bytes(8, "little")
    (folder / "data.mdb").write_bytes(data)
    assert missing_page(folder / "data.mdb") == ""
    with LmdbBackend.open(str(folder)) as store:
        assert store.check() == []


def test_what_is_no_lmdb_file_is_refused(folder: Path):
    """Random bytes under the name of a data file, and LMDB 1.0's format, are refused with a sentence."""
    folder.mkdir()
    (folder / "data.mdb").write_bytes(bytes(range(256)) * 64)
    with pytest.raises(StoreUnusable, match=r"not written by LMDB 0\.9"):
        LmdbBackend.open(str(folder))
    shutil.rmtree(folder)
    with lmdb.open(str(folder), lib_version=1) as newer, newer.begin(write=True) as txn:
        txn.put(b"a", b"b")
    with pytest.raises(StoreUnusable, match=r"not written by LMDB 0\.9"):
        LmdbBackend.open(str(folder))


def test_a_newer_format_is_refused_politely(folder: Path):
    """A store of a later release is refused with both format numbers, and not changed."""
    with LmdbBackend.open(str(folder)) as store, store.begin(True) as txn:
        txn.put(layout.FORMAT_KEY, seal(layout.FORMAT_KEY, b"\x92\x07\xa6future"))
        txn.commit()
    with pytest.raises(StoreUnusable, match=r"has format 7.* up to 2.*Upgrade") as caught:
        LmdbBackend.open(str(folder))
    assert (caught.value.found, caught.value.readable) == (7, 2)
    assert ENVIRONMENTS._open == {}


def test_network_file_systems_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where LMDB's locks do not hold, a store is opened only if the caller, or the environment, says that nobody else
    will."""
    mounts = tmp_path / "mountinfo"
    place = str(tmp_path).replace(" ", "\\040")
    mounts.write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        f"2 1 0:9 / {place} rw,relatime shared:1 - nfs4 server:/share rw\n"
        f"3 1 0:9 / {place}more rw - tmpfs none rw\n"
    )
    monkeypatch.setattr(lmdb_folder, "_MOUNTS", mounts)
    monkeypatch.delenv("DALSEGNO_ALLOW_REMOTE", raising=False)
    assert (file_system(tmp_path), file_system(Path("/"))) == ("nfs4", "ext4")
    with pytest.raises(StoreUnusable, match=r"'nfs4'.*allow_remote"):
        LmdbBackend.open(str(folder))
    assert not folder.exists()
    with LmdbBackend.open(str(folder), allow_remote=True) as store:
        begin(store)
    monkeypatch.setenv("DALSEGNO_ALLOW_REMOTE", "1")
    LmdbBackend.open(str(folder)).close()
    monkeypatch.setattr(lmdb_folder, "_MOUNTS", tmp_path / "none")
    assert file_system(tmp_path) == ""


def test_new_names_are_flushed_once(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A new store's folder and its parent are flushed to disk before anything is acknowledged; an old one's are not."""
    flushed: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    LmdbBackend.open(str(folder)).close()
    assert flushed == [str(folder), str(folder.parent)]
    LmdbBackend.open(str(folder)).close()
    assert len(flushed) == 2


# --- one process ---------------------------------------------------------------------------------------------------


def test_handles_of_a_process_share_one_environment(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A store may be opened twice in a process, by different paths too; it is closed with the last handle."""
    monkeypatch.chdir(folder.parent)
    with LmdbBackend.open(str(folder)) as one:
        two = LmdbBackend.open("store")
        (folder.parent / "link").symlink_to(folder)
        three = LmdbBackend.open("link")
        run = begin(one)
        assert two.find("order-1") == three.find("order-1") == run
        three.close()
        two.close()
        two.close()
        apply(one, step(run, 1, b"e"))
        with pytest.raises(StoreUnusable, match="closed"):
            two.record(1)
    assert ENVIRONMENTS._open == {}
    with pytest.raises(StoreUnusable, match="closed"):
        one.changes()


def test_a_store_recreated_at_its_path_is_another(folder: Path):
    """A folder deleted and made again under an open store is a store of its own."""
    with LmdbBackend.open(str(folder)) as old:
        begin(old)
        shutil.rmtree(folder)
        with LmdbBackend.open(str(folder)) as new:
            assert new.runs() == []
            assert len(old.runs()) == 1


def test_durability_is_never_less_than_asked(folder: Path):
    """A second handle gets full durability if the first has it, and is refused if it would get less."""
    with LmdbBackend.open(str(folder), durability="full") as full, LmdbBackend.open(f"{folder}?durability=relaxed"):
        flags = full._environment.raw.flags()
        assert flags["metasync"]
        assert flags["sync"]
        assert not flags["writemap"]
    with LmdbBackend.open(str(folder), durability="relaxed") as relaxed:
        assert not relaxed._environment.raw.flags()["metasync"]
        assert relaxed._environment.raw.flags()["sync"]
        with pytest.raises(BadOption, match="relaxed"):
            LmdbBackend.open(str(folder))


def test_the_format_of_lmdb_is_chosen_here(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """LMDB 0.9 is asked for by number and recorded, whatever the environment says."""
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    with LmdbBackend.open(str(folder)) as store, store.begin(False) as txn:
        assert store._environment.raw.lib_version()[0] == 0
        assert b"LMDB 0.9" in (txn.get(layout.FORMAT_KEY) or b"")


def test_two_engines_of_one_process_exclude_each_other(folder: Path):
    """A second engine in the process is refused, by name; the first may hold twice and lets go when closed."""
    with LmdbBackend.open(str(folder)) as one, LmdbBackend.open(str(folder)) as two:
        one.hold("engine-1")
        one.hold("engine-1")
        with pytest.raises(BadOption):
            one.hold("engine-2")
        with pytest.raises(StoreInUse, match=rf"process {os.getpid()} .*engine-1.*dalsegno signal") as caught:
            two.hold("engine-2")
        assert (caught.value.owner, caught.value.pid) == ("engine-1", os.getpid())
        begin(two)
        one.close()
        two.hold("engine-2")


def test_no_address_space_means_a_smaller_map(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Where a process may not map so much, less is asked for until it works."""
    with LmdbBackend.open(str(folder)) as store:
        assert store.stats()["map_bytes"] == 64 << 30
    asked: list[int] = []
    really = lmdb.open

    def scarce(path, map_size, **options):
        asked.append(map_size)
        if map_size > 1 << 30:
            raise lmdb.MemoryError("mdb_env_open")
        return really(path, map_size=map_size, **options)

    monkeypatch.setattr(lmdb, "open", scarce)
    with LmdbBackend.open(str(folder)) as store:
        assert store.stats()["map_bytes"] == 1 << 30
    assert asked == [(64 << 30) >> shift for shift in range(7)]


def test_an_address_space_limit_is_lived_with(folder: Path):
    """Under a real limit of the process's address space a store opens and works."""
    script = """
        import resource
        resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
        with LmdbBackend.open(sys.argv[1]) as store:
            begin(store)
            print(store.stats()["map_bytes"] < 3 << 30)
    """
    assert output_of(script, folder) == "True\n"


# --- several processes ---------------------------------------------------------------------------------------------


def test_another_processes_engine_is_named(folder: Path):
    """A second process's engine is told the first's process id; when that is killed, it gets the store at once."""
    script = """
        store = LmdbBackend.open(sys.argv[1])
        store.hold("engine-there")
        print("held", flush=True)
        sys.stdin.read()
    """
    with python(script, folder) as process, LmdbBackend.open(str(folder)) as store:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StoreInUse, match=rf"process {process.pid} .*engine-there"):
            store.hold("engine-here")
        begin(store)
        assert store.send([signal()], 1)
        process.kill()
        process.wait()
        store.hold("engine-here")


def test_a_killed_writer_loses_nothing_acknowledged(folder: Path):
    """Every commit that returned before `kill -9` is there afterwards, and the store is sound."""
    script = """
        store = LmdbBackend.open(sys.argv[1])
        run = begin(store)
        for head in range(1, 10**6):
            apply(store, step(run, head, b"%d" % head, timers_set=((head, "t"),)))
            print(head, flush=True)
    """
    with python(script, folder) as process:
        assert process.stdout is not None
        for _ in range(50):
            acknowledged = int(process.stdout.readline())
        process.send_signal(signals.SIGKILL)
        for line in process.stdout:
            acknowledged = int(line) if line.endswith("\n") else acknowledged
    with LmdbBackend.open(str(folder)) as store:
        head = store.head(1)
        assert head in (acknowledged + 1, acknowledged + 2)
        assert store.history(1)[1:] == [b"%d" % index for index in range(1, head)]
        assert len(store.due(10**9, 10**7)) == head - 1
        assert store.check() == []


def test_processes_read_beside_a_writer(folder: Path):
    """Readers in two other processes see each commit whole while it goes on, and the writer is not held up."""
    script = """
        store = LmdbBackend.open(sys.argv[1], read_only=True)
        print("ready", flush=True)
        head = 0
        while head < 201:
            events = store.history(1)
            record = store.record(1)
            assert len(events) % 2 == 1 and len(events) >= head, (len(events), head)
            assert events[1:] == [b"%d" % index for index in range(1, len(events))]
            head = len(events)
        print("done", flush=True)
    """
    with LmdbBackend.open(str(folder), durability="relaxed") as store, contextlib.ExitStack() as stack:
        run = begin(store)
        readers = [stack.enter_context(python(script, folder)) for _ in range(2)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        for head in range(1, 200, 2):
            apply(store, step(run, head, b"%d" % head, b"%d" % (head + 1)))
        assert [reader.communicate()[0] for reader in readers] == ["done\n"] * 2


def test_two_processes_write_in_turn(folder: Path):
    """Messages from two processes get numbers of one sequence and all arrive."""
    script = """
        with LmdbBackend.open(sys.argv[1], durability="relaxed") as store:
            for index in range(100):
                assert store.send([signal(payload=sys.argv[2].encode())], 1)[0][0] is Sent.ACCEPTED
    """
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        run = begin(store)
        writers = [python(script, folder, name) for name in "ab"]
        assert [writer.communicate() and writer.returncode for writer in writers] == [0, 0]
        inbox = store.inbox(run.number)
        assert [message.seq for message in inbox] == list(range(1, 201))
        assert sorted(message.payload for message in inbox) == [b"a"] * 100 + [b"b"] * 100


def test_a_map_grown_elsewhere_is_adopted(folder: Path):
    """When another process outgrows our map, the new size is taken over at the next transaction, by all threads."""
    script = """
        with LmdbBackend.open(sys.argv[1], map_size="256MiB", durability="relaxed") as store:
            begin(store, "large", events=(b"e" * 1_000_000,) * 40)
    """
    with LmdbBackend.open(str(folder), map_size="16MiB", durability="relaxed") as store:
        run = begin(store)
        with python(script, folder) as process:
            assert process.wait() == 0
        threads = [threading.Thread(target=store.head, args=(2,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.head(2) == 40
        apply(store, step(run, 1, b"e"))
        assert store.stats()["map_bytes"] >= 256 << 20


def test_a_forked_child_must_open_for_itself(folder: Path):
    """What was opened before a fork is refused in the child, which opens its own; the parent's goes on, and the
    engine's lock is the parent's alone."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    store = LmdbBackend.open(str(folder))
    store.hold("parent")
    run = begin(store)

    def child() -> None:
        for use in (lambda: store.record(run.number), lambda: store.create([new_run("b")]), store.changes):
            try:
                use()
            except StoreUnusable as error:
                there.send(str(error))
        store.close()
        with LmdbBackend.open(str(folder)) as mine:
            there.send(mine.find("order-1") == run)
            apply(mine, step(run, 1, b"from the child"))
            try:
                mine.hold("child")
            except StoreInUse as error:
                there.send(error.owner)
        there.recv()

    process = context.Process(target=child)
    process.start()
    answers = [here.recv() for _ in range(5)]
    assert all("forked" in answer for answer in answers[:3])
    assert answers[3:] == [True, "parent"]
    apply(store, step(run, 2, b"from the parent"))
    assert store.head(run.number) == 3
    store.close()
    with LmdbBackend.open(str(folder)) as store:
        store.hold("next")  # although the child is still alive
    here.send("end")
    process.join()
    assert process.exitcode == 0


def test_a_fork_waits_for_other_threads_transactions(folder: Path):
    """However busy other threads are, a forked child can open the store: no transaction is copied half-way."""
    store = LmdbBackend.open(str(folder), durability="relaxed")
    begin(store)
    ended = threading.Event()

    def busy() -> None:
        while not ended.is_set():
            store.send([signal()], 1)
            store.history(1)

    def child() -> None:
        with LmdbBackend.open(str(folder), durability="relaxed") as mine:
            assert mine.send([signal(payload=b"child")], 1) == [(Sent.ACCEPTED, 1)]

    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    processes = [multiprocessing.get_context("fork").Process(target=child) for _ in range(10)]
    for process in processes:
        process.start()
        process.join(60)
    ended.set()
    for thread in threads:
        thread.join()
    assert [process.exitcode for process in processes] == [0] * 10
    assert sum(message.payload == b"child" for message in store.inbox(1, limit=10**6)) == 10
    store.close()


def test_a_replaced_lock_file_stops_the_writing(folder: Path):
    """When `lock.mdb` is no longer the one that was opened, nothing more is written through it."""
    store = LmdbBackend.open(str(folder))
    run = begin(store)
    (folder / "lock.mdb").unlink()
    with pytest.raises(StoreUnusable, match="deleted or replaced"):
        store.commit([step(run, 1, b"e")])
    (folder / "lock.mdb").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="deleted or replaced"):
        store.commit([step(run, 1, b"e")])
    store.close()
    with LmdbBackend.open(str(folder)) as store:
        apply(store, step(run, 1, b"e"))


def test_a_lock_table_of_another_container_is_explained(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """When LMDB refuses the lock table, the error says what containers have to do with it."""

    def refuse(*_: object, **__: object) -> None:
        raise lmdb.LockError("mdb_env_open")

    monkeypatch.setattr(lmdb, "open", refuse)
    with pytest.raises(StoreUnusable, match="process namespace"):
        LmdbBackend.open(str(folder))


# --- full ----------------------------------------------------------------------------------------------------------


def test_a_full_store_reads_ends_purges_and_resumes(folder: Path):
    """At its quota a store refuses new work first, lets runs end, frees room by purging, and goes on by itself."""
    with LmdbBackend.open(str(folder), quota="2MiB", durability="relaxed") as store:
        runs = [begin(store, f"run-{index}") for index in range(3)]
        fillers = (new_run(f"filler-{n}", events=(b"e" * 40_000,), status=Status.COMPLETED) for n in range(10**6))
        with pytest.raises(StoreFull, match="quota") as caught:
            deque(store.create([filler]) for filler in fillers)
        assert caught.value.used > caught.value.limit
        with pytest.raises(StoreFull):
            store.send([signal("run-0")], 1)
        apply(store, end(runs[0]))
        assert store.history(runs[0].number) == [b"started", b"ended"]
        with pytest.raises(StoreFull):
            deque(apply(store, step(runs[1], head, b"e" * 40_000)) for head in range(1, 10**6))
        head = store.head(runs[1].number)
        assert head > 1
        closed = [record.number for record in store.runs(status=[Status.COMPLETED])]
        assert store.purge(closed) == len(closed)
        apply(store, step(runs[1], head, b"e"))
        begin(store, "new")
        assert store.check() == []


def test_a_full_map_is_a_full_store(folder: Path):
    """Even without room for its quota, a map that is full gives `StoreFull`, whole commits, and room after a purge."""
    with LmdbBackend.open(str(folder), map_size="16MiB", quota="14MiB", durability="relaxed") as store:
        store._quota = 1 << 40  # as if quota and map had nothing to do with each other
        batches = (
            [new_run(f"{batch}-{part}", events=(b"e" * 20_000,), status=Status.FAILED) for part in range(10)]
            for batch in range(10**6)
        )
        with pytest.raises(StoreFull, match="map is full"):
            deque(store.create(batch) for batch in batches)
        assert store.stats()["runs"] % 10 == 0
        assert store.check() == []
        with pytest.raises(StoreFull):
            store.create([new_run("large", events=(b"e" * 10_000_000,))])
        assert store.purge([record.number for record in store.runs(limit=50)]) == 50
        begin(store, "fits", events=(b"e" * 20_000,))
        assert store.check() == []


class FailingCommit:
    """A transaction of LMDB whose commit fails, before or after it has done its work."""

    def __init__(self, raw, code: int, done: bool) -> None:
        self._raw, self._code, self._done = raw, code, done
        self.get, self.put, self.delete, self.cursor = raw.get, raw.put, raw.delete, raw.cursor
        self.stat, self.id = raw.stat, raw.id

    def commit(self) -> None:
        if self._done:
            self._raw.commit()
        else:
            self._raw.abort()
        error = lmdb.DiskError("mdb_txn_commit") if self._code != errno.EIO else lmdb.PanicError("mdb_txn_commit")
        error.code = self._code  # type: ignore[misc]  # final for its users, not for who makes one
        raise error

    def abort(self) -> None:
        self._raw.abort()


def fail_next_commit(store: LmdbBackend, monkeypatch: pytest.MonkeyPatch, code: int, done: bool) -> None:
    """Let the next write transaction of a store fail in its commit."""
    environment = store._environment
    enter = environment.enter

    def failing(write: bool):
        monkeypatch.undo()
        return FailingCommit(enter(write), code, done)

    monkeypatch.setattr(environment, "enter", failing)


def test_a_full_disk_is_a_full_store(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A commit that finds no room on the disk raises `StoreFull`; nothing is written, and the next one works."""
    with LmdbBackend.open(str(folder)) as store:
        run = begin(store)
        fail_next_commit(store, monkeypatch, errno.ENOSPC, done=False)
        with pytest.raises(StoreFull, match="disk is full"):
            store.commit([step(run, 1, b"e")])
        assert store.head(run.number) == 1
        apply(store, step(run, 1, b"e"))


@pytest.mark.parametrize("done", [False, True])
def test_a_failed_commit_leaves_the_outcome_open(folder: Path, monkeypatch: pytest.MonkeyPatch, done: bool):
    """After an I/O error at the commit the caller is told that it is not known; the store is opened anew and tells."""
    with LmdbBackend.open(str(folder)) as store:
        run = begin(store)
        raw = store._environment.raw
        fail_next_commit(store, monkeypatch, errno.EIO, done)
        with pytest.raises(UnknownOutcome):
            store.commit([step(run, 1, b"e")])
        assert store.head(run.number) == 1 + done
        assert store._environment.raw is not raw
        apply(store, step(run, 1 + done, b"next"))
        assert store.check() == []


def test_files_that_cannot_grow_are_a_full_store(folder: Path):
    """Under a real limit of the file's size commits raise `StoreFull`, and what is there can be read."""
    script = """
        import resource, signal as signals
        signals.signal(signals.SIGXFSZ, signals.SIG_IGN)
        with LmdbBackend.open(sys.argv[1]) as store:
            run = begin(store)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            head = 1
            try:
                while True:
                    apply(store, step(run, head, b"e" * 10_000))
                    head += 1
            except StoreFull:
                print("full", store.head(run.number) == head, len(store.history(run.number)) == head)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
            print(store.check())
    """
    assert output_of(script, folder) == "full True True\n[]\n"


# --- damage --------------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(folder: Path):
    """Whichever byte of whichever record is changed, `check` names it, and nothing changed is handed out."""
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        run = begin(store, "flip", timers=((5, "t"),), published={"p": b"v"}, tags={"a": "b"}, events=(b"one", b"two"))
        begin(store, "other", owner="")
        store.send([signal("flip", dedup="k")], 1)
        with store.begin(False) as txn:
            records = dict(txn.scan(b"\0", b"\xff"))
        assert len(records) > 15
        for key, value in records.items():
            for index in range(len(value)):
                damage(store, key, 8 * index + 3)
                problems = store.check()
                assert any(problem.key == layout.describe(key)[0] for problem in problems), (key, index)
                damage(store, key, 8 * index + 3)
        assert store.check() == []
        assert store.record(run.number) == run


def test_a_damaged_run_stops_no_other(folder: Path):
    """A run whose record is damaged raises where it is asked for, is left out of lists, and is refused by itself."""
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        bad, good = begin(store, "bad"), begin(store, "good")
        damage(store, layout.RUN + layout.run_bytes(bad.number), 100)
        for ask in (
            lambda: store.record(bad.number),
            lambda: store.find("bad"),
            lambda: store.create([new_run("bad")]),
        ):
            with pytest.raises(StoreDamaged) as caught:
                ask()
            assert (caught.value.run, caught.value.event) == (bad.number, None)
        assert store.runs() == [good]
        assert store.claim([bad.number, good.number], "here") == [store.record(good.number)]
        refusal, applied = store.commit([step(bad, 1, b"e"), step(good, 1, b"e", epoch=good.epoch + 1)])
        assert applied == Applied()
        assert "damaged" in str(refusal)
        sent = store.send([signal("bad"), signal("good")], 1)
        assert [number for _, number in sent] == [bad.number, good.number]
        assert [message.payload for message in store.inbox(good.number)] == [b"yes"]
        assert store.purge([bad.number]) == 0
        assert [problem.run for problem in store.check()] == [str(bad.number)]


def test_a_lost_event_is_found(folder: Path):
    """A hole in a history is named, and the history is not handed out as if it were shorter."""
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        run = begin(store, events=(b"0", b"1", b"2", b"3"))
        with store.begin(True) as txn:
            txn.delete(layout.HISTORY + layout.run_bytes(run.number) + layout.index_bytes(1))
            txn.commit()
        with pytest.raises(StoreDamaged, match="missing"):
            store.history(run.number)
        with pytest.raises(StoreDamaged, match="missing"):
            store.history(run.number, 1)
        assert [(problem.run, problem.event) for problem in store.check()] == [("order-1#1", 2)]


# --- keeping house -------------------------------------------------------------------------------------------------


def test_an_interrupted_purge_is_taken_up(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A purge in several commits makes the runs vanish in the first, and what is left is swept by the next purge."""
    monkeypatch.setattr("dalsegno.backends.purging.KEYS_A_COMMIT", 50)
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        run = begin(store, events=(b"e",) * 170, status=Status.FAILED)
        fail_next_commit(store, monkeypatch, errno.ENOSPC, done=False)
        with pytest.raises(StoreFull):
            store.purge([run.number])
        assert store.head(run.number) == 170
        monkeypatch.setattr("dalsegno.backends.purging.KEYS_A_COMMIT", 50)
        monkeypatch.setattr("dalsegno.backends.purging._marked", lambda begin: False)
        assert store.purge([run.number]) == 1
        assert store.runs() == []
        assert store.head(run.number) == 170
        assert store.check() == []  # what waits to be swept is no damage
        monkeypatch.undo()
        assert store.purge([]) == 0
        assert store.head(run.number) == 0
        assert store.check() == []


def test_a_compact_copy_is_a_store(folder: Path, tmp_path: Path):
    """`compact` writes a smaller store with the same runs into a new folder, and nowhere else."""
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        for index in range(50):
            begin(store, f"run-{index}", events=(b"e" * 10_000,), status=Status.COMPLETED)
        store.purge(range(1, 50))
        size = store.compact(tmp_path / "copy")
        assert size < store.stats()["file_bytes"] / 4
        with LmdbBackend.open(str(tmp_path / "copy")) as copy:
            assert copy.runs() == store.runs()
        with pytest.raises(BadOption, match="not empty"):
            store.compact(tmp_path / "copy")


def test_what_a_step_costs_on_disk(folder: Path):
    """A step's event of 59 bytes takes at most 100 bytes in the pages of one long run, and 160 among many runs."""
    with LmdbBackend.open(str(folder), durability="relaxed") as store:
        run = begin(store)
        for start in range(1, 4001, 50):
            store.commit([step(run, head, b"e" * 59) for head in range(start, start + 50)])
        before = store.stats()["events_bytes"]
        assert before / 4000 <= 100
        runs = [begin(store, f"run-{index}") for index in range(50)]
        for head in range(1, 101):
            store.commit([step(run, head, b"e" * 59) for run in runs])
        assert (store.stats()["events_bytes"] - before) / 5000 <= 160


def test_limits_of_this_process_are_as_before():
    """The tests above that limit a process do it in another one."""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
