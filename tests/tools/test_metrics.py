"""Metrics: every figure is what happened, each is told once, and looking costs the store little."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from dalsegno import All, Engine, Flow, Queue, Receive, Retry, Sleep, StoreUnusable, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.testing import Simulation
from dalsegno.tools import metrics as module
from dalsegno.tools.metrics import Metrics


@step(retry=Retry(max_attempts=2, initial=1, jitter=0))
def flaky(times: list[int]) -> str:
    """A step."""
    return "fine"


@workflow
def order(fails: bool) -> Flow[str]:
    """Works, waits for a day and for a word."""
    yield from flaky([1])
    yield from Sleep(timedelta(days=1))
    yield from Receive("go", str)
    if fails:
        raise ValueError("no")
    return "done"


@workflow
def astray() -> Flow[None]:
    """Yields what is no command."""
    yield 17  # type: ignore[misc]


def figures(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """A scrape: samples by name and labels."""
    found: dict[tuple[str, ...], float] = {}
    for family in text_string_to_metric_families(generate_latest(metrics.registry).decode()):
        for sample in family.samples:
            found[sample.name, *(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


def test_figures_are_what_happened():
    """All is counted once, over a crash and with every activation a replay."""
    metrics = Metrics()
    left = [1]

    def once_bad(times: list[int]) -> str:
        if left and left.pop():
            raise ConnectionError("not yet")
        return "fine"

    with Simulation([order, astray], cold=True, observers=[metrics], fakes={flaky: once_bad}) as simulation:
        runs = [simulation.start(order, fails, id=f"order-{fails}") for fails in (False, True)]
        simulation.start(astray, id="astray")
        simulation.at(timedelta(hours=3), simulation.restart)
        for run in runs:
            simulation.at(timedelta(days=2), partial(run.signal, "go", "on"))
        simulation.run()
        sizes = [sum(map(len, simulation.backend.history(run.record.number, 1))) for run in runs]
        found = figures(metrics)
    assert found["dalsegno_runs_started_total", "order"] == 2
    assert found["dalsegno_runs_closed_total", "completed", "order"] == 1
    assert found["dalsegno_runs_closed_total", "failed", "order"] == 1
    assert found["dalsegno_run_seconds_sum", "order"] >= 2 * 86400
    assert found["dalsegno_step_attempts_total", "completed", "flaky"] == 2
    assert found["dalsegno_step_attempts_total", "retried", "flaky"] == 1
    assert found["dalsegno_step_seconds_count", "flaky"] == 3
    assert found["dalsegno_recovery_seconds_count",] > 0
    assert found["dalsegno_replayed_events_total",] > 0
    assert found["dalsegno_history_bytes_total",] == sum(sizes)
    assert found["dalsegno_timer_late_seconds_count",] == 3
    assert found["dalsegno_store_runs", "completed"] == 1
    assert found["dalsegno_store_runs", "blocked"] == 1
    assert found["dalsegno_open_runs", "blocked", "astray"] == 1
    assert found["dalsegno_flush_seconds_count",] == found["dalsegno_flush_writes_count",] > 0
    assert found["dalsegno_write_seconds_count", "transition"] > 0


def test_an_engine_is_looked_at_while_it_works(tmp_path: Path):
    """Queues, pools and sizes are there with an engine, and gone when it has closed; counters stay."""
    metrics = Metrics()
    with Engine(f"lmdb:{tmp_path / 's'}?quota=10MiB", workflows=[order], step_threads=3, observers=[metrics]) as engine:
        run = engine.start(order, False)
        while ("dalsegno_step_attempts_total", "completed", "flaky") not in figures(metrics):
            pass
        found = figures(metrics)
        run.terminate("enough")
    assert found["dalsegno_pool_size", "step"] == 3
    assert 1 <= sum(found["dalsegno_pool_threads", "step", state] for state in ("busy", "idle")) <= 3
    assert found["dalsegno_queue_depth", "steps"] == found["dalsegno_queue_age_seconds", "steps"] == 0
    assert found["dalsegno_engine_runs", "live"] == 1
    assert found["dalsegno_store_bytes", "quota"] == 10 << 20
    assert found["dalsegno_store_bytes", "events"] > 0
    assert found["dalsegno_store_up",] == 1
    assert found["process_resident_memory_bytes",] > 0
    assert {"step", "clockwork"} <= {key[1] for key in found if key[0] == "dalsegno_pool_cpu_seconds_total"}
    after = figures(metrics)
    assert ("dalsegno_pool_size", "step") not in after
    assert after["dalsegno_step_attempts_total", "completed", "flaky"] == 1


def test_bodies_elsewhere_are_told():
    """How many bodies are on the event loop and on the executor, which take no thread of the engine's."""
    metrics, begun, may_end = Metrics(), threading.Semaphore(0), threading.Event()

    @step
    def computes() -> None:
        begun.release()
        assert may_end.wait(60)

    @step
    async def listens() -> None:
        begun.release()
        await asyncio.get_running_loop().run_in_executor(None, may_end.wait, 60)

    @workflow
    def both() -> Flow[None]:
        yield from All(computes(), listens())

    with (
        ThreadPoolExecutor(1) as threads,
        Engine("memory:", workflows=[both], executor=threads, observers=[metrics]) as engine,
    ):
        run = engine.start(both)
        assert begun.acquire(timeout=60)
        assert begun.acquire(timeout=60)
        found = figures(metrics)
        may_end.set()
        run.result(timeout=60)
    assert found["dalsegno_bodies_elsewhere", "executor"] == 1
    assert found["dalsegno_bodies_elsewhere", "async"] == 1


