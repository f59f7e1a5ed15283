"""Policies: what they compute, and that a wrong one cannot be made."""

from __future__ import annotations

import errno
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import pytest

from dalsegno import (
    BadOption,
    CheckpointPolicy,
    Completion,
    Permanent,
    Retention,
    Retry,
    RetryAfter,
    TimedOut,
    UseError,
)
from dalsegno.core.policies import StepOptions, WorkflowOptions, seconds

# What a slip of the pen gives, which no type checker may have looked at.
NO: Any = cast(Any, "no")


def test_the_defaults_are_those_that_were_asked_for():
    """Five attempts from 1 s to 60 s, a checkpoint every 10 steps or 5 minutes, 7 days for what completed, 30 else."""
    retry, checkpoint, retention = Retry(), CheckpointPolicy(), Retention()
    assert (retry.max_attempts, retry.initial, retry.backoff, retry.maximum) == (5, 1, 2, 60)
    assert (checkpoint.every_steps, checkpoint.every) == (10, 300)
    assert (retention.completed, retention.failed) == (7 * 86400, 30 * 86400)


@pytest.mark.parametrize("error", [TimedOut("x"), TimeoutError(), ConnectionResetError(), BlockingIOError()], ids=repr)
def test_what_goes_away_by_itself_is_retried(error: Exception):
    """Time-outs, connection errors and a temporary lack of resources are worth another attempt."""
    assert Retry().retries(error)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EMFILE, "files"), True),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (ValueError("no"), False),
        (MemoryError(), False),
        (RetryAfter(5), True),
        (Permanent(ConnectionError()), False),
    ],
    ids=repr,
)
def test_anything_else_is_final(error: Exception, again: bool):
    """An OSError is judged by its number, a step's own word goes before the policy, all other errors are final."""
    assert Retry().retries(error) is again


def test_never_wins_over_both():
    """What `never_on` names is final, though it is transient or named by `retry_on`."""
    retry = Retry(retry_on=(ValueError, KeyError), never_on=(KeyError, ConnectionRefusedError))
    assert [retry.retries(error) for error in (ValueError(), KeyError(), ConnectionRefusedError())] == [
        True,
        False,
        False,
    ]


def test_one_kind_of_error_needs_no_tuple():
    """`retry_on=ValueError` means the tuple with that one."""
    retry = Retry(retry_on=ValueError, never_on=[KeyError])
    assert (retry.retry_on, retry.never_on) == ((ValueError,), (KeyError,))


