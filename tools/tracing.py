"""Tracing: runs and steps as OpenTelemetry spans (`pip install 'dalsegno[tracing]'`, and an SDK of your choice).

A run is a span, and so is each of its steps, with its attempts as events; a child's span lies below its parent's. While
a body runs its span is the current one, so that what the body's libraries trace lies below it.

A run may outlive many processes, and no process knows what another has traced. So nothing is handed on: trace and span
ids are digests of what every engine finds in the store, the ids of run and command and the moment of creation. A span
is handed to the SDK when the end of what it tells of is durable, which happens once; whoever comes to a run in the
middle works out the same ids, and takes what happened before from the history. A process that dies between recording
an end and handing over the span takes that span with it.

The ids are set through the tracer's `id_generator`, which the SDK has and the API has not; with the API alone, or
without a provider, nothing is traced and nothing fails.
"""

from __future__ import annotations

import copy
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from hashlib import sha256
from typing import Any

import attrs
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, StatusCode, TracerProvider

from dalsegno.core.engine.observing import Attempt, Observer, Outcome, outcome_of
from dalsegno.core.engine.vitals import Vitals
from dalsegno.core.errors import DalsegnoError
from dalsegno.core.events import Event, RunFailed, StepAttemptFailed
from dalsegno.core.history import decode_event
from dalsegno.core.store import RunRecord, Status

HELD_MAX = 10_000
"""Runs whose spans are begun and held at a time; those that were not touched for longest are begun anew later."""


def digest(size: int, *parts: object) -> int:
    """A number of so many bytes that is the same in every process, and never 0, which would be no id.

    >>> digest(8, "run", "order-42#1", 17) == digest(8, "run", "order-42#1", 17) != digest(8, "run", "order-42#1", 18)
    True
    """
    text = "\0".join(map(str, ("dalsegno", *parts)))
    return int.from_bytes(sha256(text.encode("utf-8", "surrogatepass")).digest()[:size], "big") or 1


class GivenIds(threading.local):
    """Gives a tracer the ids that were chosen on the same thread just before."""

    chosen: tuple[int, int] = (1, 1)

    def generate_trace_id(self) -> int:
        return self.chosen[0]

    def generate_span_id(self) -> int:
        return self.chosen[1]

    def is_trace_id_random(self) -> bool:
        return False


@attrs.define(eq=False)
class Held:
    """A run's span, begun and not handed over, and those of its steps."""

    span: Span
    steps: dict[str, Span] = attrs.field(factory=dict)
    error: bytes = b""
    guest: bool = False
    """Whether it is here only for a task that came out of a queue: its run is traced by another worker."""

    @property
    def context(self) -> SpanContext:
        return self.span.get_span_context()


