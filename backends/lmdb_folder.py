"""The folder an LMDB store lives in: what is looked at before LMDB touches it, and who may be its engine.

LMDB trusts its surroundings: on a network file system its locks do not hold, a file cut short kills the process that
reads it, and somebody else's folder would get its files put among theirs. So all that is looked at first, and refused
with a sentence that says what is there and what to do.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
from hashlib import blake2b
from pathlib import Path
from typing import Any

from dalsegno.backends.lmdb_pages import missing_page
from dalsegno.core.errors import BadOption, StoreInUse, StoreUnusable

DATA, LOCK, ENGINE_LOCK = "data.mdb", "lock.mdb", "engine.lock"
_OURS = {DATA, LOCK, ENGINE_LOCK, "lost+found"}
_OWNER_LOCK = re.compile(r"engine-[0-9a-f]{24}\.lock")

_MOUNTS = Path("/proc/self/mountinfo")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE = Path("/proc/self/ns/pid")

# File systems on which LMDB's shared memory map or its locks do not work between machines, or not at all.
_REMOTE = {"9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"}
_REMOTE |= {"nfs4", "ocfs2", "orangefs", "overlay", "smb2", "smb3", "smbfs", "sshfs", "virtiofs", "vboxsf", "vmhgfs"}


ALLOW_REMOTE = "DALSEGNO_ALLOW_REMOTE"
"""Set in the environment, it says for all stores of a process what `allow_remote=true` says for one. Meant for
containers whose every folder is on such a file system, and where no other machine can see it."""


def locate(location: str) -> Path:
    """The folder that a location names. Raises `StoreUnusable` for one that the system does not let us look for."""
    if not location or "\0" in location:
        raise BadOption(f"{location!r} names no folder: write 'lmdb:PATH'")
    try:
        folder = Path(location).expanduser()
        folder.exists()
    except (OSError, RuntimeError) as error:
        raise _refused(location, error) from error
    return folder


def check_folder(folder: Path, *, allow_remote: bool, read_only: bool) -> bool:
    """See that a folder can hold a store, and answer whether it is a new one. Raises `StoreUnusable`."""
    try:
        new = _check_content(folder, read_only)
    except OSError as error:
        raise _refused(folder, error) from error
    if not (allow_remote or os.environ.get(ALLOW_REMOTE)):
        kind = file_system(folder.parent if new and not folder.exists() else folder)
        if kind in _REMOTE or kind.startswith("fuse."):
            raise StoreUnusable(
                f"{folder} is on a file system of type {kind!r}, where LMDB's locks and memory map are not reliable. "
                "Use a folder on a local disk (in a container: on a volume). If only this machine ever opens it, say "
                f"so: lmdb:{folder}?allow_remote=true, or {ALLOW_REMOTE}=1 in the environment.",
                file_system=kind,
            )
    if not new:
        missing = _emptied(folder) or missing_page(folder / DATA)
        if missing:
            raise StoreUnusable(
                f"{folder / DATA} was cut short: {missing}. Restore it from a copy; opening it would crash Python."
            )
    return new


def check_there(folder: Path) -> None:
    """See that there is a store to be read, before anything is opened that could make one. Raises `StoreUnusable`."""
    if (folder / DATA).is_file():
        return
    if folder.exists() and not folder.is_dir():
        raise StoreUnusable(f"{folder} is a file, so it holds no store: a store is a folder. Name that one.")
    raise StoreUnusable(
        f"{folder} holds no store, so there is nothing to read. Is the path right? A store is made by the first engine "
        "or `dalsegno start` on it."
    )


def _refused(folder: Path | str, error: Exception) -> StoreUnusable:
    why = getattr(error, "strerror", None) or error
    return StoreUnusable(f"{str(folder)[:200]} cannot be opened as a store: {why}")


def _emptied(folder: Path) -> str:
    """What is to say of a data file with nothing in it. LMDB would begin a new one; where an engine has worked there
    was something, because an engine's lock is made later than the first page."""
    if (folder / DATA).stat().st_size:
        return ""
    worked = any(name == ENGINE_LOCK or _OWNER_LOCK.fullmatch(name) for name in os.listdir(folder))
    return "the file is empty, and an engine has worked on it" if worked else ""


def _check_content(folder: Path, read_only: bool) -> bool:
    """Whether a store would be new here. Raises `StoreUnusable` or `OSError`."""
    if not folder.exists():
        if read_only:
            raise StoreUnusable(f"{folder} is not there, so there is nothing to read")
        if not folder.parent.is_dir():
            raise StoreUnusable(f"{folder} cannot be created: {folder.parent} is not a folder. Create that one first.")
        if not os.access(folder.parent, os.W_OK | os.X_OK):
            raise StoreUnusable(f"{folder} cannot be created: {folder.parent} is not writable")
        return True
    if not folder.is_dir():
        raise StoreUnusable(f"{folder} is a file, and a store is a folder. Name another path.")
    content = {entry.name for entry in os.scandir(folder)}
    if DATA not in content:
        foreign = sorted(name for name in content - _OURS if not _OWNER_LOCK.fullmatch(name))
        if foreign:
            raise StoreUnusable(
                f"{folder} is no store and not empty either (it holds {foreign[0]!r}). Name an empty or a new folder."
            )
        if read_only:
            raise StoreUnusable(f"{folder} is empty, so there is nothing to read")
    if not read_only and not os.access(folder, os.W_OK | os.X_OK):
        raise StoreUnusable(f"{folder} is not writable. To look at it: lmdb:{folder}?read_only=true, as `replay` does.")
    for name in content & {DATA, LOCK}:
        if not read_only and not os.access(folder / name, os.R_OK | os.W_OK):
            raise StoreUnusable(
                f"{folder / name} is not writable. To look at it: lmdb:{folder}?read_only=true, as `replay` does."
            )
    return DATA not in content


