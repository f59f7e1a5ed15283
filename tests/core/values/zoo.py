"""The value zoo: one of every kind of value dalsegno promises to carry, for any test that passes values around.

* `EXAMPLES` is a list of values, each chosen because something once lost or could lose what is particular about it.
* `zoo()` is a Hypothesis strategy that makes more of them, nested in one another.
* `same(a, b)` is equality that also compares types, the sign of zero, NaN with NaN, zones, fold and order.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import functools
import math
import pathlib
import struct
import typing
import uuid
import zoneinfo
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from decimal import Decimal
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import attrs
import pydantic
from hypothesis import strategies as st

T = TypeVar("T")


class Colour(enum.Enum):
    """An enum with an alias and a value of its own type."""

    RED = "r"
    BLUE = ("b", 2)
    CRIMSON = "r"


class Level(enum.IntEnum):
    """An enum that is an int as well."""

    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    """An enum that is a str as well."""

    YES = "yes"
    NO = "no"


class Access(enum.Flag):
    """Flags, which combine into values without a name."""

    READ = enum.auto()
    WRITE = enum.auto()


class Mode(enum.IntFlag):
    """Flags that are ints as well, and keep bits nobody named."""

    A = 1
    B = 2


@attrs.frozen
class Line:
    """attrs, frozen, slots."""

    sku: str
    count: int = 1


@attrs.define
class Order:
    """attrs, nested, with a private field, a converter, and a field outside `__init__`."""

    id: uuid.UUID
    lines: list[Line]
    total: Decimal = attrs.field(converter=Decimal, default=Decimal(0))
    _note: str | None = None
    stage: str = attrs.field(init=False, default="new")


@attrs.define(slots=False, eq=True, unsafe_hash=True, cache_hash=True)
class Cached:
    """attrs that keeps its hash, which is another one in the next process."""

    word: str


@attrs.frozen(cache_hash=True)
class CachedSlot:
    """The same with slots."""

    word: str


@dataclasses.dataclass
class Appended:
    """A dataclass whose `__post_init__` changes what it was given: applying it twice would show."""

    items: list[int]

    def __post_init__(self) -> None:
        self.items = [*self.items, 0]


@dataclasses.dataclass(frozen=True, slots=True)
class Point:
    """A dataclass, frozen, with slots."""

    x: float
    y: float = 0.0


@dataclasses.dataclass
class Derived:
    """A dataclass with a field outside `__init__`, an attribute that is no field, and a cached property."""

    base: int
    double: int = dataclasses.field(init=False)
    unset: int = dataclasses.field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.double = self.base * 2
        self.beside = ("not", "a field")

    @functools.cached_property
    def square(self) -> int:
        """Computed when asked for, and kept in `__dict__`."""
        return self.base**2


@dataclasses.dataclass
class Box(Generic[T]):
    """A generic dataclass, whose instances remember `__orig_class__`."""

    content: T


class Pair(NamedTuple):
    """A typed named tuple with a default."""

    left: object
    right: object = None


Old = namedtuple("Old", "a b")  # the untyped kind is in use everywhere


class Settings(TypedDict, total=False):
    """A TypedDict, which is a dict."""

    verbose: bool


class Outer:
    """A class that only holds another one."""

    @attrs.frozen
    class Inner:
        """A data class inside a class."""

        value: Any


class Address(pydantic.BaseModel):
    """A pydantic model with an alias, an excluded field and a private attribute."""

    model_config = pydantic.ConfigDict(populate_by_name=True)

    street: str = pydantic.Field(alias="Street")
    secret: str = pydantic.Field(default="", exclude=True)
    tags: set[str] = set()
    _seen: int = pydantic.PrivateAttr(default=0)


class Villa(Address):
    """A model that may stand where an `Address` is declared."""

    pool: bool = True


class Person(pydantic.BaseModel):
    """A model with nested models and a type only pydantic can write."""

    name: str
    home: Address
    link: pydantic.HttpUrl | None = None


class Open(pydantic.BaseModel, extra="allow"):
    """A model that keeps fields nobody declared."""

    known: int


def _used(model: Address) -> Address:
    model._seen = 3
    return model


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
_SQUARED = Derived(3)
assert _SQUARED.square == 9

EXAMPLES: list[Any] = [
    None, True, False, 0, -1, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**500, -(10**500),
    0.0, -0.0, 1.5, math.inf, -math.inf, math.nan, 5e-324, 1e308,
    "", "step", "naïve ☃ 𝄋", "\x00", "lone \ud800 surrogate", b"", b"\x00\xc1\xff", bytearray(b"xyz"),
    [], [1, [2, [3]]], (), (1,), (1, (2, [3])), set(), {1, "a", 2.5, None, (1, 2)}, frozenset({frozenset(), b"x"}),
    {}, {"a": 1, "b": [True]}, {1: "i", 1.5: "f", None: "n", b"b": "b", True + 1: 2}, {(1, 2): "t", Line("k"): "d"},
    {"z": 1, "a": 2}, {2**70: "big"}, {"\ud800": 1}, {frozenset({1}): {Colour.RED: 1}}, {"$type": "not a type"},
    OrderedDict([("b", 1), ("a", 2)]), defaultdict(list, {"a": [1]}), defaultdict(None, {1: 2}), Counter("hello"),
    deque([1, 2], maxlen=5), deque(),
    dt.date(2024, 2, 29), dt.datetime.min, dt.datetime(2024, 5, 1, 12, 30, 0, 123456),
    dt.datetime(2024, 5, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=-5, seconds=7))),
    dt.datetime(2024, 5, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "MEZ")),
    dt.datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN), dt.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=BERLIN),
    dt.time(1, 2, 3, 4), dt.time(2, 30, fold=1), dt.time(1, tzinfo=dt.UTC), dt.time(1, tzinfo=BERLIN),
    dt.timedelta(0), dt.timedelta(days=-1, microseconds=1), dt.timedelta.max, dt.UTC, BERLIN,
    Decimal("1.10"), Decimal("-0"), Decimal("NaN"), Decimal("sNaN123"), Decimal("-Infinity"), Decimal("1E+999"),
    Decimal("0." + "1" * 60), uuid.UUID(int=7),
    1 + 2j, complex(-0.0, math.nan), range(3), range(10, 0, -2), range(2**70),
    pathlib.Path("a/b"), pathlib.PurePosixPath("/x"), pathlib.PureWindowsPath("C:\\x"), pathlib.Path(),
    pathlib.Path("lone\udc80"),
    Colour.RED, Colour.BLUE, Colour.CRIMSON, Level.HIGH, Word.YES, Access.READ, Access.READ | Access.WRITE, Access(0),
    Mode.A | Mode.B, Mode(64),
    Line("a"), Order(uuid.UUID(int=1), [Line("b", 2)], "9.50", note="n"), Cached("w"), CachedSlot("w"),
    Appended([1]), Point(1.0), Point(math.nan, -0.0), Derived(2), _SQUARED, Box[int](5), Box(Box("in")),
    Pair(1), Pair([Pair(1, 2)], ()), Old(1, b=2), Settings(verbose=True), Outer.Inner((1,)),
    _used(Address(Street="S", secret="kept", tags={"a"})), Person(name="P", home=Villa(Street="V")),
    Person(name="L", home=Address(Street="S"), link=pydantic.HttpUrl("https://example.org/x")),
    Open.model_validate({"known": 1, "other": (2,)}),
]  # fmt: skip


def same(a: Any, b: Any) -> bool:
    """Say whether two values are equal in value and type, all the way down."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack(">d", a) == struct.pack(">d", b) or (math.isnan(a) and math.isnan(b))
    if isinstance(a, complex):
        return same(a.real, b.real) and same(a.imag, b.imag)
    if isinstance(a, Decimal):
        return bool(a.as_tuple() == b.as_tuple())
    if isinstance(a, (dt.datetime, dt.time)):
        return a.replace(tzinfo=None) == b.replace(tzinfo=None) and a.fold == b.fold and same(a.tzinfo, b.tzinfo)
    if isinstance(a, dt.tzinfo):
        return repr(a) == repr(b)
    if isinstance(a, enum.Enum):
        return a is b or bool(a == b)
    if isinstance(a, dict):
        alike = same(list(a), list(b)) and same(list(a.values()), list(b.values()))
        return alike and getattr(a, "default_factory", None) is getattr(b, "default_factory", None)
    if isinstance(a, (list, tuple, deque)):
        ends = getattr(a, "maxlen", None) == getattr(b, "maxlen", None)
        return ends and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(same(x, y) for y in b) for x in a)
    if isinstance(a, pydantic.BaseModel):
        return same(_state(a), _state(b))
    if attrs.has(type(a)) or dataclasses.is_dataclass(a):
        return same(_fields(a), _fields(b))
    return bool(a == b)


