"""The census on a Dask cluster: here two processes of this machine, elsewhere `Client("tcp://scheduler:8786")`.

    $ pip install 'dalsegno[dask]'
    $ python -m dalsegno.examples on_dask ./census                 # counts the standard library's json and email
    $ python -m dalsegno.examples on_dask ./census /usr/lib/python3

Dask gives a step to another worker when the one that had it dies, up to three times, and tells nobody. For steps that
may be repeated this is what one wants. For `once=True` steps it breaks their promise: have Dask report the first
death instead (`distributed.scheduler.allowed-failures: 0`); the step is told as `StepOutcomeUnknown` then.
"""

from __future__ import annotations

import argparse
import email
import json
from pathlib import Path

import dask
from distributed import LocalCluster

from dalsegno import Engine, collect
from dalsegno.examples import census
from dalsegno.examples.census import Nodes

REPORTED_AT_ONCE = {"distributed.scheduler.allowed-failures": 0}
"""The setting for clusters on which `once=True` steps run."""


def local_cluster(workers: int = 2) -> LocalCluster:
    """So many worker processes on this machine, on loopback."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0")


def library() -> list[str]:
    """Real source to count: two packages of the standard library."""
    return [module.__path__[0] for module in (json, email)]


def count(store: str, folders: list[str], cluster: LocalCluster) -> tuple[Nodes, Nodes]:
    """Each folder twice: its parts as steps on the cluster, and as one step that uses the cluster."""
    with (
        cluster.get_client() as client,
        Engine(store, workflows=collect(census), executor=client.get_executor(pure=False)) as engine,
        Engine("memory:", workflows=collect(census)) as another,
    ):
        parts = [engine.start(census.census, folder, 4, id=f"census of {folder}") for folder in folders]
        whole = [another.start(census.census_by_dask, folder, cluster.scheduler_address) for folder in folders]
        return census.add_up(run.result() for run in parts), census.add_up(run.result() for run in whole)


def main() -> None:
    """Count, and print what there is most of."""
    parser = argparse.ArgumentParser(prog="on_dask", description=main.__doc__)
    parser.add_argument("store", type=Path, help="a folder to remember in")
    parser.add_argument("folders", nargs="*", help="folders of Python source")
    given = parser.parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    with dask.config.set(REPORTED_AT_ONCE), local_cluster() as cluster:
        in_steps, at_once = count(f"lmdb:{given.store / 'store'}", given.folders or library(), cluster)
    for name, number in list(in_steps.items())[:5]:
        print(f"{number:9,} {name}")
    print(f"{sum(in_steps.values()):9,} nodes; the same by one step on the cluster: {in_steps == at_once}")


if __name__ == "__main__":
    main()
