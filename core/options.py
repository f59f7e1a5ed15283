"""What an argument takes. Each check names the argument, shows what was given and says what could stand there, so that
a slip is told at the line that made it and not by whatever part of an engine trips over it first.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

from dalsegno.core.errors import BadOption
from dalsegno.core.policies import seconds

T = TypeVar("T")

ENDLESS_S = 100 * 365 * 86400.0
"""No engine waits longer: threads cannot be told to wait for ever times a million, and nobody sees the difference."""


def instance(option: str, given: Any, kind: type[T], takes: str) -> T:
    """The argument, if it is an instance of `kind`. Raises `BadOption`.

    >>> from dalsegno import Retention
    >>> instance("retention", 5, Retention, "a Retention, like retention=Retention(completed=86400)")
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.BadOption: retention=5: takes a Retention, like retention=Retention(completed=86400)
    """
    if not isinstance(given, kind):
        raise BadOption(f"{option}={given!r}: takes {takes}")
    return given


def given_or_default(option: str, given: T | None, kind: type[T], takes: str) -> T:
    """The argument, or what `kind` makes of nothing where it was left out. Raises `BadOption`.

    >>> from dalsegno import CheckpointPolicy
    >>> given_or_default("checkpoint", None, CheckpointPolicy, "a CheckpointPolicy").every_steps
    10
    """
    return kind() if given is None else instance(option, given, kind, takes)


def having(option: str, given: T, methods: tuple[str, ...], takes: str) -> T:
    """The argument, if it has these methods. Raises `BadOption`.

    >>> having("executor", 5, ("submit",), "a concurrent.futures.Executor")
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.BadOption: executor=5: takes a concurrent.futures.Executor
    """
    if isinstance(given, type) or not all(callable(getattr(given, method, None)) for method in methods):
        raise BadOption(f"{option}={given!r}: takes {takes}")
    return given


def function(option: str, given: T, takes: str) -> T:
    """The argument, if it can be called. Raises `BadOption`.

    >>> function("entropy", print, "a function")
    <built-in function print>
    """
    if not callable(given):
        raise BadOption(f"{option}={given!r}: takes {takes}")
    return given


def several(option: str, given: Iterable[T], takes: str) -> list[T]:
    """The argument as a list, if it holds several things. Raises `BadOption`.

    >>> several("observers", (), "a list of observers")
    []
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise BadOption(f"{option}={given!r}: takes {takes}")
    return list(given)


def whole(option: str, given: int, least: int = 0) -> int:
    """The argument, if it is a whole number of at least so much. Raises `BadOption`.

    >>> whole("step_threads", 0, least=1)
    Traceback (most recent call last):
    ...
    dalsegno.core.errors.BadOption: step_threads=0: takes a whole number, 1 or more
    """
    if isinstance(given, bool) or not isinstance(given, int) or given < least:
        raise BadOption(f"{option}={given!r}: takes a whole number, {least} or more")
    return given


def flag(option: str, given: bool) -> bool:
    """The argument, if it is True or False. Raises `BadOption`.

    >>> flag("alone", True)
    True
    """
    if not isinstance(given, bool):
        raise BadOption(f"{option}={given!r}: takes True or False")
    return given


def duration(option: str, given: float | timedelta, *, least: float = 0.0) -> float:
    """The length of a time in seconds; of more than a hundred years, those. Raises `BadOption`.

    >>> duration("grace", timedelta(minutes=1)), duration("put_away_after", float("inf")) == ENDLESS_S
    (60.0, True)
    """
    try:
        length = seconds(given)
    except BadOption:
        raise BadOption(f"{option}={given!r}: takes a number of seconds, or a timedelta") from None
    if length < least:
        raise BadOption(f"{option}={given!r}: takes {least:g} seconds or more")
    return min(length, ENDLESS_S)


def only(where: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises `TypeError` for an option that there is not, and names those that there are.

    >>> only("Client", ["codecs"], ["codec", "clock"])
    Traceback (most recent call last):
    ...
    TypeError: Client has no option 'codecs'; it takes codec, clock
    """
    there = list(known)
    for name in given:
        if name not in there:
            raise TypeError(f"{where} has no option {name!r}; it takes {', '.join(there)}")
