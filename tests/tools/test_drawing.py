"""Timelines on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dalsegno.core import events as ev
from dalsegno.core.values.codec import Codec
from dalsegno.tools.drawing import Drawing, drawn_bar
from dalsegno.tools.timeline import Kind, Mark, Row, Timeline, Unreadable, Wait, timeline
from tests.tools.shop import Approval

CODEC = Codec()


def drawn(width: int, *, colour: bool = False) -> str:
    """A timeline on a console of this width."""
    first = ev.RunStarted(0, "fulfil", "order-1", 1, CODEC.encode_call((Approval(True, "ada"),), {}), b"seed")
    rest = [
        ev.StepCompleted(n * 1_000_000, f"{n}", "a_step_with_a_long_name", b"", 7, 2, 900_000, CODEC.encode([n] * n))
        for n in range(1, 12)
    ]
    line = timeline([first, *rest, ev.TimerSet(12_000_000, "12", "sleep", "", b"", 9, 99_000_000)], 24_000_000)
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=colour).print(Drawing(line, CODEC, Unreadable(13, "from the future")))
    return out.getvalue()


@pytest.mark.parametrize("width", [60, 80, 100, 120, 160, 250])
def test_a_timeline_fits(width: int):
    """Every event has one line of at most the width, with its index and its bar, on any terminal."""
    lines = drawn(width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) == 2 + 14
    assert [line.split()[0] for line in lines[2:]] == [str(index) for index in range(14)]
    assert all(any(mark in line for mark in "━╌•▸") for line in lines[2:15])
    assert "▸" in lines[14]
    assert "cannot be read" in lines[15]


def test_wide_terminals_show_more():
    """Payloads and the time of day are there when there is room."""
    assert 'Approval(granted=true, by="ada")' in drawn(250)
    assert "payload" not in drawn(60)


def columns(width: int, attempt: int) -> list[str]:
    """The heads of a short timeline whose steps took so many attempts."""
    steps = [ev.StepCompleted(n * 10, f"{n}", "pay", b"", 7, attempt, 9, CODEC.encode(n)) for n in range(1, 5)]
    first = ev.RunStarted(0, "fulfil", "order-1", 1, CODEC.encode_call((5,), {}), b"seed")
    out = io.StringIO()
    Console(file=out, width=width).print(Drawing(timeline([first, *steps], 40), CODEC))
    return out.getvalue().splitlines()[0].split()[:-3]


def test_what_a_narrow_terminal_shows():
    """The time of day goes first, then attempts where there was one each; then bars are shorter, and all else stays."""
    assert columns(120, 1) == ["#", "time", "since", "start", "what", "id", "name", "took", "tries", "payload"]
    assert columns(82, 1) == ["#", "since", "start", "what", "id", "name", "took", "payload"]
    assert columns(82, 2) == ["#", "since", "start", "what", "id", "name", "took", "tries", "payload"]
    assert "took" in drawn(80)


def test_no_colours_without_a_terminal():
    """Escape sequences are written only to a terminal."""
    assert "\x1b" not in drawn(120)
    assert "\x1b" in drawn(120, colour=True)


def bar_of(kind: Kind, began: int, ended: int | None, backoff: Wait | None = None) -> str:
    """The bar of a row in a timeline of 100 µs, on 20 cells."""
    row = Row(index=1, event="", what="", kind=kind, at_us=began, since_us=began, began_us=began, ended_us=ended,
              mark=Mark.PLAIN, backoff=backoff)  # fmt: skip
    return drawn_bar(row, Timeline(rows=(row,), started_us=0, stopped_us=100), 20)


def test_work_waits_and_surroundings_look_different():
    """Work is heavy, waiting is broken, a scope is thin, a point is a dot."""
    assert bar_of(Kind.STEP, 50, 75) == " " * 10 + "━━━━━"
    assert bar_of(Kind.CHILD, 50, None) == " " * 10 + "━━━━━━━━━▸"
    assert bar_of(Kind.WAIT, 50, 75) == " " * 10 + "╌╌╌╌╌"
    assert bar_of(Kind.SCOPE, 50, 75) == " " * 10 + "─────"
    assert bar_of(Kind.STEP, 50, 50) == " " * 10 + "•"


def test_a_failed_attempt_is_followed_by_its_wait():
    """The wait for the next attempt stands behind the attempt, within the same width."""
    assert bar_of(Kind.STEP, 0, 25, Wait(25, 75, 70)) == "━━━━━╌╌╌╌╌╌╌╌╌╌"
    assert bar_of(Kind.STEP, 0, 25, Wait(25, None, 700)) == "━━━━━╌╌╌╌╌╌╌╌╌╌╌╌╌╌▸"
    assert bar_of(Kind.STEP, 0, 25, Wait(25, 26, 26)) == "━━━━━╌"
    assert bar_of(Kind.STEP, 80, 99, Wait(99, 100, 100)) == " " * 16 + "━━━╌"
    assert bar_of(Kind.STEP, 80, 100, Wait(100, 100, 100)) == " " * 16 + "━━━━"
