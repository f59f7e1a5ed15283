"""Archives, looked into by every command that reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from dalsegno import Retention, Status
from dalsegno.core.archive import Archive, Entry, sink_for
from dalsegno.core.errors import BadOption, DataError, StoreUnusable
from dalsegno.core.halves import Cut
from dalsegno.core.packing import unpack
from dalsegno.core.retention import Sweep
from dalsegno.core.store import Backend, open_store
from dalsegno.core.transfer import Exported
from dalsegno.tools.archived import ArchivedRuns
from dalsegno.tools.stores import all_runs, open_for_reading, url_to_write
from tests.core.bygone import NOW_US
from tests.tools.conftest import Cli

LATER_US = NOW_US * 2
APP = "tests.tools.shop"


@pytest.fixture(params=["folder", "memory://"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Where an archive may be."""
    if request.param == "folder":
        yield str(tmp_path / "archive")
    else:
        fsspec.filesystem("memory").makedirs("/archived-test", exist_ok=True)
        yield "memory://archived-test"
        fsspec.filesystem("memory").rm("/archived-test", recursive=True)


@pytest.fixture
def archive(store: Backend, place: str) -> str:
    """An archive of everything that is closed in the store of the shop."""
    for _ in Sweep(store, Retention(), LATER_US, put=sink_for(place, lambda: LATER_US)).portions():
        pass
    return f"archive:{place}"


def test_an_archive_is_listed_as_a_store_is(archive: str, run_replay: Cli):
    """What was deleted from the store is all there, filtered and counted like any other."""
    listed = json.loads(run_replay("ls", "--store", archive, "--json").stdout)["runs"]
    assert {run["id"] for run in listed} >= {"order-1", "order-2", "stock-1", "both-1"}
    failed = json.loads(run_replay("ls", "--store", archive, "--status", "failed", "--json").stdout)["runs"]
    assert "stock-1" in {run["id"] for run in failed}
    tagged = json.loads(run_replay("ls", "--store", archive, "--tag", "region=eu", "--limit", "1", "--json").stdout)
    assert (len(tagged["runs"]), tagged["more"]) == (1, True)
    assert json.loads(run_replay("stats", "--store", archive, "--json").stdout)["store"]["running"] == 0
    assert "every checksum is right" in run_replay("check", "--store", archive).stderr


def test_every_reading_command_opens_archived_runs(archive: str, run_replay: Cli, tmp_path: Path):
    """A run is shown, verified against today's code, explained, compared and exported out of its archive."""
    assert "charge" in run_replay("show", "order-1", "--store", archive, "--payloads").stdout
    run_replay("verify", "--all", "--store", archive, "--app", APP)
    run_replay("verify", "order-2#1", "--store", archive, "--app", APP)
    assert "is empty" in run_replay("why", "stock-1", "--store", archive).stdout
    run_replay("diff", "order-1", "order-2", "--store", archive, code=1)
    run_replay("export", "order-1", str(tmp_path / "out.jsonl"), "--store", archive)
    assert "order-1" in run_replay("ls", "--store", f"file:{tmp_path}/out.jsonl").stdout
    assert "order-2, order-1" in run_replay("show", "order", "--store", archive, code=1).stderr


def test_a_single_file_of_an_archive(archive: str, run_replay: Cli, tmp_path: Path):
    """One file is opened by its path or URL, and imported into a store, where it stands as it stood."""
    place = archive.removeprefix("archive:")
    (name,) = (entry.name for entry in ArchivedRuns.open(place)._archive.find("order-1"))
    assert "charge" in run_replay("show", "order-1", "--store", f"file:{place}/{name}").stdout
    if "://" in place:
        return
    assert "1 run imported" in run_replay("import", f"{place}/{name}", "--store", f"lmdb:{tmp_path}/again").stderr
    with open_store(f"lmdb:{tmp_path}/again") as again, ArchivedRuns.open(place) as archived:
        record, before = again.find("order-1"), archived.find("order-1")
        assert record is not None
        assert before is not None
        assert (record.status, record.closed_at_us) == (Status.COMPLETED, before.closed_at_us)
        assert again.history(record.number) == archived.history(before.number)


