"""Loose values: JSON that came from outside (a command line, a browser) made into the type the program asks for.

Whoever writes `--input '{"amount": 3}'` cannot name a Python class, so the class comes from the reader's annotation.
This is structuring, cattrs' craft. Data classes refuse fields they do not know: a slip is likelier than a wish.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any, Final, get_type_hints
from uuid import UUID

import msgspec
from cattrs import Converter, transform_error
from cattrs.preconf.msgspec import make_converter
from cattrs.v import format_exception

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.models import is_model

LEAVES: Final = (bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID)
"""Types msgspec reads from their usual JSON form. It is strict where `int("5.5")` and `str(None)` are not."""


def make_loose_converter() -> Converter:
    """Make the converter of one codec: built once, since it keeps what it learns about each class."""
    converter = make_converter(forbid_extra_keys=True)
    for kind in LEAVES:
        converter.register_structure_hook(kind, _read_leaf)
    converter.register_structure_hook(complex, lambda value, _: complex(value))
    converter.register_structure_hook_func(
        lambda cls: isinstance(cls, type) and is_model(cls), lambda value, cls: cls.model_validate(value)
    )
    converter.register_structure_hook_func(lambda cls: cls is object, lambda value, _: value)
    converter.register_structure_hook_func(_is_named_tuple, partial(_structure_named_tuple, converter))
    return converter


def _is_named_tuple(cls: Any) -> bool:
    return isinstance(cls, type) and issubclass(cls, tuple) and hasattr(cls, "_fields")


def _structure_named_tuple(converter: Converter, value: Any, cls: Any) -> Any:
    """From a list or from an object. cattrs' own way does not resolve annotations that are strings."""
    hints = get_type_hints(cls)
    given = value if isinstance(value, dict) else dict(zip(cls._fields, value, strict=False))
    if len(given) < len(value) or not set(given) <= set(cls._fields):
        raise ValueError(f"{cls.__name__} has the fields {', '.join(cls._fields)}")
    return cls(**{name: converter.structure(item, hints.get(name, Any)) for name, item in given.items()})


def _read_leaf(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, strict=False)  # not strict: JSON keys are strings even where they mean numbers


def _reason(error: BaseException, kind: type | None) -> str:
    """Say why in msgspec's own words where it refused, since cattrs would only say "invalid value"."""
    return str(error) if isinstance(error, msgspec.ValidationError) else format_exception(error, kind)


def structure(converter: Converter, value: object, as_type: Any) -> Any:
    """Make a value of type `as_type` out of JSON; `DecodeError` naming each place that does not fit."""
    try:
        return converter.structure(value, as_type)
    except Exception as error:  # cattrs' groups, and whatever hooks and constructors of the classes raise
        wanted = getattr(as_type, "__name__", None) or str(as_type)
        reasons = "; ".join(transform_error(error, path="value", format_exception=_reason))
        raise DecodeError(f"the JSON given does not fit {wanted}: {reasons}", as_type=wanted) from error
