"""Golden histories: those of every release replay, those made wrong do not, and one can record one's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import attrs
import pytest

from dalsegno import BadOption, Flow, Receive, Scope, Sleep, step, workflow
from dalsegno.core.events import EVENTS, Event, RunCompleted
from dalsegno.core.transfer import read_file
from dalsegno.testing.histories import assert_sound
from dalsegno.testing.replaying import assert_replays, record_history
from dalsegno.testing.simulation import Simulation
from tests.histories import flows
from tests.histories.record import CHANGES, HERE, record, unfit

RELEASES = sorted(folder for folder in HERE.iterdir() if folder.name[0].isdigit())
UNFIT = {
    "another-kind": "differs   kind",
    "another-step": "differs   name",
    "another-winner": "branch 1 won",
    "cut-short": "was cut short",
    "damaged": "is not what was exported",
    "ends-early": "differs   how the code ends",
    "goes-on": "differs   the code had ended",
    "later-format": "reads up to 1",
    "other-arguments": "differs   arguments",
    "other-result": "differs   the value returned",
    "step-missing": "no command 3 is open",
    "timer-early": "and its deadline is",
    "unknown-workflow": "no workflow is called 'gone'",
    "unreadable-value": "DecodeError",
}


@pytest.mark.parametrize("release", RELEASES, ids=lambda folder: folder.name)
def test_histories_of_every_release_replay(release: Path):
    """What an earlier release recorded is replayed by this one, the inside of scopes too, and keeps every promise."""
    assert assert_replays(release, flows, inside_scopes=True) == assert_replays(release, flows) > 10
    for file in release.glob("*.jsonl"):
        for one in read_file(file):
            assert_sound(one.events)


def test_they_hold_every_event():
    """Between them the histories of each release hold every event that this release records."""
    for release in RELEASES[-1:]:
        found = {type(event) for file in release.glob("*.jsonl") for one in read_file(file) for event in one.events}
        assert [cls.__name__ for cls in EVENTS if cls not in found] == []


def test_they_name_no_place_of_a_machine():
    """Files recorded here hold no absolute path and no name of a host."""
    for file in HERE.rglob("*.jsonl"):
        assert not re.search(r'File \\\\?"/', file.read_text("utf-8")), file


@pytest.mark.parametrize("name", sorted(UNFIT))
def test_histories_that_must_not_replay(name: str):
    """What was changed, damaged, cut or written by a later release is refused, with the reason."""
    with pytest.raises(AssertionError, match=re.escape(UNFIT[name])):
        assert_replays(HERE / "unfit" / f"{name}.jsonl", flows)


def test_every_unfit_history_is_listed():
    """No file among those that must fail is without its reason here."""
    assert {file.stem for file in (HERE / "unfit").glob("*.jsonl")} == set(UNFIT) >= set(CHANGES)


def test_the_recorder_still_works(tmp_path: Path):
    """A release's files can be made anew, and replay."""
    record(tmp_path / "fits")
    unfit(tmp_path / "fits", tmp_path / "unfit")
    assert assert_replays(tmp_path / "fits", flows) > 10
    assert len(list((tmp_path / "unfit").iterdir())) == len(UNFIT)


# --- for users -----------------------------------------------------------------------------------------------------


@step
def work(n: int) -> int:
    """A step."""
    return n + 1


@workflow(name="job")
def job(n: int) -> Flow[int]:
    """As it was when its history was recorded."""

    def inner() -> Flow[int]:
        return (yield from work(n))

    done = yield from Scope(inner())
    yield from Sleep(60)
    return done + (yield from Receive("more", int))


@workflow(name="job")
def job_with_another_scope(n: int) -> Flow[int]:
    """The inside of the finished scope was changed."""

    def inner() -> Flow[int]:
        yield from work(n)
        return (yield from work(n))

    done = yield from Scope(inner())
    yield from Sleep(60)
    return done + (yield from Receive("more", int))


@workflow(name="job")
def job_without_sleep(n: int) -> Flow[int]:
    """A command was taken out."""
    return (yield from work(n)) + (yield from Receive("more", int))


@pytest.fixture
def open_run() -> Any:
    """A run that waits for its signal."""
    with Simulation([job], seed=3) as simulation:
        run = simulation.start(job, 5, id="job-1")
        simulation.run()
        yield run


def test_a_run_can_be_recorded_and_replayed(open_run: Any, tmp_path: Path):
    """A run in flight becomes a file, the same bytes each time, in a folder that is made; every form of it replays."""
    file = record_history(open_run, tmp_path / "golden" / "job.jsonl")
    again = record_history(open_run, tmp_path / "again.jsonl")
    assert file.read_bytes() == again.read_bytes()
    events: list[Event] = open_run.history()
    for histories in (file, str(file), file.parent, open_run, events, [file, again, open_run, events]):
        assert assert_replays(histories, [job]) == (4 if isinstance(histories, list) and file in histories else 1)


def test_code_that_no_longer_fits_is_named(open_run: Any):
    """The failure names the run, the first command that diverges, and counts."""
    with pytest.raises(
        AssertionError, match=r"1 of 1 histories do not replay(?s:.*)job-1#1(?s:.*)left its recorded path"
    ):
        assert_replays(open_run, [job_without_sleep])
    with pytest.raises(AssertionError, match="no workflow is called 'job'"):
        assert_replays(open_run, [work])


def test_the_inside_of_a_finished_scope_counts_when_asked(open_run: Any):
    """A live replay passes over what a finished scope did; `inside_scopes` runs it again."""
    assert assert_replays(open_run, job_with_another_scope) == 1
    with pytest.raises(AssertionError, match="left its recorded path"):
        assert_replays(open_run, [job_with_another_scope], inside_scopes=True)


def test_generations_are_recorded_together(tmp_path: Path):
    """A run that continued as new is recorded with those before it."""
    with Simulation([flows.counts]) as simulation:
        run = simulation.start(flows.counts, 2)
        run.signal("late", "x")
        run.result()
        assert assert_replays(record_history(run, tmp_path / "counts.jsonl"), flows) == 3


def test_nothing_to_replay_is_an_error(tmp_path: Path, open_run: Any):
    """An empty folder would pass for ever without testing anything; a path that is not there is said so."""
    with pytest.raises(AssertionError, match="no history to replay"):
        assert_replays(tmp_path, flows)
    with pytest.raises(BadOption, match="no file or folder"):
        assert_replays(tmp_path / "nowhere", flows)


def test_an_unsound_list_of_events_is_refused(open_run: Any):
    """Events that could not have been recorded so are not replayed at all."""
    events = open_run.history()
    with pytest.raises(AssertionError, match="no sound history"):
        assert_replays([attrs.evolve(RunCompleted(1, b""), at_us=events[-1].at_us), *events], [job])
