"""How a value is refused: the reason travels outwards and gathers the path on its way."""

from __future__ import annotations

from typing import Final

from dalsegno.core.errors import EncodeError

PATH_SHOWN: Final = 160
"""Characters of a path that a message shows: two lines of a terminal."""


class Refusal(Exception):
    """Why a value cannot be written; every container on the way out of the walk adds where it was."""

    def __init__(self, why: str, kind: type | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.kind = kind
        self._steps: list[str] = []
        self._holders: list[int] = []

    def under(self, step: str, holder: object) -> Refusal:
        """Note one container on the way out, as in `raise refusal.under("[3]", items)`."""
        self._steps.append(step)
        self._holders.append(id(holder))
        return self

    def as_error(self, root: str) -> EncodeError:
        """Make the error the caller sees, naming the path from `root`."""
        path = root + "".join(reversed(self._steps))
        shown = path if len(path) <= PATH_SHOWN else f"{path[: PATH_SHOWN // 2]} ... {path[-PATH_SHOWN // 2 :]}"
        why = self.why
        if len(set(self._holders)) < len(self._holders):  # all of them are alive, so an id seen twice is a cycle
            why = (
                "it contains itself, and a cycle cannot be written down. Pass an id in place of one of the references."
            )
        type_name = None if self.kind is None else f"{self.kind.__module__}.{self.kind.__qualname__}"
        return EncodeError(f"{shown} cannot be stored: {why}", path=path, type_name=type_name)


def short_repr(value: object, limit: int = 60) -> str:
    """Give a repr for messages: bounded, and never failing, whatever the object's own `__repr__` does.

    >>> short_repr("x" * 100, limit=12)
    "'xxxxxxxx..."
    """
    try:
        text = repr(value)
    except Exception as error:
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
