"""Text that is safe to print, and times and sizes as people write them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dalsegno.tools.text import as_json, clean, clean_lines, clock, duration, iso, moment, parse_age, size

UNSAFE = set(map(chr, [*range(32), *range(127, 160), 0xAD, 0x200B, 0x2028, 0x202E, 0x2066, 0xFEFF, 0xD800, 0xDFFF]))


@given(st.text(st.one_of(st.characters(), st.sampled_from(sorted(UNSAFE))), max_size=50))
def test_no_unsafe_character_gets_through(text: str):
    """Nothing that acts on a terminal is left, in a line, in a message, or in JSON; JSON reads back the same."""
    assert not UNSAFE & set(clean(text))
    assert not UNSAFE - {"\n"} & set(clean_lines(text))
    written = as_json({"text": text})
    assert not UNSAFE - {"\n"} & set(written)
    assert json.loads(written) == {"text": text}


def test_unsafe_characters_are_shown_as_python_does():
    """What was there can still be read."""
    assert clean("a\x1b[31m\tb\nc\u202e") == "a\\x1b[31m\\tb\\nc\\u202e"
    assert clean_lines("one\ntwo\r") == "one\ntwo\\r"


@given(st.text(max_size=30), st.integers(2, 40))
def test_a_limit_is_kept(text: str, limit: int):
    """A cleaned text is never longer than its limit, and whole where it fits."""
    assert len(clean(text, limit)) <= limit
    assert clean("abc", 3) == "abc"


@pytest.mark.parametrize(
    ("us", "shown"),
    [(0, "0"), (250, "250 µs"), (12_340, "12.3 ms"), (1_500_000, "1.50 s"), (75_000_000, "1m 15s"),
     (7_500_000_000, "2h 05m"), (200_000_000_000, "2d 07h"), (-250, "-250 µs")],
)  # fmt: skip
def test_durations(us: int, shown: str):
    """Two leading parts with their units."""
    assert duration(us) == shown


def test_times_and_sizes():
    """Times are UTC for programs; times out of range are brought into it; sizes have units."""
    assert iso(1_700_000_000_123_456) == "2023-11-14T22:13:20.123456Z"
    assert iso(None) is None
    assert moment(-5).year == 1970
    assert moment(10**30).year == 9999
    assert len(clock(1_700_000_000_123_456)) == 23
    assert [size(n) for n in (0, 2048, 3 * 1024**2, 2**50)] == ["0 B", "2.0 KiB", "3.0 MiB", "1024.0 TiB"]


def test_ages():
    """Ages add their parts up; anything else is refused with an example."""
    assert parse_age("1h30m") == 5_400_000_000
    assert parse_age("1.5s") == 1_500_000
    for wrong in ("", "5", "h", "1h 30m", "-1h", "1y"):
        with pytest.raises(ValueError, match="write 90s"):
            parse_age(wrong)
