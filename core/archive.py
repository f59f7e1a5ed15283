"""The archive: histories of runs that have left the store, a compressed file each, where a person finds them.

    ARCHIVE/2026-01-08/fulfil/order-42.1.5f3a9c1e2b.jsonl.zst
            the day it ended (UTC) / workflow / id . generation . mark

A file is what `replay export` writes, packed: every reading command opens it, and `replay import` puts it back. The
mark is a digest of how the run began (its seed, arguments, time): a second run that got the same id, after the first
was deleted, has a file of its own, and so have the runs of two stores that share an archive. Whatever in a name is no
letter, digit or `_.-~` is percent-encoded; a long id is cut, and its digest added.

`put` answers when the run may be deleted: the history was read back from the very bytes and compared, then they were
written whole or not at all, then they were read again from where they lie. A run that is there already, after a crash
between archiving and deleting, is recognised and left as it is.

Payloads are written as they are stored. What stands beside them for people is what can be told without keys: an archive
never shows more than the store did.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Final
from urllib.parse import quote

import attrs

from dalsegno.core.errors import DalsegnoError, DataError
from dalsegno.core.folders import ArchiveFailed, Folder, open_folder
from dalsegno.core.halves import Cut, read_as_far
from dalsegno.core.history import encode_event
from dalsegno.core.packing import pack
from dalsegno.core.policies import Archiving
from dalsegno.core.transfer import BadHistoryFile, Exported, export_lines, read_lines, read_packed
from dalsegno.core.values.codec import Codec

SLUG_MAX: Final = 120  # of the 255 bytes that file systems allow a name; generation, mark and `.partial` need room
DAY: Final = "%Y-%m-%d"

_NAME: Final = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)/(?P<workflow>[^/]+)/(?P<slug>[^/]+)\.(?P<generation>\d+)\.(?P<mark>[0-9a-f]{10})"
    r"\.jsonl(\.zst|\.gz)?"
)


@attrs.frozen(order=True)
class Entry:
    """One file of an archive; the order is that of the days the runs ended."""

    name: str
    day: str
    workflow: str
    slug: str
    generation: int
    mark: str

    @classmethod
    def of(cls, name: str) -> Entry | None:
        """The entry of that name; None for a name that no archive gives."""
        found = _NAME.fullmatch(name)
        if found is None:
            return None
        return cls(name, found["day"], found["workflow"], found["slug"], int(found["generation"]), found["mark"])


def slug(text: str) -> str:
    """A text as part of a file's name, the same each time.

    >>> slug("order-42"), slug("../a b"), slug("")
    ('order-42', '%2E.%2Fa%20b', '%00')
    """
    written = quote(text, safe="", errors="backslashreplace") or "%00"
    if written.startswith("."):
        written = "%2E" + written[1:]
    if len(written) <= SLUG_MAX:
        return written
    digest = blake2b(text.encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()
    return f"{written[: SLUG_MAX - 34].rstrip('%')}~{digest}"


def day_of(at_us: int) -> datetime:
    """A time as the day it is in, in UTC; what lies beyond the calendar is brought to its edge."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=min(max(at_us, 0), 253_402_214_400_000_000))


