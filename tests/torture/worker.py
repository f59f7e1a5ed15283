"""The process that is tortured: an engine on one store, until its standard input ends.

It puts waiting runs out of memory almost at once, and keeps results of idempotent steps for a while, so that every kill
finds runs in all states.
"""

from __future__ import annotations

import sys

from dalsegno import CheckpointPolicy, Engine, collect
from tests.torture import cast


def main() -> None:
    """Serve the store that the command line names."""
    store = sys.argv[1]
    checkpoint = CheckpointPolicy(every_steps=4, every=0.2)
    with Engine(store, workflows=collect(cast), put_away_after=0.05, checkpoint=checkpoint, step_threads=4) as engine:
        cast.INHERITED[store] = engine
        print("ready", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