def file_system(folder: Path) -> str:
    """The type of the file system a folder is on, or an empty text where the system does not tell."""
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""  # not Linux
    place = os.path.realpath(folder)
    best, kind = "", ""
    for line in lines:
        fields = line.split(" ")
        point = (
            fields[4].encode("utf-8", "surrogateescape").decode("unicode_escape") if "\\" in fields[4] else fields[4]
        )
        inside = place == point or place.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):  # of two mounts on one point the later is the one that is seen
            best, kind = point, fields[fields.index("-") + 1]
    return kind


def flush_folder(folder: Path) -> None:
    """Make the names in a new folder, and its own in its parent, survive a power cut. LMDB does not."""
    for path in (folder, folder.parent):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def whereabouts() -> dict[str, Any]:
    """Who this process is, in words that mean something on another day and in another container."""
    return {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "boot": _read(_BOOT_ID),
        "pid_namespace": _link(_PID_NAMESPACE),
    }


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8").strip()
    except OSError:
        return ""


def _link(path: Path) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


class FileLock:
    """A lock on a file of the store's folder, gone with the process that holds it.

    It is a lock on an open file, not on a process, so that two engines in one process exclude each other too. The
    text in the file is for people; whoever reads it may read that of somebody who is gone.
    """

    def __init__(self, path: Path, owner: str, *, alone: bool) -> None:
        """Raises `BlockingIOError`, with the text in the file, where somebody has it, and `StoreUnusable`."""
        self.owner, self.path, self.alone = owner, path, alone
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except OSError as error:
            held = error.errno in (errno.EAGAIN, errno.EACCES)
            text = os.read(self._descriptor, 4096) if held else b""
            os.close(self._descriptor)
            if held:
                raise BlockingIOError(errno.EAGAIN, text) from None
            raise StoreUnusable(f"{path} cannot be locked: {error.strerror}") from error
        if alone:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, json.dumps({**whereabouts(), "owner": owner}).encode() + b"\n", 0)

    @property
    def in_place(self) -> bool:
        """Whether the file is still the one that others find."""
        try:
            there = os.stat(self.path)
        except FileNotFoundError:
            return False
        mine = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)

    def release(self) -> None:
        """Let go. In a forked child this closes the child's copy and leaves the parent's lock as it is."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def owner_lock(folder: Path, owner: str) -> Path:
    """The file that one of several engines has locked as long as its process lives."""
    return folder / f"engine-{blake2b(owner.encode('utf-8', 'surrogatepass'), digest_size=12).hexdigest()}.lock"


def is_locked(path: Path) -> bytes | None:
    """The text of a file that somebody has locked; None if nobody has, or it is not there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    return None


def lock_for_one(folder: Path, owner: str) -> FileLock:
    """The right to be the only engine of a store. Raises `StoreInUse`, saying who holds it."""
    try:
        return FileLock(folder / ENGINE_LOCK, owner, alone=True)
    except BlockingIOError as error:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if _OWNER_LOCK.fullmatch(entry.name) and (text := is_locked(Path(entry.path))) is not None:
                beside = "Stop it, or let this one work beside it: without `alone`."
                raise _in_use(folder, text, beside) from None
        raise _in_use(folder, error.args[1]) from None


def lock_for_many(folder: Path, owner: str) -> tuple[FileLock, FileLock]:
    """The right to be one of a store's engines, and the sign that this one is alive. Raises `StoreInUse`."""
    try:
        many = FileLock(folder / ENGINE_LOCK, owner, alone=False)
    except BlockingIOError as error:
        raise _in_use(folder, error.args[1]) from None
    try:
        while True:
            own = FileLock(owner_lock(folder, owner), owner, alone=True)
            if own.in_place:  # otherwise somebody has removed it between our opening and our locking it
                return many, own
            own.release()
    except BaseException as error:
        many.release()
        if isinstance(error, BlockingIOError):
            raise _in_use(folder, error.args[1]) from None
        raise


ONE_ENGINE = (
    "One store has one engine: stop that one, or give this one a store of its own. Reading it, and `dalsegno signal`, "
    "`cancel` and `start`, work beside a running engine."
)


def _in_use(folder: Path, text: bytes, remedy: str = ONE_ENGINE) -> StoreInUse:
    try:
        holder = json.loads(text)
        who = f"process {holder['pid']} on {holder['host']} ({holder['owner']})"
    except (ValueError, KeyError, TypeError):
        holder, who = {}, "a process that has not yet written its name"
    here = whereabouts()
    if holder and holder.get("pid_namespace") != here["pid_namespace"]:
        who += ", whose process id counts in another container"
    return StoreInUse(
        f"{folder} has an engine already: {who}. {remedy}",
        owner=holder.get("owner", ""),
        pid=holder.get("pid"),
        host=holder.get("host", ""),
    )
