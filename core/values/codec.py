"""The codec: every value that enters a history goes through it, and comes back equal in value and type.

>>> codec = Codec()
>>> codec.decode(codec.encode({"due": (1, 2.5), "tags": {"a"}}))
{'due': (1, 2.5), 'tags': {'a'}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import attrs

from dalsegno.core.errors import BadOption, DecodeError, EncodeError
from dalsegno.core.values import wire
from dalsegno.core.values.exceptions import ErrorSummary, bare
from dalsegno.core.values.layers import PayloadLayer
from dalsegno.core.values.lowering import Walk
from dalsegno.core.values.plain import is_plain
from dalsegno.core.values.reading import Reader, as_decode_error
from dalsegno.core.values.refusal import Refusal
from dalsegno.core.values.rendering import render, render_error
from dalsegno.core.values.wire import SCALARS, pack

_all_scalars = SCALARS.issuperset
# What the packer raises for scalars it cannot carry (a huge int, a lone surrogate), and where the stack is nearly full.
_NOT_PACKED = (OverflowError, UnicodeEncodeError, RecursionError)


def _fixed(layers: Sequence[PayloadLayer]) -> tuple[PayloadLayer, ...]:
    if not (isinstance(layers, Sequence) and all(isinstance(layer, PayloadLayer) for layer in layers)):
        raise BadOption(f"Codec(layers={layers!r}): takes a list of layers, each with encode(data) and decode(data)")
    return tuple(layers)


def _copied(renamed: Mapping[str, type]) -> Mapping[str, type]:
    if not (isinstance(renamed, Mapping) and all(isinstance(kind, type) for kind in renamed.values())):
        raise BadOption(f"Codec(renamed={renamed!r}): takes old names and classes, like {{'shop.old:Order': Order}}")
    return dict(renamed)


@attrs.frozen
class Codec:
    """Values to bytes and back. Immutable; one codec serves any number of threads.

    * `layers` wrap every payload, in order, and are taken off in reverse; payloads from before they were configured can
      still be read.
    * `max_bytes` is what one payload (the arguments of a call, a result, a signal) may have before layers: 32 MiB
      unless told. More is an `EncodeError` at the line that passed it, at once: a step is not tried again for it. What
      is stored already is read whatever its size; but lower it only when no run is open that passed more, for a replay
      passes its values again.
    * `renamed` gives the classes that were stored under names they no longer have: `{"shop.old:Order": Order}`.

    Hand the same one to every engine, client and tool of a store. Raises `BadOption`.

    >>> codec = Codec(max_bytes=10)
    >>> codec.decode(codec.encode({1, 2}))
    {1, 2}
    >>> codec.encode("a report of ten pages")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.EncodeError: value cannot be stored: it takes 22 bytes, and the limit is 10. Keep it ...
    """

    layers: Sequence[PayloadLayer] = attrs.field(default=(), converter=_fixed)
    max_bytes: int = wire.MAX_BYTES
    renamed: Mapping[str, type] = attrs.field(factory=dict, converter=_copied, hash=False)
    _reader: Reader = attrs.field(init=False, repr=False, eq=False)
    _unpack: Callable[[Any], Any] = attrs.field(init=False, repr=False, eq=False)
    _converter: Any = attrs.field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if isinstance(self.max_bytes, bool) or not isinstance(self.max_bytes, int) or self.max_bytes < 1:
            raise BadOption(f"Codec(max_bytes={self.max_bytes!r}): takes a whole number of bytes, at least 1")
        reader = Reader(self.renamed)
        object.__setattr__(self, "_reader", reader)
        object.__setattr__(self, "_unpack", reader.unpack)
        object.__setattr__(self, "_converter", None)

    # --- values ----------------------------------------------------------------------------------------------------

    def encode(self, value: object) -> bytes:
        """Write a value. `EncodeError` names the path to whatever in it cannot be stored, and what to do instead.

        >>> Codec().encode({"id": 7, "step": print})  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        dalsegno.core.errors.EncodeError: value['step'] cannot be stored: it is code ...
        """
        try:
            data = pack(value) if is_plain(value) else self._lowered(value, "value")
        except _NOT_PACKED:
            data = self._lowered(value, "value")
        if self.layers or len(data) > self.max_bytes:
            return self._wrapped(data)
        return data

    def decode(self, data: bytes, as_type: Any = Any) -> Any:
        """Read a value. `as_type` says what to make of a loose payload (see `from_json`); others know their type.

        `DecodeError` when the bytes are damaged, or when a class in them is not here or has changed.
        """
        try:
            return self._unpack(data)
        except Exception as error:  # a frame, which is rare, or a payload that cannot be read
            failure = error
        return self._decode_framed(data, as_type, failure)

    def seal(self, plain: bytes) -> bytes:
        """Make a payload of this codec's out of one that a codec without layers wrote, in another process perhaps.
        `EncodeError` where it is larger than this one allows.

        >>> codec = Codec()
        >>> codec.seal(Codec().encode(5)) == codec.encode(5)
        True
        """
        return self._wrapped(plain) if self.layers or len(plain) > self.max_bytes else plain

    def encode_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """Write the arguments of a call. Paths in an `EncodeError` start at `args` or `kwargs`."""
        try:
            if _all_scalars(map(type, args)) and (not kwargs or is_plain(kwargs)):
                data = pack((args, kwargs))
            else:
                data = self._lowered_call(args, kwargs)
        except _NOT_PACKED:
            data = self._lowered_call(args, kwargs)
        if self.layers or len(data) > self.max_bytes:
            return self._wrapped(data)
        return data

    def decode_call(self, data: bytes) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Read the arguments of a call. In a loose payload a list holds positional and an object keyword arguments.

        >>> codec = Codec()
        >>> codec.decode_call(codec.encode_call((5,), {"by": 2}))
        ((5,), {'by': 2})
        """
        call = self.decode(data)
        if data[:1] == wire.FRAME and self.is_loose(data):
            call = [call, {}] if type(call) is list else [[], call]
        if type(call) is list and len(call) == 2 and type(call[0]) is list and type(call[1]) is dict:
            return tuple(call[0]), call[1]
        raise DecodeError("the payload is a value, not the arguments of a call")

    # --- errors ----------------------------------------------------------------------------------------------------

    def encode_error(self, exc: BaseException) -> bytes:
        """Write an error: type, message, arguments, attributes, notes, chain, members, traceback text. Never refuses:
        what cannot be stored of it is replaced by a marker showing its repr."""
        try:
            return self.encode(exc)
        except EncodeError:  # larger than this codec allows, or the stack was nearly used up
            return self._layered(pack(wire.Ext(wire.ERROR, pack(bare(exc)))))

    def decode_error(self, data: bytes) -> BaseException:
        """Read an error: a fresh object at every call, made without calling its `__init__`. A type that is not known
        here, or may not be thrown into a generator, comes back as `RemoteError`.

        >>> codec = Codec()
        >>> codec.decode_error(codec.encode_error(ZeroDivisionError("by zero")))
        ZeroDivisionError('by zero')
        """
        error = self.decode(data)
        if isinstance(error, BaseException):
            return error
        raise DecodeError("the payload is a value, not an error")

    def describe_error(self, data: bytes) -> ErrorSummary:
        """Read an error as data for people. Needs none of its classes."""
        try:
            summary = render_error(self._open(data)[0])
        except Exception as error:
            raise as_decode_error(error, data) from error
        if summary is None:
            raise DecodeError("the payload is a value, not an error")
        return summary

    # --- bytes and JSON --------------------------------------------------------------------------------------------

    def digest(self, data: bytes) -> bytes:
        """Give 8 bytes that tell payloads apart: the same in every process, under any PYTHONHASHSEED."""
        return blake2b(data, digest_size=8).digest()

    def to_json(self, data: bytes) -> object:
        """Give a payload as JSON for people and tools. Needs none of its classes.

        >>> codec = Codec()
        >>> codec.to_json(codec.encode({"due": (1, 2)}))
        {'due': {'$type': 'tuple', 'items': [1, 2]}}
        """
        try:
            return render(self._open(data)[0])
        except Exception as error:
            raise as_decode_error(error, data) from error

    def from_json(self, obj: object) -> bytes:
        """Write JSON that came from outside as a loose payload, to be structured when it is read.

        >>> codec = Codec()
        >>> codec.decode(codec.from_json([1, "x"]), as_type=tuple[float, str])
        (1.0, 'x')
        """
        try:
            plain = json.loads(json.dumps(obj))
        except (TypeError, ValueError, RecursionError) as error:
            raise EncodeError(f"value cannot be stored: it is not JSON ({error})", path="value") from None
        data = self._lowered(plain, "value")
        return self._wrapped(wire.FRAME_LOOSE + data)

    def is_loose(self, data: bytes) -> bool:
        """Say whether a payload was made by `from_json`."""
        return bytes(data[:1]) == wire.FRAME and self._open(data)[1]

    def structure(self, obj: object, as_type: Any) -> Any:
        """Make a typed value of JSON, as `decode` does for a loose payload. `DecodeError` names what does not fit."""
        if as_type is Any:
            return obj
        from dalsegno.core.values.loose import make_loose_converter, structure

        if self._converter is None:
            object.__setattr__(self, "_converter", make_loose_converter())
        return structure(self._converter, obj, as_type)

    # --- inside ----------------------------------------------------------------------------------------------------

    def _lowered(self, value: object, root: str) -> bytes:
        return pack(self._walked(lambda walk: walk.lower(value), root))

    def _lowered_call(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        positional = self._walked(lambda walk: walk.each(args), "args")
        return pack((positional, self._walked(lambda walk: walk.named(kwargs), "kwargs")))

    def _walked(self, lower: Callable[[Walk], Any], root: str) -> Any:
        try:
            return lower(Walk(self.max_bytes))
        except Refusal as refusal:
            raise refusal.as_error(root) from None
        except RecursionError:
            raise EncodeError(f"{root} cannot be stored: the call stack is too deep to walk it", path=root) from None
        except Exception as error:  # code of the value's own: a property, a serializer
            raise EncodeError(f"{root} cannot be stored: reading it raised {error!r}", path=root) from error

    def _wrapped(self, data: bytes) -> bytes:
        if len(data) > self.max_bytes:
            raise EncodeError(
                f"value cannot be stored: it takes {len(data):,} bytes, and the limit is {self.max_bytes:,}. Keep it "
                "in a file or an object store and pass where it is, or raise Codec(max_bytes=...).",
                path="value",
                size=len(data),
                limit=self.max_bytes,
            )
        return self._layered(data)

    def _layered(self, data: bytes) -> bytes:
        if not self.layers:
            return data
        for layer in self.layers:
            data = layer.encode(data)
        return wire.FRAME_LAYERED + data

    def _open(self, data: Any) -> tuple[Any, bool]:
        """Take off layers and frame: the msgpack inside, and whether it is loose."""
        if bytes(data[:2]) == wire.FRAME_LAYERED:
            if not self.layers:
                raise DecodeError("the payload went through layers, and this codec has none. Give it the same layers.")
            data = bytes(data[2:])
            for layer in reversed(self.layers):
                data = layer.decode(data)
        if bytes(data[:2]) == wire.FRAME_LOOSE:
            return data[2:], True
        return data, False

    def _decode_framed(self, data: Any, as_type: Any, error: Exception) -> Any:
        try:
            if bytes(data[:1]) != wire.FRAME:
                raise error
            inner, is_loose = self._open(data)
            value = self._unpack(inner)
        except Exception as reason:
            raise as_decode_error(reason, data) from reason
        return self.structure(value, as_type) if is_loose else value