@step(queue="mail")
def mail() -> None:
    """A step that waits in a queue of the store."""


@workflow
def mails() -> Flow[None]:
    """Sends some."""
    yield mail()


def test_what_waits_in_the_stores_queues_is_told():
    """A queue that nobody serves: what waits there, and for how long."""
    metrics = Metrics()
    with Engine("memory:", workflows=[mails], serve=["other"], queues=[Queue("mail")], observers=[metrics]) as engine:
        for _ in range(3):
            engine.start(mails)
        while {state.waiting for state in engine.backend.queues() if state.kind == "step"} != {3}:
            pass
        found = figures(metrics)
    assert found["dalsegno_store_queue_waiting", "step", "mail"] == 3
    assert found["dalsegno_store_queue_at_work", "step", "mail"] == 0
    assert 0 <= found["dalsegno_store_queue_age_seconds", "step", "mail"] < 60
    assert found["dalsegno_store_queue_waiting", "run", "mail"] == 0


def test_how_long_a_step_waits_in_a_queue_is_told():
    """From being put there to its beginning, by queue."""
    metrics = Metrics()
    with Engine("memory:", workflows=[mails], observers=[metrics]) as engine:
        engine.start(mails).result(timeout=60)
        found = figures(metrics)
    assert found["dalsegno_task_wait_seconds_count", "mail"] == 1


class Counting(MemoryBackend):
    """Counts how often it is asked for its figures, and fails when told to."""

    asked = 0
    broken = False

    def stats(self) -> dict[str, int]:
        self.asked += 1
        if self.broken:
            raise StoreUnusable("gone")
        return super().stats()


def test_the_store_is_asked_seldom_and_its_failing_is_told(monkeypatch: pytest.MonkeyPatch):
    """Scrapes in quick succession ask it once; when it does not answer, the last figures stay and a gauge says so."""
    store, now = Counting(), [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    look = module.StoreLook(store)

    def up() -> float:
        return {family.name: family for family in look.figures()}["dalsegno_store_up"].samples[0].value

    assert [up() for _ in range(5)] == [1.0] * 5
    assert store.asked == 1
    store.broken = True
    now[0] += module.LOOK_EVERY_S
    assert up() == 0.0
    by_status = next(family for family in look.figures() if family.name == "dalsegno_store_runs")
    assert len(by_status.samples) == 8
    assert store.asked == 2
    store.close()


def test_names_beyond_a_number_share_a_label(monkeypatch: pytest.MonkeyPatch):
    """Workflow names come from whoever starts runs: they cannot fill the memory of whoever scrapes."""
    monkeypatch.setattr(module, "NAMES_MAX", 2)
    names = module.Names()
    assert [names(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", "(others)", "a", "(others)"]


def test_a_name_cannot_add_lines_to_the_page():
    """Line ends and quotes in a name are escaped, as the format wants."""
    metrics = Metrics()

    @workflow(name='x"} 1\nevil{a="')
    def odd() -> Flow[None]:
        yield from Sleep(1)

    with Simulation([odd], observers=[metrics]) as simulation:
        simulation.start(odd).result()
        found = figures(metrics)
    assert found["dalsegno_runs_closed_total", "completed", 'x"} 1\nevil{a="'] == 1
    assert not [key for key in found if key[0].startswith("evil")]


def test_each_has_a_registry_of_its_own_or_the_one_it_is_given():
    """Two engines in a process do not meet in a global registry."""
    given: Any = CollectorRegistry()
    assert Metrics(given).registry is given
    assert Metrics().registry is not Metrics().registry


def test_trouble_of_workers_is_counted():
    """Interrupted code, lost leases and runs taken over begin at 0, so that a rate sees the first."""
    metrics = Metrics()
    names = ("dalsegno_watchdog_strikes_total", "dalsegno_leases_lost_total", "dalsegno_takeovers_total")
    assert [figures(metrics)[name,] for name in names] == [0, 0, 0]
    with Simulation([order]) as simulation:
        record = simulation.start(order, False).record
    metrics.watchdog_struck(record, "why")
    metrics.lease_lost()
    for _ in range(3):
        metrics.run_taken_over(record, "somebody")
    assert [figures(metrics)[name,] for name in names] == [1, 1, 3]


def test_a_run_of_a_dead_engine_counts_as_taken_over():
    """What an engine left behind when it was killed is another's now."""
    metrics = Metrics()
    with Simulation([order], observers=[metrics]) as simulation:
        run = simulation.start(order, False)
        simulation.at(timedelta(hours=3), simulation.restart)
        simulation.at(timedelta(days=2), partial(run.signal, "go", "on"))
        run.result()
        assert figures(metrics)["dalsegno_takeovers_total",] == 1
