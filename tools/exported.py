"""An exported file as a store to look at: `--store file:PATH`, here or at a URL, packed or not.

Its runs are put into a store in memory, which every reading command works on. A file that is cut short, damaged or of a
later release is shown as far as it goes (`dalsegno.core.halves`): `cut` says what is missing, and `missing` of which
run, from which event on. `replay import` goes on refusing such a file.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import BadOption
from dalsegno.core.folders import read_anywhere
from dalsegno.core.halves import Cut, read_as_far
from dalsegno.core.store import Backend, Problem, RunRecord
from dalsegno.core.transfer import BadHistoryFile, Exported
from dalsegno.tools.timeline import How, Unreadable
from dalsegno.tools.transfer import import_runs


@runtime_checkable
class MayBeHalf(Protocol):
    """What is read from files that may be cut short. `cut` is that of the one file there is, where there is one."""

    @property
    def cut(self) -> Cut | None: ...

    def missing(self, run: int) -> Unreadable | None:
        """From which event on a run is missing."""
        ...


class ExportedFile(MemoryBackend):
    """The runs of an exported file, in memory."""

    cut: Cut | None = None
    _missing: dict[int, Unreadable]

    def missing(self, run: int) -> Unreadable | None:
        """From which event on a run is missing."""
        return self._missing.get(run)

    @classmethod
    def open(cls, location: str = "", **options: Any) -> Self:
        """The file at a path or URL. Raises `BadHistoryFile` for one of which there is nothing to show."""
        if not location:
            raise BadOption("file: names no file; write file:PATH, or file:s3://…")
        runs, cut = read_as_far(_bytes_of(location), location)
        store = cls()
        store.cut, store._missing = cut, {}
        import_runs(store, runs if cut is None else _with_place(runs), 0)
        for short in cut.runs if cut is not None else ():
            id, _, generation = short.run_id.rpartition("#")
            record, half = store.find(id, int(generation)), half_of(cut, short.run_id)
            if record is not None and half is not None:
                store._missing[record.number] = half
        return store

    def check(self) -> list[Problem]:
        """What the store in memory finds, and what is wrong with the file."""
        problems = super().check()
        if self.cut is not None:
            problems.insert(0, Problem(self.cut.file, "", None, f"the file {self.cut.what}"))
        return problems


def half_of(cut: Cut | None, run_id: str) -> Unreadable | None:
    """From which event on a run is missing in a file; None where all its events are there, and nobody doubts them."""
    for short in cut.runs if cut is not None else ():
        if cut is not None and short.run_id == run_id and (short.events < short.of or cut.why == "checksum"):
            how: How = "doubtful" if short.events == short.of else "missing" if short.gone else "unreadable"
            return Unreadable(short.events, short.why, how)
    return None


def _bytes_of(location: str) -> bytes:
    if "://" in location:
        return read_anywhere(location)
    try:
        return Path(location).read_bytes()
    except OSError as error:
        raise BadHistoryFile(f"{location} cannot be read: {error.strerror}", path=location, why="unreadable") from error


def _with_place(runs: list[Exported]) -> list[Exported]:
    """The runs that a store can number as they are called. Where the run between two of one id cannot be read, those
    after it are left out, and of a file that is in another one twice, the second."""
    kept: list[Exported] = []
    last: dict[str, int] = {}
    for one in sorted(runs, key=lambda one: (one.run.workflow_id, one.run.generation)):
        id, generation = one.run.workflow_id, one.run.generation
        if generation == last.get(id, generation - 1) + 1:
            last[id] = generation
            kept.append(one)
    return kept


def cut_of(store: Backend) -> Cut | None:
    """What is missing of the file that is looked at; None for a whole one, and for a store."""
    return store.cut if isinstance(store, MayBeHalf) else None


def missing_of(store: Backend, record: RunRecord) -> Unreadable | None:
    """From which event on a run is missing in the file that is looked at."""
    return store.missing(record.number) if isinstance(store, MayBeHalf) else None


def refuse_halves(store: Backend, records: Iterable[RunRecord]) -> None:
    """Raise `BadHistoryFile` where one of the runs is not whole: a copy of it would pass for a whole one."""
    cut = cut_of(store)
    half = {one.run_id: one.why for one in cut.runs} if cut is not None else {}
    for record in records:
        missing = missing_of(store, record)
        why = half.get(record.run_id) or (missing.why if missing is not None else "")
        if why:
            what = f"{record.run_id} is not whole and cannot be exported: {why}. Nothing was written."
            raise BadHistoryFile(what, why="half")


def cut_data(store: Backend) -> dict[str, Any] | None:
    """How `--json` says what is missing of the file that is looked at."""
    cut = cut_of(store)
    if cut is None:
        return None
    return {
        "file": cut.file,
        "why": cut.why,
        "line": cut.line,
        "byte": cut.byte,
        "what": cut.what,
        "runs": [{"run_id": one.run_id, "events": one.events, "of": one.of, "why": one.why} for one in cut.runs],
    }
