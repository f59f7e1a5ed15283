"""Hypothesis profiles: `desk`, for every run of a test suite, and `night`, which looks for hours.

    # conftest.py
    from dalsegno.testing.profiles import register_profiles

    register_profiles()

From then on `pytest` runs a hundred examples of each property, and `pytest --hypothesis-profile=night --timeout=0`
twenty thousand; DALSEGNO_PROFILE=night in the environment does the same. Neither sets a deadline, for a simulation is
fast and a busy machine is not, and both print, where a property fails, the line that repeats just that example.
"""

from __future__ import annotations

import os
from typing import Final

from hypothesis import HealthCheck, settings

EXAMPLES: Final = {"desk": 100, "night": 20_000}
"""How many examples each profile runs of a property."""

VARIABLE: Final = "DALSEGNO_PROFILE"
"""The environment variable that chooses one."""

_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large)  # a busy machine draws large programs slowly


def register_profiles(default: str = "desk") -> None:
    """Make both known to Hypothesis, and load the one that the environment names, or else `default`.

    Raises Hypothesis' own `InvalidArgument` where no profile has that name.
    """
    for name, examples in EXAMPLES.items():
        settings.register_profile(
            name, max_examples=examples, deadline=None, print_blob=True, suppress_health_check=_SLOW
        )
    settings.load_profile(os.environ.get(VARIABLE, default))
