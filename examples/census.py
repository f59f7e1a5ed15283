"""A census of Python source: of what nodes are the syntax trees of a folder made? Work that a cluster can share.

Twice the same question. In `census` each part is a step, and the engine sends steps wherever its executor sends them:
every part is recorded, and a crash costs those that were under way. In `census_by_dask` all of it is one step, whose
body hands the files to a Dask cluster: Dask spreads them, repeats what a dead machine took with it, and adds up; what
is recorded is the sum. The first suits parts of minutes, the second thousands of parts of milliseconds.

`on_dask` and `on_ray` run it.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from distributed import Client, as_completed

from dalsegno import Flow, Map, Retry, step, step_context, workflow

Nodes = dict[str, int]


def nodes_of(file: str) -> Nodes:
    """How many nodes of each kind a file has. One that is no Python counts as one node, "(unreadable)"."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (SyntaxError, ValueError):
        return {"(unreadable)": 1}
    return dict(Counter(type(node).__name__ for node in ast.walk(tree)))


def add_up(counts: Iterable[Nodes]) -> Nodes:
    """The sum of several counts, the most frequent first."""
    total = Counter[str]()
    for count in counts:
        total.update(count)
    return dict(sorted(total.items(), key=lambda entry: (-entry[1], entry[0])))


@step
def sources(folder: str) -> list[str]:
    """The Python files below a folder, in an order that is always the same."""
    return sorted(str(file) for file in Path(folder).rglob("*.py"))


@step(idempotent=True, retry=Retry(max_attempts=5, initial=0.1))
def count(files: list[str]) -> Nodes:
    """Count one part. It may be repeated, as when the machine that counts it dies."""
    return add_up(map(nodes_of, files))


@workflow
def census(folder: str, parts: int) -> Flow[Nodes]:
    """Count a folder in so many steps at a time."""
    files = yield from sources(folder)
    counted = yield from Map(count, [files[at::parts] for at in range(parts)])
    return add_up(counted)


@step(idempotent=True, timeout=60, retry=Retry(max_attempts=5, initial=0.1))
def count_by_dask(files: list[str], scheduler: str) -> Nodes:
    """Count on the cluster whose scheduler is at this address. `timeout` is between two files, not for all of them:
    each file is a heartbeat."""
    with Client(scheduler, set_as_default=False) as dask:
        total: Nodes = {}
        done = 0
        counted = dask.map(nodes_of, files, pure=False)
        for _, nodes in as_completed(counted, loop=dask.loop, with_results=True):
            total, done = add_up([total, nodes]), done + 1
            step_context().heartbeat(done)
    return total


@workflow
def census_by_dask(folder: str, scheduler: str) -> Flow[Nodes]:
    """Count a folder in one step that a cluster works on."""
    files = yield from sources(folder)
    return (yield from count_by_dask(files, scheduler))
