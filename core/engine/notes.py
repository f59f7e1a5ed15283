"""Notes: what step bodies tell by `heartbeat`, kept so that the next attempt can read it, also after a crash.

A body may beat as often as it likes: what it tells is encoded at once, so that what cannot be stored is refused at the
line that told it, and the last of it goes to the store with a tick, all bodies together, once a second at most. It is
no event: a note says how far an attempt has come, and nothing depends on it but the step itself.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.surroundings import Surroundings
from dalsegno.core.errors import StoreError
from dalsegno.core.queues import Task

EVERY_US = 1_000_000

log = logging.getLogger("dalsegno.engine")


class Notes:
    """The notes of one engine's bodies. `tell` and `last` by any thread, the rest by the clockwork's."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._lock = threading.Lock()
        self._untold: dict[tuple[int, str], tuple[Job, bytes]] = {}
        self._told_us = -EVERY_US

    def tell(self, job: Job, details: Any) -> None:
        """Keep what a body tells. Raises `EncodeError`."""
        data = self._around.codec.encode(details)
        with self._lock:
            self._untold[job.run.number, job.id] = (job, data)

    def last(self, job: Job) -> Any:
        """What was told last of the step that this job is an attempt of; None if nothing was. Raises `DecodeError`."""
        with self._lock:
            untold = self._untold.get((job.run.number, job.id))
        task = _task_of(job)
        if untold is not None:
            kept = untold[1]
        elif task is not None:
            kept = task.details
        else:
            kept = self._around.backend.notes(job.run.number).get(job.id, b"")
        return self._around.codec.decode(kept) if kept else None

    def due(self) -> bool:
        """Whether there is something to tell the store, and it was told nothing for a second."""
        return bool(self._untold) and self._around.clock.steady_us() - self._told_us >= EVERY_US

    @contextmanager
    def of_tasks(self) -> Iterator[dict[int, bytes]]:
        """What bodies of tasks have told, by the task's number, for the caller to tell the store."""
        with self._telling(of_tasks=True) as mine:
            yield {task.number: data for job, data in mine.values() if (task := _task_of(job)) is not None}

    def keep(self) -> None:
        """Tell the store what the bodies of this engine's own runs have told."""
        with self._telling(of_tasks=False) as mine:
            by_run: dict[tuple[int, int], dict[str, bytes]] = {}
            for (number, step), (job, data) in mine.items():
                by_run.setdefault((number, job.run.epoch), {})[step] = data
            for (number, epoch), notes in by_run.items():
                if not self._around.backend.note(number, epoch, notes):
                    log.info("run %s is another engine's by now: what its steps told is not kept", number)

    @contextmanager
    def _telling(self, of_tasks: bool) -> Iterator[dict[tuple[int, str], tuple[Job, bytes]]]:
        """What is to be told; if the store fails, it is told the next time, where nothing newer has come."""
        with self._lock:
            mine = {key: told for key, told in self._untold.items() if (_task_of(told[0]) is not None) is of_tasks}
            for key in mine:
                del self._untold[key]
        self._told_us = self._around.clock.steady_us()
        try:
            yield mine
        except StoreError:
            with self._lock:
                self._untold = {**mine, **self._untold}
            raise


def _task_of(job: Job) -> Task | None:
    return getattr(job.run, "task", None)
