"""The codec's promise: what comes back is equal in value and type, from the same bytes in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from dalsegno.core.errors import BadOption, DecodeError, EncodeError
from dalsegno.core.values.codec import Codec
from dalsegno.core.values.plain import is_plain
from tests.core.values.zoo import EXAMPLES, Box, Cached, CachedSlot, Derived, Line, Order, same, zoo

ROOT = Path(__file__).resolve().parents[3]
codec = Codec()


class Reversed:
    """A layer that can be told from any other by where it stands in the chain."""

    def __init__(self, mark: bytes) -> None:
        self.mark = mark

    def encode(self, data: bytes, /) -> bytes:
        return self.mark + data[::-1]

    def decode(self, data: bytes, /) -> bytes:
        if data[:1] != self.mark:
            raise RuntimeError("not mine")
        return data[1:][::-1]


@pytest.mark.parametrize("value", EXAMPLES, ids=lambda value: type(value).__name__)
def test_each_example_comes_back_as_it_was(value: Any) -> None:
    """Every value of the zoo is equal in value and type after a round trip, and encodes to the same bytes again."""
    data = codec.encode(value)
    again = codec.decode(data)
    assert same(value, again)
    assert codec.encode(again) == data


@given(zoo())
@settings(deadline=None)
def test_any_value_comes_back_as_it_was(value: Any) -> None:
    """Values made at random, nested in one another, are equal in value and type after a round trip."""
    assert same(codec.decode(codec.encode(value)), value)


@given(zoo(max_leaves=5), zoo(max_leaves=5))
@settings(deadline=None)
def test_a_call_comes_back_as_it_was(a: Any, b: Any) -> None:
    """Arguments keep their places, names and types."""
    assert same(codec.decode_call(codec.encode_call((a, 1), {"b": b, "c": "x"})), ((a, 1), {"b": b, "c": "x"}))


@given(zoo())
@settings(deadline=None)
def test_plain_values_are_what_msgpack_carries_alone(value: Any) -> None:
    """The quick way and the careful way write the same bytes wherever the quick way is taken."""
    if is_plain(value):
        assert codec.encode(value) == codec._lowered(value, "value")


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    """Sets, flags and dicts of the zoo give the same bytes and digests under three PYTHONHASHSEEDs."""
    script = (
        "from dalsegno.core.values.codec import Codec\n"
        "from tests.core.values.zoo import EXAMPLES\n"
        "c = Codec()\n"
        "values = [*EXAMPLES, {str(i) for i in range(99)}, {frozenset(map(str, range(i))) for i in range(9)}]\n"
        "print([c.digest(c.encode(v)).hex() for v in values if 'pydantic' not in str(type(v).__mro__)])\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }
    assert len(outputs) == 1


def test_an_object_is_restored_without_running_its_constructor_again() -> None:
    """What `__post_init__` left beside the fields travels; what was computed or unset does not."""
    value = Derived(3)
    assert value.square == 9
    again = codec.decode(codec.encode(value))
    assert vars(again) == {"base": 3, "double": 6, "beside": ("not", "a field")}


@pytest.mark.parametrize("cls", [Cached, CachedSlot])
def test_a_hash_kept_in_an_object_is_not_stored(cls: Any) -> None:
    """A hash is another one in the next process, so it is left behind, and does not change the bytes."""
    fresh, used = cls("w"), cls("w")
    hash(used)
    assert codec.encode(used) == codec.encode(fresh)
    assert hash(codec.decode(codec.encode(used))) == hash(fresh)
    assert codec.decode(codec.encode({used: 1})) == {fresh: 1}


def test_a_payload_over_the_limit_is_refused_with_both_numbers() -> None:
    """A value that takes more bytes than allowed fails at once and says its size and the limit."""
    small = Codec(max_bytes=1000)
    with pytest.raises(EncodeError, match=r"1,003 bytes, and the limit is 1,000") as caught:
        small.encode(b"x" * 1000)
    assert (caught.value.size, caught.value.limit) == (1003, 1000)
    with pytest.raises(EncodeError, match="limit"):
        small.encode_call((b"x" * 1000,), {})


def test_layers_wrap_in_order_and_unwrap_in_reverse() -> None:
    """A chain of layers is applied to every payload and taken off again, errors and loose payloads included."""
    layered = Codec(layers=[Reversed(b"1"), Reversed(b"2")])
    data = layered.encode({"a": (1, 2)})
    assert data.startswith(b"\xc1L2")
    assert layered.decode(data) == {"a": (1, 2)}
    assert layered.decode_call(layered.encode_call((Line("a"),), {})) == ((Line("a"),), {})
    assert layered.decode(layered.from_json({"sku": "a"}), Line) == Line("a")
    assert layered.is_loose(layered.from_json(1))
    assert repr(layered.decode_error(layered.encode_error(KeyError("k")))) == "KeyError('k')"
    assert layered.describe_error(layered.encode_error(KeyError("k"))).type == "builtins:KeyError"
    assert layered.to_json(data) == {"a": {"$type": "tuple", "items": [1, 2]}}


def test_payloads_from_before_the_layers_are_still_read() -> None:
    """Switching compression on does not cut off what was stored without it."""
    assert Codec(layers=[Reversed(b"1")]).decode(codec.encode({1, 2})) == {1, 2}


def test_layered_payloads_need_the_same_layers() -> None:
    """A codec without the layers, or with others, says so in a DecodeError."""
    data = Codec(layers=[Reversed(b"1")]).encode(1)
    with pytest.raises(DecodeError, match="same layers"):
        codec.decode(data)
    with pytest.raises(DecodeError, match="not mine"):
        Codec(layers=[Reversed(b"2")]).decode(data)


def test_zstd_makes_large_payloads_small_and_refuses_bombs() -> None:
    """Compression round-trips, leaves small payloads alone, and never unpacks beyond its limit."""
    zstd = pytest.importorskip("dalsegno.core.values.zstd")
    packed = Codec(layers=[zstd.Zstd()])
    value = ["again and again"] * 1000
    assert len(packed.encode(value)) < 200
    assert packed.decode(packed.encode(value)) == value
    assert packed.decode(packed.encode(1)) == 1
    with pytest.raises(DecodeError, match="at most 100 bytes"):
        Codec(layers=[zstd.Zstd(max_bytes=100)]).decode(packed.encode(value))


def test_digest_is_short_stable_and_tells_payloads_apart() -> None:
    """A digest is eight bytes, the same for ever (it is in stored histories), and another for other bytes."""
    assert codec.digest(b"payload").hex() == "2ccb2999e1ae253d"
    assert codec.digest(codec.encode(1)) != codec.digest(codec.encode(1.0))


def test_a_codec_cannot_be_changed() -> None:
    """Codecs are shared between threads, so their options are fixed once made."""
    with pytest.raises(AttributeError):
        codec.max_bytes = 1  # type: ignore[misc]


def test_a_value_is_no_call() -> None:
    """Reading a value as the arguments of a call is a DecodeError, not a surprise later on."""
    with pytest.raises(DecodeError, match="not the arguments of a call"):
        codec.decode_call(codec.encode([1, 2, 3]))


def test_shared_parts_come_back_separately() -> None:
    """A list that is in a value twice is two equal lists afterwards, live as well as on replay."""
    part = [1]
    first, second = codec.decode(codec.encode((part, part)))
    assert first == second == part
    assert first is not second


def test_what_is_decoded_shares_nothing_with_what_was_encoded() -> None:
    """A workflow may change what it got without changing the step's own object."""
    value = Box([Order.__new__(Order)])
    value.content.clear()
    assert codec.decode(codec.encode(value)).content is not value.content


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_bytes": 0}, "max_bytes=0): takes a whole number of bytes, at least 1"),
        ({"max_bytes": "1 MiB"}, "takes a whole number of bytes"),
        ({"layers": 5}, "layers=5): takes a list of layers"),
        ({"layers": [len]}, "each with encode(data) and decode(data)"),
        ({"renamed": ["shop.old:Order"]}, "takes old names and classes"),
        ({"renamed": {"shop.old:Order": "Order"}}, "takes old names and classes"),
    ],
)
def test_a_wrong_codec_cannot_be_made(options: dict[str, Any], says: str) -> None:
    """An option of the wrong kind is refused where it is written, and not when the first payload comes."""
    with pytest.raises(BadOption) as raised:
        Codec(**options)
    assert says in str(raised.value)
