"""What events carry, as text for a page: values as JSON, errors as their tracebacks with what caused them. Bounded.

A page is opened by people who may not have asked for fifty megabytes of one payload, so each is cut, with its whole
size named, and what is larger still is not even decoded. `full` lifts both limits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import attrs

from dalsegno.core.errors import DecodeError
from dalsegno.core.values.codec import Codec
from dalsegno.core.values.exceptions import ErrorSummary
from dalsegno.tools.text import as_json, clean_lines, size
from dalsegno.tools.timeline import Row

TEXT_MAX: Final = 64 * 1024
"""Characters of one payload: some thousand lines, more than one reads on a page."""

DECODED_MAX: Final = 4 * 1024 * 1024
"""Bytes of a payload that is decoded to show the beginning of it."""

TOGETHER_MAX: Final = 32 * 1024 * 1024
"""Characters of all payloads of a page, after which they are only named: browsers hold more, mail does not."""


@attrs.frozen
class Shown:
    """A payload as text. `cut` says what is missing of it, and is empty where nothing is."""

    text: str
    cut: str = ""


@attrs.define
class Payloads:
    """Turns payloads into text, and keeps count of how much that is by now."""

    codec: Codec
    full: bool = False
    characters: int = 0

    def shown(self, row: Row) -> Shown | None:
        """What a row carries; None where it carries nothing."""
        if row.payload is None:
            return None
        if not self.full and len(row.payload) > DECODED_MAX:
            return Shown("", f"{size(len(row.payload))}, left out; --full puts it in")
        if not self.full and self.characters > TOGETHER_MAX and not row.is_error:
            return Shown("", f"{size(len(row.payload))}, left out since the page has grown large; --full puts it in")
        try:
            text = self._text(row, row.payload)
        except DecodeError as error:
            return Shown("", f"{size(len(row.payload))}, which cannot be read: {clean_lines(error)}")
        cut = ""
        if not self.full and len(text) > TEXT_MAX:
            cut = f"the first {size(TEXT_MAX)} of {size(len(text))}; --full shows all"
            text = text[:TEXT_MAX]
        self.characters += len(text)
        return Shown(text, cut)

    def _text(self, row: Row, payload: bytes) -> str:
        if row.is_error:
            return clean_lines(error_text(self.codec.describe_error(payload)))
        node = self.codec.to_json(payload)
        if row.is_call and isinstance(node, list) and len(node) == 2 and not (node[0] and node[1]):
            node = node[1] or node[0]
        return as_json(node)


def error_text(error: ErrorSummary) -> str:
    """An error the way people read one: its traceback, its notes, and below them what caused it.

    >>> print(error_text(ErrorSummary("shop:Rejected", "no stock", cause=ErrorSummary("builtins:KeyError", "'tea'"))))
    shop.Rejected: no stock
    <BLANKLINE>
    caused by
    KeyError: 'tea'
    """
    return "\n".join(_lines(error))


def _lines(error: ErrorSummary) -> Iterator[str]:
    kind = error.type.removeprefix("builtins:").replace(":", ".")
    yield error.traceback.rstrip() or f"{kind}: {error.message}".rstrip(": ")
    for note in error.notes:
        if note not in error.traceback:
            yield note
    if error.attributes:
        yield ""
        yield f"with {as_json(error.attributes)}"
    causes = [("caused by", error.cause), ("while this was handled", error.context)]
    members = [(f"member {number}", member) for number, member in enumerate(error.members, 1)]
    for how, other in causes + members:
        if other is not None:
            yield ""
            yield how
            yield from _lines(other)