def test_waits_grow_to_their_maximum_and_are_spread():
    """The wait doubles, is bounded, does not overflow, and jitter moves it by its share in both directions."""
    assert [Retry(jitter=0).delay(n, 0.9) for n in (1, 2, 6, 7, 5000)] == [1, 2, 32, 60, 60]
    assert [Retry(jitter=0.5).delay(1, spread) for spread in (0.0, 0.5)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Retry(max_attempts=0), "at least 1"),
        (lambda: Retry(max_attempts=NO), "max_attempts='no'): takes a whole number"),
        (lambda: Retry(max_attempts=cast(Any, 2.5)), "whole number"),
        (lambda: Retry(max_attempts=True), "whole number"),
        (lambda: Retry(backoff=0.5), "would shrink"),
        (lambda: Retry(backoff=NO), "backoff='no'): takes a number"),
        (lambda: Retry(jitter=2), "between 0 and 1"),
        (lambda: Retry(jitter=math.nan), "jitter=nan): takes a number"),
        (lambda: Retry(initial=-1), "cannot be less than zero"),
        (lambda: Retry(maximum=math.nan), "not nan"),
        (lambda: Retry(initial=NO), "a number of seconds or a timedelta, not 'no'"),
        (lambda: Retry(retry_on=cast(Any, (5,))), "retry_on=(5,)): 5 is no type of exception"),
        (lambda: Retry(retry_on=NO), "is no type of exception"),
        (lambda: Retry(never_on=cast(Any, ValueError("x"))), "is no type of exception"),
        (lambda: CheckpointPolicy(every_steps=0), "at least 1"),
        (lambda: CheckpointPolicy(every_steps=NO), "whole number"),
        (lambda: CheckpointPolicy(every=0), "more than zero"),
        (lambda: CheckpointPolicy(every=timedelta(0)), "more than zero"),
        (lambda: Completion(min_successful=-1), "cannot be less than zero"),
        (lambda: Completion(min_successful=NO), "whole number"),
        (lambda: Completion(tolerated_failures=cast(Any, 1.5)), "whole number"),
        (lambda: Completion(tolerated_percentage=101), "between 0 and 100"),
        (lambda: Completion(tolerated_percentage=NO), "takes a number"),
        (lambda: StepOptions(timeout=0), "more than zero"),
        (lambda: StepOptions(timeout=math.nan), "a number of seconds or a timedelta, not nan"),
        (lambda: StepOptions(timeout=1e12), "at most 100,000,000,000, or leave it out"),
        (lambda: StepOptions(retry=cast(Any, 5)), "retry=5): takes a Retry"),
        (lambda: StepOptions(once=NO), "once='no'): takes True or False"),
        (lambda: StepOptions(idempotent=cast(Any, 1)), "takes True or False"),
        (lambda: StepOptions(queue=cast(Any, 5)), "5 names no queue"),
        (lambda: StepOptions(once=True, idempotent=True), "exclude each other"),
        (lambda: WorkflowOptions(arguments=NO), "arguments='no'): one of 'strict', 'warn', 'ignore'"),
        (lambda: WorkflowOptions(on_parent_close=NO), "one of 'cancel', 'abandon', 'terminate'"),
        (lambda: WorkflowOptions(id=cast(Any, 5)), "a workflow id is text, not 5"),
        (lambda: WorkflowOptions(id=""), "cannot be a workflow id: it is empty"),
        (lambda: WorkflowOptions(id="a\0b"), "NUL"),
        (lambda: WorkflowOptions(id="x" * 1001), "1001 characters, and 1000 are allowed"),
        (lambda: WorkflowOptions(id="\udcff"), "half of a surrogate pair"),
        (lambda: Retention(completed=-1), "cannot be less than zero"),
        (lambda: Retention(archive=""), "name a folder"),
        (lambda: Retention(archive_for=5), "can be deleted there later"),
    ],
)
def test_a_wrong_policy_cannot_be_made(make: Callable[[], object], says: str):
    """A value of the wrong type or out of range is refused where it is written, with what could stand there."""
    with pytest.raises(BadOption) as raised:
        make()
    assert says in str(raised.value)


def test_a_wrong_policy_is_an_ordinary_value_error_too():
    """Whoever catches ValueError catches it; whoever catches our errors as well."""
    assert issubclass(BadOption, ValueError)
    assert issubclass(BadOption, UseError)


def test_durations_are_seconds_or_timedeltas():
    """Both are taken, booleans are not."""
    assert (seconds(2), seconds(timedelta(minutes=1))) == (2.0, 60.0)
    with pytest.raises(BadOption, match="not True"):
        seconds(True)


def test_a_time_out_without_end_is_none():
    """Infinity is how some write that there is none."""
    assert StepOptions(timeout=math.inf).timeout is WorkflowOptions(timeout=None).timeout is None


def test_a_completion_bears_what_it_says():
    """Counts and percentages bound the failures; with nothing said any number is borne."""
    assert Completion().bears(10, 10)
    assert [Completion(tolerated_failures=1).bears(n, 10) for n in (1, 2)] == [True, False]
    assert [Completion(tolerated_percentage=20).bears(n, 10) for n in (2, 3)] == [True, False]
    assert [Completion(min_successful=2).satisfied(n) for n in (1, 2)] == [False, True]
    assert not Completion().satisfied(10)


def test_the_adaptive_policy_says_so():
    """Its interval is measured; what is given stays the bound."""
    policy = CheckpointPolicy.adaptive(every=timedelta(seconds=30))
    assert (policy.measured, policy.every) == (True, 30)
