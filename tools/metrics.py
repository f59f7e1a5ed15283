"""Metrics: an engine's figures for Prometheus (`pip install 'dalsegno[metrics]'`).

`Metrics()` is an observer: give it to an engine, and read its `registry`, a registry of its own. Counters and
histograms are kept as things happen. What stands in queues, and what threads have used, is looked at when somebody
scrapes. What the store holds is asked for then too, but not more often than every ten seconds, and so seldom that the
asking takes a twentieth of the time at most.

Labels are names of workflows and steps, never ids. They come out of histories, so no more than `NAMES_MAX` of a kind
are taken; the others share the label "(others)".
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from dalsegno.core.engine.observing import Attempt, Observer, Outcome
from dalsegno.core.engine.vitals import Vitals
from dalsegno.core.errors import DalsegnoError
from dalsegno.core.events import Event
from dalsegno.core.queues import QueueState
from dalsegno.core.store import Backend, RunRecord, Status
from dalsegno.tools.pool_cpu import PoolCpu

NAMES_MAX = 500
"""Label values of a kind: each is a time series for ever, and names are whatever a client has started."""

LOOK_EVERY_S = 10.0
SHARE = 20
"""So many times as long as looking at the store took, it is not looked at again."""

OPEN_RUNS_MAX = 10_000
"""So many open runs of each status are told apart by workflow; a gauge says if there are more."""

FAST = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10)
WORK = (0.001, 0.01, 0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 14400)
LIVES = (0.01, 0.1, 1, 10, 60, 600, 3600, 6 * 3600, 86400, 7 * 86400, 30 * 86400)
SIZES = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
COUNTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

log = logging.getLogger("dalsegno.engine")


class Names:
    """Values of one label, so many of them."""

    def __init__(self) -> None:
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        if name not in self._known:
            if len(self._known) >= NAMES_MAX:
                return "(others)"
            self._known.add(name)
        return name


class Metrics(Observer):
    """One engine's figures. Give each engine its own.

    >>> from dalsegno import Engine, workflow
    >>> from prometheus_client import generate_latest
    >>> @workflow
    ... def nothing():
    ...     return
    ...     yield
    >>> metrics = Metrics()
    >>> with Engine("memory:", workflows=[nothing], observers=[metrics]) as engine:
    ...     engine.start(nothing).result(timeout=10)
    >>> b'dalsegno_runs_closed_total{status="completed",workflow="nothing"} 1.0' in generate_latest(metrics.registry)
    True
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = given = registry or CollectorRegistry()
        self._workflow, self._step, self._error, self._queue = Names(), Names(), Names(), Names()

        def counter(name: str, about: str, *labels: str) -> Counter:
            return Counter(f"dalsegno_{name}", about, labels, registry=given)

        def histogram(name: str, about: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"dalsegno_{name}", about, labels, buckets=buckets, registry=given)

        self._started = counter("runs_started", "Runs begun here.", "workflow")
        self._closed = counter("runs_closed", "Runs that ended here, by how.", "workflow", "status")
        self._blocked = counter("runs_blocked", "Times that a run could not go on with this code.", "workflow")
        self._run_s = histogram("run_seconds", "From a run's creation to its end.", LIVES, "workflow")
        self._recovery_s = histogram("recovery_seconds", "Reading and replaying one run's history.", FAST)
        self._replayed = counter("replayed_events", "Events that were replayed to recover runs.")
        self._attempts = counter("step_attempts", "Attempts of steps whose outcome is durable.", "step", "outcome")
        self._step_s = histogram("step_seconds", "What one attempt of a step takes.", WORK, "step")
        self._wait_s = histogram("step_wait_seconds", "How long a body waits for a thread.", FAST)
        self._task_wait_s = histogram(
            "task_wait_seconds", "From a step's being queued to its beginning.", WORK, "queue"
        )
        self._write_s = histogram("write_seconds", "From a write's queueing until it is durable.", FAST, "what")
        self._flush_s = histogram("flush_seconds", "One commit of the store: a checkpoint's latency.", FAST)
        self._flush_n = histogram("flush_writes", "Writes that share one commit.", COUNTS)
        self._flush_b = histogram("flush_bytes", "Bytes of events and messages in one commit.", SIZES)
        self._strikes = counter("watchdog_strikes", "Times that workflow code without a yield was interrupted.")
        self._leases = counter("leases_lost", "Times that this worker did not renew its lease in time.")
        self._takeovers = counter("takeovers", "Runs taken over from a worker that died or was silent.")
        self._events = counter("history_events", "Events appended to histories here.")
        self._bytes = counter("history_bytes", "Bytes of events appended to histories here.")
        self._failures = counter("store_failures", "Commits that the store refused.", "error")
        self._late_s = histogram("timer_late_seconds", "How long after its deadline a timer is looked at.", FAST)
        # Looking a labelled metric up takes longer than counting; there are as many as there are names.
        remembering = lru_cache(maxsize=4 * NAMES_MAX)
        self._attempt_of = remembering(self._attempts.labels)
        self._step_s_of = remembering(self._step_s.labels)
        self._write_s_of = remembering(self._write_s.labels)
        self._looks = Looks()
        self.registry.register(self._looks)
        ProcessCollector(registry=given)

    def opened(self, vitals: Vitals) -> None:
        self._looks.open(vitals)

    def closed(self) -> None:
        self._looks.close()

    def run_started(self, run: RunRecord) -> None:
        self._started.labels(self._workflow(run.workflow)).inc()

    def run_recovered(self, run: RunRecord, events: int, seconds: float) -> None:
        self._recovery_s.observe(seconds)
        self._replayed.inc(events)

    def recorded(self, run: RunRecord, events: Sequence[Event], size: int) -> None:
        self._events.inc(len(events))
        self._bytes.inc(size)

    def run_closed(self, run: RunRecord, status: Status, seconds: float) -> None:
        name = self._workflow(run.workflow)
        for each in (Status.COMPLETED, Status.FAILED):  # a share of both is 0, and not unknown, where one is missing
            self._closed.labels(name, each.value)
        self._closed.labels(name, status.value).inc()
        self._run_s.labels(name).observe(seconds)

    def run_blocked(self, run: RunRecord, reason: str) -> None:
        self._blocked.labels(self._workflow(run.workflow)).inc()

    def run_taken_over(self, run: RunRecord, owner: str) -> None:
        self._takeovers.inc()

    def watchdog_struck(self, run: RunRecord, reason: str) -> None:
        self._strikes.inc()

    def lease_lost(self) -> None:
        self._leases.inc()

    def step_started(self, attempt: Attempt, waited: float) -> None:
        self._wait_s.observe(waited)
        if attempt.queued_us is not None:  # clocks of two machines may differ
            waited = max(0, attempt.at_us - attempt.queued_us) / 1e6
            self._task_wait_s.labels(self._queue(attempt.queue)).observe(waited)

    def step_ended(self, outcome: Outcome) -> None:
        name = self._step(outcome.step)
        self._attempt_of(name, "retried")  # from 0 on, so that a rate sees the first
        self._attempt_of(name, outcome.outcome).inc()
        self._step_s_of(name).observe(outcome.took_us / 1e6)

    def written(self, what: str, seconds: float) -> None:
        self._write_s_of(what).observe(seconds)

    def flushed(self, writes: int, size: int, seconds: float) -> None:
        self._flush_s.observe(seconds)
        self._flush_n.observe(writes)
        self._flush_b.observe(size)

    def store_failed(self, error: Exception) -> None:
        self._failures.labels(self._error(type(error).__name__)).inc()

    def timer_fired(self, late: float) -> None:
        self._late_s.observe(max(0.0, late))


