"""Definitions: what `@step` and `@workflow` make, refuse and find."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from dalsegno import (
    BadOption,
    DefinitionError,
    Engine,
    Flow,
    Patched,
    Receive,
    Retry,
    Sleep,
    collect,
    step,
    workflow,
)
from dalsegno.core.commands import RunStep, StartChild
from dalsegno.core.definitions import by_name

# What a type checker would refuse, passed on purpose.
make_step: Any = step
make_workflow: Any = workflow


@step
def charge(amount: int, *, currency: str = "EUR") -> str:
    return f"{amount} {currency}"


@workflow
def nap(hours: int) -> Flow[None]:
    yield from Sleep(hours)


@workflow
async def doze(hours: int) -> None:
    await Sleep(hours)


def plain(x: int) -> int:
    return x


async def ticks() -> AsyncIterator[int]:
    yield 1


def numbers() -> Iterator[int]:
    yield 1


def test_calling_builds_a_command_and_runs_nothing():
    """A call makes a frozen command; `.fn` is the plain function."""
    command = charge(5, currency="USD")
    assert isinstance(command, RunStep)
    assert (command.name, command.args, command.kwargs) == ("charge", (5,), {"currency": "USD"})
    assert isinstance(nap(1), StartChild)
    assert charge.fn(5) == "5 EUR"


def test_options_are_for_one_call():
    """`.options` answers another definition and leaves the first as it was."""
    other = charge.options(timeout=5)
    assert (other(1).options.timeout, charge(1).options.timeout) == (5, None)
    assert nap.options(id="mine")(1).options.id == "mine"


@pytest.mark.parametrize(("args", "kwargs"), [((), {}), ((1, 2), {}), ((1,), {"color": 3})])
@pytest.mark.parametrize("called", [charge, nap], ids=lambda called: called.name)
def test_a_call_that_does_not_fit_is_refused_where_it_stands(called: Any, args: tuple[int, ...], kwargs: Any):
    """Missing, superfluous and unknown arguments raise TypeError with the signature, at the caller's line."""
    with pytest.raises(TypeError, match=r"(charge|nap)\("):
        called(*args, **kwargs)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: make_workflow(plain), "plain is not a generator function.*make it a @step"),
        (lambda: make_workflow(int), "int is not a generator function"),
        (lambda: make_workflow(5), "5 is not a generator function"),
        (lambda: make_workflow(charge), "charge is a @step already; decorate a plain function"),
        (lambda: make_workflow(nap), "nap is a @workflow already"),
        (lambda: make_workflow(ticks), "ticks is an async generator"),
        (lambda: make_workflow(lambda: (yield)), "give it one with name="),
        (lambda: make_step(5), "takes a function, not 5"),
        (lambda: make_step(int), "takes a function, not <class 'int'>"),
        (lambda: make_step(nap), "nap is a @workflow already; yield it from a workflow as it is"),
        (lambda: make_step(charge), "charge is a @step already"),
        (lambda: make_step(numbers), "numbers is a generator function"),
        (lambda: make_step(lambda: 1), "give it one with name="),
    ],
)
def test_what_cannot_be_one_is_refused_where_it_is_decorated(make: Callable[[], object], says: str):
    """The error names the function and says what was likely meant."""
    with pytest.raises(DefinitionError, match=says):
        make()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: make_step(tries=3), r"@step has no option 'tries'; it takes .*timeout"),
        (lambda: make_workflow(retry=Retry()), r"@workflow has no option 'retry'; it takes .*timeout"),
        (lambda: charge.options(tries=3), r"charge.options has no option 'tries'; it takes"),
        (lambda: charge.options(name="x"), r"charge.options has no option 'name'; it takes"),
        (lambda: nap.options(on_conflict="x"), r"nap.options has no option 'on_conflict'; it takes"),
    ],
)
def test_an_unknown_option_is_answered_with_the_known_ones(make: Callable[[], object], says: str):
    """A mistyped option is a TypeError that lists what there is."""
    with pytest.raises(TypeError, match=says):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: make_step(retry=5)(plain),
        lambda: charge.options(retry=3),
        lambda: charge.options(timeout=-1),
        lambda: nap.options(id=5),
        lambda: nap.options(on_parent_close="kill"),
        lambda: make_workflow(arguments="loose")(nap.fn),
    ],
)
def test_an_option_out_of_range_is_refused_where_it_is_written(make: Callable[[], object]):
    """Before anything runs, not when the first step fails."""
    with pytest.raises(BadOption):
        make()


def test_collect_finds_what_a_module_defines():
    """Each definition once, in the order of the module, and nothing else."""
    module = types.ModuleType("app")
    vars(module).update(charge=charge, again=charge, nap=nap, plain=plain)
    assert collect(module) == [charge, nap]


@pytest.mark.parametrize("given", ["app", None, charge])
def test_collect_takes_modules(given: Any):
    """The name of a module is not one, and neither is a definition."""
    with pytest.raises(DefinitionError, match=r"collect.*takes modules"):
        collect(given)


def test_one_name_means_one_function():
    """Two functions of one name are refused with both places; options do not make another function of one."""
    assert set(by_name([charge, charge.options(timeout=5), nap])) == {"charge", "nap"}
    with pytest.raises(DefinitionError, match=r"two definitions are called 'nap': .*test_definitions.py:\d+ and"):
        by_name([nap, workflow(name="nap")(doze.fn)])


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([plain], "plain.*decorate it first"),
        (nap, r"workflows=nap: takes several, like workflows=\[nap\]"),
        (types.ModuleType("shop.orders"), r"collect\(orders\) finds those of a module"),
        (5, "workflows=5: takes a list of definitions"),
    ],
)
def test_an_engine_takes_a_list_of_definitions(given: Any, says: str):
    """A plain function, a definition alone and a module are refused with what to write."""
    with pytest.raises(DefinitionError, match=says):
        Engine("memory:", workflows=given)


def test_an_engine_takes_a_url_or_a_store():
    """A path is told how to write it; what is neither is refused."""
    with pytest.raises(BadOption, match="write 'lmdb:orders'"):
        Engine(cast(Any, Path("orders")))
    with pytest.raises(BadOption, match="or an opened store"):
        Engine(cast(Any, 5))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Patched(cast(Any, [1])),
        lambda: Patched("\udcff"),
        lambda: Receive("\udcff"),
        lambda: Receive("x", timeout=float("nan")),
        lambda: Receive("x", timeout=1e300),
    ],
)
def test_a_wrong_command_cannot_exist(make: Callable[[], object]):
    """What could not be recorded is refused where it is written."""
    with pytest.raises(BadOption):
        make()


def test_a_receive_without_end_has_no_time_out():
    """Infinity is how some write that there is none."""
    assert Receive("x", timeout=float("inf")).timeout is None
