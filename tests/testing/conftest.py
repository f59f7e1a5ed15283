"""The stores that promises are tested on; and what concerns one release of Python is collected there only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.backends.ordered import OrderedStore
from tests.testing import actors

collect_ignore = ["test_foresight.py"] if sys.version_info >= (3, 12) else []


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OrderedStore]:
    """An empty store of one kind."""
    memory = request.param == "memory"
    with MemoryBackend() if memory else LmdbBackend.open(str(tmp_path / "store"), durability="relaxed") as opened:
        yield opened


@pytest.fixture(autouse=True)
def _nothing_happened():
    actors.EFFECTS.clear()
