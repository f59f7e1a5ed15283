"""Bodies on executors: what they know there, what comes back, and what becomes of those that never do."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from dalsegno import (
    AttemptLost,
    BadOption,
    Codec,
    EncodeError,
    Engine,
    Flow,
    RemoteError,
    StepContext,
    StepOutcomeUnknown,
    UseError,
    collect,
    step,
    step_context,
    workflow,
)
from dalsegno.core.events import StepAttemptFailed
from tests.core.engine import far


def new_pool() -> ProcessPoolExecutor:
    """A process that begins empty, as one on another machine would."""
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    """One process for the tests that do it no harm."""
    with new_pool() as pool:
        yield pool


class Backwards:
    """A layer, for tests."""

    def encode(self, data: bytes) -> bytes:
        return data[::-1]

    def decode(self, data: bytes) -> bytes:
        return data[::-1]


def run(executor: Executor | Callable[[], Executor], name: str, argument: Any = None, **options: Any) -> Any:
    """The result of one step on an executor."""
    with Engine("memory:", workflows=collect(far), executor=executor, **options) as engine:
        return engine.start(far.one, name, argument, id="r").result(timeout=60)


@pytest.mark.parametrize("codec", [Codec(), Codec(layers=[Backwards()])])
def test_a_body_in_a_process_knows_its_run_its_attempt_and_its_key(pool: ProcessPoolExecutor, codec: Codec):
    """`step_context()` and the workflow's logger are there, as on the engine's own threads."""
    found = run(pool, "about", codec=codec)
    assert found.pop("away")
    assert found == {
        "attempt": 1,
        "run_id": "r#1",
        "workflow_id": "r",
        "step": "about",
        "key": "r#1/1",
        "cancelled": False,
        "logged": [("r#1", "one", "about")],
    }
    with ThreadPoolExecutor(1) as threads:
        assert not run(threads, "about")["away"]


def test_heartbeats_reach_the_engine_from_threads_and_are_refused_elsewhere(pool: ProcessPoolExecutor):
    """On somebody's threads a heartbeat counts; in a process it is an error that says so, and is not tried again."""
    with ThreadPoolExecutor(1) as threads:
        assert run(threads, "beat") == "half"
    with pytest.raises(UseError, match=r"heartbeat\(\) of step 'beat' cannot reach its engine"):
        run(pool, "beat")


def test_errors_of_a_body_come_back_as_what_they_are(pool: ProcessPoolExecutor):
    """Also those that pickle cannot read, with the line that raised them; the pool is as good as before."""
    with pytest.raises(far.Picky, match=r"no \(7\)") as caught:
        run(pool, "picky")
    assert caught.value.code == 7
    assert 'raise Picky(7, "no")' in "".join(caught.value.__notes__)
    with pytest.raises(RemoteError, match="SystemExit"):
        run(pool, "leave")
    with pytest.raises(EncodeError, match="value cannot be stored"):
        run(pool, "lock")
    assert run(pool, "take", 5) == "int"


def test_what_cannot_be_sent_is_said_once(pool: ProcessPoolExecutor):
    """A step that is not at the top of a module is found on threads, and not elsewhere; neither is tried again."""

    @step(name="inner")
    def inner() -> int:
        return step_context().attempt

    @workflow
    def job() -> Flow[int]:
        return (yield from inner())

    with ThreadPoolExecutor(1) as threads, Engine("memory:", workflows=[job], executor=threads) as engine:
        assert engine.start(job).result(timeout=60) == 1
    with (
        Engine("memory:", workflows=[job], executor=pool) as engine,
        pytest.raises(UseError, match="cannot be found in the executor's process"),
    ):
        engine.start(job).result(timeout=60)


class Unsendable(Executor):
    """Cannot send anything, and says so by its future, as a pool of processes does."""

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = Future[Any]()
        future.set_exception(TypeError("cannot pickle '_thread.lock' object"))
        return future


def test_arguments_that_cannot_be_pickled_are_an_error_of_use():
    """The step fails with a sentence, in one attempt."""
    with pytest.raises(UseError, match="step 'beat' cannot be sent to the executor: TypeError: cannot pickle"):
        run(Unsendable(), "beat")


def test_a_process_that_dies_costs_an_attempt_and_its_pool_is_replaced(tmp_path: Path):
    """The step is tried again on another pool, which the engine's function made, and the engine shuts that down."""
    pools: list[ProcessPoolExecutor] = []

    def made() -> ProcessPoolExecutor:
        pools.append(new_pool())
        return pools[-1]

    with Engine("memory:", workflows=[far.one], executor=made) as engine:
        run = engine.start(far.one, "dies_at_first", str(tmp_path))
        assert run.result(timeout=60) == "attempt 2"
        failed = [event for event in run.history() if isinstance(event, StepAttemptFailed)]
        told = engine.codec.decode_error(failed[0].error)
        assert isinstance(told, AttemptLost)
        assert "gave no outcome on its executor: BrokenProcessPool" in str(told)
    assert len(pools) == 2
    with pytest.raises(RuntimeError, match="shutdown"):
        pools[1].submit(os.getpid)


