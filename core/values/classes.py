"""Classes and their names. Finding a class imports nothing and runs nothing that a payload could choose.

A class is written as "module:Qualified.Name" and found by looking: the module among those already imported, then name
by name through `__dict__`s. `getattr` is not used on the way, since a module's `__getattr__` may import, and a class's
metaclass may do anything. What was found is then asked what kind of data class it is; anything else stays unused.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import ModuleType
from typing import cast

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.refusal import Refusal


def name_of(cls: type) -> str:
    """Give the name a class is stored under.

    >>> name_of(DecodeError)
    'dalsegno.core.errors:DecodeError'
    """
    return f"{cls.__module__}:{cls.__qualname__}"


def find(name: str, renamed: Mapping[str, type] | None = None) -> type | None:
    """Find a class by its stored name among what is imported; None when it is not there.

    >>> find("collections:OrderedDict"), find("no.such.module:Order")
    (<class 'collections.OrderedDict'>, None)
    """
    if renamed and name in renamed:
        return renamed[name]
    module_name, _, qualname = name.partition(":")
    holder: object = sys.modules.get(module_name)
    if not issubclass(type(holder), ModuleType):
        return None
    for part in qualname.split("."):
        # By way of the plain slots, and by `type()`: a lazy module imports when asked anything, even its `__class__`.
        is_class = issubclass(type(holder), type)
        getter = type.__getattribute__ if is_class else object.__getattribute__
        holder = getter(holder, "__dict__").get(part)
        if not issubclass(type(holder), type):
            return None
    return cast(type, holder)


def check_findable(cls: type) -> None:
    """Refuse a class that could not be found again: one made inside a function, or hidden by another of its name."""
    if find(name_of(cls)) is cls:
        return
    name = f"{cls.__module__}.{cls.__qualname__}"
    if "<locals>" in cls.__qualname__:
        why = f"its class {name} was made inside a function, where it cannot be found again. Move it to the module."
    else:
        why = (
            f"its class calls itself {name}, but something else or nothing is found there. Give the class the name it "
            "is bound to at the top level of its module."
        )
    raise Refusal(why, cls)


def unknown(name: str, found: type | None) -> DecodeError:
    """Make the error for a stored class that cannot be used, saying what to do about it."""
    module, _, qualname = name.partition(":")
    if found is None:
        message = (
            f"the stored value is a {name}, and there is no such class here. Import {module} before opening the store; "
            f"if the class was renamed or moved, keep an alias ({qualname} = NewName) in {module}, or tell the codec: "
            f"Codec(renamed={{{name!r}: NewName}})."
        )
    else:
        message = (
            f"the stored value is a {name}, and what has this name here is no data class any more. Make it an attrs "
            "class, a dataclass, a NamedTuple, an Enum or a pydantic model again."
        )
    return DecodeError(message, class_name=name)
