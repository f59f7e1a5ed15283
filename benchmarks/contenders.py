"""Who is compared, with which configuration, and the environment that each one runs in.

An environment is made once for each library, by the first Python of this machine that is new enough for it, and kept.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import frozen


@frozen
class Library:
    """What is installed for a peer: what pip is asked for, the Python that it wants, and whose version is shown."""

    name: str
    program: str
    packages: tuple[str, ...] = ()
    python: tuple[int, int] = (3, 11)


@frozen
class Setting:
    """One row: a library with one configuration. `place` makes a place out of a folder or a database's URL."""

    name: str
    library: Library
    kind: str
    """`file` or `postgresql`: the tables compare those of one kind, and ours among them."""
    durability: str
    place: Callable[[str], str] = str

    @property
    def ours(self) -> bool:
        """Whether it is dalsegno."""
        return self.library is OURS


OURS = Library("dalsegno", "on_dalsegno.py")
DBOS = Library("DBOS", "on_dbos.py", ("dbos>=3,<4", "pysqlite3-binary", "psycopg[binary]"))
DURA = Library("dura", "on_dura.py", ("dura>=1.3,<1.4",), python=(3, 13))
ABSURD = Library("absurd", "on_absurd.py", ("absurd-sdk", "absurdctl", "psycopg[binary]"))

SETTINGS = (
    Setting("dalsegno, lmdb full", OURS, "file", "LMDB, sync: two flushes a commit", "lmdb:{}/store".format),
    Setting(
        "dalsegno, lmdb relaxed",
        OURS,
        "file",
        "LMDB, metasync off: one flush; a power cut may undo the last commit",
        "lmdb:{}/store?durability=relaxed".format,
    ),
    Setting("dura", DURA, "file", "SQLite, WAL, synchronous=FULL (its setting): one flush", "{}/dura.db".format),
    Setting("DBOS, SQLite", DBOS, "file", "SQLite, DELETE, FULL (as it comes): four flushes", "sqlite:///{}/db".format),
    Setting(
        "DBOS, SQLite in WAL",
        DBOS,
        "file",
        "SQLite, switched to WAL, FULL: one flush",
        "sqlite:///{}/db?journal=wal".format,
    ),
    Setting("dalsegno, postgresql", OURS, "postgresql", "synchronous_commit=on: one flush a commit"),
    Setting("DBOS, PostgreSQL", DBOS, "postgresql", "synchronous_commit=on: two commits a step"),
    Setting("absurd, PostgreSQL", ABSURD, "postgresql", "synchronous_commit=on: one commit a step"),
)


class NotHere(Exception):
    """A peer cannot be measured on this machine; the message says why."""


def pythons() -> Iterator[Path]:
    """The Pythons of this machine, best first: the one that runs this, those on PATH, those of pyenv."""
    yield Path(sys.executable)
    folders = [Path(folder) for folder in os.get_exec_path()]
    folders += sorted(Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions").glob("*/bin"))
    for folder in folders:
        if "shims" not in folder.parts:
            yield from sorted(folder.glob("python3.[1-9][0-9]"))


def python_for(library: Library) -> Path:
    """A Python that is new enough for a library."""
    asked = "import sys, venv, ensurepip; print(*sys.version_info[:2])"
    for python in pythons():
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=False)
        if done.returncode == 0 and tuple(map(int, done.stdout.split())) >= library.python:
            return python
    raise NotHere(f"it wants Python {'.'.join(map(str, library.python))}, and none was found")


def environment(library: Library, folder: Path) -> Path:
    """The Python of a library's environment, which is made if it is not there."""
    if library is OURS:
        return Path(sys.executable)
    place = folder / library.name.lower()
    python, made = place / "bin" / "python", place / "made-for"
    wanted = " ".join(library.packages)
    if not made.is_file() or made.read_text() != wanted:
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python_for(library), "-m", "venv", place], check=True, capture_output=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *library.packages]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise NotHere(f"pip install {wanted}: {last_line(done.stderr)}")
        made.write_text(wanted)
    return python


def versions(python: Path, library: Library) -> str:
    """What was measured, in words: the library's version and that of the Python that ran it."""
    package = library.packages[0].partition(">")[0] if library.packages else "dalsegno"
    asked = (
        "import platform, sys; from importlib.metadata import version; "
        "print(version(sys.argv[1]), 'on Python', platform.python_version())"
    )
    done = subprocess.run([python, "-c", asked, package], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def last_line(text: str) -> str:
    """What a program said at the end."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"