class Looks(Collector):
    """What is looked at when somebody scrapes."""

    def __init__(self) -> None:
        self._vitals: Vitals | None = None
        self._store: StoreLook | None = None
        self._cpu = PoolCpu()

    def open(self, vitals: Vitals) -> None:
        """Look at this engine from now on."""
        self._vitals, self._store = vitals, StoreLook(vitals.store)

    def close(self) -> None:
        """The engine has ended, and its store may be closed."""
        self._vitals = self._store = None

    def describe(self) -> Iterable[Metric]:
        """Nothing: to be asked is to look."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All figures as they are now; without an engine, their names."""
        cpu = CounterMetricFamily("dalsegno_pool_cpu_seconds", "Processor time of a pool's threads.", labels=["pool"])
        for pool, seconds in self._cpu.seconds().items():
            cpu.add_metric([pool], seconds)
        yield cpu
        yield from self._engine()
        store = self._store
        yield from (store.figures() if store is not None else _families({}, {}, True, True))
        yield from (store.queues() if store is not None else _lines([], 0.0, Names()))

    def _engine(self) -> Iterator[Metric]:
        depth = _gauge("queue_depth", "What waits for a thread (runs, steps) or a flush (writes).", "queue")
        age = _gauge("queue_age_seconds", "How long the first in the queue has waited.", "queue")
        threads = _gauge("pool_threads", "Threads that are there, by whether they are awake.", "pool", "state")
        size = _gauge("pool_size", "Threads that there may be.", "pool")
        elsewhere = _gauge("bodies_elsewhere", "Bodies on the event loop, and on the executor that was given.", "where")
        runs = _gauge("engine_runs", "Runs in memory, those of them that only wait, and so on.", "state")
        stalled = _gauge("store_stalled", "1 while the store takes no writes.")
        vitals = self._vitals
        if vitals is not None:
            sample = vitals.sample()
            for name, queue in sample.queues.items():
                depth.add_metric([name], queue.depth)
                age.add_metric([name], queue.age)
            for name, pool in sample.pools.items():
                threads.add_metric([name, "busy"], pool.busy)
                threads.add_metric([name, "idle"], pool.threads - pool.busy)
                size.add_metric([name], pool.size)
            for where, count in sample.elsewhere.items():
                elsewhere.add_metric([where], count)
            for state in ("live", "idle", "deferred", "troubled"):
                runs.add_metric([state], getattr(sample, state))
            stalled.add_metric([], sample.stalled)
        yield from (depth, age, threads, size, elsewhere, runs, stalled)


