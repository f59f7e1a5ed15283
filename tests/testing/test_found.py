"""What the harness has found in the engine, each with the shortest play that showed it."""

from __future__ import annotations

import pytest

from dalsegno import Flow, Retry, step, workflow
from dalsegno.testing.simulation import Simulation


@step(retry=Retry(max_attempts=3, initial=60, jitter=0))
def flaky(fails: int) -> int:
    """Fails as often as it is told to; the tests fake it."""
    raise NotImplementedError


@workflow
def tries() -> Flow[int]:
    """One step that needs several attempts."""
    return (yield from flaky(1))


@pytest.mark.parametrize("when", [30, 60, 65, 90])
def test_a_crash_in_the_second_attempt_does_not_lose_the_step(when: int):
    """The timer that began an attempt has left the store; if the process dies in that attempt, it is begun again."""
    attempts = []

    def fails_once(fails: int) -> int:
        attempts.append(fails)
        if len(attempts) == 1:
            raise ConnectionError("try again")
        return 5

    with Simulation([tries], fakes={flaky: fails_once}) as simulation:
        simulation.takes(flaky, lambda attempt: 0 if attempt == 1 else 10)
        run = simulation.start(tries)
        simulation.at(when, simulation.restart)
        assert run.result() == 5
