"""What the interpreter asks of the engine: commands that wait for the outside, and how a run ended.

A `Waiting` is one command that only an event can answer. The engine gets each of them once, from `take()`, carries it
out, records an event and has it folded. Outcomes hold encoded payloads, ready to be put into the closing event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import attrs

from dalsegno.core.commands import Command


class Waiting:
    """A command that waits for the outside. Written by the interpreter as events are folded; read by the engine.

    `kind` is the command's kind, or "race" and "scope" for a decision to be recorded: `winner` is then the position of
    the branch of a `First` that ended first, and `result`, `error` and `consumed` are what `ScopeCompleted` takes.
    `payload` holds encoded call arguments (step, child) or the encoded value (send). `attempt` counts the attempts
    recorded as started or failed. `withdrawn` is true for a child that nobody wants any more but which still has to
    end. Compared by identity: an engine that kept one asks `waiting.get(w.id) is w` before it answers it.
    """

    __slots__ = (
        "_line",
        "attempt",
        "child_id",
        "command",
        "consumed",
        "deadline_us",
        "digest",
        "error",
        "handed",
        "id",
        "kind",
        "name",
        "node",
        "owner",
        "payload",
        "result",
        "retry_at_us",
        "started",
        "winner",
        "withdrawn",
    )

    shielded: ClassVar[bool] = False

    def __init__(
        self, owner: Any, command: Command[Any], id: str, kind: str, name: str, digest: bytes, payload: bytes
    ) -> None:
        self.owner = owner
        self.command = command
        self.id = id
        self.kind = kind
        self.name = name
        self.digest = digest
        self.payload = payload
        self._line = 0
        self.attempt = 0
        self.retry_at_us: int | None = None
        self.started = False
        self.deadline_us: int | None = None
        self.child_id: str | None = None
        self.handed = False
        self.withdrawn = False
        self.node: Any = None

    @property
    def line(self) -> int:
        """The line the workflow stands at, looked up when first asked for and 0 when its code is gone."""
        if self._line == 0:
            self._line = self.owner.place()[1]
        return self._line

    @property
    def goes_on_alone(self) -> bool:
        """Whether this is a child that was started, and that goes on when nobody waits for it any more."""
        command: Any = self.command
        return self.child_id is not None and command.options.on_parent_close == "abandon"

    def propose_winner(self, winner: int) -> None:
        """Make this the proposal of a race."""
        self.winner = winner

    def propose_outcome(self, result: bytes, error: bytes, consumed: tuple[int, ...]) -> None:
        """Make this the proposal of a scope."""
        self.result, self.error, self.consumed = result, error, consumed

    def cancel(self, reason: str) -> None:
        """Nobody waits for the answer any more."""
        self.owner.machine.cancel_waiting(self, reason)

    def parts(self) -> tuple[Any, ...]:
        """The fibers and nodes beneath: none."""
        return ()

    def describe(self) -> str:
        """What is waited for, for people: "step 'charge'"."""
        return f"{self.kind} {self.name!r}" if self.name else self.kind

    def __repr__(self) -> str:
        return f"<Waiting {self.id}: {self.describe()}>"


@attrs.frozen(slots=True)
class Advance:
    """What has become new since the last `take()`.

    `issued` are to be carried out and answered; `withdrawn` are no longer waited for (a timer that was set is to be
    cancelled, a step's attempt may be stopped, a child is to be told); `published` maps keys to encoded values.
    """

    issued: Sequence[Waiting]
    withdrawn: Sequence[Waiting]
    published: Mapping[str, bytes]


NOTHING_NEW = Advance([], [], {})
"""The most frequent answer, shared."""


@attrs.frozen(slots=True)
class Finished:
    """The workflow returned; `payload` is the encoded value. `unawaited` names spawned tasks that failed unseen."""

    payload: bytes
    unawaited: tuple[str, ...] = ()


@attrs.frozen(slots=True)
class Raised:
    """The workflow raised; `payload` is the encoded error."""

    payload: bytes


@attrs.frozen(slots=True)
class CancelledOut:
    """The workflow let the `Cancelled` it was asked to end with pass; `payload` is the encoded error."""

    payload: bytes


@attrs.frozen(slots=True)
class Continued:
    """The workflow continues as new; `payload` holds the encoded arguments of the next run, `id` the command's id."""

    payload: bytes
    id: str
    line: int


RunOutcome = Finished | Raised | CancelledOut | Continued
