"""What needs strace is collected where strace works; `test_means.py` tells of what is lacking."""

from __future__ import annotations

from tests.torture.means import without_strace

collect_ignore = ["test_system_calls.py"] if without_strace() else []
