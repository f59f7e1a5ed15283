"""Commands that tell: another run, the outside, the history, the store, the next run of this id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Never

import attrs

from dalsegno.core.commands.command import Command
from dalsegno.core.errors import BadOption
from dalsegno.core.text import storable


@attrs.frozen(slots=True, eq=False)
class Send(Command[None]):
    """Deliver a signal to another run's inbox, exactly once. Raises `SendFailed` when it is not there or has ended,
    `EncodeError` for a payload that cannot be stored, `BadOption` for an id or a name that cannot.

    >>> from dalsegno import Flow, Receive, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def shop() -> Flow[str]:
    ...     return (yield from Receive("order", str))
    >>> @workflow
    ... def customer() -> Flow[None]:
    ...     yield from Send("shop-1", "order", "chairs")
    >>> with Simulation([shop, customer]) as simulation:
    ...     run = simulation.start(shop, id="shop-1")
    ...     simulation.start(customer).result()
    ...     run.result()
    'chairs'
    """

    kind: ClassVar[str] = "send"
    workflow_id: str
    signal: str
    payload: Any = None

    def __attrs_post_init__(self) -> None:
        if not storable(self.workflow_id, "a workflow id"):
            raise BadOption("Send('', …): the first argument is the workflow id of the run to send to")
        if not storable(self.signal, "a signal's name"):
            raise BadOption(f"Send({self.workflow_id!r}, ''): the second argument is the signal's name")

    @property
    def name(self) -> str:
        return self.signal

    def arguments(self) -> tuple[Any, ...]:
        return (self.workflow_id, self.payload)


@attrs.frozen(slots=True, eq=False)
class Publish(Command[None]):
    """Show a value to the outside as `run.state[key]`, also after the run has closed. Raises `EncodeError` for a value
    that cannot be stored, `BadOption` for a key that cannot.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def ship() -> Flow[None]:
    ...     yield from Publish("stage", "packing")
    ...     yield from Publish("stage", "shipped")
    >>> with Simulation([ship]) as simulation:
    ...     run = simulation.start(ship)
    ...     run.result(), run.state
    (None, {'stage': 'shipped'})
    """

    kind: ClassVar[str] = "publish"
    key: str
    value: Any

    def __attrs_post_init__(self) -> None:
        storable(self.key, "a key")


@attrs.frozen(slots=True, eq=False)
class Patched(Command[bool]):
    """True in runs that reach this point for the first time with the new code, False in runs that passed it before.
    Raises `BadOption` for a name that cannot be stored.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def pay() -> Flow[str]:
    ...     if (yield from Patched("bank-of-2026")):
    ...         return "paid at the new bank"
    ...     return "paid at the old bank"
    >>> with Simulation([pay]) as simulation:
    ...     simulation.start(pay).result()
    'paid at the new bank'
    """

    kind: ClassVar[str] = "patched"
    change: str

    def __attrs_post_init__(self) -> None:
        storable(self.change, "the name of a change")

    @property
    def name(self) -> str:
        return self.change


@attrs.frozen(slots=True, eq=False)
class Checkpoint(Command[None]):
    """Everything so far is durable when this returns: a crash after it repeats none of it.

    >>> from dalsegno import Flow, step, workflow
    >>> from dalsegno.testing import Simulation
    >>> @step(idempotent=True)
    ... def measure(page: int) -> int:
    ...     return page * 100
    >>> @workflow
    ... def book() -> Flow[int]:
    ...     words = (yield from measure(1)) + (yield from measure(2))
    ...     yield from Checkpoint()
    ...     return words
    >>> with Simulation([book]) as simulation:
    ...     simulation.start(book).result()
    300
    """

    kind: ClassVar[str] = "checkpoint"


@attrs.frozen(slots=True, eq=False, init=False)
class ContinueAsNew(Command[Never]):
    """End this run and start the next one under the same workflow id, with these arguments and a fresh history; never
    returns. Raises `TypeError` for arguments that do not fit the workflow, `EncodeError` for those that cannot be
    stored.

    Signals that were not received yet are carried over. Whatever else is open is dropped without clean-up, so finish
    it first.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def heartbeat(beats: int) -> Flow[str]:
    ...     yield from Sleep(1)
    ...     if beats == 3:
    ...         return "enough"
    ...     yield from ContinueAsNew(beats + 1)
    >>> with Simulation([heartbeat]) as simulation:
    ...     run = simulation.start(heartbeat, 1, id="heart")
    ...     run.result(), run.run_id
    ('enough', 'heart#3')
    """

    kind: ClassVar[str] = "continue as new"
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def __init__(self, /, *args: Any, **kwargs: Any) -> None:
        self.__attrs_init__(args, kwargs)

    def arguments(self) -> tuple[Any, ...]:
        return (self.args, self.kwargs)
