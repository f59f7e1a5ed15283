"""`replay prune`: what goes, what is said of it, and what is asked first."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.core.archive import Archive
from dalsegno.core.store import Status, open_store
from dalsegno.tools import prune, replay
from tests.core.bygone import NOW_US, bygone, grow, left
from tests.tools.conftest import Cli

BUSY, FAILED = Status.RUNNING, Status.FAILED


@pytest.fixture(autouse=True)
def _now(monkeypatch: pytest.MonkeyPatch):
    """It is the day on which the runs of these tests are as old as they say."""
    monkeypatch.setattr(prune, "now_us", lambda: NOW_US)


@pytest.fixture
def old(tmp_path: Path) -> str:
    """A store: three done runs of different ages, two failed ones, a tree with somebody at work, a chain."""
    url = f"lmdb:{tmp_path}/old"
    with open_store(url) as store:
        grow(
            store,
            [
                *(bygone(f"done-{days}", days=days) for days in (1, 10, 100)),
                *(bygone(f"failed-{days}", FAILED, days, workflow="\x1b[2Jship") for days in (10, 100)),
                bygone("p", children=["c", "d"]),
                bygone("c", BUSY, parent=("p", 1, "1")),
                bygone("d", parent=("p", 1, "2")),
                bygone("a", Status.CONTINUED),
                bygone("a", BUSY, generation=2),
            ],
        )
    return url


STAY = {"done-1#1", "failed-10#1", "p#1", "c#1", "a#1", "a#2"}


def there(url: str) -> set[str]:
    """What is left."""
    with open_store(url) as store:
        assert store.check() == []
        return left(store)


def test_prune_deletes_what_may_go(old: str, run_replay: Cli):
    """By default what completed goes after 7 days and what failed after 30, told by workflow and status; a name with
    an escape sequence is shown as text."""
    done = run_replay("prune", "--store", old)
    assert there(old) == STAY
    assert "\\x1b[2Jship  failed" in done.stdout
    assert "fulfil       completed     3" in done.stdout
    assert "4 runs deleted" in done.stderr
    assert "1 closed run stays: it continued as new, and its chain goes on or stays" in done.stderr
    assert "1 closed run stays: a run that it started is open, or stays" in done.stderr
    assert "2 closed runs stay: it closed too short a time ago" in done.stderr
    assert "0 runs deleted" in run_replay("prune", "--store", old).stderr


def test_ages_are_what_one_says(old: str, run_replay: Cli):
    """Ages are given as in `ls`; `never` keeps for ever; a chain that goes on sheds what is older than said."""
    run_replay("prune", "--store", old, "--completed", "never", "--failed", "9d")
    assert there(old) == STAY - {"failed-10#1"} | {"done-10#1", "done-100#1", "d#1"}
    run_replay("prune", "--store", old, "--completed", "0s", "--continued", "3w", "--failed", "never")
    assert there(old) == {"p#1", "c#1", "a#2"}
    assert "is no age" in run_replay("prune", "--store", old, "--completed", "soon", code=2).stderr


def test_a_dry_run_changes_nothing(old: str, run_replay: Cli):
    """It says what would go, and opens the store for reading only."""
    before = there(old)
    done = run_replay("prune", "--store", old, "--dry-run", "--archive", "nowhere-yet")
    assert "4 runs would be deleted, after archiving in nowhere-yet" in done.stderr
    assert "would go" in done.stdout
    assert there(old) == before
    assert not Path("nowhere-yet").exists()


def test_archived_runs_are_told_and_kept(old: str, run_replay: Cli, tmp_path: Path):
    """With --archive every run that went lies there; --archive-for deletes there what ended longer ago."""
    archive = Archive.open(str(tmp_path / "archive"), lambda: NOW_US)
    options = ["prune", "--store", old, "--archive", str(tmp_path / "archive")]
    data = json.loads(run_replay(*options, "--json").stdout)
    assert data == {
        "removed": 4,
        "archived": 4,
        "dry_run": False,
        "more": False,
        "went": [
            {"workflow": "\x1b[2Jship", "status": "failed", "runs": 1},
            {"workflow": "fulfil", "status": "completed", "runs": 3},
        ],
        "stays": {"young": 2, "below": 1, "chain": 1},
        "expired": 0,
    }
    assert {archive.read(entry).run_id for entry in archive.entries()} == {
        "done-10#1", "done-100#1", "failed-100#1", "d#1",
    }  # fmt: skip
    said = run_replay(*options, "--archive-for", "50d").stderr
    assert "2 files deleted from the archive" in said
    assert {archive.read(entry).run_id for entry in archive.entries()} == {"done-10#1", "d#1"}


def test_a_limit(old: str, run_replay: Cli):
    """At most so many runs go, and it is said that there are more."""
    data = json.loads(run_replay("prune", "--store", old, "--limit", "3", "--json").stdout)
    assert (data["removed"], data["more"]) == (3, True)
    assert len(there(old) - STAY) == 1
    said = run_replay("prune", "--store", old, "--limit", "1").stderr
    assert "1 run deleted" in said
    assert "there are more" not in said
    assert there(old) == STAY


def test_an_archive_that_cannot_be_written_deletes_nothing(old: str, run_replay: Cli, tmp_path: Path):
    """A file in the way, or a full disk half-way, ends the command with a sentence; what is not archived is there."""
    before = there(old)
    (tmp_path / "file").write_text("")
    said = run_replay("prune", "--store", old, "--archive", str(tmp_path / "file"), code=3).stderr
    assert "no folder to write in" in said
    assert there(old) == before


def test_a_disk_that_fills_up_half_way(old: str, run_replay: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What was archived before may have gone, and is counted; everything else is still in the store."""
    monkeypatch.setattr("dalsegno.core.retention.RUNS_A_BATCH", 1)
    replace, calls = os.replace, list[Any]()

    def fails_late(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) > 2:
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", fails_late)
    archive = tmp_path / "archive"
    said = run_replay("prune", "--store", old, "--archive", str(archive), code=3).stderr
    assert "2 runs were deleted before this" in said
    assert "No space left on device" in said
    assert len(there(old)) == 10 - 2
    assert len(Archive.open(str(archive), lambda: 0).entries()) == 2


