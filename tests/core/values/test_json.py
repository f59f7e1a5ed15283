"""Payloads as JSON for tools, and JSON from outside as payloads."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import subprocess
import sys
import uuid
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

import attrs
import pydantic
import pytest
from hypothesis import given, settings

from dalsegno.core.errors import DecodeError, EncodeError
from dalsegno.core.values.codec import Codec
from tests.core.values.zoo import EXAMPLES, Access, Colour, Line, Outer, Pair, zoo

ROOT = Path(__file__).resolve().parents[3]
codec = Codec()


class Size(enum.Enum):
    SMALL = "s"


@attrs.frozen
class Item:
    sku: str
    count: int
    price: Decimal = Decimal(1)
    size: Size = Size.SMALL


@dataclasses.dataclass
class Parcel:
    id: uuid.UUID
    sent: dt.datetime
    items: list[Item]
    raw: bytes = b""
    wait: dt.timedelta | None = None
    tags: frozenset[str] = frozenset()
    sizes: dict[int, tuple[float, ...]] = dataclasses.field(default_factory=dict)


class Form(TypedDict):
    name: str


class Place(NamedTuple):
    x: int
    y: float = 1.5


class Model(pydantic.BaseModel):
    n: int


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": [1, None, "x", 1.5, True]}, {"a": [1, None, "x", 1.5, True]}),
        (Line("a", 2), {"$type": "tests.core.values.zoo:Line", "sku": "a", "count": 2}),
        (Pair(1, (2,)), {"$type": "tests.core.values.zoo:Pair", "left": 1, "right": {"$type": "tuple", "items": [2]}}),
        (Outer.Inner(1), {"$type": "tests.core.values.zoo:Outer.Inner", "value": 1}),
        ([float("nan")], [{"$type": "float", "value": "nan"}]),
        (Colour.RED, {"$type": "tests.core.values.zoo:Colour", "name": "RED"}),
        (Access(3), {"$type": "tests.core.values.zoo:Access", "value": 3}),
        (dt.datetime(2024, 5, 1, tzinfo=dt.UTC), {"$type": "datetime", "value": "2024-05-01T00:00:00+00:00"}),
        (Decimal("1.10"), {"$type": "Decimal", "value": "1.10"}),
        (b"hi", {"$type": "bytes", "base64": "aGk=", "text": "hi"}),
        ({1: 2}, {"$type": "dict", "items": [[1, 2]]}),
        ({(1,): 2}, {"$type": "dict", "items": [[{"$type": "tuple", "items": [1]}, 2]]}),
        ({"$type": 1}, {"$type": "dict", "items": [["$type", 1]]}),
        (2**70, 2**70),
        ("\ud800", {"$type": "str", "value": "\\ud800"}),
        (Model(n=1), {"$type": f"{__name__}:Model", "n": 1}),
    ],
)
def test_values_are_shown_as_people_would_write_them(value: Any, shown: object) -> None:
    """JSON where JSON has it, else an object that names the type; never mistakable for a dict of the user's."""
    assert codec.to_json(codec.encode(value)) == shown


@given(zoo())
@settings(deadline=None)
def test_any_value_can_be_shown(value: Any) -> None:
    """Everything that can be stored has a form that strict JSON takes."""
    json.dumps(codec.to_json(codec.encode(value)), allow_nan=False).encode()


def test_showing_needs_none_of_the_classes() -> None:
    """A process that never imported the zoo shows all of it."""
    payloads = [codec.encode(value).hex() for value in EXAMPLES] + [codec.encode_error(KeyError(Line("a"))).hex()]
    script = (
        "import json, sys\n"
        "from dalsegno.core.values.codec import Codec\n"
        "for line in sys.stdin: json.dumps(Codec().to_json(bytes.fromhex(line)), allow_nan=False)\n"
        "assert not any('zoo' in name or name == 'pydantic' for name in sys.modules)\n"
    )
    run = [sys.executable, "-c", script]
    subprocess.run(run, cwd=ROOT, input="\n".join(payloads), check=True, text=True)


