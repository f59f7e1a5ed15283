"""One LMDB environment, as safe as LMDB lets it be.

All handles of a process on one store share an `Environment`; `lmdb_environments` keeps them. It knows what LMDB leaves
to its users:

* A commit that fails may have been applied, and after an I/O error LMDB refuses everything until it is opened anew. So
  after a failed commit the caller gets `UnknownOutcome`, and the environment is opened anew before its next use.
* Another process may have made the map bigger; then beginning a transaction fails until the new size is adopted, which
  may only happen while no transaction of this process is open. Transactions are counted for both.
* If the lock file is replaced, two writers can be at work at once and commits are lost. So its identity is compared
  before each write, and the environment used no more once it has changed.
* A process that is stopped while it writes holds all other writers up. LMDB says nothing; `lmdb_writers` does.
* A reader that was killed pins old pages until somebody looks; `reader_check` is called at opening, regularly, and when
  the store is full.
"""

from __future__ import annotations

import errno
import math
import os
import resource
import threading
from pathlib import Path
from typing import Any

import attrs
import lmdb

from dalsegno.backends.lmdb_folder import DATA, LOCK, check_folder, flush_folder
from dalsegno.backends.lmdb_writers import WriteLock
from dalsegno.core.errors import StoreDamaged, StoreError, StoreFull, StoreUnusable, UnknownOutcome

LIB_VERSION = 0
"""LMDB 0.9, the format that every tool reads; given always, since a variable of the environment changes the default."""
MAP_SIZE_LEAST = 16 << 20
MAX_READERS = 510  # of all processes; each slot is 64 bytes of the lock file
WRITES_A_READER_CHECK = 1000
WRITES_A_COUNT = 16
FORK_WAIT = 5.0  # seconds for a transaction to end before a fork; beyond, the child cannot open that store
SCARCE = 64 << 20  # bytes of room; with less, a commit that failed to write may well have failed for want of it

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORKED = (
    "this store was opened before the process was forked, and LMDB cannot be used across a fork. "
    "Open it again in the child."
)


@attrs.frozen(slots=True, kw_only=True)
class Settings:
    """How an environment is opened."""

    full: bool
    map_size: int
    allow_remote: bool
    read_only: bool


