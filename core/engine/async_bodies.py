"""`async def` step bodies, on an event loop of their own thread.

Their outcomes go to the durable crew, so that no workflow code and no flush ever runs on the event loop. Imported only
when the first such step comes: asyncio is a seventh of the time that importing dalsegno would take.
"""

from __future__ import annotations

import asyncio
import threading

from dalsegno.core.engine.bodies import Job, run_async_body
from dalsegno.core.engine.loop import Loop
from dalsegno.core.engine.surroundings import Surroundings


class AsyncBodies:
    """An event loop on a thread of its own, and the bodies that run there."""

    def __init__(self, around: Surroundings, loop: Loop) -> None:
        self._around, self._loop = around, loop
        self._tasks: set[asyncio.Task[None]] = set()
        self._events = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._serve, name="dalsegno-async", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._tasks)

    def put(self, job: Job) -> None:
        """Start a body on the event loop."""
        if job.options.timeout is not None:
            self._loop.timeouts.watch(job)
        self._events.call_soon_threadsafe(self._begin, job)

    def stop(self, grace: float) -> bool:
        """Let running bodies finish for `grace` seconds, then stop the event loop. False if some had to be dropped."""
        finished = asyncio.run_coroutine_threadsafe(self._drain(grace), self._events).result(grace + 5)
        self._events.call_soon_threadsafe(self._events.stop)
        self._thread.join(5)
        return finished

    def _serve(self) -> None:
        asyncio.set_event_loop(self._events)
        try:
            self._events.run_forever()
        finally:
            self._events.close()

    def _begin(self, job: Job) -> None:
        if self._loop.draining or not job.waited_for:
            return
        task = self._events.create_task(self._run(job), name=f"step {job.name}")
        job.cancel = lambda: self._events.call_soon_threadsafe(task.cancel)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, job: Job) -> None:
        await run_async_body(job, self._around.codec, self._around.clock, self._around.observed)
        # Cancelled by us, because nobody waits for it or the time is up: that is no outcome of the step's.
        waited_for = job.waited_for and not self._loop.draining
        if not isinstance(job.error, asyncio.CancelledError) or waited_for:
            self._loop.finished(job)

    async def _drain(self, grace: float) -> bool:
        running = [t for t in self._tasks if not t.done()]
        late = (await asyncio.wait(running, timeout=grace))[1] if running else set()
        for task in late:
            task.cancel()
        return not late
