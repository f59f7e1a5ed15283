"""The LMDB environments of this process: each once, and none across a fork.

LMDB allows an environment to be open once in a process, so all handles of this process on one store share an
`Environment`, which is counted here. A child made by `fork` inherits one that seems to work and must not be used: in
the child it is marked so, and opening the store there closes the inherited one and opens it properly. Closing waits for
ever for a transaction that some other thread of the parent was in, so forking waits until all have ended: some
milliseconds, rarely.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from dalsegno.backends.lmdb_environment import FORK_WAIT, Environment, Settings, identity
from dalsegno.backends.lmdb_folder import DATA, FileLock, lock_for_many, lock_for_one
from dalsegno.core.errors import BadOption


class Environments:
    """The environments open in this process, by the identity of their data files.

    There is one of these for the process (`ENVIRONMENTS`), because the limits it keeps are the process's: LMDB's locks
    and the state that `fork` copies.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._locked_for_fork = False
        self._open: dict[tuple[int, int], Environment] = {}
        self._inherited: list[Environment] = []
        self._engine_locks: set[FileLock] = set()
        os.register_at_fork(
            before=self._before_fork, after_in_parent=self._after_fork, after_in_child=self._after_fork_in_child
        )

    def open(self, folder: Path, settings: Settings) -> Environment:
        """The environment of a folder: the one that is open, or a new one. `close` it when done."""
        with self._lock:
            self._close_inherited()
            data = folder / DATA
            found = self._open.get(identity(data)) if data.is_file() else None
            if found is None:
                found = Environment(folder, settings)
                self._open[found.identity] = found
                return found
            if settings.full and not found.settings.full:
                raise BadOption(f"{folder} is open in this process with durability 'relaxed': it cannot be 'full' too")
            if found.settings.read_only and not settings.read_only:
                raise BadOption(f"{folder} is open in this process for reading only: close that one first")
            found.handles += 1
            return found

    def close(self, environment: Environment) -> None:
        """Give back what `open` answered."""
        with self._lock:
            environment.handles -= 1
            if environment.handles or self._open.get(environment.identity) is not environment:
                return
            del self._open[environment.identity]
            environment.close()

    def hold(self, folder: Path, owner: str) -> FileLock:
        """Take the engine's lock of a folder."""
        lock = lock_for_one(folder, owner)
        self._engine_locks.add(lock)
        return lock

    def join(self, folder: Path, owner: str) -> tuple[FileLock, FileLock]:
        """Take the locks of one of several engines."""
        locks = lock_for_many(folder, owner)
        self._engine_locks.update(locks)
        return locks

    def release(self, lock: FileLock) -> None:
        """Give back what `hold` or `join` answered."""
        self._engine_locks.discard(lock)
        lock.release()

    def _close_inherited(self) -> None:
        """In a forked child, before it opens a store of its own: LMDB allows an environment once in a process."""
        while self._inherited:
            environment = self._inherited.pop()
            if environment.quiet:
                environment.raw.close()

    def _before_fork(self) -> None:
        self._locked_for_fork = self._lock.acquire(timeout=FORK_WAIT)
        for environment in self._open.values():
            environment.quiesce()

    def _after_fork(self) -> None:
        for environment in self._open.values():
            environment.resume()
        if self._locked_for_fork:  # otherwise it belongs to a thread that is still opening something
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        """What was inherited is not ours; the engine's locks would stay with us after the parent's death."""
        self._lock = threading.Lock()
        for environment in self._open.values():
            environment.disown()
        self._inherited += self._open.values()
        self._open = {}
        for lock in self._engine_locks:
            lock.release()
        self._engine_locks = set()


ENVIRONMENTS = Environments()
