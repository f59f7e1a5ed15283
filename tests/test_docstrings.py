"""The examples in docstrings do what they show, and every public name has one."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil

import pytest

import dalsegno
from dalsegno import backends, core, examples, testing, tools

PARTS = (core, backends, testing, tools, examples)
MODULES = [
    found.name
    for part in PARTS
    for found in pkgutil.walk_packages(part.__path__, f"{part.__name__}.")
    if not found.name.endswith("__main__")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    """Each example in a module answers what stands below it. It is run as a user's program, not as a part of ours."""
    done = doctest.testmod(importlib.import_module(name), extraglobs={"__name__": "__main__"})
    assert not done.failed


FACES = (dalsegno, testing)


def public_names() -> list[tuple[str, object]]:
    """Every class and function of the faces that is no exception; `Flow` and `Branch` are neither, but aliases."""
    things = [(f"{face.__name__}.{name}", getattr(face, name)) for face in FACES for name in face.__all__]
    return [(name, thing) for name, thing in things if inspect.isfunction(thing) or is_own_class(thing)]


def is_own_class(thing: object) -> bool:
    """Whether something is a class, and no exception."""
    return inspect.isclass(thing) and not issubclass(thing, BaseException)


@pytest.mark.parametrize(("name", "thing"), public_names(), ids=lambda given: given if isinstance(given, str) else "")
def test_every_public_name_shows_how_it_is_used(name: str, thing: object):
    """What a user imports says what it does and has an example that runs, of its own and not its parent's."""
    said = vars(thing).get("__doc__") if inspect.isclass(thing) else thing.__doc__
    assert said, f"{name} has no docstring"
    assert ">>> " in said, f"{name} has no example"


@pytest.mark.parametrize(
    "error",
    [each for face in FACES for each in vars(face).values() if inspect.isclass(each) and issubclass(each, Exception)],
)
def test_every_public_error_says_what_it_means(error: type[Exception]):
    """Errors need no example of how they are made, but say when they are raised; `docs/errors.md` shows each."""
    assert vars(error).get("__doc__")
