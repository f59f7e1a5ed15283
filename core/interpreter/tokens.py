"""Callback tokens: what is handed to somebody outside so that they can complete one callback and no other.

A token names run and command in the clear and carries a secret derived from the run's seed, so that it can be made
again on every replay, needs no table of its own, and cannot be guessed by whoever knows the names.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b

import attrs
import msgspec

from dalsegno.core.errors import InvalidToken


@attrs.frozen(slots=True)
class Token:
    """What a callback token says."""

    workflow_id: str
    generation: int
    id: str
    secret: bytes


def secret_of(seed: bytes, id: str) -> bytes:
    """The 16 secret bytes of the callback with this command id."""
    return blake2b(b"callback\0" + seed + id.encode(), digest_size=16).digest()


def make_token(workflow_id: str, generation: int, id: str, secret: bytes) -> str:
    """Write a token: URL-safe, without padding."""
    packed = msgspec.msgpack.encode([workflow_id, generation, id, secret])
    return base64.urlsafe_b64encode(packed).rstrip(b"=").decode()


def parse_token(token: str) -> Token:
    """Read a token. Raises `InvalidToken` for anything that `make_token` cannot have written.

    >>> parse_token(make_token("order-17", 0, "3", bytes(16))).id
    '3'
    """
    try:
        padded = token + "=" * (-len(token) % 4)
        packed = base64.b64decode(padded.encode("ascii"), altchars=b"-_", validate=True)
        fields = msgspec.msgpack.decode(packed, type=tuple[str, int, str, bytes])
        if len(fields[3]) == 16 and make_token(*fields) == token:
            return Token(*fields)
    except (AttributeError, TypeError, ValueError, binascii.Error, msgspec.MsgspecError):
        pass
    raise InvalidToken("this is not a callback token; was it cut off or mistyped?")
