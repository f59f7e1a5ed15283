"""The store on LMDB: a folder on the local disk, no server, many readers and one writer at a time.

    lmdb:PATH?durability=full&quota=10GiB

Two levels of durability are offered, the two that never tear the store. `full`: what was acknowledged survives a power
cut. `relaxed`: a power cut may take the last commits, a killed process loses nothing; one flush a commit instead of
two. LMDB's faster modes lose or corrupt committed data when the power fails, or die when the disk is full.

`quota` is how much live data the store takes in: at nine tenths of it new runs and messages are refused with
`StoreFull`, so that runs it has already can end; at all of it transitions too; purging always works. It counts what is
alive, not the file, which LMDB reuses but never shrinks; `compact` writes a small copy.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self
from urllib.parse import parse_qsl

import attrs
import lmdb

from dalsegno.backends.heads import Heads
from dalsegno.backends.keyvalue import KeyValueTransaction
from dalsegno.backends.lmdb_environment import LIB_VERSION, Environment, Settings
from dalsegno.backends.lmdb_environments import ENVIRONMENTS
from dalsegno.backends.lmdb_folder import DATA, FileLock, check_there, flush_folder, is_locked, locate, owner_lock
from dalsegno.backends.shareable import ShareableStore
from dalsegno.core.errors import BadOption, StoreError, StoreFull, StoreUnusable

MAP_SIZE = 64 << 30  # address space, not disk or memory; halved where a process may not have so much of it
_QUOTA_OF_MAP = 0.9  # the rest is room for deleting, which needs fresh pages too
_NEW_WORK_OF_QUOTA = 0.9
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


class _Transaction:
    """A transaction of LMDB. `get`, `put` and `delete` are LMDB's own methods: nothing stands between."""

    __slots__ = ("_environment", "_limit", "_raw", "_write", "delete", "get", "put")

    def __init__(self, environment: Environment, write: bool, limit: float | None) -> None:
        self._environment = environment
        self._write = write
        self._limit = limit
        self._raw: lmdb.Transaction[bytes] | None = None

    def __enter__(self) -> KeyValueTransaction:
        raw = self._raw = self._environment.enter(self._write)
        self.get: Callable[[bytes], bytes | None] = raw.get
        self.put: Callable[[bytes, bytes], object] = raw.put
        self.delete: Callable[[bytes], object] = raw.delete
        if self._limit is not None and self._environment.may_be_beyond(raw, self._limit):
            self._refuse_if_full(raw, self._limit)
        return self

    def _refuse_if_full(self, raw: lmdb.Transaction[bytes], limit: float) -> None:
        used = self._environment.measure(raw)
        if used > limit:
            self._end()
            raise StoreFull(
                f"{self._environment.folder} holds {used:,} bytes, and takes no more of this beyond {int(limit):,}. "
                "Delete closed runs (dalsegno's retention, `replay prune`) or raise the quota.",
                used=used,
                limit=int(limit),
            )

    def scan(self, start: bytes, stop: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        assert self._raw is not None
        cursor = self._raw.cursor()
        if not reverse:
            if cursor.set_range(start):
                for item in cursor.iternext():
                    if item[0] >= stop:
                        return
                    yield item
            return
        if cursor.prev() if cursor.set_range(stop) else cursor.last():
            for item in cursor.iterprev():
                if item[0] < start:
                    return
                yield item

    def serial(self) -> int:
        """The number LMDB gives the commit that this will be."""
        assert self._raw is not None
        return self._raw.id()

    def commit(self) -> None:
        raw = self._raw
        assert raw is not None
        try:
            raw.commit()
        except lmdb.Error as error:
            raise self._environment.commit_failed(error) from error
        finally:
            self._raw = None
            self._environment.leave(self._write)

    def _end(self) -> None:
        raw, self._raw = self._raw, None
        if raw is not None:
            try:
                raw.abort()
            finally:
                self._environment.leave(self._write)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            self._end()
        except lmdb.Error:
            if error is None:
                raise
        if isinstance(error, lmdb.Error):
            raise self._environment.failed(error) from error


class LmdbBackend(ShareableStore):
    """A store in a folder of the local disk.

    Handles on one folder may be opened as often as you like, in one process and in several. Any number of them can
    `join`, that is, be engines of it, or one can `hold` it for itself. Each engine locks a file of its own in the
    folder, so that the others see at once when its process has ended.
    """

    survives_reopen: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def __init__(self, environment: Environment, quota: int | None, read_only: bool) -> None:
        self._environment = environment
        self._read_only = read_only
        self._quota = quota
        self.heads = Heads()
        self._closed = False
        self._engine_lock: FileLock | None = None
        self._joined: dict[str, tuple[FileLock, FileLock]] = {}

    @classmethod
    def open(cls, location: str, **options: Any) -> Self:
        """Open or create the store in a folder.

        Options, here or in the URL: `durability` "full" or "relaxed"; `quota` and `map_size`, in bytes or as "10GiB";
        `allow_remote` for a network file system; `read_only`.
        """
        path, _, query = location.partition("?")
        chosen = _Options.of({**dict(parse_qsl(query, keep_blank_values=True)), **options})
        folder = locate(path)
        settings = Settings(
            full=chosen.durability == "full",
            map_size=max(chosen.map_size, int((chosen.quota or 0) / _QUOTA_OF_MAP)),
            allow_remote=chosen.allow_remote,
            read_only=chosen.read_only and not os.access(folder / DATA, os.W_OK),
        )
        if chosen.read_only:
            check_there(folder)
        store = cls(ENVIRONMENTS.open(folder, settings), chosen.quota, chosen.read_only)
        try:
            version = ".".join(map(str, lmdb.version(lib_version=LIB_VERSION)))
            store.prepare(f"LMDB {version}", may_write=not chosen.read_only)
        except StoreError as error:
            store.close()
            if isinstance(error, StoreUnusable):
                error.args = (f"{folder} {error}",)
            raise
        return store

    @property
    def folder(self) -> Path:
        """Where the store lies."""
        return self._environment.folder

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._engine_lock is not None:
            ENVIRONMENTS.release(self._engine_lock)
            self._engine_lock = None
        for owner in list(self._joined):
            self._let_go(owner)
        ENVIRONMENTS.close(self._environment)

    def hold(self, owner: str) -> None:
        self._refuse_if_closed(True)
        if self._engine_lock is None:
            self._engine_lock = ENVIRONMENTS.hold(self.folder, owner)
            self._announce()
            self.end_others(owner)
        elif self._engine_lock.owner != owner:
            raise BadOption(f"this handle is held by {self._engine_lock.owner!r} already; {owner!r} needs its own")

    def enter(self, owner: str) -> None:
        self._refuse_if_closed(True)
        locks = self._joined.get(owner)
        if locks is not None and locks[1].in_place:
            return
        self._let_go(owner)
        self._joined[owner] = ENVIRONMENTS.join(self.folder, owner)
        self._announce()

    def depart(self, owner: str) -> None:
        if owner in self._joined or self.has_ended(owner):
            owner_lock(self.folder, owner).unlink(missing_ok=True)
        self._let_go(owner)

    def _let_go(self, owner: str) -> None:
        for lock in self._joined.pop(owner, ()):
            ENVIRONMENTS.release(lock)

    def has_ended(self, owner: str) -> bool:
        return is_locked(owner_lock(self.folder, owner)) is None

    def _announce(self) -> None:
        """An engine that died between writing a commit and announcing it to readers has left it to the next writer to
        do so; without one, this engine would recover from the state before that commit."""
        with self.begin(True):
            pass

    def begin(self, write: bool) -> AbstractContextManager[KeyValueTransaction]:
        self._refuse_if_closed(write)
        return _Transaction(self._environment, write, None)

    def begin_growing(self, new_work: bool) -> AbstractContextManager[KeyValueTransaction]:
        self._refuse_if_closed(True)
        quota = self._quota or self._environment.map_size * _QUOTA_OF_MAP
        return _Transaction(self._environment, True, quota * _NEW_WORK_OF_QUOTA if new_work else quota)

    def _refuse_if_closed(self, write: bool) -> None:
        if self._closed:
            raise StoreUnusable("this store was closed")
        if write and self._read_only:
            raise StoreUnusable(f"{self.folder} was opened for reading only")

    def serial(self, txn: KeyValueTransaction) -> int:
        assert isinstance(txn, _Transaction)
        return txn.serial()

    def changes(self) -> object:
        self._refuse_if_closed(False)
        return self._environment.last_transaction()

    def sizes(self) -> dict[str, int]:
        self._refuse_if_closed(False)
        live, map_bytes = self._environment.sizes()
        file_bytes = (self.folder / DATA).stat().st_size
        quota = self._quota or int(map_bytes * _QUOTA_OF_MAP)
        return {"events_bytes": live, "file_bytes": file_bytes, "map_bytes": map_bytes, "quota_bytes": quota}

    def compact(self, target: str | os.PathLike[str]) -> int:
        """Write a copy without free pages into a new or empty folder, and answer its size. Others go on meanwhile."""
        self._refuse_if_closed(False)
        folder = Path(target)
        try:
            if folder.exists() and any(folder.iterdir()):
                raise BadOption(f"{folder} is not empty; name a new folder for the copy")
            folder.mkdir(exist_ok=True)
            self._environment.copy(folder)
            with (folder / DATA).open("rb") as file:
                os.fsync(file.fileno())
            flush_folder(folder)
        except lmdb.Error as error:
            raise self._environment.failed(error) from error
        except OSError as error:
            raise StoreUnusable(f"{folder} cannot be written: {error.strerror}") from error
        except UnicodeError as error:
            raise BadOption(f"{str(folder)!r} cannot name a folder for LMDB: its name is not UTF-8") from error
        return (folder / DATA).stat().st_size


@attrs.frozen(slots=True, kw_only=True)
class _Options:
    """What may stand in the URL or be passed to `open`."""

    durability: str = "full"
    map_size: int = MAP_SIZE
    quota: int | None = None
    allow_remote: bool = False
    read_only: bool = False

    @classmethod
    def of(cls, given: dict[str, Any]) -> _Options:
        known = {attribute.name for attribute in attrs.fields(cls)}
        for name in given:
            if name not in known:
                raise BadOption(f"an LMDB store has no option {name!r}; it has {', '.join(sorted(known))}")
        values = {name: value for name, value in given.items() if value is not None}
        for name in ("map_size", "quota"):
            if name in values:
                values[name] = _size(name, values[name])
        for name in ("allow_remote", "read_only"):
            if name in values:
                values[name] = _flag(name, values[name])
        options = cls(**values)
        if options.durability not in ("full", "relaxed"):
            raise BadOption(f"durability is 'full' or 'relaxed', not {options.durability!r}")
        return options


def _size(name: str, given: object) -> int:
    """A number of bytes, as an int or as a text like '10GiB'."""
    found = re.fullmatch(r"(\d+)\s*([kmgt]?i?)b?", str(given).strip().lower())
    if isinstance(given, bool) or found is None or found[2] not in _UNITS or int(found[1]) == 0:
        raise BadOption(f"{name} is a number of bytes, like 1000000 or '10GiB', not {given!r}")
    return int(found[1]) * _UNITS[found[2]]


def _flag(name: str, given: object) -> bool:
    flags = {"true": True, "1": True, "yes": True, "": True, "false": False, "0": False, "no": False}
    text = str(given).lower()
    if text not in flags:
        raise BadOption(f"{name} is true or false, not {given!r}")
    return flags[text]
