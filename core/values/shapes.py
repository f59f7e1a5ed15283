"""The shape of a data class: which fields there are, which may be missing, and how an instance is made of them.

Instances are taken apart field by field and put together again without calling `__init__` or `__post_init__`. Those ran
when the value was made, and their effects are in the fields; running them again would apply them twice (a validator
that hashes, a `__post_init__` that appends). For the same reason converters and validators do not run. What
`__post_init__` left in the instance beside its fields travels too; what `cached_property` left is computed anew.

When a class has changed since a value was stored, a field that is new is filled from its default, and a field without
one, or one that is gone, is a `DecodeError` naming it.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.classes import name_of
from dalsegno.core.values.refusal import Refusal

HEAP_TYPE: Final = 1 << 9
"""`Py_TPFLAGS_HEAPTYPE`: set for classes made by a `class` statement, not for those built into the interpreter."""

HASH_CACHE: Final = "_attrs_cached_hash"  # where attrs keeps a hash, which differs from process to process

Default = Callable[[Any], Any]
_MISSING: Final = object()


@attrs.frozen
class Shape:
    """How instances of one data class are taken apart and put together.

    `defaults` makes a missing field from the instance so far; `optional` may stay unset (`init=False`, no default).
    """

    cls: type
    name: str
    fields: tuple[str, ...]
    defaults: Mapping[str, Default]
    optional: frozenset[str]
    is_tuple: bool
    known: frozenset[str]

    def take_apart(self, value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the fields that are set, and what else the instance carries."""
        if self.is_tuple:
            return dict(zip(self.fields, value, strict=True)), self._beside(value)
        fields = {name: item for name in self.fields if (item := getattr(value, name, _MISSING)) is not _MISSING}
        return fields, self._beside(value)

    def _beside(self, value: Any) -> dict[str, Any]:
        own = getattr(value, "__dict__", None)
        if not own or self.known.issuperset(own):
            return {}
        extras = {name: item for name, item in own.items() if name not in self.known and not self._is_derived(name)}
        if HASH_CACHE in extras:
            extras[HASH_CACHE] = None
        return extras

    def _is_derived(self, name: str) -> bool:
        # `__orig_class__` is left by generic classes; a cached_property computes itself again.
        return name.startswith("__") or isinstance(getattr(self.cls, name, None), functools.cached_property)

    def put_together(self, fields: dict[str, Any], extras: Mapping[str, Any]) -> Any:
        """Make an instance of its fields. `DecodeError` when they are not those the class has now."""
        if not self.known.issuperset(fields):
            gone = sorted(set(fields) - self.known)
            raise DecodeError(
                f"the stored {self.name} has {_fields(gone)}, which the class no longer has. Keep the field, or give "
                "the class another name and keep the old one for stored values.",
                class_name=self.name,
                fields=gone,
            )
        if self.is_tuple:
            items = [fields[name] if name in fields else self._default(name, None) for name in self.fields]
            value: Any = tuple.__new__(self.cls, items)
        else:
            value = object.__new__(self.cls)
            self._fill(value, fields)
        for name, item in extras.items():
            if not name.isidentifier() or name.startswith("__"):
                raise DecodeError(f"the stored {self.name} carries {name!r}, which is no attribute's name")
            object.__setattr__(value, name, item)
        return value

    def _fill(self, value: Any, fields: Mapping[str, Any]) -> None:
        put = object.__setattr__  # past the guards of frozen classes, and past hooks that ran already
        for name in self.fields:
            if name in fields:
                put(value, name, fields[name])
            elif name not in self.optional:
                put(value, name, self._default(name, value))
        if HASH_CACHE in self.cls.__dict__:  # a slot, which attrs' own __init__ would have set
            put(value, HASH_CACHE, None)

    def _default(self, name: str, value: Any) -> Any:
        if name not in self.defaults:
            raise DecodeError(
                f"the stored {self.name} has no {_fields([name])}, which the class now wants. Give it a default.",
                class_name=self.name,
                fields=[name],
            )
        return self.defaults[name](value)


def shape_of(cls: type) -> Shape | None:
    """Give the shape of a data class that can be found again, or None when `cls` is no data class."""
    shape = _SHAPES.get(cls)
    if shape is None:
        shape = _describe(cls)
        if shape is not None:
            _SHAPES[cls] = shape
    return shape


_SHAPES: dict[type, Shape] = {}  # grows with the program's own data classes and with nothing else


def _describe(cls: type) -> Shape | None:
    defaults: dict[str, Default] = {}
    optional: set[str] = set()
    if attrs.has(cls):
        for field in attrs.fields(cls):
            _note_attrs_default(field, defaults, optional)
        names = tuple(field.name for field in attrs.fields(cls))
    elif dataclasses.is_dataclass(cls):
        for member in dataclasses.fields(cls):
            _note_dataclass_default(member, defaults, optional)
        names = tuple(member.name for member in dataclasses.fields(cls))
    elif _is_named_tuple(cls):
        names = tuple(cls._fields)  # type: ignore[attr-defined]
        for name, item in cls._field_defaults.items():  # type: ignore[attr-defined]
            defaults[name] = functools.partial(_same, item)
        return Shape(cls, name_of(cls), names, defaults, frozenset(), True, frozenset(names))
    else:
        return None
    for base in cls.__mro__[:-1]:
        if not base.__flags__ & HEAP_TYPE:
            raise Refusal(
                f"its class {name_of(cls)} is a data class and a {base.__name__} at once, and only the fields would be "
                "stored. Keep the two apart, one as a field of the other.",
                cls,
            )
    return Shape(cls, name_of(cls), names, defaults, frozenset(optional), False, frozenset(names))


def _note_attrs_default(field: attrs.Attribute[Any], defaults: dict[str, Default], optional: set[str]) -> None:
    default: Any = field.default
    if default is attrs.NOTHING:
        if not field.init:
            optional.add(field.name)
    elif isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # a class, though typed as a function
        factory = default.factory
        defaults[field.name] = factory if default.takes_self else functools.partial(_made, factory)
    else:
        defaults[field.name] = functools.partial(_same, default)


def _note_dataclass_default(field: dataclasses.Field[Any], defaults: dict[str, Default], optional: set[str]) -> None:
    if field.default is not dataclasses.MISSING:
        defaults[field.name] = functools.partial(_same, field.default)
    elif field.default_factory is not dataclasses.MISSING:
        defaults[field.name] = functools.partial(_made, field.default_factory)
    elif not field.init:
        optional.add(field.name)


def _same(item: Any, _: Any) -> Any:
    return item


def _made(factory: Callable[[], Any], _: Any) -> Any:
    return factory()


def _is_named_tuple(cls: type) -> bool:
    return (
        issubclass(cls, tuple) and hasattr(cls, "_field_defaults") and isinstance(getattr(cls, "_fields", None), tuple)
    )


def _fields(names: list[str]) -> str:
    return f"field{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"
