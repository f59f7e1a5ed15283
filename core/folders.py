"""Where an archive lies: a folder of this machine, or any place that fsspec knows (`s3://…`, `gs://…`, `sftp://…`).

A folder answers five questions about files with relative names. What it writes appears under its name whole or not at
all, and is there when `write` returns, after a power cut too where the place is a local disk. A write that was cut off
leaves a file whose name begins with a dot and ends in `.partial`, which nobody takes for an archive.

fsspec is asked for only when a URL names a place that is not this machine: `pip install dalsegno[archive]`, and the
package of the place itself (s3fs, gcsfs, …).
"""

from __future__ import annotations

import importlib
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Protocol

from dalsegno.core.errors import BadOption, StoreError

PARTIAL: Final = ".partial"


class ArchiveFailed(StoreError):
    """The archive could not be written or read; nothing was deleted for it. Facts: `place`."""


class Folder(Protocol):
    """A place for files. All but `read` raise `ArchiveFailed` alone."""

    place: str
    """What people call it."""

    def write(self, name: str, data: bytes) -> None:
        """Have a file of that name with this content, whole or not at all."""

    def read(self, name: str) -> bytes:
        """A file's content. Raises `FileNotFoundError`, and `ArchiveFailed` for everything else."""

    def names(self, pattern: str) -> list[str]:
        """Names of files and folders that fit a pattern such as `*/*/order-*`, in order."""

    def remove(self, name: str) -> None:
        """Delete a file, if it is there, and the folders it leaves empty."""

    def ready(self) -> None:
        """See that files could be written here, without writing any."""


def open_folder(url: str) -> Folder:
    """The folder at a path or URL. Raises `BadOption` for a URL that cannot be served here: what to install."""
    scheme, colon, rest = url.partition("://")
    if not colon:
        return LocalFolder(Path(url).expanduser())
    return LocalFolder(Path(rest)) if scheme in ("file", "local") else RemoteFolder(url)


def read_anywhere(location: str) -> bytes:
    """The content of one file, by path or URL. Raises `OSError` for a path, `ArchiveFailed` for a URL."""
    if "://" not in location:
        return Path(location).read_bytes()
    place, _, name = location.rpartition("/")
    folder = open_folder(place)
    try:
        return folder.read(name)
    except FileNotFoundError as error:
        raise ArchiveFailed(f"{folder.place}/{name} is not there", place=folder.place) from error


class LocalFolder:
    """A folder of this machine."""

    def __init__(self, root: Path) -> None:
        self.root, self.place = root, str(root)

    def write(self, name: str, data: bytes) -> None:
        target = self.root / name
        with _failing(self.place):
            _make(target.parent)
            handle, partial = tempfile.mkstemp(prefix=f".{target.name[:100]}.", suffix=PARTIAL, dir=target.parent)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(partial, target)
            except BaseException:
                Path(partial).unlink(missing_ok=True)
                raise
            _flush(target.parent)

    def read(self, name: str) -> bytes:
        with _failing(self.place):
            return (self.root / name).read_bytes()

    def names(self, pattern: str) -> list[str]:
        with _failing(self.place):
            return sorted(path.relative_to(self.root).as_posix() for path in self.root.glob(pattern))

    def remove(self, name: str) -> None:
        path = self.root / name
        with _failing(self.place):
            path.unlink(missing_ok=True)
        for folder in path.parents:
            try:
                if folder == self.root:
                    return
                folder.rmdir()
            except OSError:
                return  # not empty

    def ready(self) -> None:
        there = next(folder for folder in (self.root, *self.root.absolute().parents) if folder.exists())
        if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
            raise ArchiveFailed(
                f"{self.place} cannot be an archive: {there} is no folder to write in", place=self.place
            )


class RemoteFolder:
    """A folder that fsspec knows."""

    def __init__(self, url: str) -> None:
        self.place = shown = re.sub(r"(?<=//)([^/:@]*):[^/@]*@", r"\1:…@", url)  # without the password
        try:
            fsspec: Any = importlib.import_module("fsspec.core")
        except ImportError:
            raise BadOption(f"{shown}: a place like this takes fsspec: pip install 'dalsegno[archive]'") from None
        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except ImportError as error:
            raise BadOption(f"{shown}: {error}") from None
        except ValueError as error:
            raise BadOption(f"{shown} names no place that fsspec knows: {error}") from None
        self._root = self._root.rstrip("/")

    def write(self, name: str, data: bytes) -> None:
        parent, _, last = f"{self._root}/{name}".rpartition("/")
        partial = f"{parent}/.{last[:100]}.{secrets.token_hex(4)}{PARTIAL}"
        with _failing(self.place):
            self._files.makedirs(parent, exist_ok=True)
            try:
                self._files.pipe_file(partial, data)
                self._files.mv(partial, f"{parent}/{last}")
            except BaseException:
                if self._files.exists(partial):
                    self._files.rm_file(partial)
                raise

    def read(self, name: str) -> bytes:
        with _failing(self.place):
            content: bytes = self._files.cat_file(f"{self._root}/{name}")
            return content

    def names(self, pattern: str) -> list[str]:
        with _failing(self.place):
            self._files.invalidate_cache()
            found = self._files.glob(f"{self._root}/{pattern}")
        return sorted(name.lstrip("/").removeprefix(self._root.lstrip("/")).lstrip("/") for name in found)

    def remove(self, name: str) -> None:
        with _failing(self.place):
            try:
                self._files.rm_file(f"{self._root}/{name}")
            except FileNotFoundError:
                pass

    def ready(self) -> None:
        with _failing(self.place):
            self._files.exists(self._root)  # asks the place, so that a wrong key is found before anything is due


@contextmanager
def _failing(place: str) -> Iterator[None]:
    """Whatever a place raises, as the error of an archive: the drivers of fsspec have errors of their own."""
    try:
        yield
    except (FileNotFoundError, ArchiveFailed):
        raise
    except Exception as error:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ArchiveFailed(f"the archive {place} could not be used: {why}", place=place) from error


def _make(folder: Path) -> None:
    """Make a folder and those above it; their names survive a power cut."""
    if folder.is_dir():
        return
    _make(folder.parent)
    try:
        folder.mkdir()
    except FileExistsError:
        return  # another worker was quicker; or a file is in the way, which the next step says
    _flush(folder.parent)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
