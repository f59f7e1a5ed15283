"""What comes of a run, as its caller sees it."""

from __future__ import annotations

import asyncio
import threading

import pytest

from dalsegno import Client, EncodeError, Engine, Flow, Receive, RemoteError, Sleep, Status, TimedOut, step, workflow
from dalsegno.testing.simulation import Simulation


class Rejected(Exception):
    """An error of the user's, with a fact."""

    def __init__(self, order: str, *, code: int) -> None:
        super().__init__(f"order {order} rejected")
        self.order, self.code = order, code


@workflow
def reject(order: str) -> Flow[None]:
    """Fail, for a reason."""
    yield Sleep(1)
    try:
        raise KeyError("missing")
    except KeyError as error:
        raise Rejected(order, code=7) from error


@workflow
def wait() -> Flow[str]:
    """Wait for a word."""
    return (yield from Receive("word", str))


def test_result_raises_the_workflows_own_exception():
    """Type, attributes and cause are restored, each time anew, and a note names run and event."""
    with Simulation([reject]) as simulation:
        run = simulation.start(reject, "o-1", id="r")
        with pytest.raises(Rejected) as first:
            run.result()
        with pytest.raises(Rejected) as second:
            run.result()
        assert first.value is not second.value
        assert (first.value.order, first.value.code) == ("o-1", 7)
        assert isinstance(first.value.__cause__, KeyError)
        assert any("run r#1, event 3" in note for note in first.value.__notes__)
        assert run.status is Status.FAILED


def test_error_is_the_failure_as_data():
    """`run.error` needs none of the user's classes; it is None for a run that has not failed."""
    with Simulation([reject, wait]) as simulation:
        run = simulation.start(reject, "o-1")
        assert simulation.get(run.id).error is None
        simulation.run()
        error = run.error
        assert error is not None
        assert error.type.endswith(":Rejected")
        assert (error.message, error.attributes["code"]) == ("order o-1 rejected", 7)
        assert error.cause is not None
        assert error.cause.type == "builtins:KeyError"
        waiting = simulation.start(wait)
        waiting.signal("word", "x")
        assert waiting.result() == "x"
        assert waiting.error is None


def test_an_error_whose_type_is_not_known_here_is_remote():
    """A class that cannot be found stands as `RemoteError`, with its name."""

    class Local(Exception):
        pass

    @workflow
    def fail() -> Flow[None]:
        yield Sleep(1)
        raise Local("far away")

    with Simulation([fail]) as simulation, pytest.raises(RemoteError, match="far away") as caught:
        simulation.start(fail).result()
    assert caught.value.type_name.endswith("Local")


def test_result_gives_up_after_its_timeout_and_the_run_goes_on():
    """`TimedOut` from `result` says nothing about the run."""
    with Simulation([wait]) as simulation:
        run = simulation.start(wait)
        with pytest.raises(TimedOut, match="it is running and goes on"):
            run.result(timeout=60)
        run.signal("word", "late")
        assert run.result(timeout=60) == "late"


def test_a_value_that_cannot_be_stored_fails_the_run_and_says_where():
    """A workflow that returns a lock has failed with `EncodeError`."""

    @workflow
    def lock() -> Flow[object]:
        yield Sleep(1)
        return threading.Lock()

    with Simulation([lock]) as simulation:
        run = simulation.start(lock)
        with pytest.raises(EncodeError, match="returned by workflow 'lock'"):
            run.result()


def test_runs_can_be_awaited():
    """`await run` gives what `result` gives, in any event loop, for several runs at once."""

    @step
    def double(n: int) -> int:
        return 2 * n

    @workflow
    def job(n: int) -> Flow[int]:
        return (yield from double(n))

    async def gather(engine: Engine) -> list[int]:
        runs = [engine.start(job, n) for n in range(20)]
        return list(await asyncio.gather(*runs))

    with Engine("memory:", workflows=[job]) as engine:
        assert asyncio.run(gather(engine)) == [2 * n for n in range(20)]


def test_awaiting_a_failed_run_raises():
    """The exception comes out of the `await`."""

    @workflow
    def fail() -> Flow[None]:
        yield Sleep(0)
        raise Rejected("o", code=1)

    async def look(engine: Engine) -> None:
        await engine.start(fail)

    with Engine("memory:", workflows=[fail]) as engine, pytest.raises(Rejected):
        asyncio.run(look(engine))


def test_a_client_beside_the_engine_sees_the_end():
    """`result` works for a client that shares only the store."""
    with Engine("memory:", workflows=[wait]) as engine:
        run = engine.start(wait, id="w")
        with Client(engine.backend) as client:
            there = client.get("w")
            assert there.status is Status.RUNNING
            there.signal("word", "hello")
            assert there.result(timeout=30) == "hello"
            assert run.result(timeout=30) == "hello"
