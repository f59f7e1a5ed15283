"""What a failed command says and answers: one calm sentence on stderr, and a number that scripts can rely on.

    0   done; everything asked for is so
    1   done, and the answer is no: a run failed or is not there, histories diverge, problems were found, an id is taken
    2   not understood, or could not tell: a wrong option, code that cannot be loaded, a history that cannot be judged
    3   the store: not there, in use, full, damaged, of a newer format
    4   the data: a file or a payload that cannot be read
    130 interrupted with Ctrl-C

A traceback means a bug in dalsegno (or in code of yours that a worker runs).
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import Any, Final

import click

from dalsegno.core.errors import (
    BadOption,
    DalsegnoError,
    DataError,
    DefinitionError,
    InternalError,
    InvalidToken,
    StoreError,
    WorkflowError,
)
from dalsegno.tools.text import clean_lines

NO: Final = 1
UNCLEAR: Final = 2
STORE: Final = 3
DATA: Final = 4
INTERRUPTED: Final = 130

_CODES: Final[tuple[tuple[type[DalsegnoError] | tuple[type[DalsegnoError], ...], int], ...]] = (
    (StoreError, STORE),
    (DataError, DATA),
    ((BadOption, DefinitionError, InvalidToken), UNCLEAR),
    (WorkflowError, NO),
)


def exit_code(error: DalsegnoError) -> int:
    """The number for an error. What is not listed was understood, and the answer is no."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), NO)


def say(message: object, *, mark: str = "error") -> None:
    """Tell a person something, on stderr; nothing in it acts on the terminal."""
    text = clean_lines(message)
    if mark:
        colour = {"error": "red", "warning": "yellow"}.get(mark)
        text = click.style(f"{mark}: ", fg=colour, bold=True) + text
    click.echo(text, err=True)


class CalmGroup(click.Group):
    """A group of commands whose known errors end in a sentence and a number instead of a traceback."""

    def invoke(self, ctx: click.Context) -> Any:
        return calmly(ctx, super().invoke)


def calmly(ctx: click.Context, call: Callable[[click.Context], Any]) -> Any:
    """Call, and end the command in good order whatever known error comes out."""
    try:
        return call(ctx)
    except InternalError:
        raise
    except DalsegnoError as error:
        say(error)
        for note in getattr(error, "__notes__", ()):
            say(note, mark="")
        ctx.exit(exit_code(error))
    except BrokenPipeError:
        raise  # click ends quietly for it: whoever read has seen enough
    except OSError as error:
        if error.errno not in _WORLD:
            raise
        say(f"{error.strerror}: {error.filename}" if error.filename else error.strerror)
        ctx.exit(UNCLEAR)
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        ctx.exit(INTERRUPTED)


_WORLD: Final = frozenset(
    {
        errno.ENOENT,
        errno.EACCES,
        errno.EPERM,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
        errno.ELOOP,
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
    }
)
"""What a file system may answer to a path that a person gave; anything else is not theirs to mend."""
