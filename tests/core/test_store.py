"""The store port: how a URL finds its store."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from dalsegno.core.errors import BadOption
from dalsegno.core.store import OWN_STORES, open_store

ROOT = Path(__file__).resolve().parent.parent.parent


def test_our_own_stores_are_those_of_the_entry_points():
    """What is known without looking is what an installation registers."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    registered = project["entry-points"]["dalsegno.backends"]
    assert {scheme: registered[scheme] for scheme in OWN_STORES} == OWN_STORES


def test_an_unknown_scheme_is_told_the_known_ones():
    """The error of a mistyped URL says what could stand there."""
    with pytest.raises(BadOption, match=r"no store is registered for 'lmbd' \(known here: .*lmdb, memory"):
        open_store("lmbd:orders")
