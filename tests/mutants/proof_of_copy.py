"""A plugin that sees to it that the tests of a copy run on the code of the copy, and on no other."""

from __future__ import annotations

import os

import dalsegno


def pytest_configure() -> None:
    """Stop at once if another `dalsegno` was imported."""
    copy = os.environ["DALSEGNO_MUTANT"]
    if not dalsegno.__file__.startswith(copy):
        raise RuntimeError(f"tests of {copy} would run on {dalsegno.__file__}")
