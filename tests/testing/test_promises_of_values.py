"""The promise G10 by name: values that cannot be stored, cannot be read back, or are too large. (The table of all
promises stands in test_promises.py.)"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from dalsegno import (
    All,
    Codec,
    Command,
    ContinueAsNew,
    EncodeError,
    Flow,
    Map,
    NewCallback,
    Publish,
    Retry,
    Send,
    SideEffect,
    Sleep,
    Status,
    step,
    workflow,
)
from dalsegno.backends import layout
from dalsegno.backends.ordered import OrderedStore
from dalsegno.backends.records import seal
from dalsegno.testing.simulation import Simulation
from tests.testing import actors
from tests.testing.behind import rewrite


@step(retry=Retry(max_attempts=5, retry_on=(Exception,)))
def give(what: str) -> Any:
    """Returns something that cannot be stored."""
    actors.EFFECTS["gave"] += 1
    return BAD[what]()


@step
def takes_anything(value: Any) -> None:
    """Takes something."""


def a_cycle() -> list[Any]:
    """A list that contains itself."""
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


def a_deep_list() -> list[Any]:
    """A list in a list in a list …"""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    return deep


BAD: dict[str, Callable[[], Any]] = {
    "a lock": threading.Lock,
    "a cycle": a_cycle,
    "a deep list": a_deep_list,
    "a generator": lambda: (n for n in range(3)),
    "50 MB": lambda: bytes(50_000_000),
    "50 MB in a million pieces": lambda: [b"x" * 50] * 1_000_000,
}
"""Values that no codec of ours stores as it comes."""


@workflow
def passes(what: str, back: bool) -> Flow[str]:
    """Passes a bad value to a step, or gets one back, and says what that raised."""
    try:
        yield from give(what) if back else takes_anything(BAD[what]())
    except EncodeError as error:
        return f"EncodeError: {error}"
    return "stored"


@attrs.frozen
class Order:
    """A class that will be gone."""

    number: int


@step
def make_order() -> Order:
    """Makes one."""
    return Order(7)


ASKING: dict[str, Callable[[Any], Command[Any]]] = {
    "publish": lambda value: Publish("key", value),
    "send": lambda value: Send("somebody", "name", value),
    "a child": lambda value: passes(value, False),
    "continue as new": lambda value: ContinueAsNew(value, False),
    "a side effect": lambda value: SideEffect(lambda: value),
    "all": lambda value: All(Sleep(1), takes_anything(value)),
    "map": lambda value: Map(lambda _: takes_anything(value), [1, 2]),
}
"""Every way besides a step in which a workflow hands over a value."""


@workflow
def hands_over(how: str, size: int) -> Flow[str]:
    """Hands over bytes in some way, and says what that raised; or ends with them."""
    try:
        if how == "a result":
            return "x" * size
        yield ASKING[how](bytes(size))
    except EncodeError as error:
        return f"EncodeError: {error}"
    return "stored"


@workflow
def asks_back() -> Flow[Any]:
    """Waits for somebody to complete a callback."""
    callback = yield from NewCallback(bytes)
    yield from Publish("token", callback.token)
    return (yield from callback)


@workflow
def orders() -> Flow[int]:
    """Has an order in its history."""
    order = yield from make_order()
    yield from Sleep(3600)
    return order.number


class TestG10:
    """A value that cannot be stored fails at the line that passed it, before anything is recorded; one that cannot be
    read back blocks that run only; over-size fails at once and is not retried."""

    @pytest.mark.parametrize("what", BAD)
    def test_a_bad_argument_is_an_error_where_it_is_passed(self, store: OrderedStore, what: str):
        """Neither a start nor a step is recorded with a value that cannot be stored."""
        with Simulation([passes], store=store) as simulation:
            with pytest.raises(EncodeError):
                simulation.start(passes, BAD[what](), False)
            assert simulation.runs() == []
            run = simulation.start(passes, what, False)
            assert run.result().startswith("EncodeError")
            assert len(run.history()) == 2

    @pytest.mark.parametrize("what", BAD)
    def test_a_bad_result_is_not_tried_again(self, store: OrderedStore, what: str):
        """A body whose result cannot be stored has run; running it again would not help."""
        with Simulation([passes], store=store) as simulation:
            assert simulation.start(passes, what, True).result().startswith("EncodeError")
        assert actors.EFFECTS["gave"] == 1

    @pytest.mark.parametrize("how", [*ASKING, "a result"])
    def test_over_size_fails_at_the_line_whatever_it_was_for(self, store: OrderedStore, how: str):
        """The limit is the codec's `max_bytes`; nothing larger is recorded, and the message names both numbers."""
        codec = Codec(max_bytes=10_000)
        with Simulation([hands_over, passes], store=store, codec=codec) as simulation:
            run = simulation.start(hands_over, how, 50_000)
            if how == "a result":
                with pytest.raises(EncodeError, match="50,003 bytes, and the limit is 10,000"):
                    run.result()
            else:
                assert re.search(r"50,0\d\d bytes, and the limit is 10,000", run.result())
            simulation.run()
            assert all(
                len(record) < 11_000 for each in simulation.runs() for record in store.history(each.record.number)
            )
            assert [each.workflow for each in simulation.runs()] == ["hands_over"]

    def test_over_size_from_outside_is_refused_at_the_call(self, store: OrderedStore):
        """A start, a signal and a callback's answer of 50 MB are refused before anything is stored."""
        big = bytes(50_000_000)
        with Simulation([asks_back, passes], store=store) as simulation:
            run = simulation.start(asks_back)
            simulation.run(timeout=1)
            head = store.head(run.record.number)
            for say in (
                lambda: simulation.start(passes, big, False),
                lambda: run.signal("name", big),
                lambda: simulation.complete(run.state["token"], big),
            ):
                with pytest.raises(EncodeError, match="and the limit is 33,554,432"):
                    say()
            simulation.run(timeout=1)
            assert (store.head(run.record.number), len(simulation.runs())) == (head, 1)

    def test_what_fits_the_option_is_stored(self, store: OrderedStore):
        """The limit is an option: with a larger one the same 50 MB go through, and are what they were."""
        with Simulation([passes], store=store, codec=Codec(max_bytes=60_000_000)) as simulation:
            assert simulation.start(passes, "50 MB", True).result() == "stored"

    def test_a_class_that_is_gone_blocks_that_run_only(self, store: OrderedStore):
        """A payload that names a class nobody knows blocks its run, and the run goes on when it is known again."""
        with Simulation([orders, actors.payment], store=store) as simulation:
            simulation.start(orders, id="orders")
            simulation.run(timeout=60)
            simulation.crash()
        key = layout.HISTORY + layout.run_bytes(1) + layout.index_bytes(1)
        whole = rewrite(store, key, lambda record: seal(key, record[:-4].replace(b":Order", b":Ordre")))
        assert b":Order" in whole
        with Simulation([orders, actors.payment], store=store, clock=simulation.clock) as changed:
            changed.run(timeout=7200)
            assert changed.start(actors.payment).result() == "paid"
            assert changed.get("orders").status is Status.BLOCKED
            assert "Ordre" in changed.get("orders").record.reason
        rewrite(store, key, lambda _: whole)
        with Simulation([orders, actors.payment], store=store, clock=simulation.clock) as mended:
            assert mended.get("orders").result() == 7
