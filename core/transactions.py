"""Transactional steps: bodies that write to the store's own database, in the very transaction that records them.

What such a body writes and what the store keeps of its outcome are committed together or not at all, so that its effect
is there exactly once, whatever dies when. Most stores have no database that a program could write to, and say so.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import attrs

from dalsegno.core.errors import UseError


@attrs.frozen(slots=True, kw_only=True)
class StepAttempt:
    """An attempt of a transactional step: `step` is the command's id in the run, `name` the step's.

    `holder` is asked once, just before the commit: as whom (owner and epoch) the run is held, or None where nobody
    waits for the attempt any more. From then on it is not given up for its time-out, so that what is committed is never
    reported as failed. `timeout` are seconds, or None.
    """

    run: int
    step: str
    name: str
    attempt: int
    timeout: float | None
    holder: Callable[[], tuple[str, int] | None]


class Undone(Exception):
    """Raised by `transact` where the transaction certainly left nothing behind, for a reason that may pass: a deadlock,
    a lost connection, a lease that is gone. `error` is what to tell of it; another attempt is worth it."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


class Strayed(Exception):
    """Raised by `transact` where another step stands recorded in the place of this one: the code was changed between
    the commit of that step and its entry in the history. `name` is the one that was committed."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class HasTransactions:
    """The part of the port that runs transactional steps. As it stands here, it says that the store cannot."""

    transactional: ClassVar[bool] = False
    """Whether steps with `transactional=True` can run on it: it then has its own `transact`."""

    def transact(self, attempt: StepAttempt, body: Callable[[Any], bytes]) -> bytes:
        """Call `body(connection)` in a transaction, record the result it answers in the same one, and answer it.

        If a result of this step is recorded already, because a process died between the commit and the transition that
        tells of it, that is the answer and the body is not called. Nothing is committed unless `attempt.holder()` still
        holds the run, which is looked at in the transaction. What the body raises undoes it, and is raised. A commit
        whose outcome is unknown is looked up, however long that takes, and not told of before.

        Raises `Undone`, `Strayed`, `UseError`, and `StoreUnusable` once the store is closed.
        """
        raise UseError(
            f"step {attempt.name!r} is transactional and this store has no transactions for steps: it needs "
            "'postgresql://…', whose database the step then writes to. (In a simulation, give it a fake.)"
        )
