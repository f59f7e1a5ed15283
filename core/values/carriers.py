"""The table of extensions: for every type msgpack would lose, how it is lowered, how restored, and how shown.

A `Carrier` has the two directions side by side, because they must agree. `lower` gives a body that msgpack can write;
`restore` makes the value out of that body and may trust nothing in it: whatever it raises becomes a `DecodeError`.
`show` gives the JSON form for people; its body has JSON forms inside already.

Only exact types are found in the table. A subclass of `str` or `dict` would come back as its base class, so it has no
carrier and is refused, with a hint what to pass instead.
"""

from __future__ import annotations

import collections
import pathlib
import uuid
from collections.abc import Callable
from decimal import Decimal
from types import BuiltinFunctionType, FunctionType, GeneratorType, MethodType, ModuleType
from typing import Any, Final

from dalsegno.core.values import exceptions, records, times, wire
from dalsegno.core.values.carrier import Carrier, Lowering, Restoring, leaf
from dalsegno.core.values.refusal import Refusal
from dalsegno.core.values.wire import Ext, pack


def lower_text(value: str) -> Any:
    """Give a str as it is, or its lone surrogates (as `os.fsdecode` makes them) in an extension."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return Ext(wire.SURROGATES, pack(value.encode("utf-8", "surrogatepass")))
    return value


def lower_big(value: int) -> Ext:
    """Give an int beyond 64 bits as its bytes."""
    return Ext(wire.BIG_INT, pack(_big_body(value)))


def _big_body(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _show_big(value: int) -> object:
    # `json.dumps` writes an int of any size, unless it has more digits than Python converts without being asked to.
    return value if value.bit_length() < 8192 else {"$type": "int", "value": hex(value)}


# --- containers ----------------------------------------------------------------------------------------------------


def _from_pairs(flat: list[Any]) -> dict[Any, Any]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _show_items(tag: str) -> Callable[[Any], object]:
    return lambda items: {"$type": tag, "items": items}


def _show_pairs(tag: str) -> Callable[[Any], object]:
    return lambda flat: {"$type": tag, "items": [list(pair) for pair in zip(flat[::2], flat[1::2], strict=True)]}


FACTORIES: Final = {kind.__name__: kind for kind in (list, dict, set, int, float, str, bool, tuple, bytes, frozenset)}
"""What a stored `defaultdict` may have as its factory: functions are code, and code is not stored."""


def _lower_default_dict(value: collections.defaultdict[Any, Any], walk: Lowering) -> object:
    factory = value.default_factory
    if factory is None:
        return [None, walk.pairs(value)]
    name = getattr(factory, "__name__", "")
    if FACTORIES.get(name) is not factory:
        raise Refusal(
            f"its default_factory is not one of {', '.join(FACTORIES)}. Pass dict(value) instead.", type(value)
        )
    return [name, walk.pairs(value)]


def _restore_default_dict(body: Any, _: Restoring) -> object:
    name, flat = body
    return collections.defaultdict(None if name is None else FACTORIES[name], _from_pairs(flat))


CONTAINERS = (
    Carrier(wire.TUPLE, tuple, lambda v, walk: walk.each(v), lambda body, _: tuple(body), _show_items("tuple")),
    Carrier(wire.SET, set, lambda v, walk: walk.sorted(v), lambda body, _: set(body), _show_items("set")),
    Carrier(
        wire.FROZENSET, frozenset, lambda v, walk: walk.sorted(v), lambda b, _: frozenset(b), _show_items("frozenset")
    ),
    Carrier(wire.MAP, None, lambda v, walk: walk.pairs(v), lambda body, _: _from_pairs(body), _show_pairs("dict")),
    Carrier(
        wire.ORDERED_DICT,
        collections.OrderedDict,
        lambda v, walk: walk.pairs(v),
        lambda body, _: collections.OrderedDict(_from_pairs(body)),
        _show_pairs("OrderedDict"),
    ),
    Carrier(
        wire.DEFAULT_DICT,
        collections.defaultdict,
        _lower_default_dict,
        _restore_default_dict,
        lambda body: {**_show_pairs("defaultdict")(body[1]), "factory": body[0]},  # type: ignore[dict-item]
    ),
    Carrier(
        wire.COUNTER,
        collections.Counter,
        lambda v, walk: walk.pairs(v),
        lambda body, _: collections.Counter(_from_pairs(body)),
        _show_pairs("Counter"),
    ),
    Carrier(
        wire.DEQUE,
        collections.deque,
        lambda v, walk: [v.maxlen, walk.each(v)],
        lambda body, _: collections.deque(body[1], body[0]),
        lambda body: {"$type": "deque", "items": body[1], "maxlen": body[0]},
    ),
)

# --- scalars -------------------------------------------------------------------------------------------------------


def _restore_complex(body: Any) -> complex:
    real, imaginary = body
    return complex(real, imaginary)


PATH_KINDS: Final[dict[str, type[pathlib.PurePath]]] = {
    kind.__name__: kind
    for kind in (pathlib.PurePosixPath, pathlib.PureWindowsPath, pathlib.PosixPath, pathlib.WindowsPath)
}


def _restore_path(body: Any) -> pathlib.PurePath:
    name, text = body
    return PATH_KINDS[name](text.decode("utf-8", "surrogatepass"))


def _path_body(value: pathlib.PurePath) -> object:
    return [type(value).__name__, str(value).encode("utf-8", "surrogatepass")]


LEAVES = (
    leaf(wire.BIG_INT, None, _big_body, lambda body: int.from_bytes(body, "big", signed=True), _show_big),
    leaf(
        wire.SURROGATES,
        None,
        lambda v: v.encode("utf-8", "surrogatepass"),
        lambda body: body.decode("utf-8", "surrogatepass"),
        lambda v: {"$type": "str", "value": v.encode("utf-8", "backslashreplace").decode()},
    ),
    leaf(
        wire.BYTEARRAY,
        bytearray,
        bytes,
        bytearray,
        lambda v: {"$type": "bytearray", "value": v.decode("utf-8", "backslashreplace")},
    ),
    leaf(wire.DECIMAL, Decimal, str, Decimal),  # through its text: exact, and keeps trailing zeros and NaN payloads
    leaf(wire.UUID, uuid.UUID, lambda v: v.bytes, lambda body: uuid.UUID(bytes=body)),
    leaf(wire.COMPLEX, complex, lambda v: [v.real, v.imag], _restore_complex),
    *(leaf(wire.PATH, kind, _path_body, _restore_path) for kind in PATH_KINDS.values()),
)

RANGE = Carrier(
    wire.RANGE,
    range,
    lambda v, walk: walk.each((v.start, v.stop, v.step)),
    lambda body, _: range(*body),
    lambda body: {"$type": "range", "start": body[0], "stop": body[1], "step": body[2]},
)

# --- the table -----------------------------------------------------------------------------------------------------

ALL: Final = (
    *CONTAINERS,
    *LEAVES,
    RANGE,
    *times.CARRIERS,
    records.RECORD,
    records.ENUM,
    records.MODEL,
    exceptions.ERROR,
)
BY_CODE: Final[dict[int, Carrier]] = {carrier.code: carrier for carrier in ALL}
_BY_TYPE: Final[dict[type, Carrier]] = {carrier.kind: carrier for carrier in ALL if carrier.kind is not None}


def carrier_of(kind: type) -> Carrier:
    """Find what carries values of exactly this type; `Refusal` with a hint when nothing does."""
    carrier = _BY_TYPE.get(kind)
    if carrier is None:
        if issubclass(kind, BaseException):
            carrier = exceptions.ERROR
        else:
            carrier = records.carrier_for(kind)
        if carrier is None:
            raise Refusal(_why_not(kind), kind)
        _BY_TYPE[kind] = carrier
    return carrier


def _why_not(kind: type) -> str:
    """Say why values of this type cannot be stored, and what to do next."""
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if issubclass(kind, (FunctionType, BuiltinFunctionType, MethodType, ModuleType, type)):
        return f"it is code (type {name}), and code is not stored. Pass its name, and look it up where it is used."
    if issubclass(kind, GeneratorType) or hasattr(kind, "__next__"):
        return f"it is an iterator (type {name}), which exists only in this process. Pass list(value) instead."
    for base in (str, bytes, bool, int, float, tuple, list, dict, set, frozenset, bytearray):
        if issubclass(kind, base):
            return (
                f"its type {name} is a subclass of {base.__name__}, and it would come back as a plain one. "
                f"Pass {base.__name__}(value) instead."
            )
    if hasattr(kind, "__array__") or hasattr(kind, "dtype"):
        return f"it is of type {name}. Pass value.item() for a number, or value.tolist() for an array."
    return (
        f"it is of type {name}, which is neither plain data nor a data class. Make it an attrs class or a dataclass at "
        "the top level of a module, or pass what is needed to make it again (a path, an id, a name)."
    )
