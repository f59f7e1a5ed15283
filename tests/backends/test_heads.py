"""What a handle remembers of its last commit must never outlive what others have done since."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest

from dalsegno.backends.heads import Heads
from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.backends.memory import MemoryBackend
from dalsegno.backends.ordered import OrderedStore
from dalsegno.core.store import APPLIED, Message, NewRun, Refusal, Refused, RunRecord, Status, Transition

Handles = tuple[OrderedStore, OrderedStore]


@pytest.fixture(params=["memory", "lmdb"])
def handles(request: pytest.FixtureRequest, tmp_path: Path):
    """Two handles on one store."""
    if request.param == "memory":
        first: OrderedStore = MemoryBackend.open()
        assert isinstance(first, MemoryBackend)
        second: OrderedStore = first.another()
    else:
        first, second = LmdbBackend.open(str(tmp_path / "store")), LmdbBackend.open(str(tmp_path / "store"))
    yield first, second
    second.close()
    first.close()


def a_run(store: OrderedStore) -> RunRecord:
    """A run with one step recorded by this handle, which therefore knows it."""
    new = NewRun(workflow_id="w", workflow="w", events=(b"0",), created_at_us=1, digest=b"", owner="first")
    record = store.create([new])[0].record
    assert store.commit([next_step(record, 1)]) == [APPLIED]
    assert store.commit([next_step(record, 2)]) == [APPLIED]
    assert store.heads is not None
    return record


def next_step(record: RunRecord, head: int, **changed: object) -> Transition:
    """The transition of one step."""
    step = Transition(record.number, record.epoch, head, (b"%d" % head,))
    return attrs.evolve(step, **changed)  # type: ignore[arg-type]


def claim(store: OrderedStore, record: RunRecord) -> None:
    store.claim([record.number], "second")


def end(store: OrderedStore, record: RunRecord) -> None:
    store.commit([next_step(record, 3, status=Status.COMPLETED, closed_at_us=9, active=False)])


def append(store: OrderedStore, record: RunRecord) -> None:
    store.commit([next_step(record, 3)])


@pytest.mark.parametrize("own", [False, True], ids=["by another handle", "by this handle"])
@pytest.mark.parametrize(
    ("meanwhile", "refusal"), [(claim, Refusal.EPOCH), (end, Refusal.CLOSED), (append, Refusal.HEAD)]
)
def test_what_happened_meanwhile_is_seen(
    handles: Handles, meanwhile: Callable[[OrderedStore, RunRecord], None], refusal: Refusal, own: bool
):
    """A step is refused after a claim, an end or a step, whichever handle did that, and leaves nothing behind."""
    first, second = handles
    record = a_run(first)
    meanwhile(first if own else second, record)
    before = first.history(record.number)
    assert first.commit([next_step(record, 3)]) == [Refused(refusal)]
    assert first.history(record.number) == before


def test_a_commit_of_several_sees_its_own_changes(handles: Handles):
    """In one commit, a second step finds the first; after the run's end, a step is refused."""
    first, _ = handles
    record = a_run(first)
    closing = next_step(record, 4, status=Status.COMPLETED, closed_at_us=9, active=False)
    verdicts = first.commit([next_step(record, 3), next_step(record, 3), closing, next_step(record, 5)])
    assert verdicts == [APPLIED, Refused(Refusal.HEAD), APPLIED, Refused(Refusal.CLOSED)]


def test_a_message_in_the_same_commit_changes_nothing_known(handles: Handles):
    """Steps go on being accepted while messages and other runs are written beside them."""
    first, _ = handles
    record = a_run(first)
    message = Message(workflow_id="w", kind="signal", name="s")
    for head in (3, 4, 5):
        new = NewRun(workflow_id=f"w{head}", workflow="w", events=(b"0",), created_at_us=1, digest=b"", owner="first")
        _, verdicts, _ = first.write([new], [next_step(record, head)], [message], 1)
        assert verdicts == [APPLIED]
    assert first.head(record.number) == 6
    assert first.check() == []


def test_nothing_is_known_after_a_commit_that_was_not_kept():
    """A commit that failed leaves nothing that the next one would rely on."""
    heads = Heads()
    heads.before(5)[1] = (1, 2, True)
    heads.kept(5)
    assert heads.before(6) == {1: (1, 2, True)}
    assert heads.before(7) == {}
