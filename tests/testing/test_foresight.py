"""On CPython 3.11 the guard reads code ahead: what is cleared calls no suspect, and whatever is not plain is a doubt.

Collected on 3.11 only (see `conftest.py`): later releases are watched without reading.
"""

from __future__ import annotations

import dataclasses
import datetime
import os
import sys
import time
from typing import Any

import attrs
import pytest

from dalsegno import All, Flow, Receive, SideEffect, Sleep, collect, step, workflow
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.examples import audit, hello, pipeline, provision
from dalsegno.testing import foresight
from dalsegno.testing.foresight import Foresight
from dalsegno.testing.guard import determinism_guard
from dalsegno.testing.simulation import Simulation
from dalsegno.testing.suspects import suspects
from tests.testing import actors
from tests.testing.roads import ROADS, workflow_of


def clears(definition: WorkflowDefinition[..., Any], *arguments: Any) -> bool:
    """Whether a workflow is read to be harmless."""
    return Foresight(suspects()).clears(definition.fn(*arguments))


def findings(definition: WorkflowDefinition[..., Any]) -> list[str]:
    """The rules that a guard finds broken in one run."""
    with determinism_guard("collect") as guard, Simulation([definition]) as simulation:
        simulation.start(definition).result()
    return [one.rule for one in guard.findings]


@step
def work(item: int) -> int:
    """A step, which may do anything."""
    return item + int(time.time() * 0)


@dataclasses.dataclass(frozen=True)
class Account:
    """Plain data with a method and a property of its own."""

    items: tuple[int, ...]

    def total(self) -> int:
        return sum(self.items)

    @property
    def is_empty(self) -> bool:
        return not self.items


@attrs.frozen
class Parcel:
    """Plain data by attrs, whose generated code asks for ids and hashes."""

    weight: int


@workflow
def ordinary(count: int) -> Flow[str]:
    """What workflows do all day."""

    def branch(item: int) -> Flow[int]:
        done = yield from work(item)
        return done + count

    seen: list[int] = []
    for item in range(count):
        seen.append((yield from branch(item)))
    most = yield from All(*(branch(item) for item in sorted(seen, key=lambda n: -n)))
    name: str = yield from Receive("name", str, timeout=datetime.timedelta(days=1))
    region = yield from SideEffect(lambda: os.environ.get("REGION", ""))
    account = Account(tuple(Parcel(n).weight for n in most))
    if account.is_empty:
        raise ValueError(f"nothing for {name.strip().upper()} in {region}")
    return ", ".join(str(each) for each in account.items)


WORKFLOWS = [each for module in (audit, hello, pipeline, provision, actors) for each in collect(module)]
ORDINARY = [ordinary, *(each for each in WORKFLOWS if isinstance(each, WorkflowDefinition))]


@pytest.mark.parametrize("definition", ORDINARY, ids=lambda definition: definition.name)
def test_ordinary_workflows_are_cleared(definition: WorkflowDefinition[..., Any]):
    """What only builds commands and computes is read to be harmless, and so costs nothing."""
    needed = definition.fn.__code__.co_argcount
    assert clears(definition, *[3] * needed)


@pytest.mark.parametrize("road", ROADS)
def test_every_road_is_a_doubt(road: str):
    """None of the roads to a suspect is read to be harmless."""
    assert not clears(workflow_of(ROADS[road]))


def test_the_same_code_around_another_function_is_another_matter():
    """A closure's verdict holds for what it closes over, not for its code alone."""
    ahead = Foresight(suspects())
    quiet, loud = workflow_of(lambda: None), workflow_of(lambda: time.time())
    assert [ahead.clears(each.fn()) for each in (quiet, loud, quiet)] == [True, False, True]


def test_a_method_nobody_knows_is_a_doubt():
    """A method of an object that came from elsewhere might do anything."""

    def asks(account: Account) -> Flow[int]:
        yield Sleep(1)
        return account.total()

    assert not clears(workflow(asks), Account((1,)))


def test_what_cannot_be_read_is_a_doubt_and_no_error(monkeypatch: pytest.MonkeyPatch):
    """Code that reading stumbles over is watched as it runs; the run itself hears nothing of it."""
    monkeypatch.setattr("dis.get_instructions", lambda code: 1 // 0)
    assert not clears(ordinary, 3)
    assert findings(workflow_of(lambda: time.time())) == ["clock"]


def test_what_reaches_too_far_is_a_doubt(monkeypatch: pytest.MonkeyPatch):
    """Reading ends after so many functions."""
    monkeypatch.setattr(foresight, "MOST", 3)
    assert not clears(ordinary, 3)


def test_another_profiler_is_left_in_place():
    """A profiler that was there first goes on, and the guard steps aside."""
    called: list[str] = []

    def profiler(frame: Any, event: str, arg: Any) -> None:
        if event == "call":
            called.append(frame.f_code.co_name)

    sys.setprofile(profiler)
    try:
        found = findings(workflow_of(ROADS["a method"]))
    finally:
        sys.setprofile(None)
    assert "asks" in called
    assert found == []
