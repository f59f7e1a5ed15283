"""The roads on which workflow code comes to a suspect: functions that call one, each in its own way."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import functools
import importlib
import os
import random
import time
import uuid
from collections.abc import Callable
from typing import Any

import attrs

from dalsegno import Flow, Sleep, workflow
from dalsegno.core.definitions import WorkflowDefinition


class Clock:
    """Everything an object can do to hide a clock."""

    def __init__(self) -> None:
        self.read = time.time

    def method(self) -> float:
        return time.time()

    @staticmethod
    def of_nobody() -> float:
        return time.time()

    @classmethod
    def of_the_class(cls) -> float:
        return time.time()

    def __call__(self) -> float:
        return time.time()

    def extend(self, item: int) -> float:
        return time.time() + item


class Late(Exception):
    """An error that notes when it was."""

    def __init__(self) -> None:
        self.at = time.time()


class Season(enum.Enum):
    """An enumeration with a method."""

    NOW = 1

    def look(self) -> float:
        return time.time()


@dataclasses.dataclass
class Order:
    """A data class with a default that is drawn."""

    id: uuid.UUID = dataclasses.field(default_factory=uuid.uuid4)


@attrs.frozen
class Parcel:
    """The same by attrs."""

    id: uuid.UUID = attrs.field(factory=uuid.uuid4)


TABLE = {"clock": time.time}
CLOCK, CLOCKS = Clock(), [Clock()]


@functools.lru_cache
def cached() -> float:
    return time.time()


def timed(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any) -> Any:
        return time.time(), fn(*args)

    return wrapper


@timed
def decorated() -> int:
    return 1


def with_a_default(clock: Callable[[], float] = time.time) -> float:
    return clock()


def by(key: Callable[[Any], Any]) -> list[int]:
    return sorted([1, 2], key=key)


def made() -> Callable[[], float]:
    def clock() -> float:
        return time.time()

    return clock


def calls(clock: Callable[[], float]) -> Flow[float]:
    yield Sleep(1)
    return clock()


def nap(item: int) -> Sleep:
    return Sleep(item + 0 * time.time())


def hides_in_a_local_class() -> float:
    class Hidden:
        def clock(self) -> float:
            return time.time()

    return Hidden().clock()


def hides_in_an_import() -> float:
    import time as clock

    return clock.time()


def hides_in_a_name_imported() -> float:
    from time import time as clock

    return clock()


def hides_in_a_variable() -> float:
    clock = time.time
    return clock()


def hides_in_a_class_renamed() -> datetime.datetime:
    moment = datetime.datetime
    return moment.now()


def hides_in_a_decoration() -> Any:
    @timed
    def inner() -> int:
        return 1

    return inner()


def hides_in_a_list() -> float:
    clocks = [time.time]

    def clock() -> float:
        return clocks[0]()

    return clock()


def hides_in_the_environment() -> Any:
    environment = os.environ
    return environment["PATH"]


def loops() -> list[float]:
    return [clock() for clock in TABLE.values()]


def raises() -> str:
    try:
        raise Late()
    except Late:
        return "late"


def opens() -> str:
    with open(os.devnull) as nothing:
        return nothing.read()


ROADS: dict[str, Callable[[], Any]] = {
    "a function in a dict": lambda: TABLE["clock"](),
    "functions in a loop": loops,
    "a cache around a function": lambda: cached(),
    "a function kept in an object": lambda: CLOCK.read(),
    "a method": lambda: CLOCK.method(),
    "a static method": lambda: Clock.of_nobody(),
    "a class method": lambda: Clock.of_the_class(),
    "an object that is called": lambda: CLOCK(),
    "a method of an object made here": lambda: Clock().method(),
    "a method of an object from a list": lambda: CLOCKS[0].method(),
    "a method that is called as a list's is": lambda: CLOCKS[0].extend(1),
    "a decorator": lambda: decorated(),
    "a decorator in the function": hides_in_a_decoration,
    "a default argument": lambda: with_a_default(),
    "a key function": lambda: by(lambda _: random.random()),
    "a function that a function made": lambda: made()(),
    "a name put together": lambda: getattr(time, "ti" + "me")(),
    "a module by its name": lambda: importlib.import_module("time").time(),
    "the names of the module": lambda: globals()["time"].time(),
    "arguments unpacked": lambda: time.time(*()),
    "a dict made here": lambda: dict(clock=time.time)["clock"](),
    "a generator expression": lambda: list(time.time() for _ in range(1)),
    "a function handed to map": lambda: list(map(random.choice, ["ab"])),
    "a data class": lambda: Order(),
    "a class of attrs": lambda: Parcel(),
    "a member of an enumeration": lambda: Season.NOW.look(),
    "an error's own code": raises,
    "a with statement": opens,
    "a class in the function": hides_in_a_local_class,
    "an import": hides_in_an_import,
    "a name imported": hides_in_a_name_imported,
    "a variable": hides_in_a_variable,
    "a class renamed": hides_in_a_class_renamed,
    "a list in a closure": hides_in_a_list,
    "the environment renamed": hides_in_the_environment,
}


def workflow_of(fn: Callable[[], Any]) -> WorkflowDefinition[..., Any]:
    """A workflow that sleeps and then calls a function."""

    def asks() -> Flow[None]:
        yield Sleep(1)
        fn()

    return workflow(asks)
