"""Two Hypothesis profiles: `desk`, for every run of the suite, and `night`, which looks for hours.

`pytest --timeout=0 --hypothesis-profile=night tests/properties`, or DALSEGNO_PROFILE=night in the environment, chooses
the second. Either prints, where a property fails, the line that repeats just that example; random seeds that a test
uses besides are part of its example.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]  # a busy machine draws large programs slowly

settings.register_profile("desk", max_examples=100, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.register_profile("night", max_examples=20_000, deadline=None, print_blob=True, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("DALSEGNO_PROFILE", "desk"))
