"""Errors: what they carry, that they survive pickling, and that a wrong one cannot be made."""

from __future__ import annotations

import inspect
import pickle
from datetime import timedelta
from typing import Any

import pytest

from dalsegno import BadOption, DalsegnoError, Permanent, RemoteError, RetryAfter, RunNotFound, StepOutcomeUnknown
from dalsegno.core import errors

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, DalsegnoError)]


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_survives_pickling(kind: type[DalsegnoError]):
    """Type, message and facts are the same in another process."""
    error = kind(5) if kind is RetryAfter else kind("what happened")
    error.__dict__["workflow_id"] = "order-42"
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), copy.workflow_id) == (kind, str(error), "order-42")


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_every_error_says_whose_fault_it_is(kind: type[DalsegnoError]):
    """Each has a docstring of its own, and stands below one of the groups, or is one, or is raised by steps."""
    groups = (errors.WorkflowError, errors.UseError, errors.DataError, errors.StoreError, errors.Outcome)
    assert issubclass(kind, (*groups, errors.InternalError, Permanent, RetryAfter)) or kind is DalsegnoError
    assert kind.__doc__ != next((base.__doc__ for base in kind.__mro__[1:]), None)


def test_a_fact_that_is_missing_is_an_attribute_error():
    """Facts are attributes; asking for another says whose it is not."""
    assert RunNotFound("x", workflow_id="order-42").workflow_id == "order-42"
    with pytest.raises(AttributeError, match="StepOutcomeUnknown carries no fact called 'step'"):
        StepOutcomeUnknown("x").step  # noqa: B018


def test_what_a_step_raises_carries_its_reason():
    """`Permanent` and `RetryAfter` keep the exception they were made of as their cause."""
    reason = ConnectionError("no route")
    assert (Permanent(reason).__cause__, str(Permanent(reason))) == (reason, "no route")
    assert (RetryAfter(5, reason).__cause__, RetryAfter(timedelta(seconds=5)).delay) == (reason, timedelta(seconds=5))
    assert str(RetryAfter(2.5)) == "retry after 2.5"


@pytest.mark.parametrize("delay", ["soon", None, True, float("nan"), float("inf"), 1e12, -1, timedelta(-1)])
def test_a_wait_that_cannot_be_kept_is_refused_where_it_is_raised(delay: Any):
    """In the step's own line, and not in the engine when it is about to try again."""
    with pytest.raises(BadOption, match=r"RetryAfter\(.*seconds, or a timedelta, from 0 to 3,000 years"):
        RetryAfter(delay)


def test_an_unknown_exception_is_stood_for():
    """A `RemoteError` has the facts of what it stands for."""
    error = RemoteError("shop:Odd: no", type_name="shop:Odd", details={"code": 5})
    assert (error.type_name, error.details) == ("shop:Odd", {"code": 5})
