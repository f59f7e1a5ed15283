"""What every test of the interpreter shares."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.core.interpreter.drive import ALIVE


@pytest.fixture(autouse=True)
def put_away() -> Iterator[None]:
    """Put the generators of a test away when it is over."""
    yield
    while ALIVE:
        ALIVE.pop().evict()
