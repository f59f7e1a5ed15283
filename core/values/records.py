"""Data classes, enums and pydantic models as extension records. Each body starts with the name of the class."""

from __future__ import annotations

import enum
from typing import Any

from dalsegno.core.errors import DecodeError
from dalsegno.core.values import models, wire
from dalsegno.core.values.carrier import Carrier, Lowering, Restoring
from dalsegno.core.values.classes import check_findable, name_of, unknown
from dalsegno.core.values.refusal import Refusal
from dalsegno.core.values.shapes import shape_of


def carrier_for(cls: type) -> Carrier | None:
    """Find the carrier of a user's class: enum, pydantic model or data class; None when it is none of them."""
    if isinstance(cls, enum.EnumMeta):
        carrier = ENUM
    elif models.is_model(cls):
        carrier = MODEL
    elif shape_of(cls) is not None:
        carrier = RECORD
    else:
        return None
    check_findable(cls)
    return carrier


# --- data classes --------------------------------------------------------------------------------------------------


def _lower_record(value: Any, walk: Lowering) -> object:
    shape = shape_of(type(value))
    assert shape is not None, "carrier_for found one"
    fields, extras = shape.take_apart(value)
    body = [shape.name, walk.named(fields, ".{}")]
    if extras:
        body.append(walk.named(extras, ".{}"))
    return body


def _restore_record(body: Any, reader: Restoring) -> object:
    name, fields, *extras = body
    cls = reader.find(name)
    try:
        shape = None if cls is None else shape_of(cls)
    except Refusal:
        shape = None
    if shape is None:
        raise unknown(name, cls)
    return shape.put_together(fields, extras[0] if extras else {})


def _show_record(body: Any) -> object:
    name, fields, *extras = body
    return {"$type": name, **fields, **(extras[0] if extras else {})}


RECORD = Carrier(wire.RECORD, None, _lower_record, _restore_record, _show_record)

# --- enums ---------------------------------------------------------------------------------------------------------


def _lower_enum(value: enum.Enum, walk: Lowering) -> object:
    """A member goes by its name, so that its value may change; a combination of flags has no name, only a number."""
    if isinstance(value, enum.Flag):
        return [name_of(type(value)), walk.lower(value.value)]
    return [name_of(type(value)), walk.lower(value.name)]


def _restore_enum(body: Any, reader: Restoring) -> object:
    name, member = body
    cls = reader.find(name)
    if not isinstance(cls, enum.EnumMeta):
        raise unknown(name, cls)
    if isinstance(member, str) and member in cls.__members__:
        return cls.__members__[member]
    if isinstance(member, int) and issubclass(cls, enum.Flag):
        return cls(member)
    raise DecodeError(
        f"the stored value is {name}.{member}, and the enum has no such member now. Keep the old name as an alias.",
        class_name=name,
    )


def _show_enum(body: Any) -> object:
    name, member = body
    return {"$type": name, "name" if isinstance(member, str) else "value": member}


ENUM = Carrier(wire.ENUM, None, _lower_enum, _restore_enum, _show_enum)

# --- pydantic models -----------------------------------------------------------------------------------------------


def _restore_model(body: Any, reader: Restoring) -> object:
    name, form, state = body
    cls = reader.find(name)
    if cls is None or not models.is_model(cls):
        raise unknown(name, cls)
    return models.restore(cls, name, form, state)


def _show_model(body: Any) -> object:
    name, form, state = body
    return {"$type": name, "json": state} if form == models.AS_JSON else {"$type": name, **state["fields"]}


MODEL = Carrier(wire.MODEL, None, models.lower, _restore_model, _show_model)
