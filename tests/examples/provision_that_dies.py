"""Provisions a cluster in a process that dies right after each step has done its work, once per step.

Not a test: `test_provision` runs it again and again until it ends with status 0. The death falls between the work and
the record of it, which is the worst moment: every step is repeated on top of what it did before.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import attrs

from dalsegno import Engine, collect
from dalsegno.examples import provision

STORE, FOLDER, MARKS = sys.argv[1:]


def dying(name: str, body: Any) -> Any:
    @functools.wraps(body)
    def work(*args: Any, **kwargs: Any) -> Any:
        result = body(*args, **kwargs)
        mark = Path(MARKS, f"{name}-{args[1].number}" if name == "migrate" else name)
        if not mark.exists():
            mark.touch()
            os._exit(9)
        return result

    return work


STEPS = ["install", "initialise", "start", "check_health", "create_roles", "create_schema", "migrate", "verify"]

for name in STEPS:
    step = getattr(provision, name)
    setattr(provision, name, attrs.evolve(step, fn=dying(name, step.fn)))

with Engine(STORE, workflows=collect(provision)) as engine:
    print(engine.start(provision.provision, FOLDER, id="cluster").result(timeout=60).version)
