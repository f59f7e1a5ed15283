"""Logs for programs: one JSON object a line, with the run, step and attempt that each line belongs to.

    {"time": "2026-05-04T08:00:00.000123Z", "level": "WARNING", "logger": "dalsegno.engine",
     "message": "step charge failed for good: ConnectionError", "workflow_id": "order-42", "run_id": "order-42#1", …}

`RunLog` is an observer that has runs and steps told of in the log. `Identities` puts the ids on what step bodies and
workflow code log through any logger of their own.
"""

from __future__ import annotations

import logging
import time
from typing import Any

from dalsegno.core.engine.observing import Attempt, Observer, Outcome
from dalsegno.core.engine.vitals import Vitals
from dalsegno.core.engine.whereabouts import identities, named
from dalsegno.core.errors import DecodeError
from dalsegno.core.store import RunRecord, Status
from dalsegno.core.values.codec import Codec
from dalsegno.tools.text import as_json, clean

log = logging.getLogger("dalsegno.engine")

_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


class Identities(logging.Filter):
    """Names the run on records made where its code or a body of it runs; put it on a handler."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, with what is known of where it came from."""
        if not hasattr(record, "run_id"):
            vars(record).update(identities())
        return True


class JsonFormatter(logging.Formatter):
    """Each record as one line of JSON: time (UTC), level, logger, message, whatever was given as `extra`, and `error`
    with the traceback. No character in it acts on a terminal.

    >>> told = {"name": "shop", "levelname": "INFO", "msg": "paid", "created": 0.5, "step": "pay"}
    >>> print(JsonFormatter().format(logging.makeLogRecord(told)))
    {"time": "1970-01-01T00:00:00.500000Z", "level": "INFO", "logger": "shop", "message": "paid", "step": "pay"}
    """

    def format(self, record: logging.LogRecord) -> str:
        seconds, micros = divmod(round(record.created * 1e6), 1_000_000)
        told: dict[str, Any] = {
            "time": time.strftime(f"%Y-%m-%dT%H:%M:%S.{micros:06d}Z", time.gmtime(seconds)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        told |= {key: _plain(value) for key, value in vars(record).items() if key not in _OF_EVERY_RECORD}
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return as_json(told, one_line=True)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


class RunLog(Observer):
    """Logs how runs and steps fare, on the logger `dalsegno.engine`: failures and blocks as warnings, starts and ends
    of runs as information, single steps and recoveries for debugging."""

    def __init__(self) -> None:
        self._codec = Codec()

    def opened(self, vitals: Vitals) -> None:
        self._codec = vitals.codec

    def run_started(self, run: RunRecord) -> None:
        log.info("run %s started", clean(run.run_id), extra=named(run))

    def run_recovered(self, run: RunRecord, events: int, seconds: float) -> None:
        log.debug(
            "run %s is back, after %d events", clean(run.run_id), events, extra={**named(run), "seconds": seconds}
        )

    def run_closed(self, run: RunRecord, status: Status, seconds: float) -> None:
        level = logging.WARNING if status is Status.FAILED else logging.INFO
        extra = {**named(run), "status": status.value, "seconds": seconds}
        log.log(level, "run %s %s", clean(run.run_id), status.value, extra=extra)

    def step_started(self, attempt: Attempt, waited: float) -> None:
        if attempt.queued_us is None:
            return
        extra = {
            "workflow_id": attempt.run.workflow_id,
            "run_id": attempt.run_id,
            "step": attempt.step,
            "attempt": attempt.attempt,
            "queue": attempt.queue,
            "seconds": max(0, attempt.at_us - attempt.queued_us) / 1e6,
        }
        log.debug("step %s begins, out of queue %s", clean(attempt.step), clean(attempt.queue), extra=extra)

    def step_ended(self, outcome: Outcome) -> None:
        extra: dict[str, Any] = {
            **named(outcome.run),
            "step": outcome.step,
            "attempt": outcome.attempt,
            "outcome": outcome.outcome,
            "seconds": outcome.took_us / 1e6,
        }
        if outcome.outcome == "completed":
            log.debug("step %s completed", clean(outcome.step), extra=extra)
            return
        extra["error_type"] = error_type(self._codec, outcome)
        how = "failed for good" if outcome.outcome == "failed" else "failed, and is tried again"
        log.warning("step %s %s: %s", clean(outcome.step), how, clean(extra["error_type"]), extra=extra)


def error_type(codec: Codec, outcome: Outcome) -> str:
    """The name of the class of an attempt's error."""
    try:
        return codec.describe_error(outcome.error).type.rpartition(":")[2]
    except DecodeError:
        return "an error that cannot be read"


def structured(handler: logging.Handler) -> logging.Handler:
    """A handler whose lines are JSON and name their runs."""
    handler.setFormatter(JsonFormatter())
    handler.addFilter(Identities())
    return handler
