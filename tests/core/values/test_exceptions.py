"""Errors come back as they were, as far as that is possible and safe, and writing one never fails."""

from __future__ import annotations

import threading
from asyncio import CancelledError
from typing import Any

import attrs
import pytest
from hypothesis import given, settings

from dalsegno.core import errors
from dalsegno.core.errors import DecodeError, RemoteError
from dalsegno.core.values.codec import Codec
from tests.core.values.zoo import EXAMPLES, Line, same, zoo

codec = Codec()


class Plain(Exception):
    """An error as most people write them."""


class Demanding(Exception):
    """An error whose constructor wants what it does not pass on."""

    def __init__(self, code: int, *, where: str) -> None:
        super().__init__(f"{code} at {where}")
        self.code, self.where = code, where


class Slotted(Exception):
    """An error with slots."""

    __slots__ = ("line", "unset")

    def __init__(self, line: Line) -> None:
        super().__init__("slotted")
        self.line = line


@attrs.define(auto_exc=True)
class AttrsError(Exception):
    """An error made by attrs."""

    code: int
    line: Line = attrs.field(factory=lambda: Line("x"))


class Once(Exception):
    """An error that must not be constructed again."""

    made = 0

    def __new__(cls, *args: Any) -> Once:
        cls.made += 1
        return super().__new__(cls, *args)

    def __init__(self, *args: Any) -> None:
        type(self).made += 1
        super().__init__(*args)


class OwnOs(OSError):
    """A built-in error with state in C, below a constructor of the user's."""

    def __init__(self, path: str) -> None:
        super().__init__(5, "no luck", path)
        self.path = path


class Rude(Exception):
    """An error that fails at everything asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no str")

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


class Group(ExceptionGroup[Exception]):
    """A group of one's own."""


def trip(error: BaseException) -> Any:
    """Write an error and read it back."""
    return codec.decode_error(codec.encode_error(error))


def raised(error: BaseException, cause: BaseException | None = None) -> BaseException:
    """Raise an error, so that it has a traceback, and maybe a cause."""
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:
        return caught


