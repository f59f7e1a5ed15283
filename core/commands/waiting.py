"""Commands that wait: for a time, for a signal, for somebody outside who knows a token."""

from __future__ import annotations

import builtins
from datetime import datetime, timedelta
from typing import Any, ClassVar, overload

import attrs

from dalsegno.core.commands.command import A, Command, T_co
from dalsegno.core.errors import WAIT_MAX_S, BadOption
from dalsegno.core.policies import seconds, time_limit
from dalsegno.core.text import storable


@attrs.frozen(slots=True, eq=False)
class Sleep(Command[None]):
    """Wait so many seconds (or a timedelta) without holding anything. The absolute deadline is stored at once: a crash
    or a jump of the clock does not move it, and it never fires early. Raises `BadOption` below 0 seconds and above
    3,000 years.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def patience() -> Flow[str]:
    ...     yield from Sleep(timedelta(days=30))
    ...     return "a month later"
    >>> with Simulation([patience]) as simulation:
    ...     simulation.start(patience).result(), simulation.elapsed
    ('a month later', 2592000.0)
    """

    kind: ClassVar[str] = "sleep"
    duration: float = attrs.field(converter=seconds)

    def __attrs_post_init__(self) -> None:
        if not 0 <= self.duration <= WAIT_MAX_S:
            raise BadOption(f"Sleep({self.duration}): between 0 seconds and 3,000 years")

    def arguments(self) -> tuple[Any, ...]:
        return (self.duration,)


@attrs.frozen(slots=True, eq=False)
class SleepUntil(Command[None]):
    """Wait until a moment, given with its time zone; a moment in the past is over at once. Raises `BadOption` for a
    datetime without a time zone.

    >>> from datetime import UTC, datetime
    >>> from dalsegno import Flow, Now, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def party() -> Flow[str]:
    ...     yield from SleepUntil(datetime(2100, 1, 1, tzinfo=UTC))
    ...     return f"{(yield from Now()):%d %B %Y}"
    >>> with Simulation([party]) as simulation:
    ...     simulation.start(party).result()
    '01 January 2100'
    """

    kind: ClassVar[str] = "sleep until"
    moment: datetime

    def __attrs_post_init__(self) -> None:
        if getattr(self.moment, "tzinfo", None) is None:
            raise BadOption(f"SleepUntil({self.moment!r}): an aware datetime is needed, e.g. datetime(…, tzinfo=UTC)")

    def arguments(self) -> tuple[Any, ...]:
        return (self.moment,)


@attrs.frozen(slots=True, eq=False, init=False)
class Receive(Command[T_co]):
    """Wait for a signal of this name and answer with its payload; after `timeout` (seconds or a timedelta) raise
    `TimedOut`. Without one, or with infinity, it waits for ever.

    Signals wait in the run's inbox until a `Receive` asks for them, in the order the store accepted them. `type` tells
    the type checker, and turns payloads given as JSON on the command line into that type. Raises `BadOption` for a name
    that cannot be stored and for a time-out out of range.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def ask() -> Flow[str]:
    ...     return (yield from Receive("answer", str, timeout=timedelta(days=3)))
    >>> with Simulation([ask]) as simulation:
    ...     run = simulation.start(ask)
    ...     run.signal("answer", "yes")
    ...     run.result()
    'yes'
    """

    kind: ClassVar[str] = "receive"
    signal: str
    type: Any = Any
    timeout: float | None = attrs.field(default=None, converter=time_limit)

    # Written out so that `Receive("approval", Approval)` is a `Receive[Approval]` to a type checker.
    @overload
    def __init__(
        self: Receive[A], name: str, type: builtins.type[A], *, timeout: float | timedelta | None = None
    ) -> None: ...
    @overload
    def __init__(
        self: Receive[Any], name: str, type: Any = Any, *, timeout: float | timedelta | None = None
    ) -> None: ...
    def __init__(self, name: str, type: Any = Any, *, timeout: float | timedelta | None = None) -> None:
        if not (isinstance(name, str) and name):
            raise BadOption(f"Receive({name!r}): the first argument is the signal's name")
        storable(name, "a signal's name")
        self.__attrs_init__(name, type, timeout)

    @property
    def name(self) -> str:
        return self.signal

    def arguments(self) -> tuple[Any, ...]:
        return (self.timeout,)


@attrs.frozen(slots=True, eq=False, init=False)
class NewCallback(Command["Callback[T_co]"]):
    """Make a promise that somebody outside keeps: `engine.complete(token, value)` or `engine.fail(token, error)`.
    Answers a `Callback` at once.

    >>> from dalsegno import Flow, Publish, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def pay_by_card() -> Flow[str]:
    ...     paid = yield from NewCallback(str)
    ...     yield from Publish("token", paid.token)
    ...     return (yield from paid)
    >>> with Simulation([pay_by_card]) as simulation:
    ...     run = simulation.start(pay_by_card)
    ...     simulation.at(60, lambda: simulation.complete(run.state["token"], "receipt 7"))
    ...     run.result()
    'receipt 7'
    """

    kind: ClassVar[str] = "new callback"
    type: Any = Any

    @overload
    def __init__(self: NewCallback[A], type: builtins.type[A]) -> None: ...
    @overload
    def __init__(self: NewCallback[Any], type: Any = Any) -> None: ...
    def __init__(self, type: Any = Any) -> None:
        self.__attrs_init__(type)


@attrs.frozen(slots=True, eq=False)
class Callback(Command[T_co]):
    """What `NewCallback` answers: hand out `.token`, which cannot be guessed, then yield the callback itself to wait
    for its value. Raises what `engine.fail(token, error)` was given. For a time limit, race it: see `First`.

    >>> from dalsegno import First, Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def patient_for_a_day() -> Flow[str]:
    ...     paid = yield from NewCallback(str)
    ...     won = yield from First(paid=paid, late=Sleep(86400))
    ...     return won.key
    >>> with Simulation([patient_for_a_day]) as simulation:
    ...     simulation.start(patient_for_a_day).result()
    'late'
    """

    kind: ClassVar[str] = "callback"
    token: str
    id: str
    type: Any = Any

    @property
    def name(self) -> str:
        return self.id
