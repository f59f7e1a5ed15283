"""The types a user sees: mypy and pyright both infer them from the samples beside this file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CHECKERS = {
    "mypy": ["mypy", "--strict"],
    "pyright": ["basedpyright", "--pythonpath", sys.executable],
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_the_samples_have_the_types_they_say(checker: str):
    """Every `assert_type` in the samples holds, and every line marked as an error is one."""
    command = [sys.executable, "-m", *CHECKERS[checker], *map(str, HERE.glob("*.py"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