@pytest.mark.parametrize(
    "error",
    [
        Plain(), Plain("why"), Plain(1, Line("a"), (2,)), ValueError("x"), KeyError("k"), Demanding(7, where="here"),
        Slotted(Line("a")), AttrsError(3), OwnOs("/x"), ZeroDivisionError(), ImportError("m", name="n", path="p"),
        FileNotFoundError(2, "No such file", "/x"), OSError(5, "both", "/a", None, "/b"), OSError("only text"),
        OSError(),
        BlockingIOError(11, "again", 3), NameError("n", name="nn"), AssertionError("a"), TimeoutError(),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), UnicodeEncodeError("ascii", "é", 0, 1, "bad"),
        SyntaxError("bad", ("f.py", 1, 2, "text", 1, 3)), errors.Permanent("p"), errors.TimedOut("t", after=3),
        errors.Cancelled("c"), errors.RemoteError("r", type_name="x:Y"),
    ],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_an_error_comes_back_as_it_was(error: Exception) -> None:
    """Type, message, arguments, attributes and the facts that C keeps are as they were."""
    again = trip(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert same(again.args, error.args)
    assert same(vars(again), vars(error))
    names = ("errno", "strerror", "filename", "filename2", "name", "path", "code", "line", "start", "object", "lineno")
    for name in names:
        assert getattr(again, name, None) == getattr(error, name, None)
    assert codec.encode_error(again) == codec.encode_error(error)


def test_every_read_gives_a_fresh_object_and_calls_no_constructor() -> None:
    """An error may be raised many times, each with a traceback of its own, without running the user's code."""
    data = codec.encode_error(Once("a"))
    made = Once.made
    first, second = codec.decode_error(data), codec.decode_error(data)
    assert first is not second
    assert Once.made == made
    assert first.__traceback__ is None


def test_cause_context_and_notes_are_kept() -> None:
    """The chain comes back with its types; a context that was suppressed does not."""
    error = raised(Plain("outer"), cause=raised(KeyError("inner")))
    error.add_note("note one")
    again = trip(error)
    assert (type(again.__cause__), again.__cause__.args) == (KeyError, ("inner",))
    assert again.__suppress_context__ is True
    assert again.__notes__ == ["note one"]
    try:
        try:
            raise KeyError("first")
        except KeyError:
            raise Plain("second")  # noqa: B904  # the implicit chain is the point
    except Plain as caught:
        again = trip(caught)
    assert (type(again.__context__), again.__cause__, again.__suppress_context__) == (KeyError, None, False)


def test_groups_keep_their_members() -> None:
    """An ExceptionGroup comes back with its members, groups inside groups and own group classes included."""
    group = ExceptionGroup("all", [Plain("a"), Group("some", [KeyError("b"), Demanding(1, where="x")])])
    again = trip(group)
    assert (type(again), again.message) == (ExceptionGroup, "all")
    assert [type(member) for member in again.exceptions] == [Plain, Group]
    assert [type(member) for member in again.exceptions[1].exceptions] == [KeyError, Demanding]
    assert again.exceptions[1].exceptions[1].where == "x"
    wrapped = trip(BaseExceptionGroup("base", [KeyboardInterrupt(), Plain("p")]))
    assert type(wrapped) is RemoteError
    assert [type(member) for member in wrapped.members] == [RemoteError, Plain]


@pytest.mark.parametrize(
    "error",
    [
        StopIteration(5),
        StopAsyncIteration(),
        GeneratorExit(),
        KeyboardInterrupt("k"),
        SystemExit(3),
        CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_may_not_be_thrown_into_a_generator_is_wrapped(error: BaseException) -> None:
    """These would end the generator or the program; they come back as a RemoteError naming the type."""
    again = trip(error)
    assert type(again) is RemoteError
    assert again.type_name.endswith(f":{type(error).__name__}")
    assert again.details["args"] == list(error.args)


def test_unknown_types_come_back_as_remote_errors() -> None:
    """An error of a class nobody can find keeps type name, message, details and traceback text."""

    class Local(Exception):
        pass

    error = raised(Local("gone", (1,)))
    error.extra = {1}  # type: ignore[attr-defined]
    again = trip(error)
    assert type(again) is RemoteError
    assert "test_unknown_types" in again.type_name
    assert "gone" in str(again)
    assert again.details == {"args": ["gone", (1,)], "extra": {1}}
    assert "Local: ('gone', (1,))" in again.traceback_text
    assert type(trip(raised(Plain("p"), cause=error)).__cause__) is RemoteError


def test_a_stored_name_that_is_no_error_makes_none() -> None:
    """A payload that calls a data class or a function an error gets a RemoteError."""
    data = codec.encode_error(Plain("x"))
    name = f"{__name__}:Plain".encode()
    for other in (b"os:system", b"builtins:int", b"enum:Enum"):
        swapped = codec.decode_error(data.replace(name, other.ljust(len(name), b"_")))
        assert type(swapped) is RemoteError


def test_what_cannot_be_stored_becomes_a_marker() -> None:
    """Locks in arguments and attributes leave their repr; the rest of the error is as it was."""
    error = Plain("why", threading.Lock(), 3)
    vars(error).update(lock=threading.Lock(), fine={"a": (1,)})
    again: Any = trip(error)
    assert isinstance(again, Plain)
    assert again.args[::2] == ("why", 3)
    assert again.args[1].startswith("<not stored: _thread.lock <unlocked")
    assert vars(again)["lock"].startswith("<not stored: _thread.lock")
    assert vars(again)["fine"] == {"a": (1,)}


def deep_chain() -> BaseException:
    error: BaseException = Plain("0")
    for number in range(5000):
        outer = Plain(str(number))
        outer.__cause__ = error
        outer.error = error  # type: ignore[attr-defined]
        error = outer
    return error


def circle() -> BaseException:
    one, two = Plain("one"), Plain("two")
    one.__cause__, two.__cause__ = two, one
    one.self, two.args = one, (one, two)  # type: ignore[attr-defined]
    return one


def cyclic_argument() -> BaseException:
    args: list[Any] = []
    args.append(args)
    return Plain(args)


@pytest.mark.parametrize(
    "make",
    [
        deep_chain, circle, cyclic_argument, lambda: Rude(Rude()), lambda: Plain("x" * 10_000_000),
        lambda: Plain(*["y" * 200_000] * 100), lambda: Plain("\ud800"), lambda: Demanding.__new__(Demanding),
        lambda: raised(Plain("z"), cause=Rude()), lambda: ExceptionGroup("many", [Plain(n) for n in range(5000)]),
    ],
    ids=range(10),
)  # fmt: skip
@pytest.mark.parametrize("limit", [100_000_000, 2000, 1])
def test_writing_an_error_never_fails(make: Any, limit: int) -> None:
    """Chains, circles, giants and errors that fail at everything are written, bounded, and read back."""
    error = make()
    small = Codec(max_bytes=limit)
    data = small.encode_error(error)
    assert len(data) <= max(min(limit, 8_000_000), 1000)
    assert type(small.decode_error(data)) is type(error)
    assert small.describe_error(data).type.endswith(type(error).__name__)
    assert codec.encode_error(codec.decode_error(data))


def test_an_error_is_described_without_its_class() -> None:
    """The summary has what people look for, in forms any tool can print, and needs no class to be there."""
    error = raised(Demanding(7, where="here"), cause=KeyError(Line("a")))
    error.add_note("look there")
    name = f"{__name__}:Demanding".encode()
    unknown = codec.encode_error(error).replace(name, b"gone.module:Gone".ljust(len(name), b"x"))
    summary = codec.describe_error(unknown)
    assert summary.type.startswith("gone.module:Gone")
    assert (summary.message, summary.notes) == ("7 at here", ["look there"])
    assert summary.attributes == {"code": 7, "where": "here"}
    assert "raise error from cause" in summary.traceback
    assert summary.cause is not None
    assert summary.cause.arguments == [{"$type": "tests.core.values.zoo:Line", "sku": "a", "count": 1}]
    with pytest.raises(DecodeError, match="a value, not an error"):
        codec.describe_error(codec.encode(1))
    with pytest.raises(DecodeError, match="a value, not an error"):
        codec.decode_error(codec.encode(1))


def test_errors_are_values_too() -> None:
    """An error inside a value, as in the outcomes of a `Map`, comes back as in `decode_error`."""
    first, second = codec.decode(codec.encode([Plain("a"), {"k": KeyError("b")}]))
    assert (type(first), first.args, type(second["k"])) == (Plain, ("a",), KeyError)


def test_an_error_in_an_attribute_is_kept() -> None:
    """`Permanent(error)` and its like hold another error, which comes back with its type."""
    again = trip(errors.Permanent(Plain("inner")))
    assert (type(again.error), type(again.__cause__), str(again)) == (Plain, Plain, "inner")


@given(zoo(max_leaves=4))
@settings(deadline=None)
def test_any_value_may_be_an_argument(value: Any) -> None:
    """Arguments and attributes of errors are values like all others."""
    error = Plain(value)
    error.attribute = value  # type: ignore[attr-defined]
    again = trip(error)
    assert same(again.args, (value,))
    assert same(again.attribute, value)


def test_all_examples_in_one_error() -> None:
    """The whole zoo fits into the arguments of one error."""
    assert same(trip(Plain(*EXAMPLES)).args, tuple(EXAMPLES))