class StoreLook:
    """What a store holds, as it was a moment ago."""

    def __init__(self, store: Backend) -> None:
        self._store = store
        self._looking = threading.Lock()
        self._stats: dict[str, int] = {}
        self._open: Tally[tuple[str, str]] = Tally()
        self._queues: list[QueueState] = []
        self._looked_s = 0.0
        self._queue = Names()
        self._all = self._answers = True
        self._next = 0.0

    def figures(self) -> Iterator[Metric]:
        """The figures, looked up anew when they are old."""
        with self._looking:
            begun = time.monotonic()
            if begun >= self._next:
                try:
                    self._look()
                    self._answers = True
                except DalsegnoError as error:
                    log.warning("the store's figures cannot be read: %s", error)
                    self._answers = False
                took = time.monotonic() - begun
                self._next = begun + max(LOOK_EVERY_S, SHARE * took)
            return _families(self._stats, self._open, self._all, self._answers)

    def queues(self) -> Iterator[Metric]:
        """How the store's queues stand, as they were when its figures were looked up."""
        return _lines(self._queues, self._looked_s, self._queue)

    def _look(self) -> None:
        self._stats, self._queues, self._looked_s = self._store.stats(), self._store.queues(), time.time()
        found, names, complete = Tally[tuple[str, str]](), Names(), True
        for status in (Status.RUNNING, Status.PAUSED, Status.BLOCKED):
            left, before = OPEN_RUNS_MAX, None
            while left > 0 and (runs := self._store.runs(status=[status], before=before, limit=1000)):
                found.update((names(run.workflow), status.value) for run in runs)
                left, before = left - len(runs), runs[-1].number
            complete = complete and left > 0
        self._open, self._all = found, complete


def _families(
    stats: dict[str, int], open_runs: dict[tuple[str, str], int], complete: bool, answers: bool
) -> Iterator[Metric]:
    by_status = _gauge("store_runs", "Runs in the store.", "status")
    sizes = _gauge("store_bytes", "Sizes of the store: events, file, map, and its quota.", "what")
    opened = _gauge("open_runs", "Runs that have not ended, by workflow.", "workflow", "status")
    for status in Status:
        if status.value in stats:
            by_status.add_metric([status.value], stats[status.value])
    for what, value in stats.items():
        if what.endswith("_bytes"):
            sizes.add_metric([what.removesuffix("_bytes")], value)
    for (workflow, status_), count in open_runs.items():
        opened.add_metric([workflow, status_], count)
    yield from (by_status, sizes, opened)
    yield GaugeMetricFamily("dalsegno_open_runs_complete", "0 when there are more than are counted.", float(complete))
    yield GaugeMetricFamily(
        "dalsegno_store_up", "Whether the store answered when it was last looked at.", float(answers)
    )


def _lines(queues: Iterable[QueueState], now_s: float, name_of: Names) -> Iterator[Metric]:
    waiting = _gauge("store_queue_waiting", "Steps or runs that wait in a queue of the store.", "queue", "kind")
    at_work = _gauge("store_queue_at_work", "Steps or runs of a queue that are at work.", "queue", "kind")
    age = _gauge("store_queue_age_seconds", "How long the oldest of them has waited.", "queue", "kind")
    known = set[tuple[str, str]]()
    for queue in queues:
        place = (name_of(queue.name), queue.kind)
        if place in known:
            continue  # one of "(others)": a series has one value
        known.add(place)
        waiting.add_metric(place, queue.waiting)
        at_work.add_metric(place, queue.at_work)
        age.add_metric(place, 0.0 if queue.oldest_us is None else max(0.0, now_s - queue.oldest_us / 1e6))
    yield from (waiting, at_work, age)


def _gauge(name: str, about: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"dalsegno_{name}", about, labels=labels)
