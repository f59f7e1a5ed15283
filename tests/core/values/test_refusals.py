"""What cannot be stored is refused where it was passed, with its path, its type and what to do next."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import enum
import sys
import threading
from typing import Any

import attrs
import pydantic
import pytest

from dalsegno.core.errors import EncodeError
from dalsegno.core.values.codec import Codec
from tests.core.values.zoo import Box, Line, Outer, Pair

codec = Codec()
LOCK = threading.Lock()
Missing = enum.Enum("Missing", "A B", qualname="Elsewhere.Missing")  # calls itself by a name nobody can find


class MyStr(str):
    __slots__ = ()


class MyDict(dict[str, int]):
    pass


@dataclasses.dataclass
class Both(list[int]):
    """A data class and a list at once."""

    name: str


class Scalar:
    """Looks like a number of numpy's."""

    dtype = "int64"

    def __bool__(self) -> bool:
        return True


class Moody(pydantic.BaseModel):
    """A model with a value that shows only asterisks."""

    password: pydantic.SecretStr


@dataclasses.dataclass
class Raising:
    """A data class whose field is a property that raises."""

    value: int

    def __getattribute__(self, name: str) -> Any:
        if name == "value":
            raise RuntimeError("not now")
        return object.__getattribute__(self, name)


class Pst(dt.tzinfo):
    """A zone of someone's own making."""

    def utcoffset(self, when: dt.datetime | None) -> dt.timedelta:
        return dt.timedelta(hours=-8)

    def dst(self, when: dt.datetime | None) -> None:
        return None

    def tzname(self, when: dt.datetime | None) -> str:
        return "PST"


def local_class() -> object:
    @attrs.frozen
    class Local:
        x: int

    return Local(1)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (LOCK, r"^value cannot be stored: it is of type _thread\.lock.*Make it an attrs class"),
        ([1, {"k": LOCK}], r"^value\[1\]\['k'\] cannot"),
        ({"a": Line(LOCK)}, r"^value\['a'\]\.sku cannot"),  # type: ignore[arg-type]
        (Box((0, Pair({LOCK}))), r"^value\.content\[1\]\.left\{<unlocked _thread\.lock.*\} cannot"),
        ({(1, LOCK): 2}, r"^value\.key\(\(1, <unlocked _thread.lock .*\[1\] cannot"),
        ({(1,): LOCK}, r"^value\[\(1,\)\] cannot"),
        (collections.OrderedDict(a=LOCK), r"^value\['a'\] cannot"),
        (MyStr("x"), r"MyStr is a subclass of str.*Pass str\(value\)"),
        ([MyDict(a=1)], r"^value\[0\].*MyDict is a subclass of dict.*Pass dict\(value\)"),
        (Both("x"), r"a data class and a list at once"),
        (Scalar(), r"value\.item\(\)"),
        (print, r"it is code.*Pass its name"),
        (Line, r"it is code"),
        (sys, r"it is code"),
        (iter([1]), r"it is an iterator.*list\(value\)"),
        ((n for n in [1]), r"it is an iterator"),
        (local_class(), r"local_class\.<locals>\.Local was made inside a function.*Move it to the module"),
        (attrs.make_class("Nowhere", ["x"])(1), r"something else or nothing is found there"),
        (Missing.A, r"something else or nothing is found there"),
        (collections.defaultdict(lambda: 1), r"default_factory.*Pass dict\(value\)"),
        (dt.datetime(2024, 1, 1, tzinfo=Pst()), r"tzinfo is of type .*Pst.*ZoneInfo"),
        (Moody(password=pydantic.SecretStr("x")), r"^value\.password cannot.*SecretStr"),
        (Raising(1), r"reading it raised RuntimeError\('not now'\)"),
    ],
)
def test_what_cannot_be_stored_is_named(value: Any, says: str) -> None:
    """The message gives the path to the culprit, its type, and what to pass instead."""
    with pytest.raises(EncodeError, match=says):
        codec.encode(value)


