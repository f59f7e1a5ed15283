"""A probe in a process of its own: `python -m benchmarks.probe NAME FOLDER SIZE` prints its figures as JSON.

What only some probes need is imported for those alone, whose names say where they are: `debugger.jumps`.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import sys
from pathlib import Path

from benchmarks import scenarios, yardsticks  # noqa: F401  # they enter their probes
from benchmarks.measuring import PROBES

if __name__ == "__main__":
    given, folder, size = sys.argv[1:]
    logging.getLogger("dalsegno").setLevel(logging.ERROR)  # an engine that takes over from a dead one says so
    module, _, name = given.rpartition(".")
    if module:
        importlib.import_module(f"benchmarks.{module}")
    print(json.dumps(PROBES[name](Path(folder), int(size))), flush=True)
    os._exit(0)  # nobody waits for a hundred thousand objects to be taken apart
