"""An archive as a store to look at: `--store archive:FOLDER`.

Every reading command works on it as on a store. Files are read when a run in them is asked for: by id that is one or
two, and a listing reads as many as it shows. A file that is cut short or damaged is shown as far as it goes, with a
mark; one of which nothing can be read is left out. `replay check` names both.

Runs have numbers here as in any store, those that ended last the highest, as long as the store lives.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from time import time_ns
from typing import Any, ClassVar, Never, Self

import attrs

from dalsegno.core.archive import Archive, Entry
from dalsegno.core.errors import BadOption, DataError, StoreUnusable
from dalsegno.core.folders import LocalFolder
from dalsegno.core.halves import Cut
from dalsegno.core.history import encode_event
from dalsegno.core.store import (
    Backend,
    Created,
    DueTimer,
    Message,
    NewRun,
    Problem,
    RunRecord,
    Sent,
    Status,
    StoredMessage,
    Transition,
    Verdict,
)
from dalsegno.tools.exported import half_of
from dalsegno.tools.timeline import Unreadable

FILES_KEPT = 256
"""Files that stay in memory after they were read."""


@attrs.frozen
class _Kept:
    """What is in a file."""

    record: RunRecord
    events: tuple[bytes, ...]
    published: dict[str, bytes]
    cut: Cut | None = None


class ArchivedRuns(Backend):
    """The runs of an archive. Whoever writes is refused with `StoreUnusable`."""

    survives_reopen: ClassVar[bool] = True
    shared: ClassVar[bool] = True

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._entries: list[Entry] = []
        self._numbers: dict[str, int] = {}
        self._complete = False
        self._read = lru_cache(FILES_KEPT)(self._read_file)

    @classmethod
    def open(cls, location: str, **options: Any) -> Self:
        """The archive at a path or URL. Raises `StoreUnusable` for a folder that is not there."""
        if not location:
            raise BadOption("archive: names no folder; write archive:FOLDER, or archive:s3://…")
        archive = Archive.open(location, lambda: time_ns() // 1000)
        if isinstance(archive.folder, LocalFolder) and not Path(archive.folder.root).is_dir():
            raise StoreUnusable(f"there is no archive at {location}")
        return cls(archive)

    def close(self) -> None:
        self._read.cache_clear()

    # --- files -----------------------------------------------------------------------------------------------------

    def _take_in(self, entries: Iterable[Entry]) -> list[int]:
        """The numbers of these files, given in the order in which the runs in them ended."""
        numbers: list[int] = []
        for entry in sorted(entries, key=lambda entry: (entry.day, entry.generation, entry.name)):
            if entry.name not in self._numbers:
                self._entries.append(entry)
                self._numbers[entry.name] = len(self._entries)
            numbers.append(self._numbers[entry.name])
        return numbers

    def _all(self) -> range:
        """The numbers of all files."""
        if not self._complete:
            self._take_in(self._archive.entries())
            self._complete = True
        return range(1, len(self._entries) + 1)

    def _read_file(self, number: int) -> _Kept:
        one, cut = self._archive.read_as_far(self._entries[number - 1])
        run = one.run
        record = RunRecord(
            number=number,
            workflow_id=run.workflow_id,
            generation=run.generation,
            workflow=run.workflow,
            status=run.status,
            active=False,
            created_at_us=run.created_at_us,
            closed_at_us=run.closed_at_us,
            digest=run.digest,
            tags=run.tags,
            parent=run.parent,
            reason=run.reason,
        )
        return _Kept(record, tuple(encode_event(event) for event in one.events), one.published, cut)

    def _kept(self, number: int) -> _Kept | None:
        """What is in a file; None where there is none. Raises `BadHistoryFile`."""
        return self._read(number) if 1 <= number <= len(self._entries) else None

    # --- halves ----------------------------------------------------------------------------------------------------

    @property
    def cut(self) -> Cut | None:
        """None: an archive has a file for each run, and `missing` tells of each."""
        return None

    def missing(self, run: int) -> Unreadable | None:
        """From which event on a run is missing in its file."""
        kept = self._kept(run)
        return None if kept is None else half_of(kept.cut, kept.record.run_id)

    # --- reading ---------------------------------------------------------------------------------------------------

    def history(self, run: int, start: int = 0, limit: int | None = None) -> list[bytes]:
        kept = self._kept(run)
        end = None if limit is None else max(start, 0) + limit
        return [] if kept is None or start < 0 else list(kept.events[start:end])

    def head(self, run: int) -> int:
        kept = self._kept(run)
        return 0 if kept is None else len(kept.events)

    def inbox(self, run: int, after: int = 0, limit: int = 1000) -> list[StoredMessage]:
        return []

    def find(self, workflow_id: str, generation: int | None = None) -> RunRecord | None:
        """The run of an id that ended last, or the last of that generation: an id may have been used again."""
        fitting = [e for e in self._archive.find(workflow_id) if generation in (None, e.generation)]
        numbers = self._take_in(fitting)
        last = max((self._entries[number - 1].day for number in numbers), default="")
        records = [self._read(number).record for number in numbers if self._entries[number - 1].day == last]
        return max(records, key=lambda record: (record.closed_at_us or 0, record.generation), default=None)

    def record(self, run: int) -> RunRecord | None:
        kept = self._kept(run)
        return None if kept is None else kept.record

    def published(self, run: int) -> dict[str, bytes]:
        kept = self._kept(run)
        return {} if kept is None else dict(kept.published)

    def runs(
        self,
        *,
        status: Iterable[Status] = (),
        workflow: str | None = None,
        tags: Mapping[str, str] | None = None,
        before: int | None = None,
        limit: int = 1000,
    ) -> list[RunRecord]:
        """Runs that fit, those that ended last first. Files that cannot be read are left out."""
        wanted, asked, found = set(status), set((tags or {}).items()), list[RunRecord]()
        for number in reversed(self._all()):
            if len(found) >= limit:
                break
            if before is not None and number >= before:
                continue
            try:
                record = self._read(number).record
            except DataError:
                continue
            fits = (not wanted or record.status in wanted) and workflow in (None, record.workflow)
            if fits and asked <= set(record.tags.items()):
                found.append(record)
        return found

    def stats(self) -> dict[str, int]:
        counts = dict.fromkeys((status.value for status in Status), 0)
        size = 0
        for _, kept in self._readable():
            counts[kept.record.status.value] += 1
            size += sum(map(len, kept.events))
        return {"runs": sum(counts.values()), **counts, "events_bytes": size, "file_bytes": 0}

    def check(self) -> list[Problem]:
        """Read every file; what is wrong with one is told by its name."""
        problems: list[Problem] = []
        for number, kept in self._readable(problems):
            if kept.cut is not None:
                entry = self._entries[number - 1]
                problems.append(Problem(entry.name, kept.record.run_id, None, f"the file {kept.cut.what}"))
        return problems

    def _readable(self, problems: list[Problem] | None = None) -> Iterator[tuple[int, _Kept]]:
        for number in self._all():
            try:
                yield number, self._read(number)
            except DataError as error:
                if problems is not None:
                    entry = self._entries[number - 1]
                    problems.append(Problem(entry.name, f"{entry.slug}#{entry.generation}", None, str(error)))

    # --- what an archive has nothing of ----------------------------------------------------------------------------

    def active(self, after: int = 0, limit: int = 1000) -> list[int]:
        return []

    def due(self, now_us: int, limit: int = 1000) -> list[DueTimer]:
        return []

    def next_deadline_us(self) -> int | None:
        return None

    def news(self, after: int = 0, limit: int = 1000) -> list[tuple[int, int]]:
        return []

    def changes(self) -> object:
        return 0

    def hold(self, owner: str) -> None:
        self._refuse()

    def claim(self, runs: Sequence[int], owner: str) -> list[RunRecord]:
        self._refuse()

    def release(self, runs: Sequence[int], owner: str) -> None:
        self._refuse()

    def create(self, runs: Sequence[NewRun]) -> list[Created]:
        self._refuse()

    def commit(self, transitions: Sequence[Transition]) -> list[Verdict]:
        self._refuse()

    def send(self, messages: Sequence[Message], at_us: int) -> list[tuple[Sent, int]]:
        self._refuse()

    def purge(self, runs: Sequence[int]) -> int:
        self._refuse()

    def _refuse(self) -> Never:
        raise StoreUnusable(
            f"{self._archive.folder.place} is an archive, which is only read; `replay import` puts one of its files "
            "back into a store"
        )
