"""The means of torture that a machine may lack: strace, and small file systems to mount. The tests that need one are
skipped where it is lacking, and pytest's summary says why.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

TRACER = ["strace", "-f", "-qq"]


@cache
def without_strace() -> str:
    """Why no system call can be made to fail here, or nothing."""
    if shutil.which("strace") is None:
        return "strace is not installed (.ci/run installs it where it may)"
    try:
        traced = [*TRACER, "-e", "trace=getppid", "-e", "inject=getppid:error=EIO", "true"]
        done = subprocess.run(traced, capture_output=True, text=True, timeout=20, check=False)
    except subprocess.TimeoutExpired:
        return "strace hangs here"
    return "" if done.returncode == 0 else f"strace may not trace here: {done.stderr.strip()[:200]}"


@cache
def without_mounts() -> str:
    """Why no small file system can be mounted here, or nothing."""
    if os.geteuid() != 0:
        return "mounting a small file system takes root"
    try:
        with small_disk(Path(tempfile.gettempdir()), 1 << 20):
            return ""
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        return f"a small file system cannot be mounted: {getattr(error, 'stderr', b'')!r} ({error})"


@contextmanager
def small_disk(parent: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes, mounted below `parent` for a while."""
    folder = Path(tempfile.mkdtemp(prefix="small-disk-", dir=parent))
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], capture_output=True, check=True
        )
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], capture_output=True, check=True)
    finally:
        folder.rmdir()


def injecting(call: str, what: str, when: str, notes: Path) -> list[str]:
    """The command that runs another with one system call tampered with: `what` is `signal=KILL` or `error=EIO`."""
    quick = [] if what.startswith("signal") else ["--seccomp-bpf"]  # with which strace sends no signals
    return [*TRACER, *quick, "-o", str(notes), "-e", f"trace={call}", "-e", f"inject={call}:{what}:when={when}"]


def was_injected(notes: Path) -> bool:
    """Whether the moment came."""
    text = notes.read_text("utf-8", "replace") if notes.exists() else ""
    return "INJECTED" in text or "killed by SIGKILL" in text
