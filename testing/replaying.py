"""Golden histories: what runs recorded once is replayed by today's code, for ever, in your own CI.

    # once, from a simulation, a staging system, or with `replay export`:
    record_history(run, "tests/histories/order-42.jsonl")

    # in the test suite from then on:
    def test_old_histories_still_replay():
        assert_replays("tests/histories", collect(shop.workflows))

A change that an open run would be blocked by fails that test, at the first command that diverges, before it is
deployed. Nothing is run but the workflow's own code: no step, no clock, no store. A file that changed since it was
recorded, or that a later release wrote, is refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import attrs

from dalsegno.core.checks import check_history
from dalsegno.core.definitions import Definition, WorkflowDefinition, by_name, collect
from dalsegno.core.engine.run import Run
from dalsegno.core.errors import BadOption, DalsegnoError
from dalsegno.core.events import Event, RunStarted
from dalsegno.core.interpreter import Interpreter
from dalsegno.core.transfer import BadHistoryFile, export_lines, read_file, take
from dalsegno.core.values.codec import Codec

Histories: TypeAlias = "str | Path | Run[Any] | Sequence[Event] | Iterable[str | Path | Run[Any] | Sequence[Event]]"
"""A file that was exported, a folder of them, a run, a list of events; or several of these."""

Workflows: TypeAlias = "ModuleType | Definition | Iterable[Definition | ModuleType]"
"""A module that defines workflows, a workflow, or several of these."""

SUFFIX = ".jsonl"


@attrs.frozen
class Golden:
    """One history to be replayed, and where it came from."""

    name: str
    events: tuple[Event, ...]


def assert_replays(
    histories: Histories, workflows: Workflows, *, codec: Codec | None = None, inside_scopes: bool = False
) -> int:
    """Replay histories against workflows and raise `AssertionError` naming each that does not fit, and where. Answers
    how many were replayed; none at all is an error as well.

    `inside_scopes` runs the inside of finished scopes again, which a live replay passes over. `codec` is the engine's,
    where it is not the plain one. Raises `BadOption` for a path that is not there.

    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing.simulation import Simulation
    >>> @workflow
    ... def nap() -> Flow[None]:
    ...     yield from Sleep(60)
    >>> with Simulation([nap]) as simulation:
    ...     run = simulation.start(nap, id="n")
    ...     run.result()
    ...     history = run.history()
    >>> assert_replays(history, nap)
    1
    >>> @workflow(name="nap")
    ... def changed() -> Flow[None]:
    ...     yield from Sleep(90)
    >>> assert_replays(history, changed)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    ...
    AssertionError: 1 of 1 histories do not replay with today's code:
    ...
    """
    found = list(_all(histories))
    if not found:
        raise AssertionError(f"there is no history to replay in {histories!r}")
    named = by_name(_definitions(workflows))
    failures = [
        f"{golden.name}: {why}"
        for golden in found
        if (why := _misfit(golden.events, named, codec or Codec(), inside_scopes))
    ]
    if failures:
        head = f"{len(failures)} of {len(found)} histories do not replay with today's code:"
        raise AssertionError("\n\n".join([head, *failures]))
    return len(found)


def record_history(run: Run[Any], path: str | Path) -> Path:
    """Write a run, with every earlier generation of its id, to a file that `assert_replays` and `replay import` read.

    The file depends on nothing but the run, so recording the same run again writes the same bytes. Answers its path.

    >>> from tempfile import TemporaryDirectory
    >>> from dalsegno import Flow, Sleep, workflow
    >>> from dalsegno.testing.simulation import Simulation
    >>> @workflow
    ... def nap() -> Flow[None]:
    ...     yield from Sleep(60)
    >>> with TemporaryDirectory() as folder, Simulation([nap]) as simulation:
    ...     run = simulation.start(nap)
    ...     run.result()
    ...     assert_replays(record_history(run, f"{folder}/nap.jsonl"), nap)
    1
    """
    store, codec = run._client.backend, run._client.codec
    newest = run.record
    records = [store.find(newest.workflow_id, generation) for generation in range(1, newest.generation + 1)]
    taken = [take(store, record) for record in records if record is not None]
    written_at_us = max(event.at_us for one in taken for event in one.events)
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(b"".join(export_lines(taken, codec, written_at_us)))
    return target


# --- what is replayed ----------------------------------------------------------------------------------------------


def _all(histories: Any) -> Iterator[Golden]:
    if isinstance(histories, str | Path):
        yield from _from_path(Path(histories))
    elif isinstance(histories, Run):
        yield Golden(histories.run_id, tuple(histories.history()))
    else:
        given = list(histories)
        if given and all(isinstance(each, Event) for each in given):
            yield Golden(_name(given), tuple(given))
        else:
            for each in given:
                yield from _all(each)


def _from_path(path: Path) -> Iterator[Golden]:
    if path.is_dir():
        for file in sorted(path.rglob(f"*{SUFFIX}")):
            yield from _from_path(file)
        return
    if not path.exists():
        raise BadOption(f"there is no file or folder {path}")
    try:
        runs = read_file(path)
    except BadHistoryFile as error:
        raise AssertionError(str(error).replace(" Nothing was imported.", "")) from error
    for one in runs:
        yield Golden(f"{path}: {one.run_id}", one.events)


def _name(events: Sequence[Event]) -> str:
    first = events[0]
    return f"{first.workflow_id}#{first.generation}" if isinstance(first, RunStarted) else "a history"


def _definitions(workflows: Any) -> list[Definition]:
    if isinstance(workflows, ModuleType | Definition):
        workflows = [workflows]
    found: list[Definition] = []
    for each in workflows:
        found += collect(each) if isinstance(each, ModuleType) else [each]
    return found


def _misfit(events: Sequence[Event], named: dict[str, Definition], codec: Codec, inside_scopes: bool) -> str:
    """Why a history does not replay, or nothing."""
    broken = check_history(events)
    if broken:
        return f"it is no sound history: {broken[0]}"
    first = events[0]
    assert isinstance(first, RunStarted)  # a sound history begins so
    definition = named.get(first.workflow)
    if not isinstance(definition, WorkflowDefinition):
        known = ", ".join(name for name, each in named.items() if isinstance(each, WorkflowDefinition)) or "none"
        return f"no workflow is called {first.workflow!r} (given: {known})"
    interpreter = Interpreter(definition, codec)
    try:
        interpreter.replay(events, skip_scopes=not inside_scopes)
    except DalsegnoError as error:
        return "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    finally:
        interpreter.evict()
    return ""
