"""Mappings that come into being when they are first written to.

Of what a run may have (tasks, signals, races, changes, callbacks …) most runs have nothing. A dozen empty containers
each are a dozen objects that Python's garbage collector counts and visits, which took a third of what starting
thousands of runs costs. So all that is seldom used begins as one shared, empty, unchangeable mapping.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")

NONE: Mapping[Any, Any] = MappingProxyType({})
"""What stands where nothing has been written."""


def owned(mapping: Mapping[K, V]) -> dict[K, V]:
    """A mapping to write to: the one that is there, or a first one, which the caller has to put in its place.

    >>> owned(NONE), owned({1: 2})
    ({}, {1: 2})
    """
    return mapping if type(mapping) is dict else {}
