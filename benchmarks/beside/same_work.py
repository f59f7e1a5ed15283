"""What all of them do, and how it is timed. Only the standard library: it is imported in each one's environment.

A program gets a scenario, a place (a folder, or the URL of a database) and a size, and prints its figures as JSON on
the last line. Before the first three are timed a small workflow has run through: nobody pays for imports or plans.

| scenario | the work | figure |
|---|---|---|
| `sequence` | one workflow of `size` steps, each durable before the next | steps/s |
| `concurrent` | `size` workflows of 20 steps, all started before the first is waited for | steps/s |
| `starts` | `size` workflows of one step, started one by one, to the last result | workflows/s |
| `record` | `size` recorded steps; then the process dies in the body of the next one | |
| `recovery` | a new process on what that one left: ms until that body runs again, its library being imported | ms |
"""

from __future__ import annotations

import abc
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

FLEET_STEPS = 20
WARM = 20

clock = time.perf_counter


def step_result(i: int) -> dict[str, Any]:
    """What every step returns, on all of them."""
    return {"i": i, "ok": True, "name": "step"}


class Bodies:
    """The body of every step. Where a process is to die it does, in place of the body `dies_at`."""

    def __init__(self) -> None:
        self.ran = 0
        self.dies_at: int | None = None
        self.at_death: Callable[[], dict[str, float]] = dict

    def run(self, i: int) -> dict[str, Any]:
        """Step `i` of a workflow."""
        if i == self.dies_at:
            finish(self.at_death())
        self.ran += 1
        return step_result(i)


def finish(figures: dict[str, float]) -> None:
    """Print the figures and end at once, as a process ends that is killed: nothing is closed."""
    print(json.dumps(figures), flush=True)
    os._exit(0)


class Peer(abc.ABC):
    """One library. `at` is where its store is; `open` makes it ready, `run` does workflows from start to result."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.bodies = Bodies()

    @abc.abstractmethod
    def open(self) -> None:
        """Open the store, and be ready to work."""

    @abc.abstractmethod
    def run(self, ids: list[str], steps: int) -> None:
        """Start a workflow of so many steps under each id, one by one, and wait until all have ended."""

    @abc.abstractmethod
    def recover(self) -> None:
        """Go on with what a dead process left, until a body ends this one too. `since` may be moved to where waiting
        for the dead one's lease ended."""

    since = 0.0


def timed(peer: Peer, ids: list[str], steps: int) -> float:
    """Bodies a second, from the first start to the last result."""
    peer.open()
    peer.run(["warm"], WARM)
    begun, before = clock(), peer.bodies.ran
    peer.run(ids, steps)
    took = clock() - begun
    assert peer.bodies.ran - before == len(ids) * steps, (peer.bodies.ran, before)
    return len(ids) * steps / took


def record(peer: Peer, size: int) -> None:
    peer.open()
    peer.bodies.dies_at = size
    peer.run(["long"], size + 1)


def recovery(peer: Peer, size: int) -> None:
    peer.bodies.dies_at = size
    peer.bodies.at_death = lambda: {"ms": (clock() - peer.since) * 1000, "repeated": peer.bodies.ran}
    peer.since = clock()
    peer.recover()


def main(peer: Callable[[str], Peer]) -> None:
    """Do what the command line says."""
    scenario, place, size = sys.argv[1], sys.argv[2], int(sys.argv[3])
    one = peer(place)
    if scenario == "sequence":
        finish({"steps/s": timed(one, ["sequence"], size)})
    elif scenario == "concurrent":
        finish({"steps/s": timed(one, [f"flow-{i}" for i in range(size)], FLEET_STEPS)})
    elif scenario == "starts":
        finish({"workflows/s": timed(one, [f"flow-{i}" for i in range(size)], 1)})
    elif scenario == "record":
        record(one, size)
    elif scenario == "recovery":
        recovery(one, size)
    raise SystemExit(f"{scenario}: did not do it")