def test_arguments_are_named_by_place_or_keyword() -> None:
    """In a call the path starts at the argument, as its author wrote it; the path is a fact of the error too."""
    with pytest.raises(EncodeError, match=r"^args\[1\]\.value\['k'\] cannot be stored") as caught:
        codec.encode_call((1, Outer.Inner({"k": LOCK})), {})
    assert caught.value.path == "args[1].value['k']"
    assert caught.value.type_name == "_thread.lock"
    with pytest.raises(EncodeError, match=r"^kwargs\['b'\]\[0\] cannot be stored"):
        codec.encode_call((1,), {"a": 1, "b": [LOCK]})


def cyclic_list() -> list[Any]:
    value: list[Any] = [1]
    value.append({"again": value})
    return value


def cyclic_box() -> Box[Any]:
    value: Box[Any] = Box(None)
    value.content = (value,)
    return value


def doubled() -> list[Any]:
    value: list[Any] = []
    value += [value, value]
    return value


@pytest.mark.parametrize("make", [cyclic_list, cyclic_box, doubled])
def test_a_value_that_contains_itself_is_refused(make: Any) -> None:
    """A cycle is called a cycle."""
    with pytest.raises(EncodeError, match="contains itself"):
        codec.encode(make())


def nested(depth: int, wrap: Any) -> Any:
    value: Any = None
    for _ in range(depth):
        value = wrap(value)
    return value


WRAPS = [lambda v: [v], lambda v: {"k": v}, lambda v: (v,), lambda v: frozenset({v}), Box, lambda v: [Box((v,))]]


@pytest.mark.parametrize("wrap", WRAPS[:3])
def test_a_hundred_thousand_levels_are_refused(wrap: Any) -> None:
    """Depth ends in an EncodeError with the limit and the reason, whatever the nesting is made of."""
    with pytest.raises(EncodeError, match="more than 100 levels deep"):
        codec.encode(nested(100_000, wrap))


@pytest.mark.parametrize("wrap", WRAPS)
def test_what_is_within_the_limit_can_also_be_read_back(wrap: Any) -> None:
    """The deepest value that can be written can be read, so that no run is blocked by its own values."""
    levels = 33 if wrap is WRAPS[-1] else 100
    value = nested(levels, wrap)
    assert codec.encode(codec.decode(codec.encode(value))) == codec.encode(value)
    with pytest.raises(EncodeError, match="levels deep"):
        codec.encode(nested(levels + 1, wrap))


def test_a_nearly_full_call_stack_is_no_crash() -> None:
    """Near the end of the stack there is an EncodeError or the value, and the next call works again."""

    def dive(levels: int) -> None:
        if levels:
            dive(levels - 1)
        else:
            codec.encode(nested(90, Box))

    seen = set()
    for levels in range(0, sys.getrecursionlimit(), 25):
        try:
            dive(levels)
        except EncodeError as error:
            seen.add(str(error))
        except RecursionError:
            break  # our own dive, before the codec was reached
    assert seen == {"value cannot be stored: the call stack is too deep to walk it"}
    assert codec.decode(codec.encode((1,))) == (1,)


def test_shared_parts_that_unfold_without_end_are_refused() -> None:
    """A value of thirty small lists that would be a thousand million items is refused in moments."""
    value: Any = (1,)
    for _ in range(30):
        value = (value, value)
    with pytest.raises(EncodeError, match="unfolds to more than 10000 items"):
        Codec(max_bytes=10_000).encode(value)


def test_a_long_path_is_cut_in_the_message_and_whole_in_the_fact() -> None:
    """A path of many steps does not bury the message."""
    with pytest.raises(EncodeError) as caught:
        codec.encode(nested(80, lambda v: [LOCK if v is None else v]))
    assert caught.value.path == "value" + "[0]" * 80
    assert len(str(caught.value)) < 500


def test_a_value_whose_repr_fails_can_still_be_named() -> None:
    """Naming a culprit inside a set does not depend on the culprit's own repr."""

    class Rude:
        def __repr__(self) -> str:
            raise ValueError("no")

    with pytest.raises(EncodeError, match="Rude whose repr raised ValueError"):
        codec.encode({Rude()})