class Tracing(Observer):
    """Traces one engine: `Engine(…, observers=[Tracing()])`. `provider` defaults to the global one, as it is when the
    engine opens: set it before."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self._given = provider
        self._ids = GivenIds()
        self._tracer = trace.NoOpTracer()
        self._vitals: Vitals | None = None
        self._held: OrderedDict[str, Held] = OrderedDict()
        self._changing = threading.RLock()

    # --- what the engine tells -------------------------------------------------------------------------------------

    def opened(self, vitals: Vitals) -> None:
        provider = self._given or trace.get_tracer_provider()
        tracer: Any = copy.copy(provider.get_tracer("dalsegno"))
        with self._changing:
            self._held.clear()
            self._vitals = vitals
            self._tracer = trace.NoOpTracer()
            if hasattr(tracer, "id_generator"):
                tracer.id_generator = self._ids
                self._tracer = tracer

    def step_started(self, attempt: Attempt, waited: float) -> None:
        with self._changing:
            guest = bool(attempt.queue) and attempt.run_id not in self._held
            held = self._hold(attempt.run)
            held.guest = held.guest or guest
            if attempt.id not in held.steps:
                held.steps[attempt.id] = self._begin_step(held, attempt)

    def around_body(self, attempt: Attempt) -> AbstractContextManager[object] | None:
        with self._changing:
            span = self._hold(attempt.run).steps.get(attempt.id)
        if span is None:
            return None
        current = trace.use_span(span, end_on_exit=False, record_exception=False, set_status_on_exception=False)
        return self._visiting(attempt, current) if attempt.queue else current

    @contextmanager
    def _visiting(self, attempt: Attempt, current: AbstractContextManager[object]) -> Iterator[None]:
        """The body of a task: what it traces lies below its step's span, which the worker of its run hands over. Of
        another worker's run nothing is held when the body has ended."""
        with current:
            yield
        with self._changing:
            held = self._held.get(attempt.run_id)
            if held is not None and held.guest:
                held.steps.pop(attempt.id, None)
                if not held.steps:
                    del self._held[attempt.run_id]

    def step_ended(self, outcome: Outcome) -> None:
        with self._changing:
            held = self._hold(outcome.run)
            span = held.steps.get(outcome.id)
            if span is None:  # its body began before this run was last held
                begun = Attempt(
                    run=outcome.run,
                    run_id=outcome.run.run_id,
                    id=outcome.id,
                    step=outcome.step,
                    attempt=outcome.attempt,
                    at_us=outcome.at_us - outcome.took_us,
                )
                span = held.steps[outcome.id] = self._begin_step(held, begun)
            self._tell_attempt(span, outcome)
            if outcome.outcome != "retried":
                del held.steps[outcome.id]
                span.set_attribute("dalsegno.attempts", outcome.attempt)
                if outcome.outcome == "failed":
                    span.set_status(StatusCode.ERROR, self._tell_error(span, outcome.error, outcome.at_us))
                span.end(outcome.at_us * 1000)

    def recorded(self, run: RunRecord, events: Sequence[Event], size: int) -> None:
        if isinstance(events[-1], RunFailed):
            with self._changing:
                self._hold(run).error = events[-1].error

    def run_closed(self, run: RunRecord, status: Status, seconds: float) -> None:
        end_us = run.created_at_us + round(seconds * 1e6)
        with self._changing:
            held = self._hold(run)
            del self._held[run.run_id]
        for span in held.steps.values():  # bodies that nobody waits for any more
            span.set_attribute("dalsegno.outcome", "cancelled")
            span.end(end_us * 1000)
        held.span.set_attribute("dalsegno.status", status.value)
        if status is Status.FAILED:
            held.span.set_status(StatusCode.ERROR, self._tell_error(held.span, held.error, end_us))
        held.span.end(end_us * 1000)

    def run_taken_over(self, run: RunRecord, owner: str) -> None:
        with self._changing:
            self._hold(run).span.add_event("taken over", {"dalsegno.owner": owner})

    def watchdog_struck(self, run: RunRecord, reason: str) -> None:
        with self._changing:
            self._hold(run).span.add_event("watchdog", {"dalsegno.reason": reason})

    # --- spans -----------------------------------------------------------------------------------------------------

    def _hold(self, run: RunRecord) -> Held:
        """The span of a run, begun if it is not held."""
        held = self._held.get(run.run_id)
        if held is not None:
            self._held.move_to_end(run.run_id)
            return held
        parent = self._find(run.parent[0], run.parent[1]) if run.parent else None
        above = self._hold(parent).context if parent is not None else None
        links = [Link(self._hold(before).context)] if (before := self._before(run)) is not None else []
        ids = (
            digest(16, "trace", run.run_id, run.created_at_us),
            digest(8, "run", run.run_id, run.created_at_us),
        )
        facts = {
            "dalsegno.workflow": run.workflow,
            "dalsegno.workflow_id": run.workflow_id,
            "dalsegno.run_id": run.run_id,
        }
        span = self._begin(ids, run.workflow, above, run.created_at_us, facts, links)
        held = self._held[run.run_id] = Held(span)
        if len(self._held) > HELD_MAX:
            self._held.popitem(last=False)
        return held

    def _begin_step(self, held: Held, attempt: Attempt) -> Span:
        """The span of a step, with the attempts that a process before this one recorded."""
        run = attempt.run
        earlier = self._earlier(attempt) if attempt.attempt > 1 else []
        begun_us = earlier[0].at_us - earlier[0].took_us if earlier else attempt.at_us
        facts = {"dalsegno.step": attempt.step, "dalsegno.step_id": attempt.id, "dalsegno.run_id": run.run_id}
        ids = (held.context.trace_id, digest(8, "step", run.run_id, run.created_at_us, attempt.id))
        span = self._begin(ids, attempt.step, held.context, begun_us, facts)
        for outcome in earlier:
            self._tell_attempt(span, outcome)
        return span

    def _begin(
        self,
        ids: tuple[int, int],
        name: str,
        above: SpanContext | None,
        begun_us: int,
        facts: Mapping[str, str],
        links: Sequence[Link] = (),
    ) -> Span:
        context = Context()  # whatever is current on this thread has nothing to do with the run
        if above is not None:
            context = trace.set_span_in_context(NonRecordingSpan(above), context)
        self._ids.chosen = ids
        return self._tracer.start_span(name, context, attributes=facts, links=links, start_time=begun_us * 1000)

    def _tell_attempt(self, span: Span, outcome: Outcome) -> None:
        facts: dict[str, str | int | float] = {
            "dalsegno.attempt": outcome.attempt,
            "dalsegno.outcome": outcome.outcome,
            "dalsegno.seconds": outcome.took_us / 1e6,
        }
        if outcome.error:
            facts["exception.type"], facts["exception.message"] = self._error(outcome.error)
        span.add_event("attempt", facts, timestamp=outcome.at_us * 1000)

    def _tell_error(self, span: Span, payload: bytes, at_us: int) -> str:
        """Put an error into a span the way OpenTelemetry's conventions have it; answers it in a line."""
        kind, message = self._error(payload)
        span.add_event("exception", {"exception.type": kind, "exception.message": message}, timestamp=at_us * 1000)
        return f"{kind}: {message}"

    # --- from the store --------------------------------------------------------------------------------------------

    def _error(self, payload: bytes) -> tuple[str, str]:
        try:
            assert self._vitals is not None
            summary = self._vitals.codec.describe_error(payload)
        except DalsegnoError:
            return "unknown", "the error cannot be read"
        return summary.type, summary.message

    def _find(self, workflow_id: str, generation: int) -> RunRecord | None:
        try:
            return None if self._vitals is None else self._vitals.store.find(workflow_id, generation)
        except DalsegnoError:
            return None

    def _before(self, run: RunRecord) -> RunRecord | None:
        """The run that this one continues."""
        before = self._find(run.workflow_id, run.generation - 1) if run.generation > 1 else None
        return before if before is not None and before.status is Status.CONTINUED else None

    def _earlier(self, attempt: Attempt) -> list[Outcome]:
        """The attempts before this one, from the history."""
        try:
            stored = [] if self._vitals is None else self._vitals.store.history(attempt.run.number)
            events = [decode_event(data) for data in stored]
        except DalsegnoError:
            return []
        return [
            outcome_of(attempt.run, event)
            for event in events
            if isinstance(event, StepAttemptFailed) and event.id == attempt.id and event.attempt < attempt.attempt
        ]
