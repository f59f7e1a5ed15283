"""Exported runs into a store. What an exported file is, and reading and writing one, is in `dalsegno.core.transfer`;
looking at one as at a store is in `exported`.

An import verifies the whole file before it writes, and then writes with one call of the store.
"""

from __future__ import annotations

from collections.abc import Sequence

from dalsegno.core.errors import RunConflict
from dalsegno.core.events import Event, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.store import Backend, Message, NewRun, Status, StoredMessage
from dalsegno.core.transfer import BadHistoryFile, Exported, export_lines, read_file, read_lines, read_packed, take

__all__ = [
    "BadHistoryFile",
    "Exported",
    "export_lines",
    "import_runs",
    "read_file",
    "read_lines",
    "read_packed",
    "take",
]


def import_runs(store: Backend, runs: Sequence[Exported], now_us: int, *, skip: bool = False) -> list[Exported]:
    """Put runs into a store, all in one call, and answer which were put there.

    Raises `RunConflict` when an id is taken, before anything is written; with `skip` such runs are left out. A run
    that was blocked comes in as running: whether it is blocked is for the code to say that it meets there.
    """
    taken = sorted({one.run.workflow_id for one in runs if store.find(one.run.workflow_id) is not None})
    if taken and not skip:
        more = f" and {len(taken) - 3} more" if len(taken) > 3 else ""
        raise RunConflict(
            f"the store has runs of the ids {', '.join(map(repr, taken[:3]))}{more}. "
            "Import into another store, or leave them out with --skip-existing; nothing was imported.",
            workflow_id=taken[0],
        )
    wanted = sorted(
        (one for one in runs if one.run.workflow_id not in taken), key=lambda one: (one.run.generation, one.run_id)
    )
    _generations_can_be_kept(wanted)
    messages = [_message(one, message) for one in wanted if one.run.status.open for message in one.messages]
    created, _, _ = store.write([_new_run(one) for one in wanted], (), messages, now_us)
    lost = [one.run_id for one, answer in zip(wanted, created, strict=True) if not answer.new]
    if lost:
        raise RunConflict(f"while importing, somebody else took the ids {', '.join(map(repr, lost[:3]))}", ids=lost)
    return wanted


def _generations_can_be_kept(runs: Sequence[Exported]) -> None:
    """A store numbers the runs of an id as it creates them, one after another, and a history says which one it is."""
    last: dict[str, int] = {}
    for one in runs:
        id, generation = one.run.workflow_id, one.run.generation
        if id in last and generation != last[id] + 1:
            raise BadHistoryFile(
                f"{one.run_id} cannot be imported right after {id}#{last[id]}: the runs between are missing. "
                f"Export all of them with `replay export {id} FILE`. Nothing was imported.",
                why="generations",
            )
        last[id] = generation


def _last_message(events: Sequence[Event]) -> int:
    """The highest number of a message in a history; those still to come must not be taken for one of these."""
    carried = [signal.seq for event in events if isinstance(event, RunStarted) for signal in event.carried]
    return max([getattr(event, "seq", 0) for event in events] + carried, default=0)


def _new_run(one: Exported) -> NewRun:
    run = one.run
    status = Status.RUNNING if run.status is Status.BLOCKED else run.status
    return NewRun(
        workflow_id=run.workflow_id,
        workflow=run.workflow,
        events=tuple(encode_event(event) for event in one.events),
        created_at_us=run.created_at_us,
        digest=run.digest,
        tags=run.tags,
        parent=run.parent,
        restore=run.status.open,
        # The newest generation of an id decides what a further start meets, so earlier ones make way for later ones.
        on_conflict="restart_closed",
        status=status,
        closed_at_us=run.closed_at_us,
        published=one.published,
        generation=run.generation,
        messages_above=_last_message(one.events),
    )


def _message(one: Exported, message: StoredMessage) -> Message:
    return Message(
        workflow_id=one.run.workflow_id,
        generation=one.run.generation,
        kind=message.kind,
        name=message.name,
        payload=message.payload,
        failed=message.failed,
    )
