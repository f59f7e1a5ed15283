"""How things look: payloads are short and bounded."""

from __future__ import annotations

from dalsegno.core.values.codec import Codec
from dalsegno.tools.render import brief, summary
from tests.tools.shop import Approval

CODEC = Codec()


def test_brief():
    """What has a type is written as Python would, the rest as JSON."""
    approval = CODEC.to_json(CODEC.encode({"a": (1, "x"), "b": Approval(True), "c": {1.5}}))
    assert brief(approval) == '{"a": (1, "x"), "b": Approval(granted=true, by=""), "c": set([1.5])}'


def test_summaries_are_bounded():
    """A long payload is cut, a huge one is not even read, an error is its type and message."""
    assert len(summary(CODEC.encode("x" * 500), CODEC)) == 60
    assert summary(CODEC.encode("x" * 100_000), CODEC) == "(100,005 bytes)"
    assert summary(CODEC.encode_error(KeyError("a")), CODEC, is_error=True) == "KeyError: 'a'"
    assert summary(b"\xc1", CODEC).startswith("(unreadable: ")
    assert summary(None, CODEC) == ""
    call = CODEC.encode_call((1,), {})
    assert summary(call, CODEC, is_call=True) == "[1]"
