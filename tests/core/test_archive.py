"""The archive: a file for each run, found by people, read back before anything is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno import Codec, Status
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.archive import SLUG_MAX, Archive, Entry, exported_bytes, name_of, sink_for, slug
from dalsegno.core.folders import ArchiveFailed, Folder, LocalFolder
from dalsegno.core.transfer import BadHistoryFile, Exported, read_lines, take
from tests.core.bygone import DAY_US, NOW_US, bygone, grow


def exported(workflow_id: str = "order-42", **options: Any) -> Exported:
    """A closed run as it is taken out of a store."""
    store = MemoryBackend()
    (record,) = grow(store, [attrs.evolve(bygone(workflow_id, **options), published={"stage": b"\xc0"})]).values()
    return take(store, record)


@pytest.fixture(params=["folder", "memory://"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Archive]:
    """An archive that is not there yet."""
    if request.param == "folder":
        yield Archive.open(str(tmp_path / "archive"), lambda: NOW_US)
    else:
        fsspec.filesystem("memory").makedirs("/archive-test", exist_ok=True)
        yield Archive.open("memory://archive-test", lambda: NOW_US)
        fsspec.filesystem("memory").rm("/archive-test", recursive=True)


def test_a_person_finds_a_run(archive: Archive):
    """A file lies under the day the run ended and its workflow, and is called by its id; what is read is what was
    written, to the last bit."""
    one = exported(days=0)
    name = archive.put(one)
    assert name.startswith("2026-05-28/fulfil/order-42.1.")
    assert name.endswith(".jsonl.zst")
    (entry,) = archive.entries()
    assert (entry.name, entry.day, entry.workflow, entry.slug, entry.generation) == (
        name, "2026-05-28", "fulfil", "order-42", 1,
    )  # fmt: skip
    assert archive.read(entry) == one


def test_an_id_is_found_in_all_its_runs(archive: Archive):
    """By id come all generations of it, those that ended first in front; ids that begin alike do not."""
    for id, days, generation in (("a", 3, 2), ("a", 5, 1), ("a.1", 4, 1), ("ab", 4, 1), ("a", 400, 1)):
        archive.put(exported(id, days=days, generation=generation))
    assert [(entry.day[:4], entry.generation) for entry in archive.find("a")] == [
        ("2025", 1), ("2026", 1), ("2026", 2),
    ]  # fmt: skip
    assert len(archive.find("a.1")) == 1
    assert archive.find("b") == []


def test_a_run_is_kept_once(archive: Archive, monkeypatch: pytest.MonkeyPatch):
    """A run that is there, after a crash between archiving and deleting, is not written again."""
    one = exported()
    name = archive.put(one)
    writes: list[str] = []
    monkeypatch.setattr(type(archive.folder), "write", lambda self, name, data: writes.append(name))
    assert archive.put(one) == name
    assert writes == []


def test_a_file_that_is_no_good_is_written_anew(archive: Archive):
    """What a failed disk or a stray hand made of a file does not count as archived."""
    one = exported()
    name = archive.put(one)
    whole = archive.folder.read(name)
    for wrong in (whole[:-1], b"", b"something else", whole[:40] + b"\xff" + whole[41:]):
        archive.folder.write(name, wrong)
        assert archive.put(one) == name
        assert archive.read(archive.entries()[0]) == one


def test_two_runs_of_one_name_do_not_meet(archive: Archive):
    """After a run was deleted its id is free: the next run of that name, on the same day, has a file of its own."""
    first, second = exported(days=2), exported(days=2.01)
    names = {archive.put(first), archive.put(second)}
    assert len(names) == 2
    assert [archive.read(entry) for entry in archive.find("order-42")] in ([first, second], [second, first])


def test_two_workers_that_archive_the_same_run(archive: Archive, monkeypatch: pytest.MonkeyPatch):
    """Another one's file in the place of one's own is as good, if the same run is in it."""
    one, write = exported(), type(archive.folder).write
    other = Archive(archive.folder, lambda: NOW_US + 1)

    def slower(folder: Any, name: str, data: bytes) -> None:
        write(folder, name, data)
        with monkeypatch.context() as patch:
            patch.setattr(type(archive.folder), "write", write)
            archive.folder.remove(name)
            other.put(one)

    monkeypatch.setattr(type(archive.folder), "write", slower)
    name = archive.put(one)
    assert [entry.name for entry in archive.entries()] == [name]
    assert archive.read(archive.entries()[0]) == one


class Forgetful(LocalFolder):
    """A disk that acknowledges and does not keep."""

    def write(self, name: str, data: bytes) -> None:
        super().write(name, data[: len(data) // 2])


class Absent(LocalFolder):
    """A place that acknowledges and does nothing."""

    def write(self, name: str, data: bytes) -> None:
        pass


@pytest.mark.parametrize("kind", [Forgetful, Absent])
def test_what_cannot_be_read_back_is_not_archived(kind: Callable[[Path], Folder], tmp_path: Path):
    """`put` raises unless the very bytes lie where they were written."""
    with pytest.raises(ArchiveFailed, match="does not hold what was just written"):
        Archive(kind(tmp_path), lambda: NOW_US).put(exported())


def test_a_run_that_no_release_could_read_is_not_archived(archive: Archive):
    """A history that breaks its own rules would be refused by whoever reads the file, so it is refused here."""
    one = exported()
    broken = attrs.evolve(one, events=one.events * 2, run=attrs.evolve(one.run, events=len(one.events) * 2))
    with pytest.raises(BadHistoryFile):
        archive.put(broken)
    assert archive.entries() == []


def test_files_that_are_not_ours_are_passed_over(archive: Archive):
    """Somebody's notes and cut-off writes are no entries, and nothing ever deletes them."""
    name = archive.put(exported(days=3))
    others = ["2026-05-24/fulfil/README", "2026-05-24/fulfil/.order-9.1.x.partial", "notes/a/b.1.0123456789.jsonl"]
    for other in others:
        archive.folder.write(other, b"mine")
    assert [entry.name for entry in archive.entries()] == [name]
    assert list(archive.expire(NOW_US + DAY_US)) == [name]
    assert [archive.folder.read(other) for other in others] == [b"mine"] * 3


