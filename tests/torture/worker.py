"""The process that is tortured: an engine on one store, until its standard input ends. With `rival` as a second word
it waits for the store as long as another engine has it; with `beside` it works on it beside others.

It puts waiting runs out of memory almost at once, and keeps results of idempotent steps for a while, so that every kill
finds runs in all states.
"""

from __future__ import annotations

import sys
import threading

from dalsegno import CheckpointPolicy, Engine, Queue, StoreInUse, collect
from tests.torture import cast

LEASE_S = 0.6


def main() -> None:
    """Serve the store that the command line names."""
    store = sys.argv[1]
    with opened(store, rival="rival" in sys.argv[2:], beside="beside" in sys.argv[2:]) as engine:
        cast.INHERITED[store] = engine
        print("ready", flush=True)
        sys.stdin.read()


def opened(store: str, rival: bool, beside: bool) -> Engine:
    """An engine on the store, once it can be had."""
    checkpoint = CheckpointPolicy(every_steps=4, every=0.2)
    while True:
        try:
            return Engine(
                store,
                workflows=collect(cast),
                put_away_after=0.05,
                checkpoint=checkpoint,
                step_threads=4,
                alone=not beside,
                lease=LEASE_S,
                queues=[Queue("post", concurrency=2, per_key=1)],
            )
        except StoreInUse:
            if not rival:
                raise
            threading.Event().wait(0.01)


if __name__ == "__main__":
    main()
