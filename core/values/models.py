"""Pydantic models, without importing pydantic: whoever made a model has imported it.

A model travels as its state (`__getstate__` and `__setstate__`, pydantic's own way to copy and pickle): that keeps the
exact types of nested models, excluded and private fields, and which fields were set. `model_dump` keeps none of these,
and `model_validate` would run validators a second time. Where a field is of a type only pydantic can write (`HttpUrl`),
the model goes through `model_dump_json` and `model_validate_json`, provided that brings back an equal model.
"""

from __future__ import annotations

import sys
from typing import Any, Final

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.carrier import Lowering
from dalsegno.core.values.classes import name_of
from dalsegno.core.values.refusal import Refusal

AS_STATE: Final = 0
AS_JSON: Final = 1


def is_model(cls: type) -> bool:
    """Say whether `cls` is a pydantic model. False where pydantic was never imported."""
    module = sys.modules.get("pydantic.main")
    base = getattr(module, "BaseModel", None)
    return base is not None and cls is not base and issubclass(cls, base)


def lower(value: Any, walk: Lowering) -> object:
    """Give the body of a model's record: its class's name, the form, and its state in this form."""
    name = name_of(type(value))
    depth = walk.depth
    try:
        return [name, AS_STATE, _lower_state(value, walk)]
    except Refusal:
        walk.depth = depth
        text = _as_json(value)
        if text is None:
            raise
        return [name, AS_JSON, text]


def _lower_state(value: Any, walk: Lowering) -> object:
    state = value.__getstate__()
    known = type(value).model_fields
    fields = {key: item for key, item in state["__dict__"].items() if key in known}  # leaves cached properties behind
    lowered: dict[str, object] = {
        "fields": walk.named(fields, ".{}"),
        "set": sorted(state["__pydantic_fields_set__"]),
    }
    if state["__pydantic_extra__"]:
        lowered["extra"] = walk.named(state["__pydantic_extra__"], ".{}")
    if state["__pydantic_private__"]:
        lowered["private"] = walk.named(state["__pydantic_private__"], ".{}")
    return lowered


def _as_json(value: Any) -> str | None:
    """The model as JSON, or None where that would not bring back an equal one (a `SecretStr` shows only asterisks)."""
    try:
        text: str = value.model_dump_json(round_trip=True, by_alias=True, exclude_unset=True)
        again = type(value).model_validate_json(text)
    except Exception:  # whatever the model's own serializers and validators raise
        return None
    return text if type(again) is type(value) and again == value else None


def restore(cls: Any, name: str, form: int, state: Any) -> object:
    """Make the model again. `DecodeError` when its fields are not those the class has now."""
    if form == AS_JSON:
        return cls.model_validate_json(state)
    fields = state["fields"]
    known = cls.model_fields
    gone = sorted(set(fields) - set(known))
    missing = [key for key, field in known.items() if key not in fields and field.is_required()]
    if gone or missing:
        says = f"no field {missing}, which the model now wants" if missing else f"{gone}, which the model no longer has"
        raise DecodeError(
            f"the stored {name} has {says}. Give new fields a default and keep old ones.",
            class_name=name,
            fields=missing or gone,
        )
    for key, field in known.items():
        if key not in fields:
            fields[key] = field.get_default(call_default_factory=True)
    extra = state.get("extra", {}) if cls.model_config.get("extra") == "allow" else None
    model = cls.__new__(cls)
    model.__setstate__(
        {
            "__dict__": fields,
            "__pydantic_fields_set__": set(state["set"]),
            "__pydantic_extra__": extra,
            "__pydantic_private__": _private(cls, state.get("private")),
        }
    )
    return model


def _private(cls: Any, stored: Any) -> Any:
    """Private attributes: those stored, and the defaults of the others. None where the class has none."""
    known = cls.__private_attributes__
    if not known:
        return None
    made = {key: attribute.get_default() for key, attribute in known.items() if key not in (stored or {})}
    made = {key: item for key, item in made.items() if type(item).__name__ != "PydanticUndefinedType"}
    return {**made, **{key: item for key, item in (stored or {}).items() if key in known}}
