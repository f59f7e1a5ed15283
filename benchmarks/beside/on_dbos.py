"""The same work on DBOS: plain functions, its defaults, no queue. The place is the URL of its system database; a SQLite
one that ends in `?journal=wal` is switched to WAL first, which DBOS leaves to the file."""

from __future__ import annotations

import sqlite3
import sys
import time

if sqlite3.sqlite_version_info < (3, 42):
    # Its schema calls unixepoch('subsec'), which older ones answer with null.
    import pysqlite3

    sys.modules["sqlite3"] = pysqlite3

from dbos import DBOS, SetWorkflowID
from same_work import Peer, main

WAL = "?journal=wal"


class Dbos(Peer):
    """Workflows that are started are threads; its pool has as many as its defaults say."""

    def open(self) -> None:
        bodies, url = self.bodies, self.at.removesuffix(WAL)
        if url != self.at:
            sys.modules["sqlite3"].connect(url.removeprefix("sqlite:///")).execute("pragma journal_mode=wal")
        DBOS(
            config={
                "name": "peers",
                "system_database_url": url,
                "log_level": "ERROR",
                "application_version": "1",
                "run_admin_server": False,
            }
        )

        @DBOS.step()
        def body(i: int) -> dict[str, object]:
            return bodies.run(i)

        @DBOS.workflow()
        def many(n: int) -> int:
            for i in range(n):
                body(i)
            return n

        self.many = many
        DBOS.launch()

    def run(self, ids: list[str], steps: int) -> None:
        if len(ids) == 1:  # called in place: starting it in a thread and waiting for that would only be slower
            with SetWorkflowID(ids[0]):
                assert self.many(steps) == steps
            return
        handles = []
        for id in ids:
            with SetWorkflowID(id):
                handles.append(DBOS.start_workflow(self.many, steps))
        for handle in handles:
            assert handle.get_result() == steps

    def recover(self) -> None:
        self.open()  # launching recovers what is pending, in a thread
        time.sleep(600)


if __name__ == "__main__":
    main(Dbos)
