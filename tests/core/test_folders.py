"""Places for archives: files that appear whole or not at all, on this machine and wherever fsspec goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec.core
import pytest

from dalsegno.core.errors import BadOption
from dalsegno.core.folders import ArchiveFailed, Folder, LocalFolder, RemoteFolder, open_folder, read_anywhere


@pytest.fixture(params=["path", "file://", "memory://"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A place that is not there yet."""
    if request.param == "memory://":
        yield "memory://archives/here"
        fsspec.filesystem("memory").rm("/archives", recursive=True)
    else:
        yield (request.param if "://" in request.param else "") + str(tmp_path / "archive")


@pytest.fixture
def folder(url: str) -> Folder:
    """That place."""
    return open_folder(url)


def test_files_come_and_go(folder: Folder, url: str):
    """What was written is read, found by a pattern, replaced and removed; nothing else is left lying about."""
    folder.ready()
    assert folder.names("*/*") == []
    folder.write("day/a.txt", b"1")
    folder.write("day/b.txt", b"2")
    folder.write("other/a.txt", b"3")
    assert folder.read("day/b.txt") == read_anywhere(f"{url.removeprefix('file://')}/day/b.txt") == b"2"
    assert folder.names("*/a*") == ["day/a.txt", "other/a.txt"]
    assert folder.names("*/*") == ["day/a.txt", "day/b.txt", "other/a.txt"]
    folder.write("day/a.txt", b"new")
    assert folder.read("day/a.txt") == b"new"
    folder.remove("other/a.txt")
    folder.remove("other/a.txt")
    with pytest.raises(FileNotFoundError):
        folder.read("other/a.txt")
    assert folder.names("*/*") == ["day/a.txt", "day/b.txt"]


def test_a_failed_write_leaves_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    """When the last step of a write fails, the file is not there, nor is a part of it, and the error says where."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    folder.write("day/a.txt", b"before")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fail)
        if isinstance(folder, RemoteFolder):
            patch.setattr(folder._files, "mv", fail)
        with pytest.raises(ArchiveFailed, match=f"{folder.place}.*No space left"):
            folder.write("day/a.txt", b"after")
    assert folder.read("day/a.txt") == b"before"
    assert folder.names("*/*") + folder.names("*/.*") == ["day/a.txt"]


def test_only_the_owner_reads_what_is_here(tmp_path: Path):
    """Histories may be confidential: on this machine their files are for whoever wrote them, as exports are."""
    LocalFolder(tmp_path).write("a/b", b"")
    assert (tmp_path / "a/b").stat().st_mode & 0o777 == 0o600


def test_a_place_that_cannot_be_written(tmp_path: Path):
    """A file in the way, above or at the place, is said before anything is due."""
    (tmp_path / "file").write_text("")
    for place in ("file", "file/below"):
        with pytest.raises(ArchiveFailed, match=f"{place} cannot be an archive|Not a directory"):
            open_folder(f"{tmp_path}/{place}").ready()
        with pytest.raises(ArchiveFailed, match="could not be used"):
            open_folder(f"{tmp_path}/{place}").write("a", b"")


def test_what_has_to_be_installed(monkeypatch: pytest.MonkeyPatch):
    """A URL without fsspec, or without the package of its kind, says what to install; an unknown kind says that."""
    with pytest.raises(BadOption, match=r"^nowhere://ada:…@host/x names no place"):
        open_folder("nowhere://ada:secret@host/x")
    monkeypatch.setattr(fsspec.core, "url_to_fs", _needs_a_package)
    with pytest.raises(BadOption, match="install s3fs"):
        open_folder("s3://bucket/x")
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    with pytest.raises(BadOption, match=r"pip install 'dalsegno\[archive\]'"):
        open_folder("s3://bucket/x")
    assert open_folder("./plain").names("*") == []


def _needs_a_package(url: str) -> Any:
    raise ImportError("please install s3fs to access S3")


def test_errors_of_a_driver_are_told_as_ours(monkeypatch: pytest.MonkeyPatch):
    """Drivers raise errors of their own; they come out as `ArchiveFailed`, and a missing file by its usual name."""
    folder = open_folder("memory://driver")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("403 Forbidden")

    monkeypatch.setattr(folder._files, "cat_file", fail)  # type: ignore[attr-defined]
    with pytest.raises(ArchiveFailed, match="memory://driver could not be used: RuntimeError: 403 Forbidden"):
        folder.read("a")
    monkeypatch.undo()
    with pytest.raises(ArchiveFailed, match="is not there"):
        read_anywhere("memory://driver/a")
