"""Transactional steps where they are declared, and on stores that have no transactions for them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest

from dalsegno import BadOption, Engine, Flow, Retry, UseError, step, step_context, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.transactions import StepAttempt, Undone
from dalsegno.testing import Simulation


@step(transactional=True, retry=Retry(initial=0.001))
def pay(amount: int) -> str:
    """Writes through its connection."""
    return str(step_context().connection.execute("INSERT", [amount]))


@step
def plain() -> object:
    """A step without a transaction that asks for its connection."""
    return step_context().connection


@workflow
def paying(amount: int) -> Flow[str]:
    """One transactional step."""
    return (yield from pay(amount))


@workflow
def asking() -> Flow[object]:
    """One that is not."""
    return (yield from plain())


class Ledger(MemoryBackend):
    """A store in memory that has transactions for steps, as far as a list goes. The first commits may be undone."""

    transactional: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.undo = 0
        self.wrote: list[object] = []
        self.threads: set[str] = set()

    def execute(self, query: str, values: list[object]) -> str:
        self.wrote += values
        return "wrote"

    def transact(self, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        self.threads.add(threading.current_thread().name)
        result, holder = body(self), attempt.holder()
        assert holder is not None
        assert holder[0]
        if self.undo:
            self.undo -= 1
            self.wrote.clear()
            raise Undone(LookupError("it has passed when you read this"))
        return result


@pytest.mark.parametrize(
    "options",
    [{"once": True}, {"idempotent": True}, {"queue": "slow"}, {"total_timeout": 5}, {"transactional": "yes"}],
    ids=["once", "idempotent", "queue", "total_timeout", "no flag"],
)
def test_what_makes_no_sense_with_it_is_refused(options: dict[str, Any]):
    """At the decorator, and by `.options`: what a transactional step is anyway, and what cannot be."""
    with pytest.raises(BadOption, match="transactional"):
        step(**{"transactional": True, **options})
    with pytest.raises(BadOption, match="transactional"):
        pay.options(**options)


def test_it_is_for_plain_functions():
    """An `async def` has no thread that its connection could belong to."""

    async def later() -> None:
        """Would be a step."""

    with pytest.raises(BadOption, match="async def"):
        step(transactional=True)(later)
    with pytest.raises(BadOption, match="async def"):
        step(later).options(transactional=True)


def test_a_store_without_transactions_says_so():
    """Where the steps are known, when the engine opens; else the step fails with a sentence that names the remedy."""
    with pytest.raises(BadOption, match=r"'pay' .* MemoryBackend .* 'postgresql://"), Engine("memory:", steps=[pay]):
        pass
    with Engine("memory:", workflows=[paying]) as engine, pytest.raises(UseError, match="postgresql://"):
        engine.start(paying, 1).result(timeout=10)


def test_other_steps_have_no_connection():
    """Asking for it says which steps have one."""
    with Engine("memory:", workflows=[asking]) as engine, pytest.raises(UseError, match="transactional=True"):
        engine.start(asking).result(timeout=10)


def test_what_was_undone_for_a_passing_reason_is_tried_again():
    """Whatever the error is, as often as the policy says; unless it says never for such errors."""

    @workflow
    def paying_once() -> Flow[str]:
        return (yield from pay.options(retry=Retry(never_on=LookupError))(7))

    with Engine(store := Ledger(), workflows=[paying, paying_once], steps=[pay]) as engine:
        store.undo = 4
        assert engine.start(paying, 5).result(timeout=10) == "wrote"
        assert store.wrote == [5]
        store.undo = 1
        with pytest.raises(LookupError, match="it has passed"):
            engine.start(paying_once).result(timeout=10)
        store.undo = 5
        with pytest.raises(LookupError, match="it has passed"):
            engine.start(paying, 6).result(timeout=10)


def test_an_executor_does_not_get_them():
    """Their connection is of this process: they run on the engine's own threads, whatever runs the others."""
    store = Ledger()
    with ThreadPoolExecutor(1, "elsewhere") as executor, Engine(store, workflows=[paying], executor=executor) as engine:
        assert engine.start(paying, 5).result(timeout=10) == "wrote"
    assert store.threads
    assert not any(name.startswith("elsewhere") for name in store.threads)


def test_a_simulation_takes_a_fake_for_one():
    """On a store in memory a workflow is simulated with fakes of its transactional steps."""
    with Simulation([paying], seed=1, fakes={pay: lambda amount: f"as if {amount}"}) as simulation:
        assert simulation.start(paying, 5).result() == "as if 5"
