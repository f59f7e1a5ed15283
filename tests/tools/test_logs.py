"""Logs for programs: a line is one JSON object, safe to print, that names its run."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from dalsegno import Flow, Retry, step, workflow, workflow_logger
from dalsegno.testing import Simulation
from dalsegno.tools.logs import JsonFormatter, RunLog, structured


@step(retry=Retry(max_attempts=2, initial=1, jitter=0))
def shaky() -> None:
    """Fails each time."""
    logging.getLogger("shop").warning("about to fail")
    raise ConnectionError("no\x1b[2Jline")


@workflow
def order() -> Flow[None]:
    """Says something, and fails."""
    workflow_logger("shop").warning("begins")
    yield from shaky()


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """What a handler for programs writes of the engine's log and the shop's."""
    stream = io.StringIO()
    handler = structured(logging.StreamHandler(stream))
    loggers = [logging.getLogger(name) for name in ("dalsegno.engine", "shop")]
    for logger in loggers:
        logger.addHandler(handler)
    loggers[0].setLevel(logging.DEBUG)
    yield stream
    for logger in loggers:
        logger.removeHandler(handler)
    loggers[0].setLevel(logging.NOTSET)


def test_runs_and_steps_are_told_with_their_ids(lines: io.StringIO):
    """Starts, attempts and ends, and what bodies and workflow code log by themselves, name run, step and attempt."""
    with Simulation([order], observers=[RunLog()]) as simulation:
        run = simulation.start(order, id="order-42")
        with pytest.raises(ConnectionError):
            run.result()
    told: list[dict[str, Any]] = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert {one["run_id"] for one in told} == {"order-42#1"}
    assert {one["workflow_id"] for one in told} == {"order-42"}
    found = [(one["logger"], one["message"].split(":")[0], one.get("step"), one.get("attempt")) for one in told]
    assert found == [
        ("shop", "begins", None, None),
        ("dalsegno.engine", "run order-42#1 started", None, None),  # when its code waits for the first time
        ("shop", "about to fail", "shaky", 1),
        ("dalsegno.engine", "step shaky failed, and is tried again", "shaky", 1),
        ("shop", "about to fail", "shaky", 2),
        ("dalsegno.engine", "step shaky failed for good", "shaky", 2),
        ("dalsegno.engine", "run order-42#1 failed", None, None),
    ]
    assert [one.get("error_type") for one in told][3] == "ConnectionError"
    assert told[-1]["status"] == "failed"


def test_a_line_is_one_line_that_acts_on_no_terminal():
    """Escapes and line ends in messages, extras and tracebacks are written the way JSON writes them."""
    try:
        raise ValueError("two\nlines \x1b[2J \u202e")
    except ValueError as error:
        caught = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.ERROR, "", 0, "over \x1b[31m%s\n", ("there\x9b",), caught)
    record.run_id, record.thing = "a\u2028b", object
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert text.isprintable()
    told = json.loads(text)
    assert told["message"] == "over \x1b[31mthere\x9b\n"
    assert told["run_id"] == "a\u2028b"
    assert told["thing"] == "<class 'object'>"
    assert "ValueError: two" in told["error"]
