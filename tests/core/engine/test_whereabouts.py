"""The logger for workflow code says each line once, over crashes, evictions and replays; and what records carry."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Engine, Flow, Receive, Sleep, step, workflow, workflow_logger
from dalsegno.backends.memory import MemoryBackend
from dalsegno.core.errors import StoreFull
from dalsegno.testing import Simulation, assert_replays

log = workflow_logger("dalsegno.tests.talk")


class Kept(logging.Handler):
    """Keeps the records."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        """What was said."""
        return [record.getMessage() for record in self.records]


@pytest.fixture
def said() -> Iterator[Kept]:
    """What the logger of these workflows says."""
    handler = Kept()
    log.logger.addHandler(handler)
    log.logger.setLevel(logging.INFO)
    yield handler
    log.logger.removeHandler(handler)


@step
def think(n: int) -> int:
    """A step that speaks, too."""
    log.info("step %d", n)
    return n


@workflow
def talk(count: int) -> Flow[str]:
    """Says something wherever it goes on."""
    log.info("begins")
    for n in range(count):
        yield from think(n)
        log.info("after %d", n)
        yield from Sleep(timedelta(days=1))
    word = yield from Receive("word", str)
    log.info("heard %s", word)
    return word


LINES = ["begins", "step 0", "after 0", "step 1", "after 1", "step 2", "after 2", "heard go"]


@pytest.mark.parametrize("cold", [False, True])
def test_each_line_is_said_once_over_restarts_and_evictions(said: Kept, cold: bool):
    """With the process killed while the run waits, and with every activation a replay, nothing is said twice."""
    with Simulation([talk], cold=cold) as simulation:
        run = simulation.start(talk, 3, id="a")
        simulation.at(timedelta(hours=12), simulation.restart)
        simulation.at(timedelta(hours=36), simulation.restart)
        simulation.at(timedelta(days=5), lambda: run.signal("word", "go"))
        assert run.result() == "go"
    # Nothing is recorded yet when the first outcome comes: what was said until then may be said again.
    assert said.lines == ([*LINES[:2], *LINES[:1], *LINES[2:]] if cold else LINES)


def test_a_run_that_waits_before_anything_is_recorded_is_not_heard_again(said: Kept):
    """A run put away, and restarted, while it waits for its first signal has begun once."""
    with Simulation([talk]) as simulation:
        run = simulation.start(talk, 0, id="a")
        simulation.at(timedelta(days=1), simulation.restart)
        simulation.at(timedelta(days=2), lambda: run.signal("word", "go"))
        assert run.result() == "go"
    assert said.lines == ["begins", "heard go"]


def test_what_was_said_and_not_recorded_is_said_again(said: Kept):
    """A crash between a line and the commit behind it loses neither the step nor the line: both come again."""
    store = MemoryBackend()
    with Simulation([talk], store=store) as simulation:
        run = simulation.start(talk, 3, id="a")
        original = store.commit

        def full(transitions: Any) -> Any:
            store.commit = original  # type: ignore[method-assign]
            raise StoreFull("no room")

        store.commit = full  # type: ignore[method-assign]
        while "after 0" not in said.lines or store.commit is full:
            assert simulation.works.piece()
        simulation.restart()
        simulation.at(timedelta(days=5), lambda: run.signal("word", "go"))
        run.result()
    assert said.lines == [*LINES[:3], *LINES]


def test_mended_code_says_what_it_had_not_come_to(said: Kept):
    """A run blocked half-way through a stretch of code says that stretch again when it goes on, and nothing before."""
    broken = [True]

    @workflow
    def halting() -> Flow[str]:
        log.info("begins")
        yield from think(0)
        log.info("between")
        if broken[0]:
            yield 17  # type: ignore[misc]
        log.info("beyond")
        return "done"

    with Simulation([halting]) as simulation:
        run = simulation.start(halting, id="a")
        simulation.run()
        assert run.status.value == "blocked"
        broken[0] = False
        simulation.restart()
        assert run.result() == "done"
    assert said.lines == ["begins", "step 0", "between", "between", "beyond"]


def test_records_carry_the_run_and_the_step(said: Kept, tmp_path: Path):
    """Lines of the workflow name the run; those of a body the step and its attempt besides."""
    with Engine(f"lmdb:{tmp_path / 'store'}", workflows=[talk]) as engine:
        run = engine.start(talk, 1, id="a")
        while "after 0" not in said.lines:
            run.status  # noqa: B018  # asks the store, which takes its time
    code, body = (next(r for r in said.records if r.getMessage() == line) for line in ("begins", "step 0"))
    for record in (code, body):
        assert vars(record)["workflow_id"] == "a"
        assert vars(record)["run_id"] == "a#1"
        assert vars(record)["workflow"] == "talk"
    assert (vars(body)["step"], vars(body)["attempt"]) == ("think", 1)
    assert "step" not in vars(code)
    assert code.funcName == "talk"  # where it was said, not where the adapter is


def test_nobody_hears_a_replay_outside_of_an_engine(said: Kept):
    """Checking a history against the code says nothing, nor does a workflow's plain function that a test drives."""
    with Simulation([talk]) as simulation:
        run = simulation.start(talk, 0, id="a")
        simulation.at(1, lambda: run.signal("word", "go"))
        run.result()
        before = list(said.lines)
        assert_replays([run.history()], [talk])
    next(talk.fn(0))
    assert said.lines == before


def test_the_engines_own_records_carry_the_run(caplog: pytest.LogCaptureFixture):
    """What the engine logs about a run names it in attributes, too."""

    @workflow
    def astray() -> Flow[None]:
        yield 17  # type: ignore[misc]

    with Simulation([astray]) as simulation:
        simulation.start(astray, id="a")
        simulation.run()
    blocked = next(record for record in caplog.records if "is blocked" in record.message)
    assert (vars(blocked)["workflow_id"], vars(blocked)["run_id"]) == ("a", "a#1")
