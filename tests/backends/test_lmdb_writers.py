"""A write that waits for another process is told which one."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalsegno.backends import lmdb_writers
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.lmdb_writers import WriteLock, describe
from dalsegno.core.store import Message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="who holds a lock is found out in Linux's own way")

HOLDING = """
import sys, threading
from dalsegno.backends.lmdb import LmdbBackend
store = LmdbBackend.open(sys.argv[1])
def hold():
    with store.begin(True):
        print(threading.get_native_id(), flush=True)
        sys.stdin.readline()
holding = threading.Thread(target=hold)
holding.start()
holding.join()
"""

A_MESSAGE = Message(workflow_id="nobody", kind="signal", name="x")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    LmdbBackend.open(str(tmp_path / "store")).close()
    return tmp_path / "store"


@pytest.fixture
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that is in the middle of a write."""
    command = [sys.executable, "-c", HOLDING, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


class Heard(logging.Handler):
    """What was logged, and whether anything was."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[str] = []
        self.any = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
        self.any.set()


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Heard]:
    """What the store says, which loses its patience quickly here."""
    monkeypatch.setattr(lmdb_writers, "PATIENCE_S", 0.02)
    handler = Heard()
    lmdb_writers.log.addHandler(handler)
    yield handler
    lmdb_writers.log.removeHandler(handler)


def thread_of(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    return int(process.stdout.readline())


def test_a_stopped_writer_is_named(folder: Path, holder: subprocess.Popen[str], heard: Heard):
    """Who was stopped in the middle of a write is told with what lets it go on; when it does, so does the other."""
    thread_of(holder)
    os.kill(holder.pid, signal.SIGSTOP)
    with LmdbBackend.open(str(folder)) as store:
        waiting = threading.Thread(target=store.send, args=([A_MESSAGE], 0))
        waiting.start()
        assert heard.any.wait(30)
        assert f"Process {holder.pid} (" in heard.messages[0]
        assert f"and is stopped: `kill -CONT {holder.pid}` lets it go on" in heard.messages[0]
        assert str(folder) in heard.messages[0]
        os.kill(holder.pid, signal.SIGCONT)
        assert holder.stdin is not None
        holder.stdin.close()
        waiting.join(30)
        assert not waiting.is_alive()
        assert len(heard.messages) == 1


def test_who_holds_the_lock_is_read_where_lmdb_keeps_it(folder: Path, holder: subprocess.Popen[str]):
    """It is the thread that is in a write, in whatever process; nobody, once that has been killed."""
    thread = thread_of(holder)
    with LmdbBackend.open(str(folder)) as store:
        lock = WriteLock(folder / "lock.mdb")
        assert lock.holder == thread
        assert f"Process {holder.pid} (" in describe(lock.holder)
        holder.kill()
        holder.wait()
        assert lock.holder == 0
        with store.begin(True):
            assert lock.holder == threading.get_native_id()
        assert lock.holder == 0
        lock.close()


def test_nobody_to_wait_for_is_nothing_to_watch(folder: Path, heard: Heard):
    """One process alone has no thread that watches, however long it writes."""
    with LmdbBackend.open(str(folder)) as store:
        for _ in range(3):
            store.send([A_MESSAGE], 0)
        assert "dalsegno-write-lock" not in {thread.name for thread in threading.enumerate()}
    assert heard.messages == []


def test_what_cannot_be_seen_is_said():
    """A thread of another container, or one that has just gone."""
    assert describe(0) == "Nobody holds it any more"
    assert "cannot be seen from here" in describe(2**29)
    assert f"Process {os.getpid()} (" in describe(threading.get_native_id())


def test_a_file_that_is_not_mapped_has_no_holder(tmp_path: Path):
    """Where the lock cannot be found nothing is told, and nothing else is lost."""
    (tmp_path / "lock.mdb").touch()
    assert WriteLock(tmp_path / "lock.mdb").holder == 0
    assert WriteLock(tmp_path / "gone" / "lock.mdb").holder == 0