def test_a_pool_that_was_given_stays_broken_and_the_error_says_what_to_do(tmp_path: Path):
    """Attempts on it are lost one after the other; the last error names the remedy."""
    with (
        new_pool() as pool,
        pytest.raises(AttemptLost, match=r"has not begun: .*executor=lambda: …, the engine replaces"),
    ):
        run(pool, "dies_at_first", str(tmp_path))


def test_a_step_that_may_not_be_repeated_is_not():
    """What becomes of it when its process dies is not known, and the workflow hears that."""
    with pytest.raises(StepOutcomeUnknown, match="may or may not have happened"):
        run(new_pool, "dies_once")


def test_ctrl_c_in_a_pool_is_no_outcome_of_the_step(tmp_path: Path, pool: ProcessPoolExecutor):
    """It was meant for the processes; the attempt is lost, and another follows."""
    assert run(pool, "interrupted", str(tmp_path)) == "attempt 2"


def test_steps_out_of_queues_run_there_too(pool: ProcessPoolExecutor, tmp_path: Path):
    """A task that an engine has taken goes to its executor, with what it can know; a lost attempt is tried again."""
    assert run(pool, "queued") == ("r", "r#1/1", 1, True)
    assert run(new_pool, "queued_and_dies", str(tmp_path)) == "attempt 2"


class Manual(Executor):
    """Begins nothing by itself."""

    def __init__(self) -> None:
        self.futures: list[Future[Any]] = []
        self.came = threading.Semaphore(0)

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        self.futures.append(Future())
        self.came.release()
        return self.futures[-1]


def test_a_body_that_the_executor_dropped_is_tried_again():
    """An executor that is shut down cancels what it has; the run goes on, and does not wait for ever."""
    executor = Manual()
    with Engine("memory:", workflows=[far.one], executor=executor, grace=0) as engine:
        run = engine.start(far.one, "beat")
        assert executor.came.acquire(timeout=60)
        executor.futures[0].cancel()
        assert executor.came.acquire(timeout=60)
        failed = [event for event in run.history() if isinstance(event, StepAttemptFailed)]
        assert "it was cancelled there" in str(engine.codec.decode_error(failed[0].error))


def test_cancelling_a_run_takes_its_body_from_the_executor():
    """A body that has not begun never does."""
    executor = Manual()
    with Engine("memory:", workflows=[far.one], executor=executor, grace=0) as engine:
        run = engine.start(far.one, "beat")
        assert executor.came.acquire(timeout=60)
        run.terminate("enough")
        cancelled = threading.Event()
        executor.futures[0].add_done_callback(lambda _: cancelled.set())
        assert cancelled.wait(60)
        assert executor.futures[0].cancelled()


def test_a_body_on_somebodys_thread_sees_that_nobody_waits():
    """`cancelled` turns true there, as on the engine's own threads; its time-out begins with the body."""
    contexts: list[StepContext] = []
    stuck = threading.Event()

    @step(timeout=0.02)
    def hangs() -> str:
        contexts.append(step_context())
        if len(contexts) == 1:
            assert stuck.wait(60)
        return "ended"

    @workflow
    def job() -> Flow[str]:
        return (yield from hangs())

    with ThreadPoolExecutor(2) as threads, Engine("memory:", workflows=[job], executor=threads) as engine:
        assert engine.start(job).result(timeout=60) == "ended"
        assert [context.cancelled for context in contexts] == [True, True]
        stuck.set()


def test_closing_waits_for_bodies_elsewhere(tmp_path: Path, pool: ProcessPoolExecutor):
    """A body in a process has its grace, and its outcome is recorded: the next engine does not repeat it."""
    pipe, store = tmp_path / "pipe", f"lmdb:{tmp_path / 'store'}"
    os.mkfifo(pipe)
    engine = Engine(store, workflows=[far.one], executor=pool, grace=60)
    run = engine.start(far.one, "until_told", str(pipe), id="r")
    with pipe.open("w") as told:  # opens when the body reads
        closing = threading.Thread(target=engine.close)
        closing.start()
        told.write("done")
    closing.join(60)
    with Engine(store, workflows=[far.one]) as engine:
        assert engine.get("r").result(timeout=60) == "done"
    assert run.id == "r"


def test_an_executor_is_one_or_a_function_that_makes_one():
    """Anything else is refused where it is given."""
    with pytest.raises(BadOption, match=r"executor=5"):
        Engine("memory:", workflows=[far.one], executor=5)  # type: ignore[arg-type]
    assert issubclass(AttemptLost, ConnectionError)
    assert issubclass(BrokenExecutor, RuntimeError)
