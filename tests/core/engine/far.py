"""Steps that tests of executors send to other processes, where they are found by this module's name."""

from __future__ import annotations

import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from dalsegno import Flow, Retry, step, step_context, workflow, workflow_logger
from dalsegno.core.engine.executors import FarContext

AT_ONCE = Retry(max_attempts=3, initial=0, jitter=0)


class Picky(Exception):
    """An error that pickle can write and not read: its constructor wants more than its `args`."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{detail} ({code})")
        self.code = code


@step
def about() -> dict[str, Any]:
    """What a body can know about itself, and where it is."""
    context = step_context()
    kept: list[logging.LogRecord] = []
    log = workflow_logger("far")
    handler = logging.Handler()
    handler.emit = kept.append  # type: ignore[assignment, method-assign]
    log.logger.addHandler(handler)
    log.warning("here")
    log.logger.removeHandler(handler)
    return {
        "attempt": context.attempt,
        "run_id": context.run_id,
        "workflow_id": context.workflow_id,
        "step": context.step,
        "key": context.idempotency_key,
        "cancelled": context.cancelled,
        "away": isinstance(step_context(), FarContext),
        "logged": [(vars(record)["run_id"], vars(record)["workflow"], vars(record)["step"]) for record in kept],
    }


@step(retry=AT_ONCE)
def beat() -> str:
    """Says that it is alive."""
    step_context().heartbeat("half")
    return str(step_context().details)


@step(queue="far")
def queued() -> tuple[str, str, int, bool]:
    """What a step out of a queue knows of itself."""
    context = step_context()
    return context.workflow_id, context.idempotency_key, context.attempt, isinstance(context, FarContext)


@step(queue="far", retry=AT_ONCE)
def queued_and_dies(folder: str) -> str:
    """A step out of a queue that kills its process in its first attempt."""
    if not Path(folder, "died").exists() and isinstance(step_context(), FarContext):
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"attempt {step_context().attempt}"


@step
def picky() -> None:
    """Raises what cannot be unpickled."""
    raise Picky(7, "no")


@step
def leave() -> None:
    """Raises what ends a process."""
    raise SystemExit(3)


@step
def lock() -> object:
    """Returns what cannot be stored."""
    return threading.Lock()


@step
def take(what: object) -> str:
    """Takes anything."""
    return type(what).__name__


@step(retry=AT_ONCE)
def dies_at_first(folder: str) -> str:
    """Kills its process in its first attempt, when it is in a process of its own."""
    if not Path(folder, "died").exists() and isinstance(step_context(), FarContext):
        Path(folder, "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return f"attempt {step_context().attempt}"


@step(once=True)
def dies_once() -> None:
    """Kills its process, and may not be repeated."""
    if isinstance(step_context(), FarContext):
        os.kill(os.getpid(), signal.SIGKILL)


@step(retry=AT_ONCE)
def interrupted(folder: str) -> str:
    """Is interrupted in its first attempt, as by Ctrl-C in a terminal, which goes to all processes there."""
    if not Path(folder, "interrupted").exists():
        Path(folder, "interrupted").touch()
        raise KeyboardInterrupt
    return f"attempt {step_context().attempt}"


@step
def until_told(pipe: str) -> str:
    """Works until somebody writes into a pipe."""
    return Path(pipe).read_text()


@workflow
def one(name: str, argument: object = None) -> Flow[object]:
    """Any of these steps."""
    chosen: Any = globals()[name]
    return (yield from (chosen() if argument is None else chosen(argument)))
