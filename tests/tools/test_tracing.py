"""Tracing: one span for a run and one for a step, whatever crashes and replays lie between their beginning and end."""

from __future__ import annotations

import threading
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

from dalsegno import ContinueAsNew, Engine, Flow, Receive, Retry, Sleep, Spawn, step, workflow
from dalsegno.backends.memory import MemoryBackend
from dalsegno.testing import Simulation
from dalsegno.tools import tracing
from dalsegno.tools.tracing import Tracing


class Traces:
    """A provider that keeps what it is handed, and a tracing observer on it."""

    def __init__(self, share: float = 1.0) -> None:
        self.kept = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(share)))
        self.provider.add_span_processor(SimpleSpanProcessor(self.kept))
        self.observer = Tracing(self.provider)

    def spans(self) -> dict[str, ReadableSpan]:
        """Spans by name, of which there is one each."""
        found = self.kept.get_finished_spans()
        assert max(Counter(span.name for span in found).values(), default=0) <= 1, [span.name for span in found]
        return {span.name: span for span in found}


def ids(span: ReadableSpan) -> tuple[int, int]:
    """Trace and span."""
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def above(span: ReadableSpan) -> int | None:
    """The parent's span id."""
    return span.parent.span_id if span.parent is not None else None


@step(retry=Retry(max_attempts=3, initial=3600, backoff=1, jitter=0, maximum=7200))
def flaky() -> None:
    """Fails twice."""


@step
def plain() -> None:
    """A step."""


@step
def inner() -> None:
    """A step of the child's."""


@workflow
def child() -> Flow[None]:
    """Waits, works."""
    yield from Sleep(timedelta(hours=1))
    yield from inner()


@workflow
def parent() -> Flow[None]:
    """Works, with retries and a child, and waits for a word."""
    yield from plain()
    yield from flaky()
    yield from child()
    yield from Receive("go", str)


def failing(times: int) -> list[int]:
    """Counts down."""
    return list(range(times))


def test_spans_are_one_each_over_crashes_and_replays():
    """With every activation a replay and the process killed in each wait, each run and step is a span once, all in one
    trace; attempts are events of the step's span, those of earlier lives too."""
    traces, left = Traces(), failing(2)

    def body() -> None:
        if left:
            left.pop()
            raise ConnectionError("not yet")

    with Simulation([parent, child], cold=True, observers=[traces.observer], fakes={flaky: body}) as simulation:
        run = simulation.start(parent, id="p")
        begun_us = run.record.created_at_us
        for minutes in (30, 90, 150, 200):
            simulation.at(timedelta(minutes=minutes), simulation.restart)
        simulation.at(timedelta(hours=9), lambda: run.signal("go", "on"))
        run.result()
    spans = traces.spans()
    assert set(spans) == {"parent", "child", "plain", "flaky", "inner"}
    assert len({ids(span)[0] for span in spans.values()}) == 1
    assert above(spans["parent"]) is None
    assert above(spans["plain"]) == above(spans["flaky"]) == above(spans["child"]) == ids(spans["parent"])[1]
    assert above(spans["inner"]) == ids(spans["child"])[1]
    attempts = [dict(event.attributes or {}) for event in spans["flaky"].events]
    assert [(one["dalsegno.attempt"], one["dalsegno.outcome"]) for one in attempts] == [
        (1, "retried"),
        (2, "retried"),
        (3, "completed"),
    ]
    assert attempts[0]["exception.message"] == "not yet"
    assert spans["parent"].start_time == begun_us * 1000
    lasted = (spans["parent"].end_time or 0) - (spans["parent"].start_time or 0)
    assert timedelta(hours=9).total_seconds() <= lasted / 1e9 < timedelta(hours=10).total_seconds()
    flaky_lasted = (spans["flaky"].end_time or 0) - (spans["flaky"].start_time or 0)
    assert flaky_lasted / 1e9 >= 7200  # from the first attempt, two processes ago


def test_another_process_goes_on_with_the_same_trace():
    """What shares nothing with the first but the store works out the same ids: its spans lie in the same trace."""
    store, first, second = MemoryBackend(), Traces(), Traces()
    with Simulation([parent, child], store=store, observers=[first.observer]) as simulation:
        simulation.start(parent, id="p")
        simulation.run(timeout=60)
        clock = simulation.clock
    with Simulation([parent, child], store=store, clock=clock, observers=[second.observer]) as simulation:
        run = simulation.get("p")
        simulation.at(timedelta(hours=2), lambda: run.signal("go", "on"))
        run.result()
    early, late = first.spans(), second.spans()
    assert set(early) == {"plain", "flaky"}
    assert set(late) == {"parent", "child", "inner"}
    assert above(early["plain"]) == ids(late["parent"])[1]
    assert {ids(span)[0] for span in early.values()} == {ids(span)[0] for span in late.values()}


def test_what_a_body_traces_lies_below_its_step(tmp_path: Path):
    """The step's span is the current one in plain and async bodies, and not afterwards."""
    traces = Traces()
    mine = traces.provider.get_tracer("shop")

    @step
    def asks() -> None:
        with mine.start_as_current_span("query"):
            trace.get_current_span().set_attribute("rows", 3)

    @step
    async def awaits() -> None:
        with mine.start_as_current_span("fetch"):
            pass

    @workflow
    def both() -> Flow[bool]:
        yield from asks()
        yield from awaits()
        return trace.get_current_span().get_span_context().is_valid

    with Engine(f"lmdb:{tmp_path / 's'}", workflows=[both], observers=[traces.observer]) as engine:
        assert engine.start(both).result(timeout=20) is False
        engine.backend.stats()
    spans = traces.spans()
    assert above(spans["query"]) == ids(spans["asks"])[1]
    assert above(spans["fetch"]) == ids(spans["awaits"])[1]
    assert len({ids(span)[0] for span in spans.values()}) == 1


