"""What a command is, and what a branch: the words that all commands are made of."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from typing import Any, ClassVar, Final, Generic, TypeAlias, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E")

NO_ARGUMENTS: tuple[Any, ...] = ()

HISTORIES_SAY: Final = "dalsegno.core.commands"
"""The module under which histories know the classes here that are values, too (`Winner`, …). They keep it wherever they
stand, because a stored value is found by its name and a fingerprint is made of it."""


class Command(Generic[T_co]):
    """What every command is: something to `yield`, `yield from` or `await` in a workflow. `Command[Parcel]` answers a
    `Parcel`. Its constructors raise `BadOption` for what cannot be meant; making one does nothing else.

    >>> from dalsegno import Sleep
    >>> isinstance(Sleep(5), Command), Sleep(5).kind
    (True, 'sleep')
    """

    __slots__ = ()
    kind: ClassVar[str] = "command"

    @property
    def name(self) -> str:
        """What the command is about; recorded, and compared on replay."""
        return ""

    def arguments(self) -> tuple[Any, ...]:
        """What is digested into the fingerprint; has to be encodable and the same on every replay."""
        return NO_ARGUMENTS

    def __iter__(self) -> Generator[Command[Any], Any, T_co]:
        return (yield self)  # type: ignore[no-any-return]  # the interpreter sends back what the command answers

    def __await__(self) -> Generator[Command[Any], Any, T_co]:
        return (yield self)  # type: ignore[no-any-return]


Flow: TypeAlias = Generator[Command[Any], Any, T]
"""The return type of a workflow written as a generator: `def fulfil(order: Order) -> Flow[Parcel]`."""

Branch: TypeAlias = Command[T] | Generator[Command[Any], Any, T] | Coroutine[Any, Any, T]
"""What can run beside others: a command, or a generator or coroutine of commands."""


def is_branch(thing: Any) -> bool:
    """Whether `thing` can run beside others: a command, a generator or a coroutine.

    >>> from dalsegno import Sleep
    >>> is_branch(Sleep(1)), is_branch([Sleep(1)])
    (True, False)

    A generator expression is not one, though Python makes a generator of it: `All(charge(o) for o in orders)` is meant
    as the branches, one after another.
    """
    if isinstance(thing, Command | Coroutine):
        return True
    code = getattr(thing, "gi_code", None)
    return isinstance(thing, Generator) and getattr(code, "co_name", "") != "<genexpr>"
