"""Histories as bytes: each event one msgpack array, `[tag, field, field, …]`, in the order of its class.

An array without names keeps a step's record small (about 60 bytes) and quick to write; the names come back from the
class. A version above 1 adds its number to the tag (`tag + 1000 * (version - 1)`), so that records of today carry no
version byte. Reading a version that this release does not know raises `DecodeError` naming both; `UPGRADES` holds the
steps from earlier versions.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from typing import Any

import attrs
import msgspec

from dalsegno.core.errors import DecodeError
from dalsegno.core.events import EVENTS, CarriedSignal, Event, RunStarted, ScopeCompleted

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list).decode

_NAMES: dict[type[Event], tuple[str, ...]] = {
    cls: tuple(a.name for a in attrs.fields(cls))  # type: ignore[arg-type]  # every event is an attrs class
    for cls in EVENTS
}
_CODES: dict[type[Event], int] = {cls: cls.tag + 1000 * (cls.version - 1) for cls in EVENTS}
_CLASSES: dict[int, Callable[..., Event]] = {code: cls for cls, code in _CODES.items()}

UPGRADES: dict[int, Callable[[list[Any]], Event]] = {}
"""For each code of an earlier version, how its fields become today's event."""


def _writer(cls: type[Event]) -> Callable[[Any], bytes]:
    """A function that encodes events of one class without looking anything up."""
    code, names = _CODES[cls], _NAMES[cls]
    if len(names) == 1:  # for a single name, attrgetter answers the value itself
        return lambda event: _encode((code, getattr(event, names[0])))
    get = operator.attrgetter(*names)
    return lambda event: _encode((code, *get(event)))


_WRITERS = {cls: _writer(cls) for cls in EVENTS}


def encode_event(event: Event) -> bytes:
    """The stored form of an event."""
    return _WRITERS[type(event)](event)


def decode_event(data: bytes) -> Event:
    """The event that these bytes are. Raises `DecodeError` for bytes that are no event of a known version."""
    try:
        code, *values = _decode(data)
        return _CLASSES[code](*values)
    except Exception:
        return _decode_uncommon(data)


def _decode_uncommon(data: bytes) -> Event:
    try:
        code, *values = _decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise DecodeError(f"not an event: {error}") from error
    if code in UPGRADES:
        return UPGRADES[code](values)
    if code not in _CLASSES:
        raise DecodeError(
            f"event of unknown kind {code % 1000} version {code // 1000 + 1}: written by a later release? "
            "Upgrade dalsegno to read this history.",
            code=code,
        )
    raise DecodeError(f"a {_CLASSES[code].__name__} event with {len(values)} fields that do not fit")


def decode_history(records: Iterable[bytes]) -> list[Event]:
    """All events of a history. Raises `DecodeError` with the index of the first that cannot be read."""
    events: list[Event] = []
    append, classes = events.append, _CLASSES
    for data in records:
        try:
            code, *values = _decode(data)
            append(classes[code](*values))
        except Exception:
            try:
                append(_decode_uncommon(data))
            except DecodeError as error:
                raise DecodeError(f"event {len(events)}: {error}", event_index=len(events)) from error
    return events


def _run_started(*values: Any) -> Event:
    """`RunStarted` from its fields: the only events with records or tuples inside."""
    fields = dict(zip(_NAMES[RunStarted], values, strict=False))
    fields["parent"] = tuple(fields.get("parent") or ())
    fields["carried"] = tuple(CarriedSignal(seq=s, name=n, payload=p) for s, n, p in fields.get("carried") or ())
    return RunStarted(**fields)


def _scope_completed(*values: Any) -> Event:
    fields = dict(zip(_NAMES[ScopeCompleted], values, strict=False))
    fields["consumed"] = tuple(fields.get("consumed") or ())
    return ScopeCompleted(**fields)


def _write_run_started(event: RunStarted) -> bytes:
    values = [getattr(event, name) for name in _NAMES[RunStarted]]
    values[_NAMES[RunStarted].index("carried")] = [(s.seq, s.name, s.payload) for s in event.carried]
    return _encode((_CODES[RunStarted], *values))


_CLASSES[_CODES[RunStarted]] = _run_started
_CLASSES[_CODES[ScopeCompleted]] = _scope_completed
_WRITERS[RunStarted] = _write_run_started