def test_archives_end_too(archive: Archive):
    """Files go by the day their run ended: those of that day and later stay."""
    names = {days: archive.put(exported(f"order-{days}", days=days)) for days in (9, 10, 11, 400)}
    assert set(archive.expire(NOW_US - 10 * DAY_US)) == {names[11], names[400]}
    assert {entry.name for entry in archive.entries()} == {names[9], names[10]}
    assert list(archive.expire(NOW_US - 10 * DAY_US)) == []


def test_a_file_with_the_wrong_thing_in_it(archive: Archive):
    """A file that holds several runs, or none that can be read, is named with what is wrong."""
    name = archive.put(exported())
    entry = Entry.of(name)
    assert entry is not None
    archive.folder.write(name, b"{}")
    with pytest.raises(BadHistoryFile, match="order-42"):
        archive.read(entry)
    archive.folder.remove(name)
    with pytest.raises(BadHistoryFile, match="is not there any more"):
        archive.read(entry)


class Secret:
    """Stands for an encrypting layer: nobody without it reads a payload."""

    def encode(self, data: bytes, /) -> bytes:
        return bytes(byte ^ 0x5A for byte in data)

    def decode(self, data: bytes, /) -> bytes:
        return bytes(byte ^ 0x5A for byte in data)


def test_an_archive_shows_no_more_than_the_store():
    """Payloads that were encrypted lie in the archive as they lay in the store, with nothing readable beside them."""
    payload = Codec(layers=[Secret()]).encode("the password")
    one = attrs.evolve(exported(), published={"login": payload})
    data = exported_bytes(one, NOW_US)
    assert b"the password" not in data
    assert read_lines(data, "x")[0].published == {"login": payload}


def test_a_function_of_ones_own():
    """`archive=` takes a function, too; what it raises keeps the run in the store."""
    got: list[tuple[str, bytes]] = []
    put = sink_for(lambda run_id, data: got.append((run_id, data)), lambda: NOW_US)
    assert put is not None
    one = exported()
    put(one)
    ((run_id, data),) = got
    assert (run_id, read_lines(data, "x")) == ("order-42#1", [one])
    failing = sink_for(lambda run_id, data: [][0], lambda: NOW_US)
    assert failing is not None
    with pytest.raises(ArchiveFailed, match=r"archive\('order-42#1', …\) raised IndexError"):
        failing(one)
    assert sink_for(None, lambda: NOW_US) is None


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=300)


@given(NAMES, NAMES)
def test_no_name_leads_out_of_the_archive(workflow_id: str, workflow: str):
    """Whatever ids and names hold, a file's name is made of plain parts, short enough, and found again by its id."""
    one = exported()
    run = attrs.evolve(one.run, workflow_id=workflow_id, workflow=workflow)
    name = name_of(attrs.evolve(one, run=run)) + ".zst"
    entry = Entry.of(name)
    assert entry is not None
    assert (entry.slug, entry.generation) == (slug(workflow_id), 1)
    for part in name.split("/"):
        assert part.isascii()
        assert part.isprintable()
        assert not part.startswith(".")
        assert len(part) < 200
    assert len(slug(workflow_id)) <= SLUG_MAX


@given(st.lists(NAMES, min_size=2, max_size=20, unique=True))
def test_two_ids_have_two_names(ids: list[str]):
    """No two ids share a file's name, long ones included."""
    assert len({slug(id) for id in [*ids, *(id * 50 for id in ids)]}) == len({*ids, *(id * 50 for id in ids)})


def test_ends_beyond_the_calendar():
    """A run whose clock was far off has a day all the same."""
    one = exported()
    for at_us, day in ((-5, "1970-01-01"), (2**62, "9999-12-31")):
        assert name_of(attrs.evolve(one, run=attrs.evolve(one.run, closed_at_us=at_us))).startswith(day)


def test_every_way_to_end_can_be_archived(archive: Archive):
    """Completed, failed, cancelled, terminated and continued runs are kept and read alike."""
    for status in (s for s in Status if not s.open):
        one = exported(status.value, status=status)
        archive.put(one)
        assert archive.read(archive.find(status.value)[0]) == one
