"""Text for terminals: what came out of a store is never printed as it is.

A workflow id, a signal's name or a payload may hold anything, an escape sequence that repaints the screen included.
So every string from a store passes `clean` (one line, for a cell) or `clean_lines` (an error's message), which write
such characters the way Python's `repr` does. JSON passes `as_json`, which escapes them the way JSON does, so that
programs read back exactly what was stored.

The rest of this module writes times, durations and sizes the way people do.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Final

# The second set of control characters, what turns the direction of writing, separators, joiners and lone surrogates.
_HIGH: Final = "\x7f-\x9f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
_not_in_line = re.compile(f"[\x00-\x1f{_HIGH}]")
_not_in_text = re.compile(f"[\x00-\x09\x0b-\x1f{_HIGH}]")
_not_in_json = re.compile(f"[{_HIGH}]")  # json escapes the first set itself, and its own line ends stay


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if found[0] in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[found[0]]
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def clean(text: object, limit: int | None = None) -> str:
    r"""One line of printable text, at most `limit` characters of it.

    >>> clean("order\x1b[2J\n42"), clean("a long name", limit=6)
    ('order\\x1b[2J\\n42', 'a lon…')
    """
    cleaned = _not_in_line.sub(_escaped, str(text) if limit is None else str(text)[: limit + 1])
    return cleaned if limit is None or len(cleaned) <= limit else cleaned[: limit - 1] + "…"


def clean_lines(text: object) -> str:
    """Printable text that keeps its lines."""
    return _not_in_text.sub(_escaped, str(text))


def as_json(data: object, *, one_line: bool = False) -> str:
    """Data as JSON for a program, or for a person who pipes it nowhere: no character in it acts on a terminal."""
    text = json.dumps(data, indent=None if one_line else 2, ensure_ascii=False)
    return _not_in_json.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def counted(number: int, thing: str, many: str = "") -> str:
    """A number of things.

    >>> counted(1, "run"), counted(1200, "run"), counted(2, "history", "histories")
    ('1 run', '1,200 runs', '2 histories')
    """
    return f"{number:,} {thing if number == 1 else many or f'{thing}s'}"


def without_password(url: str) -> str:
    """A store's URL as it may be shown.

    >>> without_password("postgresql://ada:secret@db/orders?password=secret&sslmode=require")
    'postgresql://ada:…@db/orders?password=…&sslmode=require'
    """
    return re.sub(r"(?<=[?&]password=)[^&]*", "…", re.sub(r"(?<=//)([^/:@]*):[^/@]*@", r"\1:…@", url))


# --- times and sizes -----------------------------------------------------------------------------------------------


def moment(at_us: int) -> datetime:
    """Microseconds since 1970 as a time in UTC; times out of a damaged record are brought into range."""
    return datetime.fromtimestamp(min(max(at_us, 0), 253_402_300_799_000_000) / 1e6, tz=UTC)


def iso(at_us: int | None) -> str | None:
    """The time as ISO 8601 in UTC, for programs."""
    return None if at_us is None else moment(at_us).isoformat(timespec="microseconds").replace("+00:00", "Z")


def clock(at_us: int) -> str:
    """The time in the reader's own zone, to the millisecond."""
    return moment(at_us).astimezone().isoformat(" ", timespec="milliseconds")[:23]


_STEPS: Final = ((86_400_000_000, "d", 3_600_000_000, "h"), (3_600_000_000, "h", 60_000_000, "m"))
_MINUTE: Final = 60_000_000


def duration(us: int) -> str:
    """A duration with its two leading parts, short enough for a column.

    >>> [duration(us) for us in (0, 250, 12_340, 1_500_000, 75_000_000, 7_500_000_000, 200_000_000_000)]
    ['0', '250 µs', '12.3 ms', '1.50 s', '1m 15s', '2h 05m', '2d 07h']
    """
    if us < 0:
        return f"-{duration(-us)}"
    for unit, name, below, below_name in _STEPS:
        if us >= unit:
            return f"{us // unit}{name} {us % unit // below:02}{below_name}"
    if us >= _MINUTE:
        return f"{us // _MINUTE}m {us % _MINUTE // 1_000_000:02}s"
    for unit, name in ((1_000_000, "s"), (1_000, "ms")):
        if us >= unit:
            value = us / unit
            return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {name}"
    return f"{us} µs" if us else "0"


def size(count: int) -> str:
    """A number of bytes with the unit people read.

    >>> size(900), size(123_456), size(5 * 1024**3)
    ('900 B', '120.6 KiB', '5.0 GiB')
    """
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


_AGE: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
_AGE_UNITS: Final = {"ms": 1e3, "s": 1e6, "m": 6e7, "h": 3.6e9, "d": 8.64e10, "w": 6.048e11}


def parse_age(text: str) -> int:
    """Microseconds of an age such as `90s`, `1h30m` or `7d`. Raises `ValueError` for anything else.

    >>> parse_age("1h30m") // 60_000_000
    90
    """
    parts = _AGE.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no age; write 90s, 15m, 1h30m, 7d or 2w")
    return round(sum(float(number) * _AGE_UNITS[unit] for number, unit in parts))
