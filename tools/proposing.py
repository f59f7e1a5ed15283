"""What a shell is offered that completes a word: runs, workflows and tags of a store, and stores themselves.

No store can be asked for ids that begin so. The runs are looked through instead, newest first, for as long as somebody
who has pressed Tab waits gladly; the run that is called just so is found in any case. A shell has no use for an error,
and none for a name that a person could not type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import Final

from dalsegno.core.store import OWN_STORES, RunRecord
from dalsegno.tools.stores import ONLY_READ, all_runs, open_for_reading, store_url

PROPOSED_MAX: Final = 50
LOOK_S: Final = 0.4
"""How long is looked: some 20,000 runs of an LMDB store."""

IN_FOLDERS: Final = ("lmdb", *ONLY_READ)
"""Stores that lie on this machine, as folders; `file` is a file."""


def runs_like(store: str | None, incomplete: str) -> dict[str, RunRecord]:
    """Runs whose ids begin so, newest first, by their ids."""
    found: dict[str, RunRecord] = {}
    with open_for_reading(store_url(store)) as opened:
        exact = opened.find(incomplete) if incomplete else None
        if exact is not None:
            found[incomplete] = exact
        for record in looked_through(all_runs(opened)):
            if record.workflow_id.startswith(incomplete) and record.workflow_id.isprintable():
                found.setdefault(record.workflow_id, record)
                if len(found) == PROPOSED_MAX:
                    break
    return found


def words_like(store: str | None, incomplete: str, words: Callable[[RunRecord], list[str]]) -> list[str]:
    """What runs have to offer that begins so, in order, each once."""
    with open_for_reading(store_url(store)) as opened:
        offered = (word for record in looked_through(all_runs(opened)) for word in words(record))
        found = {word for word in offered if word.startswith(incomplete) and word.isprintable()}
    return list(islice(sorted(found), PROPOSED_MAX))


def queues_like(store: str | None, incomplete: str) -> list[str]:
    """Queues whose names begin so, in order."""
    with open_for_reading(store_url(store)) as opened:
        names = {state.name for state in opened.queues(ages=False)}
    return sorted(name for name in names if name.startswith(incomplete) and name.isprintable())


def looked_through(records: Iterator[RunRecord]) -> Iterator[RunRecord]:
    """Runs, until it has taken long enough."""
    until = monotonic() + LOOK_S
    for record in records:
        yield record
        if monotonic() > until:
            return


def urls_like(incomplete: str) -> list[str]:
    """Stores: kinds of them, and then the folders and files on this machine."""
    scheme, colon, path = incomplete.partition(":")
    if not colon:
        kinds = [*OWN_STORES, *ONLY_READ]
        return sorted(f"{kind}:" for kind in kinds if kind.startswith(incomplete) and kind != "memory")
    if scheme not in IN_FOLDERS or "://" in incomplete:
        return []
    folder = path[: path.rfind("/") + 1]
    there = sorted(Path(folder or ".").expanduser().iterdir())
    fitting = (one for one in there if one.name.startswith(path[len(folder) :]) and str(one).isprintable())
    return [
        f"{scheme}:{folder}{one.name}{'/' if one.is_dir() and scheme == 'file' else ''}"
        for one in fitting
        if one.is_dir() or scheme == "file"
    ]