def test_failures_and_cancelled_steps_are_told():
    """A step and a run that fail have the error; a body nobody waits for any more is told as cancelled."""
    traces, began, gate = Traces(), threading.Event(), threading.Event()

    @step
    def endless() -> None:
        began.set()
        gate.wait(20)

    @step
    def refuse() -> None:
        began.wait(20)
        raise ValueError("no such\taccount")

    @workflow
    def hopeless() -> Flow[None]:
        yield from Spawn(endless())
        yield from refuse()

    with Engine("memory:", workflows=[hopeless], observers=[traces.observer]) as engine:
        run = engine.start(hopeless)
        with pytest.raises(ValueError, match="account"):
            run.result(timeout=20)
        gate.set()
    spans = traces.spans()
    for name in ("refuse", "hopeless"):
        assert spans[name].status.status_code is trace.StatusCode.ERROR
        assert "no such\taccount" in (spans[name].status.description or "")
        assert spans[name].events[-1].name == "exception"
    assert (spans["endless"].attributes or {})["dalsegno.outcome"] == "cancelled"
    assert (spans["hopeless"].attributes or {})["dalsegno.status"] == "failed"


def test_a_run_that_continues_as_new_links_to_the_one_before():
    """Each has a trace of its own, so that none grows for ever, and names the one before it."""
    traces = Traces()

    @workflow
    def count(n: int) -> Flow[int]:
        if n:
            yield ContinueAsNew(n - 1)
        return n

    with Simulation([count], observers=[traces.observer]) as simulation:
        simulation.start(count, 2).result()
    first, second, third = traces.kept.get_finished_spans()
    assert len({ids(span)[0] for span in (first, second, third)}) == 3
    assert [[link.context.span_id for link in span.links] for span in (first, second, third)] == [
        [],
        [ids(first)[1]],
        [ids(second)[1]],
    ]


def test_a_sampler_decides_for_a_whole_run_alike_in_every_life():
    """With half of all traces sampled, a run is there with all of its spans or with none."""
    traces = Traces(share=0.5)
    with Simulation([parent, child], cold=True, observers=[traces.observer]) as simulation:
        for n in range(12):
            run = simulation.start(parent, id=f"p-{n}")
            simulation.at(timedelta(hours=3), partial(run.signal, "go", "on"))
        simulation.at(timedelta(minutes=30), simulation.restart)
        simulation.run()
    per_trace = Counter(ids(span)[0] for span in traces.kept.get_finished_spans())
    assert 0 < len(per_trace) < 12
    assert set(per_trace.values()) == {5}


def test_spans_that_are_held_are_bounded_and_begin_anew(monkeypatch: pytest.MonkeyPatch):
    """With room for one run, a hundred interleaved ones still have each span once, with the same ids."""
    monkeypatch.setattr(tracing, "HELD_MAX", 1)
    traces = Traces()
    with Simulation([child], observers=[traces.observer]) as simulation:
        for n in range(20):
            simulation.start(child, id=f"c-{n}")
        simulation.run()
    found = traces.kept.get_finished_spans()
    assert Counter(span.name for span in found) == {"child": 20, "inner": 20}
    runs = {ids(span)[1] for span in found if span.name == "child"}
    assert {above(span) for span in found if span.name == "inner"} == runs


def test_a_take_over_and_an_interruption_are_events_of_the_run():
    """They stand in the run's span, with who had it and why."""
    traces = Traces()
    with Simulation([child], observers=[traces.observer]) as simulation:
        run = simulation.start(child)
        traces.observer.run_taken_over(run.record, "somebody")
        traces.observer.watchdog_struck(run.record, "endless")
        run.result()
    span = next(span for span in traces.kept.get_finished_spans() if span.name == "child")
    told = [(event.name, dict(event.attributes or {})) for event in span.events]
    assert told == [("taken over", {"dalsegno.owner": "somebody"}), ("watchdog", {"dalsegno.reason": "endless"})]


def test_without_an_sdk_nothing_is_traced_and_nothing_fails():
    """The API alone has tracers that do nothing; so has an engine whose provider is not set."""
    with Simulation([child], observers=[Tracing(trace.NoOpTracerProvider()), Tracing()]) as simulation:
        simulation.start(child).result()


def test_a_step_out_of_a_queue_lies_in_the_trace_of_its_run(tmp_path: Path):
    """What its body traces, at a worker that has not the run, lies below the step's span, which the run's own worker
    hands over; the other one holds nothing afterwards."""
    mover, doer = Traces(), Traces()

    @step(queue="far")
    def far() -> None:
        with doer.provider.get_tracer("library").start_as_current_span("query"):
            pass

    @workflow
    def sends_away() -> Flow[None]:
        yield from far()

    with (
        Engine(f"lmdb:{tmp_path}", workflows=[sends_away], serve=["other"], observers=[mover.observer]) as engine,
        Engine(f"lmdb:{tmp_path}", steps=[far], observers=[doer.observer]),
    ):
        engine.start(sends_away, id="away").result(timeout=10)
    run, asked, query = mover.spans()["sends_away"], mover.spans()["far"], doer.spans()["query"]
    assert (ids(query)[0], above(query)) == ids(asked)
    assert (ids(asked)[0], above(asked)) == ids(run)
    assert list(doer.spans()) == ["query"]
    assert doer.observer._held == {}
