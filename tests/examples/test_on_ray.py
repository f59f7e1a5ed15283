"""Steps on Ray, whose worker is killed on the way. Runs where Ray is installed (`pip install 'dalsegno[ray]'`)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest

from dalsegno import AttemptLost, Engine, StepOutcomeUnknown, collect
from dalsegno.core.events import StepAttemptFailed
from dalsegno.examples import census, on_dask
from dalsegno.examples.census import add_up, nodes_of
from dalsegno.examples.on_ray import RayExecutor
from tests.core.engine import far

ray = pytest.importorskip("ray", reason="Ray is 75 MB of wheel, so `make test` does not install it: dalsegno[ray] does")

JSON = on_dask.library()[0]


@pytest.fixture(scope="module")
def executor() -> Iterator[Executor]:
    """Ray on this machine, with two processes."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield RayExecutor()
    ray.shutdown()


def test_steps_are_tasks_of_ray(executor: Executor):
    """A census whose parts are counted in Ray's processes; a step there knows its attempt."""
    with Engine("memory:", workflows=[*collect(census), far.one], executor=executor) as engine:
        counted = engine.start(census.census, JSON, 4).result(timeout=100)
        about: Any = engine.start(far.one, "about", id="r").result(timeout=100)
        with pytest.raises(far.Picky, match=r"no \(7\)"):
            engine.start(far.one, "picky").result(timeout=100)
    assert counted == add_up(nodes_of(str(file)) for file in Path(JSON).rglob("*.py"))
    assert (about["attempt"], about["key"]) == (1, "r#1/1")


def test_a_process_that_dies_costs_an_attempt(executor: Executor, tmp_path: Path):
    """dalsegno tries again, and Ray does not; a step that may not be repeated is told to be unknown."""
    with Engine("memory:", workflows=[far.one], executor=executor) as engine:
        run = engine.start(far.one, "dies_at_first", str(tmp_path))
        assert run.result(timeout=100) == "attempt 2"
        (failed,) = (event for event in run.history() if isinstance(event, StepAttemptFailed))
        told = engine.codec.decode_error(failed.error)
        assert isinstance(told, AttemptLost)
        assert "WorkerCrashedError" in str(told)
        with pytest.raises(StepOutcomeUnknown, match="may or may not have happened"):
            engine.start(far.one, "dies_once").result(timeout=100)