PARCEL = {
    "id": "00000000-0000-0000-0000-000000000001",
    "sent": "2024-05-01T10:00:00+02:00",
    "items": [{"sku": "a", "count": 2, "price": "1.50", "size": "s"}],
    "raw": "aGk=",
    "wait": "PT90S",
    "tags": ["x"],
    "sizes": {"1": [1, 2.5]},
}


def test_loose_json_becomes_the_type_asked_for() -> None:
    """A nested class with dates, ids, enums, bytes and keys that are numbers is made of plain JSON."""
    sent = dt.datetime(2024, 5, 1, 8, tzinfo=dt.UTC)
    item = Item("a", 2, Decimal("1.50"))
    expected = Parcel(
        uuid.UUID(int=1), sent, [item], b"hi", dt.timedelta(seconds=90), frozenset({"x"}), {1: (1.0, 2.5)}
    )
    assert codec.decode(codec.from_json(PARCEL), Parcel) == expected


@pytest.mark.parametrize(
    ("given", "as_type", "expected"),
    [
        ({"name": "n"}, Form, {"name": "n"}),
        ([1, 2], Place, Place(1, 2.0)),
        ({"n": 1}, Model, Model(n=1)),
        ([{"n": 1}], list[Model], [Model(n=1)]),
        ("a", Literal["a", "b"], "a"),
        ("x", int | str, "x"),
        (None, int | None, None),
        ({"a": 1}, dict, {"a": 1}),
        ({"a": [1]}, Any, {"a": [1]}),
        ([1], object, [1]),
        (1, float, 1.0),
    ],
)
def test_loose_json_fits_many_types(given: Any, as_type: Any, expected: object) -> None:
    """What an annotation may say is understood; `Any` and `object` leave the JSON as it is."""
    result = codec.decode(codec.from_json(given), as_type)
    assert result == expected
    assert type(result) is type(expected)


@pytest.mark.parametrize(
    ("given", "as_type", "says"),
    [
        (
            {**PARCEL, "items": [{"sku": "a", "count": "many"}]},
            Parcel,
            r"does not fit Parcel: .*value\.items\[0\]\.count",
        ),
        ({"sku": "a", "count": 1, "cuont": 2}, Item, r"does not fit Item: .*cuont"),
        ({"sku": "a"}, Item, r"required field missing @ value\.count"),
        (1.5, int, r"does not fit int: .*Expected `int`"),
        (None, str, r"does not fit str"),
        ("c", Literal["a"], r"does not fit"),
        ({"n": "x"}, Model, r"does not fit Model"),
        (1, type(sys), r"does not fit module"),
    ],
)
def test_loose_json_that_does_not_fit_is_named_by_its_place(given: Any, as_type: Any, says: str) -> None:
    """The DecodeError says which type was wanted, where the JSON does not fit it, and how."""
    with pytest.raises(DecodeError, match=says):
        codec.decode(codec.from_json(given), as_type)


def test_loose_payloads_are_marked_and_others_ignore_the_type_asked_for() -> None:
    """Only what came from outside is structured; a value that knows its type keeps it."""
    loose = codec.from_json([1])
    assert codec.is_loose(loose)
    assert codec.decode(loose) == [1]
    assert not codec.is_loose(codec.encode([1]))
    assert codec.decode(codec.encode({"sku": "a"}), Item) == {"sku": "a"}


def test_a_loose_call_is_a_list_or_an_object() -> None:
    """From the command line a list gives positional and an object keyword arguments."""
    assert codec.decode_call(codec.from_json([1, "a"])) == ((1, "a"), {})
    assert codec.decode_call(codec.from_json({"n": 1})) == ((), {"n": 1})
    with pytest.raises(DecodeError, match="not the arguments of a call"):
        codec.decode_call(codec.from_json(5))


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), {"a": dt.date(2024, 1, 1)}])
def test_only_json_is_taken_as_json(value: object) -> None:
    """What JSON does not have is refused by `from_json`."""
    with pytest.raises(EncodeError, match="it is not JSON"):
        codec.from_json(value)
