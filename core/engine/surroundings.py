"""What every part of the engine works with: store, codec, clock, entropy, definitions. Given once, changed never."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from dalsegno.core.commands import RunStep, StartChild
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.engine.edge import Clock, Entropy
from dalsegno.core.engine.observing import Observers
from dalsegno.core.errors import UnknownDefinition
from dalsegno.core.events import CarriedSignal, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.policies import CheckpointPolicy, WorkflowOptions
from dalsegno.core.queues import Place
from dalsegno.core.store import Backend, NewRun, OnConflict
from dalsegno.core.values.codec import Codec

RUN_DEADLINE = "run"
"""The key of the timer that bounds a whole run; those of commands are `t:` or `r:` (a retry) and the command's id."""

SEED_BYTES = 16


@attrs.frozen(slots=True, kw_only=True)
class Surroundings:
    """The engine's arguments, and the few things made straight from them."""

    backend: Backend
    codec: Codec
    clock: Clock
    entropy: Entropy
    owner: str
    workflows: Mapping[str, WorkflowDefinition[..., Any]]
    checkpoint: CheckpointPolicy
    steps: dict[str, Callable[..., Any]] = attrs.field(factory=dict)  # the functions of steps, as far as they are known
    steps_queue: str = ""  # where the steps go that name no queue, if no body runs here
    observed: Observers | None = None

    def workflow(self, name: str) -> WorkflowDefinition[..., Any]:
        """The definition behind a name. Raises `UnknownDefinition`, which says what is registered."""
        found = self.workflows.get(name)
        if found is None:
            known = ", ".join(sorted(self.workflows)) or "none"
            raise UnknownDefinition(
                f"no workflow called {name!r} is registered with this engine (it has: {known}). Open the engine with "
                f"workflows=[…] holding it; if it was renamed, keep the old name with @workflow(name={name!r})",
                workflow=name,
            )
        return found

    def spread(self) -> float:
        """A number drawn from [0, 1), for the jitter of retries."""
        return int.from_bytes(self.entropy(4), "big") / 2**32

    def new_run(
        self,
        workflow_id: str,
        workflow: WorkflowDefinition[..., Any] | str,
        arguments: bytes,
        *,
        owner: str,
        parent: tuple[str, int, str] | tuple[()] = (),
        tags: Mapping[str, str] | None = None,
        carried: tuple[CarriedSignal, ...] = (),
        generation: int = 1,
        origin: str = "",
        on_conflict: OnConflict = "attach",
        timeout: float | None = None,
        options: WorkflowOptions | None = None,
        queued: bool = True,
    ) -> tuple[NewRun, RunStarted]:
        """A run to be created, and its first event. A workflow that is not defined here is given by its name. With
        `queued`, it has a place in the queue that its options name, if they do."""
        now_us = self.clock.now_us()
        if options is None and not isinstance(workflow, str):
            options = workflow.workflow_options
        name = workflow if isinstance(workflow, str) else workflow.name
        limit = None if isinstance(workflow, str) else workflow.workflow_options.timeout
        place = place_of(options, now_us) if queued and options is not None else None
        limit = timeout if timeout is not None else limit
        deadline_us = None if limit is None else now_us + round(limit * 1_000_000)
        started = RunStarted(
            at_us=now_us,
            workflow=name,
            workflow_id=workflow_id,
            generation=generation,
            arguments=arguments,
            seed=self.entropy(SEED_BYTES),
            deadline_us=deadline_us,
            parent=parent,
            tags=dict(tags or {}),
            carried=carried,
            origin=origin,
        )
        new = NewRun(
            workflow_id=workflow_id,
            workflow=name,
            events=(encode_event(started),),
            created_at_us=now_us,
            digest=self.codec.digest(name.encode() + b"\0" + arguments),
            tags=started.tags,
            parent=parent,
            owner="" if place is not None else owner,
            place=place,
            timers=() if deadline_us is None else ((deadline_us, RUN_DEADLINE),),
            on_conflict=on_conflict,
        )
        return new, started


def place_of(options: WorkflowOptions, now_us: int) -> Place | None:
    """The place in a queue of a run that begins with these options; None for a run that begins at once."""
    if not options.queue:
        return None
    return Place(
        queue=options.queue,
        key=options.key,
        priority=options.priority,
        not_before_us=now_us + round(options.delay * 1e6) if options.delay else 0,
        dedup=options.dedup,
    )


def child_id(parent_id: str, generation: int, command_id: str, command: StartChild[Any]) -> str:
    """The workflow id of a child: as asked for, or the parent's path. The same on every replay."""
    if command.options.id is not None:
        return command.options.id
    return f"{parent_id}/{command_id}" if generation == 1 else f"{parent_id}~{generation}/{command_id}"


def is_idempotent(command: object) -> bool:
    """Whether a command is a step that may be repeated after a crash."""
    return isinstance(command, RunStep) and command.options.idempotent
