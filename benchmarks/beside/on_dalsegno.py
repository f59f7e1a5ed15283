"""The same work on dalsegno. The place is the URL of a store."""

from __future__ import annotations

import importlib
import logging
import sys
import time

from same_work import Peer, main

from dalsegno import Engine, Flow, step, workflow

WITHIN_S = 600
logging.getLogger("dalsegno").setLevel(logging.ERROR)  # an engine that takes over from a dead one says so


class Dalsegno(Peer):
    """One engine: client and worker in one process."""

    def open(self) -> None:
        bodies = self.bodies

        @step(name="step")
        def body(i: int) -> dict[str, object]:
            return bodies.run(i)

        @workflow
        def many(n: int) -> Flow[int]:
            for i in range(n):
                yield from body(i)
            return n

        self.many = many
        self.engine = Engine(self.at, workflows=[many])

    def run(self, ids: list[str], steps: int) -> None:
        runs = [self.engine.start(self.many, steps, id=id) for id in ids]
        for run in runs:
            assert run.result(timeout=WITHIN_S) == steps

    def recover(self) -> None:
        self.open()  # which claims what the dead engine held, and goes on with it
        time.sleep(WITHIN_S)


if __name__ == "__main__":
    # The others import their driver with everything else; here it is imported when a store is opened.
    importlib.import_module(f"dalsegno.backends.{sys.argv[2].partition(':')[0]}")
    main(Dalsegno)
