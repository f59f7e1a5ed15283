"""What is measured on PostgreSQL: a server of its own for each probe, on the same disk, with its default settings.

The yardstick is psycopg alone: one prepared insert a commit, and lists of them through `unnest`. The server's start is
not counted.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.measuring import Figures, probe
from benchmarks.scenarios import RESULT_WITHIN_S, many
from benchmarks.yardsticks import FLEET_STEPS, event, step
from benchmarks.yardsticks import many as bare_many
from dalsegno import Engine
from dalsegno.examples.provision_cluster import Cluster, make_private, place_programs

TABLE = "CREATE TABLE log (run bigint, seq integer, event bytea, PRIMARY KEY (run, seq))"
INSERT = "INSERT INTO log VALUES (%s, %s, %s)"
INSERT_MANY = "INSERT INTO log SELECT * FROM unnest(%s::bigint[], %s::integer[], %s::bytea[])"
WARM = 50


@contextmanager
def server(folder: Path) -> Iterator[Cluster]:
    """A server on the disk, which flushes."""
    if os.geteuid() == 0:
        for place in (folder, *folder.parents[:3]):  # the benchmark's own; PostgreSQL runs as somebody else
            place.chmod(place.stat().st_mode | 0o111)
    cluster = Cluster(str(folder), str(place_programs(folder)))
    make_private(cluster.data)
    make_private(cluster.sockets)
    data = str(cluster.data)
    cluster.run("initdb", "-D", data, "-U", "postgres", "--auth=trust", "--encoding=utf8", "--locale=C")
    options = f"-c listen_addresses='' -c unix_socket_directories='{cluster.sockets}'"
    cluster.run("pg_ctl", "-D", data, "-l", f"{data}/log", "-o", options, "--wait", "start")
    try:
        yield cluster
    finally:
        cluster.run("pg_ctl", "-D", data, "--mode=immediate", "--wait", "stop")


def url_of(cluster: Cluster) -> str:
    return f"postgresql:///postgres?host={cluster.sockets}&user=postgres"


# --- the engine ----------------------------------------------------------------------------------------------------


@probe
def sequence_on_postgresql(folder: Path, size: int) -> Figures:
    """Steps one after another, after a few to warm up."""
    with server(folder) as cluster, Engine(url_of(cluster), workflows=[many]) as engine:
        engine.start(many, WARM, id="warm").result(timeout=RESULT_WITHIN_S)
        begun = time.perf_counter()
        done = engine.start(many, size, id="sequence").result(timeout=RESULT_WITHIN_S)
        took = time.perf_counter() - begun
    assert done == size
    return {"steps/s": size / took}


@probe
def fleet_on_postgresql(folder: Path, size: int) -> Figures:
    """Workflows in flight together, from the first start to the last result, with one worker."""
    with server(folder) as cluster, Engine(url_of(cluster), workflows=[many]) as engine:
        engine.start(many, WARM, id="warm").result(timeout=RESULT_WITHIN_S)
        begun = time.perf_counter()
        runs = engine.start_many(many, [(f"flow-{i}", (FLEET_STEPS,)) for i in range(size)])
        done = sum(run.result(timeout=RESULT_WITHIN_S) for run in runs)
        took = time.perf_counter() - begun
    assert done == size * FLEET_STEPS
    return {"steps/s": size * FLEET_STEPS / took}


# --- psycopg alone -------------------------------------------------------------------------------------------------


def insert_one_by_one(connection: psycopg.Connection[Any], run: int, size: int) -> None:
    for seq in range(size):
        connection.execute(INSERT, (run, seq, event(seq)), prepare=True, binary=True)


@probe
def inserts(folder: Path, size: int) -> Figures:
    """One prepared insert a commit."""
    with server(folder) as cluster, psycopg.connect(url_of(cluster), autocommit=True) as connection:
        connection.execute(TABLE)
        insert_one_by_one(connection, 0, WARM)
        begun = time.perf_counter()
        insert_one_by_one(connection, 1, size)
        took = time.perf_counter() - begun
    return {"steps/s": size / took}


@probe
def inserts_together(folder: Path, size: int) -> Figures:
    """Generators in lock step: each round runs one step of every workflow and inserts all their records at once."""
    with server(folder) as cluster, psycopg.connect(url_of(cluster), autocommit=True) as connection:
        connection.execute(TABLE)
        insert_one_by_one(connection, size, WARM)
        begun = time.perf_counter()
        flows = [(run, flow, next(flow)) for run in range(size) for flow in [bare_many(FLEET_STEPS)]]
        for at in range(FLEET_STEPS):
            ready, records = [], []
            for run, flow, asked in flows:
                result = step(asked)
                records.append(event(asked))
                try:
                    ready.append((run, flow, flow.send(result)))
                except StopIteration:
                    pass  # the last step of this one
            parameters = ([run for run, _, _ in flows], [at] * len(flows), records)
            connection.execute(INSERT_MANY, parameters, prepare=True, binary=True)
            flows = ready
        took = time.perf_counter() - begun
    return {"steps/s": size * FLEET_STEPS / took}