class Environment:
    """An LMDB environment, shared by all handles of this process on one store."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.folder = folder
        self.settings = settings
        self.handles = 1
        self.unusable = ""
        self.quiet = False
        new = check_folder(folder, allow_remote=settings.allow_remote, read_only=settings.read_only)
        self.raw = self._open()
        if new:
            flush_folder(folder)
        self._lock_path = os.fspath(folder / LOCK)
        self._lock_identity = identity(folder / LOCK)
        self.identity = identity(folder / DATA)
        self._writer = threading.Lock()
        self._lock = threading.Lock()  # the gate's; taken by itself where nobody is waited for or told: it is quicker
        self._gate = threading.Condition(self._lock)
        self._active = 0
        self._pausing = 0
        self._broken = False
        self._writes = 0
        self._used = math.inf
        self._used_at = 0
        self._write_lock: WriteLock | None = None

    def _open(self) -> lmdb.Environment:
        """Open it, with as much address space as there is: asked for less and less, never less than the file needs."""
        settings, data = self.settings, self.folder / DATA
        least = max(MAP_SIZE_LEAST, data.stat().st_size if data.exists() else 0)
        map_size = max(settings.map_size, least)
        while True:
            try:
                raw = lmdb.open(
                    os.fspath(self.folder),
                    map_size=map_size,
                    metasync=settings.full,
                    readonly=settings.read_only,
                    max_readers=MAX_READERS,
                    lib_version=LIB_VERSION,
                )
            except lmdb.MemoryError as error:
                if map_size == least:
                    raise StoreUnusable(f"{self.folder} cannot be opened: no memory for its map") from error
                map_size = max(map_size // 2, least)
            except lmdb.Error as error:
                raise cannot_open(self.folder, error) from error
            except OSError as error:  # it makes the folder itself, where it may
                raise StoreUnusable(f"{self.folder} cannot be created: {error.strerror}") from error
            else:
                raw.reader_check()
                self.map_size = raw.info()["map_size"]
                return raw

    def close(self) -> None:
        """Close it once no transaction is open. What a relaxed store still owes to the disk is flushed first."""
        with self._gate:
            self._pause()
            self.unusable = "this store was closed"
            self._forget_write_lock()
            if not self.settings.full and not self.settings.read_only and not self._broken:
                try:
                    self.raw.sync(True)
                except lmdb.Error:
                    pass  # relaxed promises nothing that this would break
            self.raw.close()

    def _forget_write_lock(self) -> None:
        """Look at it no more: it is in memory that closing gives back."""
        lock, self._write_lock = self._write_lock, None
        if lock is not None:
            lock.close()

    def quiesce(self) -> None:
        """Let no transaction begin, and wait until none is open, before a fork."""
        self.quiet = self._gate.acquire(timeout=FORK_WAIT)
        if self.quiet and not self._pause(FORK_WAIT):
            self.quiet = False
            self._gate.release()

    def resume(self) -> None:
        """After a fork, in the parent."""
        if self.quiet:
            self.quiet = False
            self._gate.release()

    def disown(self) -> None:
        """After a fork, in the child."""
        self.unusable = _FORKED
        self._lock = threading.Lock()
        self._gate = threading.Condition(self._lock)
        self._writer = threading.Lock()

    # --- transactions ----------------------------------------------------------------------------------------------

    def enter(self, write: bool) -> lmdb.Transaction[bytes]:
        """Begin a transaction. Each is to be followed by `leave`, on the same thread."""
        if write:
            self._writer.acquire()
        try:
            with self._lock:
                while self._pausing:
                    self._gate.wait()
                if self.unusable:
                    raise StoreUnusable(self.unusable)
                if self._broken:
                    self._reopen()
                self._active += 1
            try:
                if write:
                    self._before_write()
                return self._begin(write)
            except BaseException:
                self._count_down()
                raise
        except BaseException:
            if write:
                self._writer.release()
            raise

    def leave(self, write: bool) -> None:
        """A transaction of `enter` has ended."""
        self._count_down()
        if write:
            self._writer.release()

    def _count_down(self) -> None:
        with self._lock:
            self._active -= 1
            if self._pausing and not self._active:
                self._gate.notify_all()

    def _begin(self, write: bool) -> lmdb.Transaction[bytes]:
        if write:
            if self._write_lock is None:
                self._write_lock = WriteLock(self.folder / LOCK)
            if self._write_lock.holder:
                with self._write_lock.told():
                    return self._begin_now(write)
        return self._begin_now(write)

    def _begin_now(self, write: bool) -> lmdb.Transaction[bytes]:
        try:
            return self.raw.begin(write=write)
        except lmdb.MapResizedError:
            self._adopt_map_size()
        except lmdb.ReadersFullError:
            self.raw.reader_check()
        except lmdb.Error as error:
            raise self.failed(error) from error
        try:
            return self.raw.begin(write=write)
        except lmdb.Error as error:
            raise self.failed(error) from error

    def _pause(self, timeout: float | None = None) -> bool:
        """Wait until no transaction is open; none begins meanwhile. Called with the gate held."""
        self._pausing += 1
        try:
            return self._gate.wait_for(lambda: not self._active, timeout)
        finally:
            self._pausing -= 1
            self._gate.notify_all()

    def _adopt_map_size(self) -> None:
        """Take the size that another process gave the map. Called by one who is counted, and has no transaction yet."""
        with self._gate:
            self._active -= 1
            self._pause()
            try:
                self.raw.set_mapsize(0)
                self.map_size = self.raw.info()["map_size"]
            finally:
                self._active += 1

    def _before_write(self) -> None:
        try:
            found = os.stat(self._lock_path)
            replaced = (found.st_dev, found.st_ino) != self._lock_identity
        except FileNotFoundError:
            replaced = True
        if replaced:
            self.unusable = (
                f"{self._lock_path} was deleted or replaced while the store was open: others may be writing to it "
                "without knowing of us. Nothing more is written here; close every program that uses it, then reopen."
            )
            raise StoreUnusable(self.unusable)
        self._writes += 1
        if self._writes % WRITES_A_READER_CHECK == 0:
            self.raw.reader_check()

    def may_be_beyond(self, raw: lmdb.Transaction[bytes], limit: float) -> bool:
        """Whether the pages in use are to be counted before more is written: that takes a microsecond, which far below
        a limit is spent only now and then, by the number of commits, of whichever process."""
        return self._used > limit / 2 or raw.id() - self._used_at >= WRITES_A_COUNT

    def measure(self, raw: lmdb.Transaction[bytes]) -> int:
        """Count the bytes of the pages in use, as a transaction sees them."""
        used = live_bytes(raw.stat())
        self._used, self._used_at = used, raw.id()
        return used

    def last_transaction(self) -> int:
        """The number of the last commit that a reader can see, of whichever process.

        Asked of a transaction, because `info()` counts a commit of another process a moment before readers see it:
        whoever looked in that moment would find nothing new, and would not look again.
        """
        txn = self.enter(False)
        try:
            return int(txn.id())
        finally:
            txn.abort()
            self.leave(False)

    def sizes(self) -> tuple[int, int]:
        """Bytes of the pages in use, and of the map."""
        with self._gate:
            if self.unusable:
                raise StoreUnusable(self.unusable)
            return live_bytes(self.raw.stat()), self.map_size

    def copy(self, target: Path) -> None:
        """Write a compact copy into an empty folder. Raises `lmdb.Error`."""
        with self._gate:
            if self.unusable:
                raise StoreUnusable(self.unusable)
            self._active += 1
        try:
            self.raw.copy(os.fspath(target), compact=True)
        finally:
            self._count_down()

    # --- failures --------------------------------------------------------------------------------------------------

    def failed(self, error: lmdb.Error) -> StoreError:
        """The error to raise for one that came before or outside a commit: nothing was applied."""
        if isinstance(error, lmdb.MapFullError | lmdb.TxnFullError) or error.code in _NO_ROOM:
            return self._full(error)
        if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
            return StoreDamaged(f"{self.folder}: {error}", key="", run=None, event=None)
        if isinstance(error, lmdb.ReadersFullError):
            return StoreError(f"{self.folder} has {MAX_READERS} readers already, of all processes together")
        if isinstance(error, lmdb.ReadonlyError):
            return StoreUnusable(f"{self.folder} was opened for reading only")
        self._broken = True
        return StoreUnusable(f"{self.folder}: {error}. It will be opened anew when it is next used.")

    def commit_failed(self, error: lmdb.Error) -> StoreError:
        """The error to raise for a failed commit, which may nevertheless have been applied."""
        if isinstance(error, lmdb.MapFullError | lmdb.TxnFullError):
            return self._full(error)  # LMDB found no page to write to, so that it wrote nothing
        # LMDB reports a write that the disk took in part as an I/O error. It is in a panic if the header page failed,
        # so that while it can still be used, nothing was applied.
        if (error.code in _NO_ROOM or (error.code == errno.EIO and self._room() < SCARCE)) and self._usable():
            return self._full(error)
        self._broken = True
        return UnknownOutcome(
            f"{self.folder}: the commit failed ({error}), and may or may not have been applied. "
            "The store will be opened anew when it is next used."
        )

    def _room(self) -> float:
        """By how many bytes the data file could still grow."""
        disk = os.statvfs(self.folder)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
        allowed = math.inf if limit == resource.RLIM_INFINITY else limit - (self.folder / DATA).stat().st_size
        return min(disk.f_bavail * disk.f_frsize, allowed)

    def _usable(self) -> bool:
        try:
            self.raw.begin(write=True).abort()
        except lmdb.Error:
            return False
        return True

    def _full(self, error: lmdb.Error) -> StoreFull:
        try:
            self.raw.reader_check()  # a killed reader may be what keeps old pages from being used again
        except lmdb.Error:
            pass  # the next opening will find out what is wrong
        if isinstance(error, lmdb.MapFullError):
            where, cure = "its map", f"Prune closed runs, or open it with a larger one: lmdb:{self.folder}?map_size=…"
        else:
            where, cure = "its disk", "Make room there, or prune closed runs; writing goes on by itself"
        return StoreFull(f"{self.folder} has no more room: {where} is full ({error}). Nothing was written. {cure}.")

    def _reopen(self) -> None:
        """Close and open it, after a failure. Called with the gate held."""
        self._pause()
        if not self._broken:
            return  # somebody else did while we waited
        self._forget_write_lock()
        self.raw.close()
        check_folder(self.folder, allow_remote=True, read_only=self.settings.read_only)
        self.raw = self._open()
        self._broken = False


def live_bytes(stat: Any) -> int:
    """What the pages in use take, from what LMDB says of a store."""
    pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
    return int(pages * stat["psize"])


def identity(path: Path) -> tuple[int, int]:
    """What names a file, whatever its path."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def cannot_open(folder: Path, error: lmdb.Error) -> StoreUnusable:
    """Why LMDB would not open a folder, and what that usually means."""
    if isinstance(error, lmdb.LockError):
        cause = (
            "its lock table was refused. Two containers with process ids of their own cannot share a store: give them "
            "one process namespace, or each a store of its own"
        )
    elif isinstance(error, lmdb.InvalidError | lmdb.VersionMismatchError):
        cause = "its data file was not written by LMDB 0.9, or its beginning is damaged"
    else:
        cause = str(error)
    return StoreUnusable(f"{folder} cannot be opened: {cause} ({error})")
