"""A process with one thread that writes to a store and says what was acknowledged.

It is made to be killed at an exact system call. Each entry is one commit: events, a timer, a published value, a signal
to another run. An entry that fails is repeated as the engine would do it: at once where nothing was applied, after a
look at the head where that is not known.
"""

from __future__ import annotations

import sys

from dalsegno.backends.lmdb import LmdbBackend
from dalsegno.core.errors import StoreError, UnknownOutcome
from dalsegno.core.store import Applied, Backend
from dalsegno.testing.run_promises import new_run, signal, step

ENTRIES = 5
TRIES = 10


def event(number: int) -> bytes:
    """The event of an entry: longer than a page now and then."""
    return b"%d " % number * (2000 if number % 2 else 10)


def write(store: Backend, number: int) -> None:
    """Write one entry. The runs are there already."""
    run = store.find("scribe")
    assert run is not None
    (verdict,) = store.commit(
        [
            step(
                run,
                number,
                event(number),
                timers_set=((number, "t"),),
                published={"at": b"%d" % number},
                messages=(signal("reader", b"%d" % number),),
            )
        ]
    )
    assert isinstance(verdict, Applied), verdict


def begin(store: Backend) -> None:
    """Create the runs, if they are not there yet."""
    store.create([new_run("scribe"), new_run("reader")])


def persist(store: Backend, number: int) -> None:
    """Write an entry, whatever fails on the way."""
    for _ in range(TRIES):
        try:
            begin(store) if not number else write(store, number)
        except UnknownOutcome:
            run = store.find("scribe")
            if run is not None and store.head(run.number) > number:
                return
        except StoreError:
            continue
        else:
            return
    raise AssertionError(f"entry {number} failed {TRIES} times")


def open_store(folder: str) -> LmdbBackend:
    """Open the store; its creation may fail, too."""
    for _ in range(TRIES):
        try:
            return LmdbBackend.open(folder)
        except StoreError as error:
            print(f"not opened: {error}", file=sys.stderr, flush=True)
    raise AssertionError(f"not opened in {TRIES} tries")


def main() -> None:
    """`scribe FOLDER`"""
    with open_store(sys.argv[1]) as store:
        for number in range(ENTRIES + 1):
            persist(store, number)
            print(number, flush=True)


if __name__ == "__main__":
    main()
