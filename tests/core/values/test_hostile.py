"""Bytes are not trusted: whatever they are, there is a value or a DecodeError, and nothing is imported or run."""

from __future__ import annotations

import resource
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from dalsegno.core.errors import DecodeError
from dalsegno.core.values import wire
from dalsegno.core.values.codec import Codec
from tests.core.values.zoo import EXAMPLES, zoo

ROOT = Path(__file__).resolve().parents[3]
codec = Codec()
pack = msgspec.msgpack.Encoder().encode


def read_every_way(data: bytes) -> None:
    """Read `data` by every method there is; any error but a DecodeError gets out."""
    for read in (codec.decode, codec.decode_call, codec.decode_error, codec.describe_error, codec.to_json):
        try:
            read(data)
        except DecodeError:
            pass


def packed_with_extensions() -> st.SearchStrategy[bytes]:
    """Well-formed msgpack with extension records of every code and any body: past the parser, into the carriers."""
    names = st.sampled_from(
        ["builtins:int", "os:system", "tests.core.values.zoo:Line", "no:such", "", ":", "enum:Enum"]
    )
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(), st.text(), st.binary(), names
    )
    bodies = st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=6),
            st.dictionaries(st.one_of(st.text(max_size=3), st.sampled_from(["type", "args", "cause", "x"])), inner),
            st.builds(lambda code, body: Ext(code, pack(body)), st.integers(0, 30), inner),
        ),
        max_leaves=12,
    )
    return bodies.map(pack)


@given(st.binary(max_size=200))
@example(b"")
@example(b"\xc1")
@example(b"\xc1L")
@example(b"\xc1J")
@example(b"\xc1J\xc1J\x01")
@settings(deadline=None)
def test_garbage_is_a_decode_error(data: bytes) -> None:
    """Random bytes end in a value or a DecodeError."""
    read_every_way(data)


@given(packed_with_extensions())
@settings(deadline=None, max_examples=500)
def test_well_formed_nonsense_is_a_decode_error(data: bytes) -> None:
    """Extension records with bodies nobody wrote end in a value or a DecodeError."""
    read_every_way(data)


@given(zoo(max_leaves=8), st.data())
@settings(deadline=None)
def test_damage_is_a_decode_error(value: Any, data: st.DataObject) -> None:
    """A payload cut short, or with a byte changed, ends in a value or a DecodeError."""
    payload = bytearray(codec.encode(value))
    read_every_way(bytes(payload[: data.draw(st.integers(0, len(payload)))]))
    payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    read_every_way(bytes(payload))


@pytest.mark.parametrize(
    "data",
    [
        b"\x91" * 1_000_000,
        b"\x81\xa1k" * 100_000,
        b"\xdd\xff\xff\xff\xff\x01",
        b"\xdf\xff\xff\xff\xff\x01\x01",
        b"\xc6\xff\xff\xff\xff\x01",
        b"\xdb\xff\xff\xff\xffx",
        b"\xdc\xff\xff" * 900,
        pack(Ext(wire.DECIMAL, pack("1E" + "9" * 30))),
        pack(Ext(wire.ZONEINFO, pack("../../etc/passwd"))),
        pack(Ext(wire.SET, pack([[1]]))),
        pack(Ext(wire.MAP, pack([1]))),
        pack(Ext(99, pack(1))),
    ],
    ids=range(12),
)
def test_known_attacks_are_decode_errors(data: bytes) -> None:
    """Depth, false lengths and bodies that constructors choke on are a DecodeError and take no memory to speak of."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DecodeError):
        codec.decode(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


def test_extensions_nested_without_end_are_a_decode_error() -> None:
    """A thousand tuples inside one another, which no encoder of ours writes, do not exhaust the stack."""
    data = pack(None)
    for _ in range(5000):
        data = pack(Ext(wire.TUPLE, pack([msgspec.Raw(data)])))
    with pytest.raises(DecodeError, match="recursion limit"):
        codec.decode(data)


def test_anything_but_bytes_is_a_decode_error() -> None:
    """A str or None where a payload should be is said to be that."""
    for wrong in ("text", None, 5):
        with pytest.raises(DecodeError, match="a payload is bytes"):
            codec.decode(wrong)  # type: ignore[arg-type]


def test_bytes_may_come_as_a_view() -> None:
    """Stores hand out memoryviews and bytearrays; both are read."""
    for value in ({"a": 1}, (1, 2)):
        data = codec.encode(value)
        assert codec.decode(memoryview(data)) == codec.decode(bytearray(data)) == value  # type: ignore[arg-type]
    assert codec.decode(memoryview(codec.from_json([1])), list[float]) == [1.0]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["os:system", "builtins:int", "builtins:object", "subprocess:Popen", "enum:Enum.mro"])
@pytest.mark.parametrize(("code", "rest"), [(wire.RECORD, [{}]), (wire.ENUM, ["A"]), (wire.MODEL, [0, {}])])
def test_only_data_classes_are_made(name: str, code: int, rest: list[Any]) -> None:
    """A name of a function, or of a class that is no data class, makes nothing."""
    with pytest.raises(DecodeError, match=r"no data class any more|no such class"):
        codec.decode(pack(Ext(code, pack([name, *rest]))))


def test_decoding_imports_nothing() -> None:
    """Reading records of modules that are not imported leaves `sys.modules` as it was."""
    script = (
        "import sys\n"
        "from dalsegno.core.errors import DecodeError\n"
        "from dalsegno.core.values import wire\n"
        "from dalsegno.core.values.codec import Codec\n"
        "codec, before = Codec(), set(sys.modules)\n"
        "for code in range(1, 30):\n"
        "    for name in ('this:s', 'antigravity:x', 'xml.dom.minidom:Document', 'tests.core.values.zoo:Line'):\n"
        "        for body in ([name, {}], [name, {}, {}], {'type': name, 'message': 'm'}):\n"
        "            data = wire.pack(wire.Ext(code, wire.pack(body)))\n"
        "            for read in (codec.decode, codec.to_json, codec.describe_error):\n"
        "                try: read(data)\n"
        "                except DecodeError: pass\n"
        "print(sorted(set(sys.modules) - before))\n"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, check=True, text=True)
    assert run.stdout == "[]\n"


def test_finding_a_class_runs_no_getattr() -> None:
    """A module whose `__getattr__` would import on demand is not asked."""

    class Lazy(types.ModuleType):
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"asked for {name}")

    sys.modules["lazy_zoo"] = Lazy("lazy_zoo")
    try:
        with pytest.raises(DecodeError, match="no such class here"):
            codec.decode(pack(Ext(wire.RECORD, pack(["lazy_zoo:Thing", {}]))))
    finally:
        del sys.modules["lazy_zoo"]


def test_attributes_of_restored_objects_are_attributes() -> None:
    """A payload cannot set `__class__` or other double-underscore names of what it makes."""
    for code, body in (
        (wire.RECORD, ["tests.core.values.zoo:Derived", {"base": 1, "double": 2}, {"__class__": 1}]),
        (wire.ERROR, {"type": "builtins:ValueError", "attributes": {"__class__": 1}}),
    ):
        with pytest.raises(DecodeError, match="no attribute's name"):
            codec.decode(pack(Ext(code, pack(body))))


def test_every_example_cut_anywhere_is_a_decode_error() -> None:
    """No prefix of a payload of the zoo is taken for something else than damage."""
    for value in EXAMPLES:
        data = codec.encode(value)
        for end in range(min(len(data), 60)):
            with pytest.raises(DecodeError):
                codec.decode(data[:end])
