"""Records the golden histories of a release: `python -m tests.histories.record`, once, before it is published.

Files of earlier releases are never made again; they are what has to stay replayable. Tracebacks in them name files as
they lie in the tree, so that the same bytes come out wherever it is checked out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

import attrs

from dalsegno import Codec, collect
from dalsegno.core import events as ev
from dalsegno.core.events import Event
from dalsegno.core.transfer import export_lines, read_file
from dalsegno.core.values import exceptions
from dalsegno.testing.replaying import record_history
from dalsegno.testing.simulation import Simulation
from tests.histories import flows

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

Change = Callable[[list[Event]], list[Event]]
ENDED = 1_767_225_700_000_000


def record(folder: Path) -> list[Path]:
    """Play every workflow of `flows` and write what it recorded."""
    whole = exceptions._traceback
    with patch.object(exceptions, "_traceback", lambda error: whole(error).replace(f"{ROOT}/", "")):
        return _record(folder)


def _record(folder: Path) -> list[Path]:
    flows.TRIES.clear()
    with Simulation(collect(flows), seed=1) as simulation:
        start = simulation.start
        taken, listening = start(flows.listener, id="taken"), start(flows.listener, id="listener")
        plain = (flows.steps, flows.family, flows.overruns, flows.fails)
        runs = [taken, listening, *(start(flow, id=flow.name) for flow in plain)]
        waits, marks, tidies = (start(flow, id=flow.name) for flow in (flows.waits, flows.marks, flows.tidies))
        counts = start(flows.counts, 2, id="counts")
        ended = start(flows.listener, id="ended", tags={"how": "by force"})
        waits.signal("word", "hello")
        counts.signal("late", "carried")
        marks.signal("number", 3)
        marks.signal("unasked", "nobody reads this")
        simulation.run(until=lambda: "tokens" in marks.state)
        kept, broken = marks.state["tokens"]
        simulation.at(timedelta(minutes=1), lambda: simulation.complete(kept, "done"))
        simulation.at(timedelta(minutes=2), lambda: simulation.fail(broken, "broken"))
        simulation.at(timedelta(minutes=3), lambda: waits.pause("for a while"))
        simulation.at(timedelta(minutes=4), waits.resume)
        simulation.at(timedelta(minutes=5), lambda: tidies.cancel("enough"))
        simulation.at(timedelta(minutes=6), lambda: ended.terminate("enough"))
        simulation.run()
        return [record_history(run, folder / f"{run.id}.jsonl") for run in [*runs, waits, marks, tidies, counts, ended]]


def unfit(fits: Path, folder: Path) -> None:
    """Write histories that must not replay, each made from one that does."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, (source, change) in CHANGES.items():
        (one,) = read_file(fits / f"{source}.jsonl")
        events = change(list(one.events))
        first: Any = events[0]
        run = attrs.evolve(one.run, events=len(events), workflow=first.workflow)
        changed = attrs.evolve(one, events=tuple(events), run=run)
        (folder / f"{name}.jsonl").write_bytes(b"".join(export_lines([changed], Codec(), events[-1].at_us)))
    whole = (fits / "steps.jsonl").read_bytes()
    (folder / "damaged.jsonl").write_bytes(whole.replace(b'"attempt": 1', b'"attempt": 2', 1))
    (folder / "cut-short.jsonl").write_bytes(whole[: len(whole) // 2])
    (folder / "later-format.jsonl").write_bytes(whole.replace(b'"format": 1', b'"format": 2', 1))


def evolved(cls: type[Event], /, **changes: Any) -> Change:
    """A change of the fields of the first event of a kind."""

    def change(events: list[Event]) -> list[Event]:
        at = next(index for index, event in enumerate(events) if isinstance(event, cls))
        event: Any = events[at]
        return [*events[:at], attrs.evolve(event, **changes), *events[at + 1 :]]

    return change


CHANGES: dict[str, tuple[str, Change]] = {
    "another-step": ("fails", evolved(ev.StepCompleted, name="triple")),
    "another-kind": ("waits", evolved(ev.TimerSet, kind="sleep until")),
    "other-arguments": ("fails", evolved(ev.StepCompleted, digest=b"another digest")),
    "other-result": ("waits", evolved(ev.RunCompleted, result=Codec().encode(["something else"]))),
    "another-winner": ("waits", evolved(ev.RaceDecided, winner=1)),
    "unreadable-value": ("fails", evolved(ev.StepCompleted, result=b"\xc1")),
    "unknown-workflow": ("fails", evolved(ev.RunStarted, workflow="gone")),
    "step-missing": ("steps", lambda events: [event for event in events if getattr(event, "name", "") != "pay"]),
    "goes-on": (
        "listener",
        lambda events: [*events[:-1], ev.SideEffectRecorded(ENDED, "9", "", b"", 1, b""), events[-1]],
    ),
    "ends-early": ("waits", lambda events: [*events[:3], events[-1]]),
    "timer-early": ("waits", evolved(ev.TimerFired, at_us=1)),
}

if __name__ == "__main__":
    for written in record(HERE / version("dalsegno")):
        print(written.relative_to(HERE))
    unfit(HERE / version("dalsegno"), HERE / "unfit")
