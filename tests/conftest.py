"""What all tests share: Hypothesis profiles, and a PostgreSQL that is started when a test first asks for it.

There are two profiles: `desk`, for every run of the suite, and `night`, which looks for hours.

`pytest --timeout=0 --hypothesis-profile=night tests/properties`, or DALSEGNO_PROFILE=night in the environment, chooses
the second. Either prints, where a property fails, the line that repeats just that example; random seeds that a test
uses besides are part of its example.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from dalsegno.backends.lmdb_folder import ALLOW_REMOTE, file_system
from dalsegno.testing.profiles import register_profiles
from tests.postgresql_server import Server, session_server

register_profiles()

if file_system(Path(tempfile.gettempdir())) == "overlay":
    # A container without a volume. Nobody else sees what tests put there, and it need not outlive them.
    os.environ.setdefault(ALLOW_REMOTE, "1")


@pytest.fixture(scope="session")
def postgresql_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A PostgreSQL that all processes of this session share; see `tests.postgresql_server`."""
    own = tmp_path_factory.getbasetemp()
    with session_server(own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: Server) -> Iterator[Server]:
    """The same, with the schemas that a test makes dropped after it."""
    yield postgresql_server
    postgresql_server.forget()
