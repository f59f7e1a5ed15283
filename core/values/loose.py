"""Loose values: JSON that came from outside (a command line, a browser) made into the type the program asks for.

Whoever writes `--input '{"amount": 3}'` cannot name a Python class, so the class comes from the reader's annotation.
This is structuring, cattrs' craft. Data classes refuse fields they do not know: a slip is likelier than a wish.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import msgspec
from cattrs import Converter, transform_error
from cattrs.preconf.msgspec import make_converter

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.models import is_model

LEAVES: Final = (bool, int, float, str, bytes, bytearray, datetime, date, time, timedelta, Decimal, UUID)
"""Types msgspec reads from their usual JSON form. It is strict where `int("5.5")` and `str(None)` are not."""


def make_loose_converter() -> Converter:
    """Make the converter of one codec: built once, since it keeps what it learns about each class."""
    converter = make_converter(forbid_extra_keys=True)
    for kind in LEAVES:
        converter.register_structure_hook_func(_is(kind), _read_leaf)
    converter.register_structure_hook(complex, lambda value, _: complex(value))
    converter.register_structure_hook_func(
        lambda cls: isinstance(cls, type) and is_model(cls), lambda value, cls: cls.model_validate(value)
    )
    converter.register_structure_hook_func(lambda cls: cls is object, lambda value, _: value)
    return converter


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda cls: cls is kind


def _read_leaf(value: Any, kind: Any) -> Any:
    return msgspec.convert(value, kind, strict=False)  # not strict: JSON keys are strings even where they mean numbers


def structure(converter: Converter, value: object, as_type: Any) -> Any:
    """Make a value of type `as_type` out of JSON; `DecodeError` naming each place that does not fit."""
    try:
        return converter.structure(value, as_type)
    except Exception as error:  # cattrs' groups, and whatever hooks and constructors of the classes raise
        wanted = getattr(as_type, "__name__", None) or str(as_type)
        reasons = "; ".join(transform_error(error, path="value"))
        raise DecodeError(f"the JSON given does not fit {wanted}: {reasons}", as_type=wanted) from error