def test_nobody_writes_to_an_archive(archive: str, run_replay: Cli, run_dalsegno: Cli):
    """Whatever would change something is refused with what to do instead."""
    for name in ("file:x.jsonl", archive):
        with pytest.raises(BadOption, match="is only read; name a store"):
            url_to_write(name)
    assert "is only read" in run_dalsegno("signal", "order-1", "x", "--store", archive, code=2).stderr
    run_dalsegno("start", "fulfil", "--store", archive, code=2)
    run_replay("fork", "order-1", "--at", "2", "--app", APP, "--store", archive, code=2)
    with open_for_reading(archive) as opened:
        for write in (opened.purge, opened.create, opened.commit):
            with pytest.raises(StoreUnusable, match="`replay import` puts"):
                write([])


def test_an_archive_that_is_not_there(run_replay: Cli, tmp_path: Path):
    """A slip of the pen in the folder's name is said."""
    assert "there is no archive at" in run_replay("ls", "--store", f"archive:{tmp_path}/typo", code=3).stderr
    run_replay("ls", "--store", "archive:", code=2)


def test_a_damaged_file_is_named(archive: str, run_replay: Cli):
    """One bad file takes nobody with it: listings leave it out, asking for its run and checking name it."""
    place = archive.removeprefix("archive:")
    with ArchivedRuns.open(place) as opened:
        count = len(list(all_runs(opened)))
        (entry,) = opened._archive.find("order-1")
        opened._archive.folder.write(entry.name, b"\x28\xb5\x2f\xfd and then nothing")
    with ArchivedRuns.open(place) as opened:
        assert len(list(all_runs(opened))) == count - 1
        with pytest.raises(DataError, match="order-1"):
            opened.find("order-1")
        assert [problem.run for problem in opened.check()] == ["order-1#1"]
    run_replay("show", "order-1", "--store", archive, code=4)
    run_replay("check", "--store", archive, code=1)


def test_half_a_file_is_shown_as_far_as_it_goes(archive: str, run_replay: Cli, tmp_path: Path):
    """The run of a file that was cut short is listed and shown with a mark, checked and verified as half, and refused
    to whoever would pass it on."""
    with ArchivedRuns.open(archive.removeprefix("archive:")) as opened:
        (entry,) = opened._archive.find("order-1")
        lines = unpack(opened._archive.folder.read(entry.name)).splitlines(keepends=True)
        opened._archive.folder.write(entry.name, b"".join(lines[:5]))
    assert "order-1" in run_replay("ls", "--store", archive).stdout
    shown = run_replay("show", "order-1", "--store", archive)
    assert "is missing" in shown.stdout
    assert "warning: event 3 is missing, so the rest is not shown" in shown.stderr
    told = run_replay("verify", "order-1", "order-2", "--app", APP, "--store", archive, code=2).stdout
    assert "1 fit, 0 diverge, 1 could not be told" in told
    found = json.loads(run_replay("check", "--store", archive, "--json", code=1).stdout)["problems"]
    assert [(one["run"], one["event"]) for one in found] == [("order-1#1", None), ("order-1#1", 3)]
    out = tmp_path / "out.jsonl"
    assert "is not whole" in run_replay("export", "order-1", str(out), "--store", archive, code=4).stderr
    assert not out.exists()


def test_only_what_is_asked_for_is_read(archive: str, monkeypatch: pytest.MonkeyPatch):
    """Finding one run reads one file, however many there are; a page of a listing reads as many as it shows."""
    opened, read, before = open_for_reading(archive), list[str](), Archive.read_as_far
    assert isinstance(opened, ArchivedRuns)

    def noted(self: Archive, entry: Entry) -> tuple[Exported, Cut | None]:
        read.append(entry.name)
        return before(self, entry)

    monkeypatch.setattr(Archive, "read_as_far", noted)
    record = opened.find("order-2", 1)
    assert record is not None
    assert opened.history(record.number, 1, 2) == opened.history(record.number)[1:3]
    assert (len(read), opened.head(record.number) > 3, opened.inbox(record.number)) == (1, True, [])
    assert len(opened.runs(limit=2)) == 2
    assert len(read) <= 3
    assert [opened.find("nobody"), opened.record(0), opened.record(10**9), opened.published(0)] == [
        None,
        None,
        None,
        {},
    ]
