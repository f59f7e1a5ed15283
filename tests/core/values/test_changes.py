"""Classes change while values of theirs are stored: what is filled in, and what is said where nothing fits."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator
from typing import Any, NamedTuple

import attrs
import pydantic
import pytest

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.codec import Codec

codec = Codec()
Subject: Any = None


@pytest.fixture(autouse=True)
def no_subject() -> Iterator[None]:
    """Every test puts classes of its own under the name `Subject`."""
    yield
    globals()["Subject"] = None


def become(cls: Any) -> Any:
    """Let this module's `Subject` be `cls` from now on."""
    cls.__qualname__, cls.__module__ = "Subject", __name__
    globals()["Subject"] = cls
    return cls


@dataclasses.dataclass
class OldClass:
    a: int


@dataclasses.dataclass
class NewClass:
    a: int
    b: list[int] = dataclasses.field(default_factory=lambda: [1])
    c: str = "c"


@attrs.define
class NewAttrs:
    a: int
    b: int = attrs.field(default=attrs.Factory(lambda self: self.a + 1, takes_self=True))
    c: list[int] = attrs.Factory(list)


class NewTuple(NamedTuple):
    a: int
    b: int = 5


class NewModel(pydantic.BaseModel):
    a: int
    b: list[int] = pydantic.Field(default_factory=list)


@dataclasses.dataclass
class Wanting:
    a: int
    needed: int


@attrs.define
class Empty:
    pass


class WantingModel(pydantic.BaseModel):
    needed: int


class OldModel(pydantic.BaseModel):
    a: int


class WantingTuple(NamedTuple):
    a: int
    needed: int


class Before(enum.Enum):
    A = 1
    B = 2


class After(enum.Enum):
    A = "another value"


@pytest.mark.parametrize(
    ("now", "expected"),
    [(NewClass, NewClass(1, [1], "c")), (NewAttrs, NewAttrs(1, 2, [])), (NewTuple, NewTuple(1, 5))],
)
def test_new_fields_are_filled_from_their_defaults(now: Any, expected: object) -> None:
    """A field added with a default gets it, also where the class became one of another kind."""
    data = codec.encode(become(OldClass)(1))
    assert codec.decode(data) is not None
    become(now)
    assert codec.decode(data) == expected


def test_new_fields_of_models_are_filled_from_their_defaults() -> None:
    """The same for pydantic models; a field filled in does not count as set."""
    data = codec.encode(become(OldModel)(a=1))
    become(NewModel)
    again = codec.decode(data)
    assert (again.a, again.b, again.model_fields_set) == (1, [], {"a"})


@pytest.mark.parametrize(
    ("before", "now", "says"),
    [
        (OldClass, Wanting, r"has no field 'needed', which the class now wants"),
        (OldClass, WantingTuple, r"has no field 'needed', which the class now wants"),
        (OldClass, Empty, r"has field 'a', which the class no longer has"),
        (OldModel, WantingModel, r"needed.*now wants"),
    ],
)
def test_fields_that_do_not_fit_are_named(before: Any, now: Any, says: str) -> None:
    """A field without default that is missing, or one that is gone, is named in the DecodeError."""
    data = codec.encode(become(before)(a=1))
    become(now)
    with pytest.raises(DecodeError, match=says) as caught:
        codec.decode(data)
    assert caught.value.class_name == f"{__name__}:Subject"


def test_enum_members_are_known_by_name() -> None:
    """The value behind a member may change; a member that is gone is named."""
    become(Before)
    data, gone = codec.encode(Before.A), codec.encode(Before.B)
    become(After)
    assert codec.decode(data) is After.A
    with pytest.raises(DecodeError, match=r"Subject\.B, and the enum has no such member now"):
        codec.decode(gone)


@pytest.mark.parametrize("make", [lambda: become(OldClass)(1), lambda: become(Before).A, lambda: become(OldModel)(a=1)])
def test_a_class_that_is_gone_is_named_with_the_remedy(make: Any) -> None:
    """A class that is not there any more is named, and the message says to import it or to keep an alias."""
    data = codec.encode(make())
    globals()["Subject"] = None
    with pytest.raises(DecodeError, match=rf"Import {__name__} before opening the store; .* keep an alias"):
        codec.decode(data)


def test_a_renamed_class_is_found_under_its_old_name() -> None:
    """Both remedies work: an alias in the module, and the codec's own table."""
    data = codec.encode(become(OldClass)(1))
    globals()["Subject"] = NewClass  # an alias: found under the old name, calls itself otherwise
    assert codec.decode(data) == NewClass(1)
    globals()["Subject"] = None
    assert Codec(renamed={f"{__name__}:Subject": NewClass}).decode(data) == NewClass(1)


def test_a_class_that_is_no_data_class_any_more_is_said_to_be_that() -> None:
    """The name is there, but not what it was."""
    data = codec.encode(become(OldClass)(1))
    become(type("Subject", (), {}))
    with pytest.raises(DecodeError, match="no data class any more"):
        codec.decode(data)
