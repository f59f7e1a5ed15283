"""Sleeping, signals, time-outs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dalsegno.core.commands import All, Flow, Now, Receive, Sleep, SleepUntil
from dalsegno.core.definitions import step, workflow
from dalsegno.core.errors import TimedOut
from dalsegno.core.events import CarriedSignal, TimerCancelled
from tests.core.interpreter.drive import CODEC, SECOND, START_US, Drive


@step
def work(n: int = 0) -> int:
    return n


@workflow
def naps() -> Flow[list[datetime]]:
    times = [(yield from Now())]
    yield from Sleep(timedelta(minutes=1))
    times.append((yield from Now()))
    yield from SleepUntil(datetime(2030, 1, 1, tzinfo=UTC))
    times.append((yield from Now()))
    return times


def test_sleeps_end_when_their_timer_fires():
    """`Now` follows the times of events, and is the same on replay."""
    run = Drive(naps).pass_time().pass_time()
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=START_US)
    assert run.result() == [start, start + timedelta(minutes=1), datetime(2030, 1, 1, tzinfo=UTC)]


@workflow
def listens(n: int, timeout: float | None = None) -> Flow[list[Any]]:
    heard: list[Any] = []
    for _ in range(n):
        try:
            heard.append((yield from Receive("news", timeout=timeout)))
        except TimedOut as error:
            heard.append(f"{error.signal} {error.timeout}")
    return heard


def test_signals_are_received_in_order():
    """Signals that come early wait in the buffer; the order is that of the history."""
    run = Drive(listens, 3).signal("other", 0).signal("news", 1).signal("news", 2)
    assert run.interpreter.unread() == {"other": 1}
    assert run.signal("news", 3).result() == [1, 2, 3]


def test_the_oldest_receive_gets_the_signal():
    """Of several that wait for one name, the one that has waited longest is answered."""

    @workflow
    def both() -> Flow[Any]:
        return (yield from All(Receive("a"), Receive("b"), Receive("a")))

    run = Drive(both).signal("a", 1)
    assert run.ids == ["1.2", "1.3"]
    assert run.signal("a", 2).signal("b", 3).result() == (1, 3, 2)


def test_a_timeout_raises():
    """When the deadline passes, `TimedOut` says which signal did not come; a later signal is for the next `Receive`."""
    run = Drive(listens, 2, 5)
    run.pass_time().signal("news", "late")
    assert run.result() == ["news 5.0", "late"]


def test_an_answered_receive_gives_its_timer_back():
    """The timer of a `Receive` that a signal answered is withdrawn, and its end recorded."""
    run = Drive(listens, 1, 5).signal("news", 1)
    assert run.result() == [1]
    assert run.withdrawn == ["1"]
    assert any(isinstance(event, TimerCancelled) for event in run.events)


def test_a_buffered_signal_needs_no_timer():
    """`Receive` with a time-out asks for nothing when the signal is there already."""

    @workflow
    def slow() -> Flow[Any]:
        yield from work()
        return (yield from Receive("news", timeout=5))

    run = Drive(slow, by_hand=["work"]).signal("news", 1).complete("1")
    assert run.result() == 1
    assert not run.withdrawn


def test_carried_signals_come_first():
    """What the run before had not received is in the buffer from the start."""
    carried = tuple(CarriedSignal(seq=n, name="news", payload=CODEC.encode(n)) for n in (3, 5))
    run = Drive(listens, 3, carried=carried).signal("news", 9)
    assert run.result() == [3, 5, 9]


def test_leftover_signals_are_counted_and_carried():
    """Signals nobody received are named at the end, in the order they came."""
    run = Drive(listens, 1).signal("b", 1).signal("c", 2).signal("b", 3).signal("news", 4)
    assert run.result() == [4]
    assert run.interpreter.unread() == {"b": 2, "c": 1}
    assert [signal.name for signal in run.interpreter.carried()] == ["b", "c", "b"]


def test_a_timer_that_was_not_taken_back_is_named_after_a_replay():
    """If the process died between a signal and the end of its timer, the replay says so again."""
    run = Drive(listens, 2, 5).signal("news", 1)
    cut = next(i for i, event in enumerate(run.events) if isinstance(event, TimerCancelled))
    run.events = run.events[:cut]
    advance = run.replay().take()
    assert [w.id for w in advance.withdrawn] == ["1"]
    assert [w.id for w in advance.issued] == ["2"]


def test_time_never_goes_back():
    """`Now` is a high-water mark over the clocks of all engines that recorded events."""
    run = Drive(naps)
    run.now_us -= 3600 * SECOND
    run.pass_time(1)
    assert run.interpreter.now_us == START_US


@pytest.mark.parametrize("kind", ["sleep", "receive"])
def test_nothing_is_decided_by_a_clock(kind: str):
    """A deadline that lies in the past still waits for its event."""

    @workflow
    def past() -> Flow[Any]:
        yield from (Sleep(0) if kind == "sleep" else Receive("x", timeout=0))

    run = Drive(past)
    assert run.ids == ["1"]
