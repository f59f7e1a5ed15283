"""Where histories come from: which store is meant, opening it to look, and finding a run by what people type.

The store is, in this order: what `--store` says; the environment variable `DALSEGNO_STORE`; a folder `.dalsegno` here
or in the nearest folder above, the way git finds its own. Two more kinds are only read, and every reading command works
on them as on a store: `file:PATH` is a file that `replay export` or an archive wrote, packed or not, here or at a URL;
`archive:FOLDER` is a whole archive (`dalsegno.tools.archived`).

Looking takes no hold of a store, so an engine may work on it meanwhile, and never makes a store that is not there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import attrs

from dalsegno.core.errors import BadOption, RunNotFound
from dalsegno.core.events import Event
from dalsegno.core.store import Backend, RunRecord, Status, open_store
from dalsegno.tools.archived import ArchivedRuns
from dalsegno.tools.exported import ExportedFile, missing_of
from dalsegno.tools.text import clean
from dalsegno.tools.timeline import Unreadable, as_far_as_readable

ENVIRONMENT = "DALSEGNO_STORE"
FOLDER = ".dalsegno"
PAGE = 1000
ONLY_READ = ("file", "archive")


def store_url(given: str | None = None, *, make: bool = False) -> str:
    """The URL of the store that is meant. Raises `BadOption` where nothing says; `make` answers `./.dalsegno` then."""
    if given or (given := os.environ.get(ENVIRONMENT)):
        if given.startswith("memory:"):
            raise BadOption("memory: is a store inside one process, and ends with this command; say --store lmdb:PATH")
        return given
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / FOLDER).is_dir():
            return f"lmdb:{folder / FOLDER}"
    if make:
        return f"lmdb:{here / FOLDER}"
    raise BadOption(
        f"which store? There is no folder {FOLDER} here or above; say --store lmdb:PATH or set {ENVIRONMENT}=lmdb:PATH"
    )


def url_to_write(given: str | None = None, *, make: bool = False) -> str:
    """The same for who wants to write. Raises `BadOption` for what is only read, too."""
    url = store_url(given, make=make)
    if url.partition(":")[0] in ONLY_READ:
        raise BadOption(f"{clean(url)} is only read; name a store, or put a file into one with `replay import`")
    return url


def open_for_reading(url: str) -> Backend:
    """Open a store to look at it, beside whoever works there. Raises `StoreUnusable` when there is none: `read_only` is
    the one option that every kind of store takes, so that a slip of the pen never makes a new one."""
    scheme, _, location = url.partition(":")
    if scheme == "file":
        return ExportedFile.open(location)
    return ArchivedRuns.open(location) if scheme == "archive" else open_store(url, read_only=True)


@attrs.frozen
class Kept:
    """A run as it is kept: its record, its history as stored, and as far as it could be read."""

    record: RunRecord
    records: tuple[bytes, ...]
    events: tuple[Event, ...]
    unreadable: Unreadable | None = None


def read_run(store: Backend, record: RunRecord) -> Kept:
    """A run's whole history, a page at a time."""
    return kept_of(record, raw_history(store, record), missing_of(store, record))


def kept_of(record: RunRecord, records: list[bytes], missing: Unreadable | None) -> Kept:
    """A run as it is kept, out of its stored events and what is known to be missing of them."""
    events, unreadable = as_far_as_readable(records)
    return Kept(record, tuple(records), tuple(events), unreadable or missing)


def raw_history(store: Backend, record: RunRecord) -> list[bytes]:
    """A run's history as it is stored, a page at a time."""
    records = store.history(record.number, 0, PAGE)
    while len(records) % PAGE == 0 and (page := store.history(record.number, len(records), PAGE)):
        records += page
    return records


def find_run(store: Backend, name: str) -> RunRecord:
    """The run people mean by `order-42` (the newest of that id) or `order-42#1` (that one).

    Raises `RunNotFound`, which proposes ids that begin alike.
    """
    if (found := store.find(name)) is not None:
        return found
    exact = re.fullmatch(r"(.*)#(\d{1,9})", name, re.DOTALL)
    if exact and (found := store.find(exact[1], int(exact[2]))) is not None:
        return found
    alike = close_to(store, exact[1] if exact else name)
    hint = f"; there is {', '.join(clean(near, 60) for near in alike)}" if alike else "; `replay ls` lists them"
    raise RunNotFound(f"no run has the id '{clean(name, 120)}'{hint}", workflow_id=name)


def close_to(store: Backend, name: str, limit: int = 3) -> list[str]:
    """Ids among the newest runs that begin as `name` does, or hold it."""
    ids = list(dict.fromkeys(record.workflow_id for record in store.runs(limit=PAGE)))
    near = [near for near in ids if near.startswith(name)] or [near for near in ids if name and name in near]
    return near[:limit]


def all_runs(
    store: Backend,
    *,
    status: tuple[Status, ...] = (),
    workflow: str | None = None,
    tags: dict[str, str] | None = None,
    since_us: int | None = None,
    until_us: int | None = None,
) -> Iterator[RunRecord]:
    """All runs that fit, newest first, a page at a time; `since_us` and `until_us` bound when they were created."""
    before: int | None = None
    while page := store.runs(status=status, workflow=workflow, tags=tags, before=before, limit=PAGE):
        for record in page:
            if (until_us is None or record.created_at_us <= until_us) and (
                since_us is None or record.created_at_us >= since_us
            ):
                yield record
        before = page[-1].number
