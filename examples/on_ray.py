"""The census on Ray, which brings no `concurrent.futures.Executor`: one takes thirty lines.

    $ pip install 'dalsegno[ray]'
    $ python -m dalsegno.examples on_ray ./census                  # counts the standard library's json and email
    $ python -m dalsegno.examples on_ray ./census --address auto   # on the cluster that this machine belongs to

Ray repeats what a dead process left, three times unless told otherwise. This executor tells it not to: dalsegno does,
as the step's policy says, and a `once=True` step is reported as `StepOutcomeUnknown`, and not repeated behind its back.
"""

from __future__ import annotations

import argparse
import importlib
import os
from collections.abc import Callable
from concurrent.futures import CancelledError, Executor, Future
from pathlib import Path
from typing import Any

from dalsegno import Engine, collect
from dalsegno.examples import census
from dalsegno.examples.on_dask import library


def call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What runs as a task of Ray's."""
    return fn(*args, **kwargs)


class RayExecutor(Executor):
    """Calls as tasks of Ray. `options` are those of `ray.remote`: `num_cpus`, `resources`, …"""

    def __init__(self, **options: Any) -> None:
        self._ray: Any = importlib.import_module("ray")  # a hundred megabytes, which only who uses this has
        self._task = self._ray.remote(max_retries=0, **options)(call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Begin a task; cancelling its future cancels it, unless it is at work."""
        reference = self._task.options(name=getattr(fn, "__name__", "call")).remote(fn, args, kwargs)
        ours, rays = Future[Any](), reference.future()

        def ended(_: Future[Any]) -> None:
            if not ours.set_running_or_notify_cancel():
                return  # nobody wants to know
            try:
                ours.set_result(rays.result())
            except (Exception, CancelledError) as error:
                ours.set_exception(error)

        def cancelled(_: Future[Any]) -> None:
            if ours.cancelled():
                self._ray.cancel(reference, force=False)

        ours.add_done_callback(cancelled)
        rays.add_done_callback(ended)
        return ours


def main() -> None:
    """Count, and print what there is most of."""
    parser = argparse.ArgumentParser(prog="on_ray", description=main.__doc__)
    parser.add_argument("store", type=Path, help="a folder to remember in")
    parser.add_argument("folders", nargs="*", help="folders of Python source")
    parser.add_argument("--address", default="local", help="a Ray cluster; without it, two processes of this machine")
    given = parser.parse_args()
    given.store.mkdir(parents=True, exist_ok=True)
    ray: Any = importlib.import_module("ray")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    here = {"num_cpus": 2, "include_dashboard": False} if given.address == "local" else {}
    ray.init(address=given.address, log_to_driver=False, **here)
    try:
        with Engine(f"lmdb:{given.store / 'store'}", workflows=collect(census), executor=RayExecutor()) as engine:
            runs = [engine.start(census.census, each, 4, id=f"census of {each}") for each in given.folders or library()]
            counted = census.add_up(run.result() for run in runs)
    finally:
        ray.shutdown()
    for name, number in list(counted.items())[:5]:
        print(f"{number:9,} {name}")
    print(f"{sum(counted.values()):9,} nodes")


if __name__ == "__main__":
    main()
