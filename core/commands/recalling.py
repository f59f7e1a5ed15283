"""Commands that are answered from the history, without an event of their own: the time, chance, the run itself."""

from __future__ import annotations

import random
from collections.abc import Mapping
from datetime import datetime
from typing import ClassVar
from uuid import UUID

import attrs

from dalsegno.core.commands.command import HISTORIES_SAY, Command


@attrs.frozen(slots=True, eq=False)
class Now(Command[datetime]):
    """The time of the latest event of this run, as an aware datetime in UTC. It never goes back.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def nap() -> Flow[float]:
    ...     began = yield from Now()
    ...     yield from Sleep(90)
    ...     return ((yield from Now()) - began).total_seconds()
    >>> with Simulation([nap]) as simulation:
    ...     simulation.start(nap).result()
    90.0
    """

    kind: ClassVar[str] = "now"


@attrs.frozen(slots=True, eq=False)
class Uuid(Command[UUID]):
    """A UUID that is the same on every replay, derived from the run's seed, which nobody can guess.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def label() -> Flow[list[UUID]]:
    ...     return [(yield from Uuid()), (yield from Uuid())]
    >>> with Simulation([label]) as simulation:
    ...     one, other = simulation.start(label).result()
    >>> one != other, one.version
    (True, 4)
    """

    kind: ClassVar[str] = "uuid"


@attrs.frozen(slots=True, eq=False)
class Random(Command[random.Random]):
    """A `random.Random` seeded from the run's seed: the same draws on every replay.

    This module imports `random` for that one class; nothing here draws from the process-wide generator.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def draw() -> Flow[bool]:
    ...     dice = yield from Random()
    ...     return 1 <= dice.randint(1, 6) <= 6
    >>> with Simulation([draw]) as simulation:
    ...     simulation.start(draw).result()
    True
    """

    kind: ClassVar[str] = "random"

    @staticmethod
    def seeded(seed: bytes) -> random.Random:
        """The generator that answers this command, made from bytes the interpreter derived."""
        return random.Random(int.from_bytes(seed, "big"))


@attrs.frozen(slots=True, kw_only=True)
class RunInfo:
    """What `Info` answers. `attempt` is the number of this run under its workflow id (it grows with each continue as
    new or restart; not the number of crashes, which a replay could not know), `history_length` the events so far;
    `continue_suggested` is true when starting afresh with `ContinueAsNew` would pay; `started_at` is in UTC,
    `parent_id` the workflow id of the parent of a child.

    >>> from dalsegno import ContinueAsNew, Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def watch(checked: int) -> Flow[tuple[int, int]]:
    ...     info = yield from Info()
    ...     if checked == 0:
    ...         yield from ContinueAsNew(checked + 1)
    ...     return info.attempt, info.history_length
    >>> with Simulation([watch]) as simulation:
    ...     simulation.start(watch, 0).result()
    (2, 1)
    """

    __module__ = HISTORIES_SAY

    workflow_id: str
    run_id: str
    attempt: int
    workflow: str
    started_at: datetime
    history_length: int
    continue_suggested: bool
    parent_id: str | None = None
    tags: Mapping[str, str] = attrs.field(factory=dict)


@attrs.frozen(slots=True, eq=False)
class Info(Command[RunInfo]):
    """Ids, history length, and whether continuing as new is advisable: a `RunInfo`.

    >>> from dalsegno import Flow, workflow
    >>> from dalsegno.testing import Simulation
    >>> @workflow
    ... def who() -> Flow[str]:
    ...     me = yield from Info()
    ...     return f"{me.run_id} of {me.workflow}, tagged {dict(me.tags)}"
    >>> with Simulation([who]) as simulation:
    ...     simulation.start(who, id="order-42", tags={"region": "eu"}).result()
    "order-42#1 of who, tagged {'region': 'eu'}"
    """

    kind: ClassVar[str] = "info"
