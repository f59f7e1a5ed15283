"""Text that goes into a store: ids, names, tags, reasons. What can be stored, and what can name a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dalsegno.core.errors import BadOption

WORKFLOW_ID_MAX: Final = 1000  # characters; more than any scheme of ids needs, and still one line of a listing


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
    """Tags as they are stored. Raises `BadOption`.

    >>> storable_tags({"region": "eu"})
    {'region': 'eu'}
    """
    if tags is not None and not isinstance(tags, Mapping):
        raise BadOption(f"tags={tags!r}: takes names and values, like tags={{'region': 'eu'}}")
    return {storable(key, "a tag's name"): storable(value, "a tag's value") for key, value in (tags or {}).items()}


def check_workflow_id(workflow_id: str) -> None:
    """Raises `BadOption` unless this can be the id of a run in every kind of store."""
    if not isinstance(workflow_id, str):
        raise BadOption(f"a workflow id is text, not {workflow_id!r}")
    problem = workflow_id_problem(workflow_id)
    if problem:
        raise BadOption(f"{workflow_id[:80]!r} cannot be a workflow id: {problem}")


def workflow_id_problem(workflow_id: str) -> str:
    """Why this cannot be a workflow id, or an empty text.

    >>> workflow_id_problem("order-42"), workflow_id_problem("")
    ('', 'it is empty')
    """
    if not workflow_id:
        return "it is empty"
    if len(workflow_id) > WORKFLOW_ID_MAX:
        return f"it has {len(workflow_id)} characters, and {WORKFLOW_ID_MAX} are allowed"
    if "\0" in workflow_id:
        return "it contains a NUL character"
    try:
        workflow_id.encode("utf-8")
    except UnicodeEncodeError:
        return "it contains half of a surrogate pair, which is no character"
    return ""
