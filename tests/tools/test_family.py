"""Runs with their children, as far as one wants to look."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from dalsegno import collect
from dalsegno.core import events as ev
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.errors import StoreDamaged
from dalsegno.core.store import Backend, NewRun, RunRecord
from dalsegno.tools.app import App
from dalsegno.tools.family import Limits, Member, child_of, family
from tests.tools import shop
from tests.tools.histories import (
    BEGAN,
    CODEC,
    attempt_failed,
    child_started,
    completed,
    found,
    new_run,
    started,
    step,
    store_of,
    timer,
)

NOW = BEGAN + 1_000_000


def parent_of(*children: str, id: str = "order-1") -> NewRun:
    """A run that has started these, and waits for them."""
    return new_run([started(0, id), *(child_started(str(n), "pack", n, child) for n, child in enumerate(children, 1))])


def child(id: str, parent: str = "order-1", command: str = "1", *more: ev.Event) -> NewRun:
    """A run that another one started."""
    return new_run([started(10, id, "pack"), *more], parent=(parent, 1, command))


def read(store: Backend, depth: int = 3, **limits: int) -> Member:
    """The family of order-1."""
    return family(store, found(store, "order-1"), NOW, Limits(depth=depth, **limits))


def names(member: Member) -> list[str]:
    """The ids of everything that was read."""
    return [one.record.workflow_id for one in member.all()]


def test_children_are_read_with_theirs():
    """Children stand at the event that started them, theirs below, each with its own timeline."""
    grandchild = child("c", "a", "1", step("1", "wrap", 20, 30))
    store = store_of(parent_of("a", "b"), child("a", "order-1", "1", child_started("1", "pack", 15, "c")),
                     child("b", "order-1", "2"), grandchild)  # fmt: skip
    root = read(store)
    assert names(root) == ["order-1", "a", "c", "b"]
    assert sorted(root.children) == [1, 2]
    assert [row.name for row in root.children[1].children[1].line.rows] == ["pack", "wrap"]
    assert not root.left_out


def test_how_far_one_looks():
    """What lies deeper, is too much, or is not there, is left out, and the reason is noted where it would stand."""
    runs = [parent_of("a", "b", "gone"), child("a", "order-1", "1", child_started("1", "pack", 15, "c")),
            child("b", "order-1", "2"), child("c", "a")]  # fmt: skip
    store = store_of(*runs)
    assert read(store, depth=0).left_out == dict.fromkeys((1, 2, 3), "children are not shown")
    one_level = read(store, depth=1)
    assert names(one_level) == ["order-1", "a", "b"]
    assert one_level.left_out == {3: "its history is not in this store"}
    assert one_level.children[1].left_out == {1: "only 1 level of children are shown"}
    one_run = read(store, runs=1)
    assert names(one_run) == ["order-1", "a"]
    assert one_run.left_out[2] == "no more than 1 children with 20,000 events are shown"
    assert names(read(store, events=3)) == ["order-1", "a", "b"]


def test_limits_are_spent_on_the_nearest_first():
    """Children come before grandchildren, so that what was asked for is whole before what is further away."""
    many = [child_started(str(n), "pack", 20 + n, f"c{n}") for n in range(1, 10)]
    store = store_of(parent_of("a", "b"), child("a", "order-1", "1", *many), child("b", "order-1", "2"),
                     *(child(f"c{n}", "a", str(n)) for n in range(1, 10)))  # fmt: skip
    assert names(read(store, runs=3)) == ["order-1", "a", "c1", "b"]


def test_the_child_of_this_parent_is_taken():
    """An id that was used again after the child ended leads to the child; a fork leads to what it shares."""
    first = new_run([started(10, "a", "pack"), completed(20)], parent=("order-1", 1, "1"))
    again = new_run([started(30, "a", "pack")], on_conflict="restart_closed", generation=2)
    store = store_of(parent_of("a"), first, again, parent_of("a", id="fork-1"))
    event = child_started("1", "pack", 1, "a")
    assert child_of(store, found(store, "order-1"), event) == store.find("a", 1)
    assert child_of(store, found(store, "fork-1"), event) == store.find("a", 2)
    assert child_of(store, found(store, "order-1"), attrs.evolve(event, workflow_id="gone")) is None


def test_a_damaged_child_is_left_out(monkeypatch: pytest.MonkeyPatch):
    """A child whose record is damaged does not hold up the rest."""
    store = store_of(parent_of("a", "b"), child("a", "order-1", "1"), child("b", "order-1", "2"))
    whole = type(store).find

    def find(self: Backend, id: str, generation: int | None = None) -> RunRecord | None:
        if id == "a":
            raise StoreDamaged("the record of run 2 does not carry its checksum")
        return whole(self, id, generation)

    monkeypatch.setattr(type(store), "find", find)
    root = read(store)
    assert names(root) == ["order-1", "b"]
    assert root.left_out == {1: "the record of run 2 does not carry its checksum"}


def test_unreadable_histories_are_read_as_far_as_they_go():
    """A record of a later release ends the timeline of its run only."""
    store = store_of(
        parent_of("a"), new_run([started(10, "a", "pack")], ("order-1", 1, "1"), records=[b"\x91\xcd\x27\x0f"])
    )
    below = read(store).children[1]
    assert len(below.line.rows) == 1
    assert below.kept.unreadable is not None
    assert below.kept.unreadable.index == 1


def app() -> App:
    """The code of the shop."""
    workflows = {d.name: d for d in collect(shop) if isinstance(d, WorkflowDefinition)}
    return App("shop", workflows, {}, CODEC)


def test_code_tells_what_has_left_no_event():
    """With its code, an open run has a row for what it waits for without an event, and no second one for the rest."""
    order = shop.Order(3)
    events = [started(0, "order-1", "fulfil", order)]
    store = store_of(
        new_run(events), new_run([started(0, "nap-1", "nap", timedelta(days=3)), timer("1", "sleep", 5, 99)])
    )
    with_code = family(store, found(store, "order-1"), NOW, Limits(depth=0), app())
    (row,) = with_code.line.pending
    assert (row.index, row.name, row.what, row.ended_us) == (-1, "charge", "in flight", None)
    assert family(store, found(store, "nap-1"), NOW, Limits(depth=0), app()).line.pending == ()
    assert read(store).line.pending == ()


def test_code_that_does_not_fit_is_told():
    """Code that leaves the recorded path cannot tell what the run waits for; that is said, and the rest is shown."""
    store = store_of(new_run([started(0, "order-1", "nap", timedelta(1)), attempt_failed("1", "charge", 1, 2, 9)]))
    root = family(store, found(store, "order-1"), NOW, Limits(depth=0), app())
    assert "step 'charge'" in root.problem
    assert len(root.line.rows) == 2