def test_what_makes_no_sense_is_refused(old: str, run_replay: Cli, tmp_path: Path):
    """A store that is not there, one that is only read, an age without an archive, a place nobody knows."""
    run_replay("prune", "--store", f"lmdb:{tmp_path}/typo", code=3)
    assert not (tmp_path / "typo").exists()
    run_replay("prune", "--store", "file:x.jsonl", code=2)
    assert "--archive" in run_replay("prune", "--store", old, "--archive-for", "1d", code=2).stderr
    assert "fsspec" in run_replay("prune", "--store", old, "--archive", "nowhere://x", code=2).stderr


@pytest.mark.parametrize(("options", "answer", "gone"), [([], "n", False), ([], "y", True), (["--yes"], "", True)])
def test_a_person_is_asked_once(old: str, options: list[str], answer: str, gone: bool, monkeypatch: pytest.MonkeyPatch):
    """At a terminal and without an archive, deleting is asked about, with what is kept; --yes says it beforehand."""
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    done = CliRunner().invoke(replay.main, ["prune", "--store", old, *options], input=f"{answer}\n")
    assert ("for good, as there is no --archive" in done.stderr) == (not options)
    assert options or "Kept are completed runs 7d 00h, all others 30d 00h" in done.stderr
    assert done.exit_code == (0 if gone else 1)
    assert (there(old) == STAY) == gone


def test_beside_an_engine(old: str, run_replay: Cli):
    """The store may be held by an engine meanwhile; only its own runs are its own."""
    with LmdbBackend.open(old.removeprefix("lmdb:")) as store:
        store.hold("an engine")
        run_replay("prune", "--store", old)
        assert left(store) == STAY
