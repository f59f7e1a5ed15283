"""Which means of torture this machine has, so that nobody takes silence for success."""

from __future__ import annotations

from collections.abc import Callable

from tests.torture.means import without_mounts, without_strace


def test_what_is_lacking_is_told(record_property: Callable[[str, object], None]):
    """The report says which tortures did not take place on this machine, and why."""
    reasons = {"system calls that fail or kill": without_strace(), "a full disk of its own": without_mounts()}
    for torture, reason in reasons.items():
        record_property(torture, reason or "done")
        print(f"{torture}: {'not done, ' + reason if reason else 'done'}")
