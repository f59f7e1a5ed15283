"""What a worker tells a run of a step's attempt it has carried out, as the message that goes to the run's inbox."""

from __future__ import annotations

import attrs
import msgspec

from dalsegno.core.queues import Task
from dalsegno.core.store import Message


@attrs.frozen(slots=True)
class Outcome:
    """How an attempt ended: `payload` is the encoded result, or the encoded error; `final`: not to be tried again."""

    attempt: int
    took_us: int
    payload: bytes
    final: bool = False


def outcome_message(task: Task, outcome: Outcome, failed: bool) -> Message:
    """The message that ends a task and tells its run."""
    return Message(
        workflow_id=task.workflow_id,
        generation=task.generation,
        kind="step",
        name=task.step,
        payload=msgspec.msgpack.encode([outcome.attempt, outcome.took_us, outcome.payload, outcome.final]),
        failed=failed,
        task=(task.number, task.claim),
    )


def unpack_outcome(payload: bytes) -> Outcome:
    """The outcome in a message."""
    return Outcome(*msgspec.msgpack.decode(payload))
