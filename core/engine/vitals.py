"""Vitals: what can be seen of an engine at a moment, for those who look from time to time rather than listen."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from dalsegno.core.store import Backend
from dalsegno.core.values.codec import Codec


@attrs.frozen(slots=True, kw_only=True)
class Queue:
    """Things that wait for a thread: how many, and for how many seconds the first of them has."""

    depth: int
    age: float


@attrs.frozen(slots=True, kw_only=True)
class Pool:
    """Threads: how many there may be, how many there are, how many of these are awake."""

    size: int
    threads: int
    busy: int


@attrs.frozen(slots=True, kw_only=True)
class Sample:
    """An engine at one moment.

    `queues`: "runs" that something has arrived for, "steps" whose bodies wait for a thread, "writes" that wait for a
    flush. `pools`: "durable" and "step", where the engine has threads of its own; `elsewhere`: how many bodies are with
    an event loop ("async") and an executor ("executor"), where there are such. `live` runs are in memory, `idle` of
    them only wait; `deferred` hold results that are not durable yet; `troubled` wait for the store to answer.
    """

    queues: Mapping[str, Queue]
    pools: Mapping[str, Pool]
    elsewhere: Mapping[str, int]
    live: int
    idle: int
    deferred: int
    troubled: int
    stalled: bool


@attrs.frozen(slots=True, kw_only=True)
class Vitals:
    """A running engine, to be looked at: `sample()` costs some microseconds and may be called from any thread.

    `store` is the engine's own: read from it, never write to it.
    """

    owner: str
    store: Backend
    codec: Codec
    sample: Callable[[], Sample]
