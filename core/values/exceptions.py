"""Errors: type, message, arguments, attributes, notes, cause, context, members, and the traceback as text for people.

Writing an error never fails: what cannot be stored of it is replaced by a marker showing its repr, and long things are
cut. An error is often the only witness of what went wrong, so half of it is better than none.

Reading one makes a fresh object each time and never calls a constructor of the user's, which may want arguments nobody
has, or do things. Only the C part below the class is initialised, because `OSError` and `UnicodeDecodeError` keep their
facts there. A class that is not known here, and one that may not be thrown into a generator (`StopIteration` would
end it, `KeyboardInterrupt` would end the program), come back as `RemoteError`.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from types import MemberDescriptorType
from typing import Any, Final

import attrs

from dalsegno.core.errors import Cancelled, DecodeError, RemoteError
from dalsegno.core.values import wire
from dalsegno.core.values.carrier import Carrier, Lowering, Restoring
from dalsegno.core.values.classes import name_of
from dalsegno.core.values.refusal import short_repr
from dalsegno.core.values.shapes import HEAP_TYPE
from dalsegno.core.values.wire import pack

CHAIN_MAX: Final = 16  # errors inside one another; a chain longer than this is a loop somewhere
ERRORS_MAX: Final = 512  # errors in one tree, so that causes that are attributes as well cannot double without end
TEXT_MAX: Final = 8 * 1024  # characters of one traceback: some 60 frames
MESSAGE_MAX: Final = 64 * 1024
PART_MAX: Final = 256 * 1024  # bytes of one argument or attribute
TREE_MAX: Final = 4 * 1024 * 1024  # bytes of one error with all its causes
MARKER_MAX: Final = 200

NOT_THROWN: Final = (StopIteration, StopAsyncIteration, GeneratorExit)


@attrs.frozen
class ErrorSummary:
    """A stored error as people want to see it; making one needs none of its classes."""

    type: str
    message: str
    traceback: str = ""
    arguments: list[object] = attrs.Factory(list)
    attributes: dict[str, object] = attrs.Factory(dict)
    notes: list[str] = attrs.Factory(list)
    cause: ErrorSummary | None = None
    context: ErrorSummary | None = None
    members: list[ErrorSummary] = attrs.Factory(list)


# --- writing -------------------------------------------------------------------------------------------------------


class _Account:
    """What one error may still spend, and which errors are being written at the moment."""

    def __init__(self) -> None:
        self.errors = ERRORS_MAX
        self.bytes = TREE_MAX
        self.open: set[int] = set()

    def admits(self, error: BaseException | None) -> bool:
        return error is not None and self.errors > 0 and len(self.open) < CHAIN_MAX and id(error) not in self.open

    def text(self, text: str, limit: int) -> str:
        """Cut the middle out of a long text; give nothing of it when the account is used up."""
        if len(text) > limit:
            text = f"{text[: limit // 2]}\n... {len(text) - limit} characters ...\n{text[-limit // 2 :]}"
        text = text if len(text) <= self.bytes else ""
        self.bytes -= len(text)
        return text


def _lower_error(error: BaseException, walk: Lowering) -> object:
    outermost = walk.account is None
    if outermost:
        walk.account = _Account()
    try:
        if not walk.account.admits(error):
            return bare(error)
        return _node(error, walk)
    finally:
        if outermost:
            walk.account = None


def bare(error: BaseException) -> dict[str, str]:
    """Give what is left of an error when there is no room for more: its type, and the beginning of its message."""
    return {"type": name_of(type(error)), "message": _printable(_message(error)[:MARKER_MAX])}


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _node(error: BaseException, walk: Lowering) -> dict[str, Any]:
    account: _Account = walk.account
    account.errors -= 1
    account.open.add(id(error))
    node: dict[str, Any] = {
        "type": name_of(type(error)),
        "message": walk.lower(account.text(_message(error), MESSAGE_MAX)),
        "args": [_part(item, walk) for item in _arguments(error)],
        "attributes": {name: _part(item, walk) for name, item in _attributes(error)},
        "notes": [_part(note, walk) for note in _listed(error, "__notes__")],
        "traceback": walk.lower(account.text(_traceback(error), TEXT_MAX)),
        "suppress": error.__suppress_context__,
    }
    if account.admits(error.__cause__):
        node["cause"] = _node(error.__cause__, walk)  # type: ignore[arg-type]  # admitted, so not None
    if not error.__suppress_context__ and account.admits(error.__context__):
        node["context"] = _node(error.__context__, walk)  # type: ignore[arg-type]
    if isinstance(error, BaseExceptionGroup):
        node["members"] = [_node(member, walk) for member in error.exceptions if account.admits(member)]
    account.open.discard(id(error))
    return {key: item for key, item in node.items() if item not in ("", [], {}, False)}


def _part(value: Any, walk: Lowering) -> Any:
    """An argument or attribute, or the marker that stands for it."""
    depth = walk.depth
    try:
        lowered = walk.lower(value)
        size = len(pack(lowered))
        if size > PART_MAX or size > walk.account.bytes:
            raise ValueError("too large")
    except Exception:  # a Refusal, or whatever the value's own code raises: the error must be written all the same
        walk.depth = depth
        kind = type(value)
        marker = f"<not stored: {kind.__module__}.{kind.__qualname__} {short_repr(value, MARKER_MAX)}>"
        lowered = _printable(marker)
        size = len(lowered)
    walk.account.bytes -= size
    return lowered


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as second:  # the class's own __str__ is code like any other
        return f"<{type(error).__name__} whose str raised {type(second).__name__}>"


def _arguments(error: BaseException) -> tuple[Any, ...]:
    args: tuple[Any, ...] = error.args
    if isinstance(error, BaseExceptionGroup):
        return (error.message,)
    if isinstance(error, OSError) and len(args) == 2 and error.filename is not None:
        return (*args, error.filename, None, error.filename2)  # OSError takes them out of its args, and wants them back
    return args


def _attributes(error: BaseException) -> Iterator[tuple[str, Any]]:
    """The instance's `__dict__`, and what is kept in slots, the user's and those of built-in errors alike."""
    own = getattr(error, "__dict__", None)
    if isinstance(own, dict):
        yield from ((name, item) for name, item in own.items() if _is_attribute(name))
    for base in type(error).__mro__:
        for name, slot in vars(base).items():
            # `obj` of an AttributeError is whatever was asked for the attribute: any object of the program.
            if isinstance(slot, MemberDescriptorType) and _is_attribute(name) and name not in ("exceptions", "obj"):
                try:
                    item = slot.__get__(error, type(error))
                except AttributeError:
                    continue  # a slot never set
                if item is not None:
                    yield name, item


def _is_attribute(name: object) -> bool:
    return isinstance(name, str) and name.isidentifier() and not name.startswith("__")


def _listed(error: BaseException, name: str) -> list[Any]:
    found = getattr(error, name, None)
    return list(found) if isinstance(found, (list, tuple)) else []


def _traceback(error: BaseException) -> str:
    if error.__traceback__ is None:
        return ""
    try:
        return "".join(traceback.format_exception(error, chain=False))
    except Exception:
        return "".join(traceback.format_tb(error.__traceback__))


# --- reading -------------------------------------------------------------------------------------------------------


def _restore_error(node: Any, reader: Restoring) -> BaseException:
    name, message = node["type"], node.get("message", "")
    args, attributes = node.get("args", []), node.get("attributes", {})
    members = [_restore_error(member, reader) for member in node.get("members", ())]
    cls = reader.find(name)
    if cls is None or not _may_be_thrown(cls):
        error: BaseException = RemoteError(
            f"{name}: {message}" if message else name,
            type_name=name,
            details={"args": args, **attributes},
            traceback_text=node.get("traceback", ""),
        )
        if members:
            error.members = members  # type: ignore[attr-defined]
    else:
        error = _instance(cls, tuple(args), members)
        for key, item in attributes.items():
            if not _is_attribute(key):
                raise DecodeError(f"the stored {name} carries {key!r}, which is no attribute's name")
            try:
                object.__setattr__(error, key, item)
            except (AttributeError, TypeError):
                pass  # a slot that is gone since, or one of C's that is read-only
    _restore_links(error, node, reader)
    return error


def _may_be_thrown(cls: type) -> bool:
    return issubclass(cls, Cancelled) or (issubclass(cls, Exception) and not issubclass(cls, NOT_THROWN))


def _instance(cls: type[BaseException], args: tuple[Any, ...], members: list[BaseException]) -> BaseException:
    """Make the object through the built-in class below `cls`, whose constructors are C and only store what they get."""
    native: Any = next(base for base in cls.__mro__ if not base.__flags__ & HEAP_TYPE)
    if issubclass(cls, BaseExceptionGroup):
        given: tuple[Any, ...] = (str(args[0]) if args else "", members or [RemoteError("its members were not stored")])
    else:
        given = args
    error: BaseException = native.__new__(cls, *given)
    try:
        native.__init__(error, *given)
    except TypeError:  # a subclass of, say, UnicodeDecodeError that never called its base with all five
        error.args = given
    return error


def _restore_links(error: BaseException, node: Any, reader: Restoring) -> None:
    for note in node.get("notes", ()):
        error.add_note(str(note))
    if "cause" in node:
        error.__cause__ = _restore_error(node["cause"], reader)
    if "context" in node:
        error.__context__ = _restore_error(node["context"], reader)
    error.__suppress_context__ = bool(node.get("suppress", False))


# --- showing -------------------------------------------------------------------------------------------------------


def summarize(node: Any) -> ErrorSummary:
    """Make the summary of a node whose parts are JSON forms already."""
    cause, context = node.get("cause"), node.get("context")
    return ErrorSummary(
        type=node["type"],
        message=node.get("message", ""),
        traceback=node.get("traceback", ""),
        arguments=node.get("args", []),
        attributes=node.get("attributes", {}),
        notes=[str(note) for note in node.get("notes", [])],
        cause=None if cause is None else summarize(cause),
        context=None if context is None else summarize(context),
        members=[summarize(member) for member in node.get("members", [])],
    )


def _show_error(node: Any) -> object:
    return {"$type": node["type"], "$error": {key: item for key, item in node.items() if key != "type"}}


ERROR = Carrier(wire.ERROR, None, _lower_error, _restore_error, _show_error)
