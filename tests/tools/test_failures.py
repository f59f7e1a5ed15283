"""Known errors end in a sentence and a number; anything else is a bug and says so by its traceback."""

from __future__ import annotations

import errno
import os

import click
import pytest
from click.testing import CliRunner

from dalsegno.core import errors
from dalsegno.tools.failures import CalmGroup, exit_code

EXPECTED = {
    "StoreInUse": 3, "StoreDamaged": 3, "StoreFull": 3, "StoreUnusable": 3, "UnknownOutcome": 3,
    "DecodeError": 4, "EncodeError": 4, "RemoteError": 4,
    "BadOption": 2, "DefinitionError": 2, "InvalidToken": 2,
    "RunNotFound": 1, "RunClosed": 1, "RunConflict": 1, "RunBlocked": 1, "HistoryMismatch": 1, "TimedOut": 1,
}  # fmt: skip


@pytest.mark.parametrize(("name", "code"), EXPECTED.items())
def test_exit_codes(name: str, code: int):
    """Each kind of error has its number."""
    assert exit_code(getattr(errors, name)("because")) == code


def raising(error: BaseException) -> click.Command:
    """A program whose only command raises this."""

    @click.group(cls=CalmGroup)
    def program() -> None: ...

    @program.command()
    def go() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (errors.RunNotFound("no run\x1b[2J"), 1, "error: no run\\x1b[2J\n"),
        (errors.HistoryMismatch("left its path\n  recorded  a"), 1, "error: left its path\n  recorded  a\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), 2, "error: No space left on device\n"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a\x1b"), 2, "directory: a\\x1b\n"),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_known_errors_are_calm(error: BaseException, code: int, says: str):
    """A sentence on stderr, nothing on stdout, and the number."""
    result = CliRunner().invoke(raising(error), ["go"], catch_exceptions=False)
    assert result.exit_code == code
    assert says in result.stderr
    assert result.stdout == ""


def test_notes_are_told():
    """What an error carries as notes is said as well."""
    error = errors.RunNotFound("no run")
    error.add_note("(in the store of yesterday)")
    assert "(in the store of yesterday)" in CliRunner().invoke(raising(error), ["go"]).stderr


@pytest.mark.parametrize("error", [errors.InternalError("impossible"), ValueError("a bug"), OSError(errno.EIO, "disk")])
def test_bugs_keep_their_traceback(error: Exception):
    """What nobody foresaw comes out as it is."""
    with pytest.raises(type(error)):
        CliRunner().invoke(raising(error), ["go"], catch_exceptions=False)