class Archive:
    """Files of runs in a folder. Raises `ArchiveFailed` where the folder cannot be used.

    `now_us` is asked for the time that a file says it was written at.
    """

    def __init__(self, folder: Folder, now_us: Callable[[], int]) -> None:
        self.folder, self._now_us = folder, now_us

    @classmethod
    def open(cls, place: str, now_us: Callable[[], int]) -> Archive:
        """The archive at a path or URL, which need not be there yet. Raises `BadOption`."""
        return cls(open_folder(place), now_us)

    # --- in --------------------------------------------------------------------------------------------------------

    def put(self, one: Exported) -> str:
        """Keep a run; answers its file's name. Raises `BadHistoryFile` for one that could not be read again."""
        data = exported_bytes(one, self._now_us())
        _see_it_is(one, data, one.run_id)
        suffix, packed = pack(data)
        name = name_of(one) + suffix
        there = self._reread(name)
        if there is not None:
            if _is(one, there, name):
                return name
            self.folder.remove(name)  # it is no good, and some places rename no file over another
        self.folder.write(name, packed)
        there = self._reread(name)
        if there != packed and not _is(one, there, name):  # another worker may have written it, too
            raise ArchiveFailed(
                f"{self.folder.place}/{name} does not hold what was just written to it. The run stays in the store.",
                place=self.folder.place,
            )
        return name

    def _reread(self, name: str) -> bytes | None:
        try:
            return self.folder.read(name)
        except FileNotFoundError:
            return None

    # --- out -------------------------------------------------------------------------------------------------------

    def entries(self, pattern: str = "*/*/*") -> list[Entry]:
        """The files that fit a pattern, those of the earliest ends first."""
        return sorted(entry for name in self.folder.names(pattern) if (entry := Entry.of(name)) is not None)

    def find(self, workflow_id: str) -> list[Entry]:
        """The files of an id."""
        wanted = slug(workflow_id)
        return [entry for entry in self.entries(f"*/*/{wanted}.*") if entry.slug == wanted]

    def read(self, entry: Entry) -> Exported:
        """What is in a file. Raises `BadHistoryFile`."""
        return _the_one(read_packed(self._packed(entry), self._place(entry)), self._place(entry))

    def read_as_far(self, entry: Entry) -> tuple[Exported, Cut | None]:
        """What is in a file that may be cut short or damaged, to be looked at; and what is missing of it (None: nothing
        is). Raises `BadHistoryFile` where there is nothing to show."""
        runs, cut = read_as_far(self._packed(entry), self._place(entry))
        return _the_one(runs, self._place(entry)), cut

    def _place(self, entry: Entry) -> str:
        return f"{self.folder.place}/{entry.name}"

    def _packed(self, entry: Entry) -> bytes:
        try:
            return self.folder.read(entry.name)
        except FileNotFoundError:
            place = self._place(entry)
            raise BadHistoryFile(f"{place} is not there any more", path=place, why="unreadable") from None

    # --- away ------------------------------------------------------------------------------------------------------

    def expire(self, before_us: int) -> Iterator[str]:
        """Delete the files of runs that ended on a day before that one; answers each name when it is gone."""
        last = day_of(before_us).strftime(DAY)
        for day in self.folder.names("????-??-??"):
            if day < last:
                for entry in self.entries(f"{day}/*/*"):
                    self.folder.remove(entry.name)
                    yield entry.name


def _the_one(runs: list[Exported], place: str) -> Exported:
    if len(runs) != 1:
        raise BadHistoryFile(f"{place} holds {len(runs)} runs, and a file of an archive holds 1", path=place)
    return runs[0]


def exported_bytes(one: Exported, written_at_us: int) -> bytes:
    """A run as `replay export` writes it, without what only a codec with keys could tell."""
    return b"".join(export_lines([one], Codec(), written_at_us))


def name_of(one: Exported) -> str:
    """The name of a run's file, but for how it is packed."""
    mark = blake2b(encode_event(one.events[0]), digest_size=5).hexdigest()
    day = day_of(one.run.closed_at_us or 0).strftime(DAY)
    return f"{day}/{slug(one.run.workflow)}/{slug(one.run.workflow_id)}.{one.run.generation}.{mark}.jsonl"


def _see_it_is(one: Exported, data: bytes, name: str) -> None:
    """Raises `BadHistoryFile` unless reading these bytes gives back this run, equal in everything."""
    if read_lines(data, name) != [one]:
        raise BadHistoryFile(f"{name} does not read back as it was written", path=name, why="changed")


def _is(one: Exported, packed: bytes | None, name: str) -> bool:
    """Whether these bytes are a file of this run, whole."""
    try:
        return packed is not None and read_packed(packed, name) == [one]
    except DataError:
        return False


def sink_for(archive: str | Archiving | None, now_us: Callable[[], int]) -> Callable[[Exported], object] | None:
    """What takes a run to where the policy wants it archived. Raises `BadOption`."""
    if archive is None:
        return None
    if isinstance(archive, str):
        return Archive.open(archive, now_us).put
    given = archive

    def hand_over(one: Exported) -> None:
        try:
            given(one.run_id, exported_bytes(one, now_us()))
        except DalsegnoError:
            raise
        except Exception as error:
            raise ArchiveFailed(f"archive({one.run_id!r}, …) raised {type(error).__name__}: {error}") from error

    return hand_over
