"""Sampling: a look at an engine's queues and threads, without holding any of them up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from dalsegno.core.engine.committer import Committer
from dalsegno.core.engine.crew import Crew, Hands
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.observing import Observers
from dalsegno.core.engine.vitals import Pool, Queue, Sample, Vitals


def vitals_of(
    loop: Loop,
    committer: Committer,
    observed: Observers,
    elsewhere: Callable[[], Mapping[str, int]],
    **hands: Hands[Any],
) -> Vitals:
    """What observers may look at. `hands` are the pools by name; `elsewhere` counts bodies that are with none."""

    def queue(depth: int, since_us: int | None) -> Queue:
        now_us = loop.around.clock.steady_us()
        return Queue(depth=depth, age=0.0 if since_us is None else max(0, now_us - since_us) / 1e6)

    def sample() -> Sample:
        crews = {name: crew for name, crew in hands.items() if isinstance(crew, Crew)}
        return Sample(
            queues={
                "runs": queue(*observed.runs_waiting()),
                "steps": queue(*observed.jobs_waiting()),
                "writes": queue(len(committer), committer.oldest_us),
            },
            pools={name: _pool(*crew.use) for name, crew in crews.items()},
            elsewhere=elsewhere(),
            live=len(loop.live),
            idle=len(loop.idle),
            deferred=len(loop.deferred),
            troubled=len(loop.troubled),
            stalled=committer.stalled is not None,
        )

    return Vitals(owner=loop.around.owner, store=loop.around.backend, codec=loop.around.codec, sample=sample)


def _pool(size: int, threads: int, busy: int) -> Pool:
    return Pool(size=size, threads=threads, busy=busy)
