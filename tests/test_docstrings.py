"""The examples in docstrings do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

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
