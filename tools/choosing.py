"""Which runs a command means: by name, by filter, with those before them; and the store and codec to read them with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dalsegno.core.store import Backend, RunRecord
from dalsegno.core.values.codec import Codec
from dalsegno.tools.app import load_app
from dalsegno.tools.exported import cut_of
from dalsegno.tools.failures import say
from dalsegno.tools.options import now_us, statuses
from dalsegno.tools.stores import all_runs, find_run, open_for_reading, store_url


@contextmanager
def reading(store: str | None) -> Iterator[Backend]:
    """The store that is meant, opened to look at. Of a file that is not whole, it is told what is missing."""
    with open_for_reading(store_url(store)) as opened:
        tell_cut(opened)
        yield opened


def tell_cut(opened: Backend) -> None:
    """Say what is missing of the file that is looked at, where something is."""
    if (cut := cut_of(opened)) is not None:
        say(f"{cut.file} {cut.what}; shown as far as it goes", mark="warning")


def codec_of(app: str | None) -> Codec:
    """The codec that an app's payloads are made with; the plain one without an app."""
    return load_app(app).codec if app else Codec()


def filtered(
    store: Backend,
    now: int,
    *,
    status: Sequence[str] = (),
    workflow: str | None = None,
    tags: Sequence[tuple[str, str]] = (),
    age: int | None = None,
    since: int | None = None,
    queue: str | None = None,
) -> Iterator[RunRecord]:
    """The runs that the filter options mean."""
    found = all_runs(
        store,
        status=statuses(status),
        workflow=workflow,
        tags=dict(tags),
        since_us=None if since is None else now - since,
        until_us=None if age is None else now - age,
    )
    return found if queue is None else (record for record in found if _is_at(store, record, queue))


def _is_at(store: Backend, record: RunRecord, queue: str) -> bool:
    """Whether a run has a place in a queue, or a step of it is out there."""
    if not record.status.open:
        return False
    return record.queue == queue or any(task.queue == queue for task in store.tasks_of(record.number))


def chosen_runs(store: Backend, names: Sequence[str], **filters: Any) -> list[RunRecord]:
    """The runs named, or else all that the filters let through."""
    if names:
        return [find_run(store, name) for name in names]
    return list(filtered(store, now_us(), **filters))


def generations(store: Backend, name: str) -> list[RunRecord]:
    """The run that is named, and, where an id is named, those before it under that id; newest first."""
    newest = find_run(store, name)
    earlier = range(newest.generation - 1, 0, -1) if newest.workflow_id == name else ()
    return [newest, *(found for number in earlier if (found := store.find(newest.workflow_id, number)) is not None)]
