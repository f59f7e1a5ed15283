"""Steps on a Dask cluster of real processes, some of which are killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dask
import pytest
from distributed import Client, LocalCluster

from dalsegno import All, AttemptLost, Engine, Flow, StepOutcomeUnknown, collect, workflow
from dalsegno.core.events import StepAttemptFailed
from dalsegno.examples import census, on_dask
from dalsegno.examples.census import Nodes, add_up, nodes_of
from tests.core.engine import far

JSON = on_dask.library()[0]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """Two worker processes."""
    with dask.config.set(on_dask.REPORTED_AT_ONCE), on_dask.local_cluster() as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    """A client of the cluster, whose workers are both there."""
    with cluster.get_client() as client:
        client.wait_for_workers(2)
        yield client


@workflow
def counts_beside_a_killer(folder: str, scratch: str) -> Flow[tuple[Nodes, str]]:
    """A census, and a step that kills the worker it is on."""
    files = yield from census.sources(folder)
    said, *parts = yield from All(far.dies_at_first(scratch), *[census.count(files[at::4]) for at in range(4)])
    return add_up(parts), said


def test_steps_are_tasks_of_the_cluster_and_outlive_a_worker(client: Client, tmp_path: Path):
    """The worker that dies in a body costs that attempt, and what else it had is counted again elsewhere."""
    served = [*collect(census), counts_beside_a_killer]
    with Engine(f"lmdb:{tmp_path}/store", workflows=served, executor=client.get_executor(pure=False)) as engine:
        run = engine.start(counts_beside_a_killer, JSON, str(tmp_path))
        counted, said = run.result(timeout=60)
        failed = [event for event in run.history() if isinstance(event, StepAttemptFailed)]
        told = [engine.codec.decode_error(event.error) for event in failed if event.name == "dies_at_first"]
    assert counted == add_up(nodes_of(str(file)) for file in Path(JSON).rglob("*.py"))
    assert said == "attempt 2"
    assert [type(error) for error in told] == [AttemptLost]
    assert "KilledWorker" in str(told[0])


def test_a_step_that_may_not_be_repeated_is_not_repeated_by_the_cluster(client: Client):
    """With Dask's own repeating switched off, what became of the step is told to be unknown."""
    with (
        Engine("memory:", workflows=[far.one], executor=client.get_executor(pure=False)) as engine,
        pytest.raises(StepOutcomeUnknown, match="KilledWorker"),
    ):
        engine.start(far.one, "dies_once").result(timeout=60)


def test_steps_and_one_step_count_the_same(cluster: LocalCluster, tmp_path: Path):
    """Parts as steps on the cluster, and one step that hands its files to the cluster: the same sum, twice."""
    store = f"lmdb:{tmp_path}/store"
    counted, at_once = on_dask.count(store, [JSON], cluster)
    assert counted == at_once == on_dask.count(store, [JSON], cluster)[0]


def test_a_step_whose_work_is_the_clusters_outlives_a_worker(cluster: LocalCluster, client: Client):
    """Killed in the middle of its files, a worker takes nothing with it: the cluster counts them elsewhere, and the
    step, which is one attempt, gets the whole sum."""
    frozen, pid = next(iter(client.run(os.getpid).items()))
    scheduler: Any = cluster.scheduler
    scheduler.allowed_failures = 3  # as it is unless told otherwise
    os.kill(pid, signal.SIGSTOP)
    with Engine("memory:", workflows=collect(census)) as engine:
        run = engine.start(census.census_by_dask, JSON, cluster.scheduler_address)
        while not client.processing()[frozen]:
            pass
        os.kill(pid, signal.SIGKILL)
        counted: Any = run.result(timeout=60)
        assert not [event for event in run.history() if isinstance(event, StepAttemptFailed)]
    assert counted == add_up(nodes_of(str(file)) for file in Path(JSON).rglob("*.py"))