def _fields(value: Any) -> dict[str, Any]:
    described: Any = attrs.fields(type(value)) if attrs.has(type(value)) else dataclasses.fields(value)
    names = {field.name for field in described} | set(getattr(value, "__dict__", ()))
    derived = {"square", "_attrs_cached_hash", "__orig_class__"}
    return {name: getattr(value, name) for name in sorted(names - derived) if hasattr(value, name)}


def _state(model: pydantic.BaseModel) -> dict[str, Any]:
    return typing.cast(dict[str, Any], model.__getstate__())


_zones = st.one_of(
    st.none(), st.just(dt.UTC), st.sampled_from([BERLIN, zoneinfo.ZoneInfo("Australia/Lord_Howe")]),
    st.timedeltas(dt.timedelta(hours=-23), dt.timedelta(hours=23)).map(dt.timezone),
)  # fmt: skip

_hashable = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.complex_numbers(),
    st.decimals().filter(lambda d: not d.is_snan()), st.uuids(), st.dates(),
    st.datetimes(timezones=_zones, allow_imaginary=True), st.times(), st.timedeltas(),
    st.sampled_from([*Colour, *Level, *Word, Access.READ | Access.WRITE]),
    st.builds(Line, st.text(max_size=5), st.integers()), st.builds(Point, st.floats(), st.floats()),
)  # fmt: skip
_hashable = st.one_of(
    _hashable,
    st.tuples(_hashable, _hashable),
    st.frozensets(_hashable, max_size=3),
    st.builds(Pair, _hashable, _hashable),
)


def zoo(max_leaves: int = 20) -> st.SearchStrategy[Any]:
    """Values of every kind, nested in every kind of container and data class."""
    leaves = st.one_of(_hashable, st.sampled_from(EXAMPLES))
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.lists(inner, max_size=4).map(tuple),
            st.sets(_hashable, max_size=4),
            st.dictionaries(st.text(max_size=5), inner, max_size=4),
            st.dictionaries(_hashable, inner, max_size=4),
            st.builds(Box, inner),
            st.builds(Pair, inner, inner),
            st.builds(Outer.Inner, inner),
        ),
        max_leaves=max_leaves,
    )
