"""What every part of the engine works with: store, codec, clock, entropy, definitions. Given once, changed never."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from dalsegno.core.commands import RunStep, StartChild
from dalsegno.core.definitions import WorkflowDefinition
from dalsegno.core.engine.edge import Clock, Entropy
from dalsegno.core.engine.observing import Observers
from dalsegno.core.errors import UnknownDefinition
from dalsegno.core.events import CarriedSignal, RunStarted
from dalsegno.core.history import encode_event
from dalsegno.core.policies import CheckpointPolicy
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
    ) -> tuple[NewRun, RunStarted]:
        """A run to be created, and its first event. A workflow that is not defined here is given by its name."""
        now_us = self.clock.now_us()
        name, limit = (
            (workflow, None) if isinstance(workflow, str) else (workflow.name, workflow.workflow_options.timeout)
        )
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
            owner=owner,
            timers=() if deadline_us is None else ((deadline_us, RUN_DEADLINE),),
            on_conflict=on_conflict,
        )
        return new, started


def child_id(parent_id: str, generation: int, command_id: str, command: StartChild[Any]) -> str:
    """The workflow id of a child: as asked for, or the parent's path. The same on every replay."""
    if command.options.id is not None:
        return command.options.id
    return f"{parent_id}/{command_id}" if generation == 1 else f"{parent_id}~{generation}/{command_id}"


def is_idempotent(command: object) -> bool:
    """Whether a command is a step that may be repeated after a crash."""
    return isinstance(command, RunStep) and command.options.idempotent
