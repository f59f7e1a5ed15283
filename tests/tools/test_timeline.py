"""Histories as rows with a beginning and an end, and bars drawn to scale."""

from __future__ import annotations

import attrs

from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.history import encode_event
from dalsegno.tools.timeline import KINDS, Mark, Wait, as_far_as_readable, bar, timeline, words

DIGEST = b"12345678"
FIRST = ev.RunStarted(100, "fulfil", "order-1", 1, b"\x92\x90\x80", b"seed")


def history() -> list[Event]:
    """A step that needs two attempts, a wait that times out, a child, and a sleep nobody waits for any more."""
    return [
        FIRST,
        ev.StepAttemptFailed(130, "1", "charge", DIGEST, 7, 1, 20, b"e", 140),
        ev.StepCompleted(160, "1", "charge", DIGEST, 7, 2, 15, b"r"),
        ev.ChildStarted(160, "2", "pack", DIGEST, 8, "order-1/2"),
        ev.TimerSet(160, "3", "receive", "approval", DIGEST, 9, 190),
        ev.TimerFired(190, "3"),
        ev.ChildCompleted(195, 4, "2", b"r"),
        ev.TimerSet(200, "4", "sleep", "", DIGEST, 10, 900),
    ]


def test_rows_span_what_they_stand_for():
    """A step's row goes back to its start, a timer's and a child's forward to their ends."""
    rows = timeline(history()).rows
    assert [(row.began_us, row.ended_us) for row in rows] == [
        (100, 100), (110, 130), (145, 160), (160, 195), (160, 190), (190, 190), (195, 195), (200, None)
    ]  # fmt: skip
    assert [row.since_us for row in rows[:3]] == [0, 30, 60]
    assert (rows[4].name, rows[4].took_us) == ("receive approval", 30)
    assert (rows[2].attempt, rows[2].took_us) == (2, 15)


def test_the_wait_for_another_attempt_lasts_until_it_begins():
    """After a failed attempt comes the wait for the next: until that began, until the run ended, or still."""
    failed = ev.StepAttemptFailed(130, "1", "charge", DIGEST, 7, 1, 20, b"e", 140)
    rows = timeline(history()).rows
    assert rows[1].backoff == Wait(130, 145, 140)
    assert [row.backoff for row in rows[2:]] == [None] * 6
    assert timeline([FIRST, failed], now_us=500).rows[1].backoff == Wait(130, None, 140)
    assert timeline([FIRST, failed, ev.RunTerminated(170, "enough")]).rows[1].backoff == Wait(130, 170, 140)
    again = ev.StepStarted(180, "1", "charge", DIGEST, 7, 2)
    assert timeline([FIRST, failed, again]).rows[1].backoff == Wait(130, 180, 140)


def test_scopes_and_races_begin_with_what_lies_inside():
    """A scope reaches back to the start of the first thing inside, and a race to that of its first branch."""
    events = [
        FIRST,
        ev.StepCompleted(150, "2.1.1", "pick", DIGEST, 7, 1, 30, b"r"),
        ev.StepCompleted(160, "2.1.2.1", "pack", DIGEST, 7, 1, 50, b"r"),
        ev.StepCompleted(170, "21", "not inside", DIGEST, 7, 1, 70, b"r"),
        ev.ScopeCompleted(180, "2", 6, b"r"),
        ev.ScopeCompleted(190, "3", 6, b"r"),
        ev.TimerSet(200, "4.1", "sleep", "", DIGEST, 8, 900),
        ev.RaceDecided(230, "4", "", DIGEST, 8, 1),
    ]
    rows = timeline(events).rows
    assert [(row.began_us, row.ended_us, row.took_us) for row in rows[4:]] == [
        (110, 180, 70), (190, 190, None), (200, None, None), (200, 230, 30)
    ]  # fmt: skip


def test_what_a_scope_left_open_ended_with_it():
    """A wait inside a scope that has ended is over, though nothing says so of the wait itself."""
    events = [
        FIRST,
        ev.ChildStarted(120, "2.1.1", "pack", DIGEST, 8, "order-1/2"),
        ev.StepAttemptFailed(130, "2.1.2", "charge", DIGEST, 7, 1, 20, b"e", 900),
        ev.ScopeCompleted(180, "2", 6, b"r"),
        ev.ChildStarted(190, "3", "pack", DIGEST, 8, "order-1/3"),
    ]
    rows = timeline(events, now_us=500).rows
    assert [rows[1].ended_us, rows[4].ended_us] == [180, None]
    assert rows[2].backoff == Wait(130, 180, 900)


def test_a_pause_lasts_until_the_run_is_resumed():
    """A pause has a length, and the last one is open while nobody resumes the run."""
    events = [FIRST, ev.RunPaused(120, ""), ev.RunResumed(150), ev.RunPaused(170, "again")]
    assert [row.ended_us for row in timeline(events, 200).rows] == [100, 150, 150, None]
    assert timeline([*events, ev.RunTerminated(180, "")]).rows[3].ended_us == 180


def test_every_event_has_a_kind():
    """No kind of event is forgotten where rows are drawn by their kind."""
    assert set(KINDS) == set(ev.EVENTS)


def test_rows_are_marked():
    """Failures, successes and waits can be told apart."""
    marks = [row.mark for row in timeline(history()).rows]
    assert marks[1] is Mark.BAD
    assert marks[2] is Mark.GOOD
    assert marks[3] is Mark.WAIT
    failed_effect = ev.SideEffectRecorded(200, "5", "read", DIGEST, 11, b"", b"error")
    assert timeline([FIRST, failed_effect]).rows[1].mark is Mark.BAD


def test_what_is_open_reaches_to_now_and_no_further_than_the_end():
    """An open timer reaches to now in a run that goes on; the end of a run ends all that was open."""
    assert timeline(history()).stopped_us == 200
    assert timeline(history(), now_us=500).stopped_us == 500
    ended = [*history(), ev.RunTerminated(300, "enough")]
    line = timeline(ended, now_us=500)
    assert line.stopped_us == 300
    assert line.rows[7].ended_us == 300


def test_an_empty_history():
    """Nothing has no rows and no length."""
    line = timeline([])
    assert (line.rows, line.length_us) == ((), 0)


def test_around():
    """The neighbourhood of an event keeps the scale of the whole."""
    line = timeline(history())
    near = line.around(6, 1)
    assert [row.index for row in near.rows] == [5, 6, 7]
    assert near.length_us == line.length_us


def test_bars_stay_inside():
    """A bar has at least one cell, and none beyond the width, wherever it begins."""
    line = attrs.evolve(timeline([]), started_us=0, stopped_us=1000)
    for began, ended in [(0, 0), (0, 1000), (1000, 1000), (999, None), (-50, 2000), (500, 501)]:
        first, cells, is_open = bar(began, ended, line, 20)
        assert 0 <= first < 20
        assert 1 <= cells <= 20 - first
        assert is_open is (ended is None)
    assert bar(250, 750, line, 20) == (5, 10, False)


def test_a_history_of_a_later_release_is_read_as_far_as_it_goes():
    """The first record that cannot be read is named, and what stands before it is there."""
    records = [encode_event(event) for event in history()]
    events, unreadable = as_far_as_readable([*records[:3], b"\x91\xcd\x27\x0f", *records[3:]])
    assert events == history()[:3]
    assert unreadable is not None
    assert unreadable.index == 3
    assert "later release" in unreadable.why
    assert as_far_as_readable(records) == (history(), None)


def test_words():
    """Class names are read as words."""
    assert words("StepAttemptFailed") == "step attempt failed"
