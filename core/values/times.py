"""Dates, times and zones. A zone is kept as what it is (a fixed offset, or a name of the zone database), so that a time
in the future still follows the rules of its place; `fold` says which of two equal wall-clock times is meant."""

from __future__ import annotations

import zoneinfo
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from typing import Any

from dalsegno.core.values import wire
from dalsegno.core.values.carrier import leaf
from dalsegno.core.values.refusal import Refusal


def _zone_body(zone: tzinfo | None) -> object:
    """None, a key of the zone database, or a fixed offset (with its name where it was given one)."""
    if zone is None:
        return None
    if type(zone) is timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # the only place where a name given is told
        return [*_delta_body(offset), *name]
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return zone.key
    raise Refusal(
        f"its tzinfo is of type {type(zone).__module__}.{type(zone).__qualname__}, which cannot be told by name. Use "
        "zoneinfo.ZoneInfo('Area/City') or datetime.timezone.",
        type(zone),
    )


def _zone(body: Any) -> tzinfo | None:
    if body is None:
        return None
    if isinstance(body, str):
        return zoneinfo.ZoneInfo(body)
    days, seconds, microseconds, *name = body
    return timezone(timedelta(days, seconds, microseconds), *name)


def _delta_body(value: timedelta) -> list[Any]:
    return [value.days, value.seconds, value.microseconds]


def _datetime_body(v: datetime) -> list[Any]:
    return [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond, v.fold, _zone_body(v.tzinfo)]


def _datetime(body: Any) -> datetime:
    year, month, day, hour, minute, second, microsecond, fold, zone = body
    return datetime(year, month, day, hour, minute, second, microsecond, _zone(zone), fold=fold)


def _time_body(v: time) -> list[Any]:
    return [v.hour, v.minute, v.second, v.microsecond, v.fold, _zone_body(v.tzinfo)]


def _time(body: Any) -> time:
    hour, minute, second, microsecond, fold, zone = body
    return time(hour, minute, second, microsecond, _zone(zone), fold=fold)


def _show_iso(value: Any) -> object:
    shown = {"$type": type(value).__name__, "value": value.isoformat()}
    zone = getattr(value, "tzinfo", None)
    return {**shown, "zone": str(zone)} if isinstance(zone, zoneinfo.ZoneInfo) else shown


CARRIERS = (
    leaf(wire.DATETIME, datetime, _datetime_body, _datetime, _show_iso),
    leaf(wire.DATE, date, lambda v: [v.year, v.month, v.day], lambda body: date(*body), _show_iso),
    leaf(wire.TIME, time, _time_body, _time, _show_iso),
    leaf(wire.TIMEDELTA, timedelta, _delta_body, lambda body: timedelta(*body)),
    leaf(wire.TIMEZONE, timezone, _zone_body, _zone),
    leaf(wire.ZONEINFO, zoneinfo.ZoneInfo, _zone_body, _zone),
)
