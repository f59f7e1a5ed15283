"""`python -m dalsegno.examples NAME …`: run an example under its own name.

`python -m dalsegno.examples.pipeline` would make a second module of it, called `__main__`, whose data classes are
others than those of the first; what they stored would then be unknown to every other program.
"""

from __future__ import annotations

import importlib
import sys

from dalsegno import StoreError

RUNNABLE = ("hello", "on_dask", "on_ray", "pipeline", "provision", "seals", "wages")


def main() -> None:
    """Run the example that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] not in RUNNABLE:
        sys.exit(f"usage: python -m dalsegno.examples {{{','.join(RUNNABLE)}}} …")
    name = sys.argv.pop(1)
    sys.argv[0] = f"dalsegno.examples {name}"
    try:
        importlib.import_module(f"dalsegno.examples.{name}").main()
    except StoreError as error:
        sys.exit(f"{sys.argv[0]}: {error}")


if __name__ == "__main__":
    main()
