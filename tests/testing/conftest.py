"""What concerns one release of Python is collected there only."""

from __future__ import annotations

import sys

collect_ignore = ["test_foresight.py"] if sys.version_info >= (3, 12) else []
