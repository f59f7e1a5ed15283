"""Step bodies on an executor that was given: threads, processes, a cluster. Outcomes go to the durable crew."""

from __future__ import annotations

import importlib
from concurrent.futures import Executor, Future
from typing import Any

from dalsegno.core.definitions import Definition
from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings


def call_named(module: str, qualname: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run the body of the step that stands at this name; called in an executor's process, where functions that a
    decorator has replaced cannot be sent by themselves."""
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    return (found.fn if isinstance(found, Definition) else found)(*args, **kwargs)


class ExecutorBodies:
    """Bodies on any `concurrent.futures.Executor`; the function has to be importable where that runs."""

    def __init__(self, executor: Executor, around: Surroundings, loop: Loop) -> None:
        self._executor, self._around, self._loop = executor, around, loop

    def put(self, job: Job) -> None:
        """Submit a body; its outcome comes back by the future's callback."""
        if job.options.timeout is not None:
            self._loop.timeouts.watch(job)
        begun = self._around.clock.steady_us()
        try:
            args, kwargs = self._around.codec.decode_call(job.payload)
            future = self._executor.submit(call_named, job.fn.__module__, job.fn.__qualname__, args, kwargs)
        except Exception as error:
            job.error = error
            self._loop.finished(job)
            return
        job.cancel = future.cancel
        if self._around.observed is not None:
            self._around.observed.started(job)
        future.add_done_callback(lambda done: self._finished(job, done, begun))

    def _finished(self, job: Job, done: Future[Any], begun: int) -> None:
        if done.cancelled():
            return
        job.took_us = self._around.clock.steady_us() - begun
        error = done.exception()
        try:
            if error is not None:
                job.error = error
            else:
                job.result = self._around.codec.encode(done.result())
        except Exception as refused:
            job.error = refused
        self._loop.finished(job)
