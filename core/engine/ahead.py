"""Working ahead: a run whose checkpoint is on its way to the disk goes on with idempotent steps meanwhile.

When as many results of idempotent steps have gathered as the policy lets wait, they are flushed. Nothing that follows
needs them to be durable as long as only such steps follow: a crash repeats bodies that may be repeated. So the run does
not wait for the flush; its next results gather in a new activation. One checkpoint at a time is on its way: when the
next is due before the store has answered, or something comes that may not be repeated, the run *stalls* until then.

What arrives meanwhile and is no result of an idempotent step is laid by, so that whatever looks at the stored history
(an end by force, a block) finds the checkpoint there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from dalsegno.core.engine.bodies import Job
from dalsegno.core.engine.committer import Write
from dalsegno.core.engine.live import Activation, LiveRun
from dalsegno.core.store import Verdict


@attrs.frozen(slots=True)
class Answered:
    """An input that says: the store has answered the checkpoint that was on its way."""

    answer: Verdict | Exception


class Checkpoint(Write):
    """A run's checkpoint on its way to the store, which the run does not wait for."""

    __slots__ = ("_run", "_tell")

    def __init__(self, run: LiveRun, act: Activation, tell: Callable[[LiveRun, Answered], None]) -> None:
        super().__init__(act.transition(run))
        self._run, self._tell = run, tell

    def done(self, answer: Any) -> None:
        self._tell(self._run, Answered(answer))

    def failed(self, error: Exception) -> None:
        self._tell(self._run, Answered(error))


def sort(run: LiveRun) -> Answered | None:
    """Of what has arrived for a run with a checkpoint on its way, leave in `inputs` what may be folded now, and lay the
    rest by. With the store's answer among it, which is returned, everything may be folded again."""
    inputs, foldable, answered = run.inputs, list[Any](), None
    while inputs:
        arrived = inputs.popleft()
        if type(arrived) is Answered:
            answered = arrived
        elif not run.stalled and run.interpreter is not None and is_repeatable(arrived):
            foldable.append(arrived)
        else:
            run.laid_by = [*run.laid_by, arrived]
    if answered is not None:
        foldable = [*run.laid_by, *foldable]
        run.laid_by = ()
    inputs.extendleft(reversed(foldable))
    return answered


def is_repeatable(arrived: Any) -> bool:
    """Whether an input is the result of a body that may be repeated."""
    return type(arrived) is Job and arrived.error is None and arrived.options.idempotent


def rejoin(run: LiveRun, ahead: Activation) -> Activation:
    """A checkpoint that was not taken, with all that was folded on top of it: both are to be thought over again."""
    run.ahead, run.stalled = None, False
    if run.activation is not None:
        ahead.inputs.extend(run.activation.inputs)
    run.activation = ahead
    return ahead
