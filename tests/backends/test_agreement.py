"""Memory and LMDB agree with a model in plain dicts, whatever is done to them in whatever order.

What it does, and what it compares, stands in `dalsegno.testing.backend_machine`.
"""

from __future__ import annotations

from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.testing.backend_machine import BackendMachine


class MemoryMachine(BackendMachine):
    """A store in memory, which is gone when it is closed."""

    def open_backend(self) -> MemoryBackend:
        return MemoryBackend.open()


class LmdbMachine(BackendMachine):
    """A store on LMDB, closed and opened again, and through a second handle."""

    def open_backend(self) -> LmdbBackend:
        return LmdbBackend.open(str(self.folder / "store"), durability="relaxed")


TestMemoryAgrees = MemoryMachine.TestCase
TestLmdbAgrees = LmdbMachine.TestCase
