"""Text that goes into a store: ids, names, tags, reasons."""

from __future__ import annotations

from collections.abc import Mapping

from dalsegno.core.errors import BadOption


def storable(text: str, what: str) -> str:
    """The text, if it can be stored: a string that UTF-8 can carry. Raises `BadOption`.

    >>> storable("order-42", "a workflow id")
    'order-42'
    """
    if not isinstance(text, str):
        raise BadOption(f"{what} is text, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadOption(f"{text!r} cannot be {what}: {error.reason} at character {error.start}") from None
    return text


def storable_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags as they are stored. Raises `BadOption`."""
    return {storable(key, "a tag's name"): storable(value, "a tag's value") for key, value in (tags or {}).items()}
