"""The examples in the docstrings of the tools do what they show."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

from dalsegno import tools

MODULES = [found.name for found in pkgutil.walk_packages(tools.__path__, "dalsegno.tools.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str):
    """Each example in a module answers what stands below it."""
    done = doctest.testmod(importlib.import_module(name))
    assert not done.failed
