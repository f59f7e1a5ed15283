"""Bodies that do not run on the step crew: `async def` steps on an event loop, others on an executor that was given.

Both hand their outcome to the durable crew, so that no workflow code and no flush ever runs on the event loop.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import threading
from concurrent.futures import Executor, Future
from typing import Any

from dalsegno.core.definitions import Definition
from dalsegno.core.engine.bodies import Job, run_async_body
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings

log = logging.getLogger("dalsegno.engine")


class AsyncBodies:
    """An event loop on a thread of its own, started with the first `async def` step."""

    def __init__(self, around: Surroundings, loop: Loop) -> None:
        self._around, self._loop = around, loop
        self._events: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def takes(self, job: Job) -> bool:
        """Whether this body is for the event loop."""
        return inspect.iscoroutinefunction(job.fn)

    def put(self, job: Job) -> None:
        """Start a body on the event loop."""
        events = self._running()
        if job.options.timeout is not None:
            self._loop.watch_timeout(job)
        events.call_soon_threadsafe(self._begin, job)

    def stop(self, grace: float) -> bool:
        """Let running bodies finish for `grace` seconds, then stop the event loop. False if some had to be dropped."""
        events, thread = self._events, self._thread
        if events is None or thread is None:
            return True
        finished = asyncio.run_coroutine_threadsafe(self._drain(grace), events).result(grace + 5)
        events.call_soon_threadsafe(events.stop)
        thread.join(5)
        return finished

    def _running(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._events is None:
                self._events = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._events,), name="dalsegno-async", daemon=True
                )
                self._thread.start()
            return self._events

    @staticmethod
    def _serve(events: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(events)
        try:
            events.run_forever()
        finally:
            events.close()

    def _begin(self, job: Job) -> None:
        if self._loop.draining or job.run.running.get(job.id) is not job:
            return
        events = asyncio.get_running_loop()
        task = events.create_task(self._run(job), name=f"step {job.name}")
        job.cancel = lambda: events.call_soon_threadsafe(task.cancel)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job) -> None:
        await run_async_body(job, self._around.codec, self._around.clock)
        # Cancelled by us, because nobody waits for it or the time is up: that is no outcome of the step's.
        waited_for = job.run.running.get(job.id) is job and not self._loop.draining
        if not isinstance(job.error, asyncio.CancelledError) or waited_for:
            self._loop.finished(job)

    async def _drain(self, grace: float) -> bool:
        running = [t for t in self._tasks if not t.done()]
        late = (await asyncio.wait(running, timeout=grace))[1] if running else set()
        for task in late:
            task.cancel()
        return not late


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
            self._loop.watch_timeout(job)
        begun = self._around.clock.steady_us()
        try:
            args, kwargs = self._around.codec.decode_call(job.payload)
            future = self._executor.submit(call_named, job.fn.__module__, job.fn.__qualname__, args, kwargs)
        except Exception as error:
            job.error = error
            self._loop.finished(job)
            return
        job.cancel = future.cancel
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
