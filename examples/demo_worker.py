"""The process that the demo kills: an engine that serves the audit, and starts it if it is not there yet.

Starting is idempotent by id, so the first start and every restart are the same command line. The worker lives until
its standard input ends, which is when the demo closes it or dies: nothing is left behind that nobody watches.
"""

from __future__ import annotations

import argparse
import sys

from dalsegno import Engine, collect
from dalsegno.examples import audit


def main() -> None:
    """Serve the audit until standard input ends."""
    parser = argparse.ArgumentParser(description="Serve the audit of one source tree until standard input ends.")
    parser.add_argument("--store", required=True, help="the URL of the store, e.g. lmdb:./store")
    parser.add_argument("--id", required=True, help="the workflow id of the audit")
    parser.add_argument("--root", required=True, help="the tree to audit")
    parser.add_argument("--out", required=True, help="the folder for the report")
    parser.add_argument("--ledger", required=True, help="the file that step bodies add a line to")
    options = parser.parse_args()
    with Engine(options.store, workflows=collect(audit)) as engine:
        engine.start(audit.audit_tree, options.root, options.out, options.ledger, id=options.id)
        sys.stdin.read()


if __name__ == "__main__":
    main()
