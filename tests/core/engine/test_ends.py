"""Results that are handed over instead of read back."""

from __future__ import annotations

import pytest

from dalsegno import Engine, Flow, step, workflow
from dalsegno.core.engine import ends
from dalsegno.core.engine.ends import Ends


@step
def twice(n: int) -> int:
    """A step."""
    return 2 * n


@workflow
def doubled(n: int) -> Flow[int]:
    """A workflow of one step."""
    if n < 0:
        raise ValueError("negative")
    return (yield from twice(n))


def test_a_result_is_known_without_the_store(monkeypatch: pytest.MonkeyPatch):
    """The result of a run that completed in this engine is answered although the store cannot be read."""
    with Engine("memory:", workflows=[doubled]) as engine:
        run = engine.start(doubled, 4, id="a")
        assert run.result(timeout=20) == 8
        with monkeypatch.context() as patched:
            patched.setattr(engine.backend, "find", None)
            assert run.result(timeout=20) == 8


def test_a_newer_run_of_the_id_is_what_counts():
    """After a restart under the same id, the result is the newer run's, also for whoever holds the older handle."""
    with Engine("memory:", workflows=[doubled]) as engine:
        older = engine.start(doubled, 1, id="a")
        assert older.result(timeout=20) == 2
        newer = engine.start(doubled, 5, id="a", on_conflict="restart_closed")
        assert newer.result(timeout=20) == 10
        assert older.result(timeout=20) == 10
        engine.start(doubled, -1, id="a", on_conflict="restart_closed")
        with pytest.raises(ValueError, match="negative"):
            older.result(timeout=20)


def test_only_so_many_and_only_small_ones_are_kept(monkeypatch: pytest.MonkeyPatch):
    """The oldest make room for the newest, and what is large is left to the store."""
    monkeypatch.setattr(ends, "KEPT_MAX", 3)
    kept = Ends()
    for n in range(5):
        kept.keep(f"run-{n}", b"small")
    kept.keep("large", bytes(ends.KEPT_BYTES_MAX + 1))
    assert [kept.get(f"run-{n}") for n in range(5)] == [None, None, b"small", b"small", b"small"]
    assert kept.get("large") is None
    kept.forget("run-3")
    assert kept.get("run-3") is None
