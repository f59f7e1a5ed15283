"""Where a means of torture is lacking, the tests that need it say so, so that nobody takes silence for success."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.torture import means
from tests.torture.stage import ROOT


def summary(path: str, *tests: str) -> str:
    """What pytest tells of these tests on a machine that has nothing but what lies in `path`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_without_strace_the_tests_say_why_they_did_not_run(tmp_path: Path):
    """Each is skipped, none passes or fails, and the summary names what is lacking and who would install it."""
    told = summary(str(tmp_path), "tests/torture/test_system_calls.py")
    assert re.search(r"SKIPPED .*: strace is not installed \(\.ci/run installs it where it may\)", told), told
    assert re.search(r"^\d+ skipped in", told, re.MULTILINE), told


def test_a_strace_that_may_not_trace_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where the system forbids tracing, the reason is what strace says itself."""
    program = tmp_path / "strace"
    program.write_text("#!/bin/sh\necho 'ptrace: Operation not permitted' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert means.without_strace.__wrapped__() == "strace may not trace here: ptrace: Operation not permitted"


def test_without_mounts_the_reason_is_told(monkeypatch: pytest.MonkeyPatch):
    """Who is not root, or has no `mount`, is told so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert means.without_mounts.__wrapped__() == "mounting a small file system takes root"
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    assert "cannot be mounted" in means.without_mounts.__wrapped__()
