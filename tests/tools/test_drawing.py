"""Timelines on terminals of any width."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from dalsegno.core import events as ev
from dalsegno.core.values.codec import Codec
from dalsegno.tools.drawing import Drawing
from dalsegno.tools.timeline import Unreadable, timeline
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
    assert all(any(mark in line for mark in "━•▸") for line in lines[2:15])
    assert "▸" in lines[14]
    assert "cannot be read" in lines[15]


def test_wide_terminals_show_more():
    """Payloads and the time of day are there when there is room."""
    assert 'Approval(granted=true, by="ada")' in drawn(250)
    assert "payload" not in drawn(80)


def test_no_colours_without_a_terminal():
    """Escape sequences are written only to a terminal."""
    assert "\x1b" not in drawn(120)
    assert "\x1b" in drawn(120, colour=True)
