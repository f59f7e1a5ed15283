"""What a workflow must not ask the machine for, as data: by name, with the reason and what to write instead.

A replay gives a workflow again what it was once told. Whatever it learns by another way (the time, chance, a file) is
not in the history, so a replay learns something else and leaves its recorded path. Two tools read this table: the guard
that watches running workflows (`dalsegno.testing.guard`) and the check of source (`replay lint`). Pure: names only.

A name ending in `.*` means everything public in that module. `without_arguments` are harmless when they are told what
to work on: `time.localtime(seconds)` computes, `time.localtime()` asks the clock.
"""

from __future__ import annotations

from typing import Final

import attrs


@attrs.frozen(kw_only=True)
class Hazard:
    """One kind of thing not to ask for: `calls` are functions, `reads` are values that are hazards when read."""

    rule: str
    what: str
    why: str
    instead: str
    calls: tuple[str, ...]
    without_arguments: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    harmless: frozenset[str] = frozenset()


CLOCK: Final = Hazard(
    rule="clock",
    what="the clock",
    why="a replay runs at another time, so everything computed from it differs",
    instead="`now = yield from Now()`, the time of the latest recorded event",
    calls=(
        *(f"time.{name}{unit}" for name in ("time", "monotonic", "perf_counter") for unit in ("", "_ns")),
        *(f"time.{name}{unit}" for name in ("process_time", "thread_time") for unit in ("", "_ns")),
        "time.clock_gettime",
        "time.clock_gettime_ns",
        "datetime.datetime.now",
        "datetime.datetime.utcnow",
        "datetime.datetime.today",
        "datetime.date.today",
    ),
    without_arguments=("time.localtime", "time.gmtime", "time.ctime", "time.asctime"),
)

SLEEP: Final = Hazard(
    rule="sleep",
    what="a sleep of the thread",
    why="it holds a thread that other runs need, is not durable, and is slept through again on every replay",
    instead="`yield from Sleep(seconds)`, which holds nothing and survives a restart",
    calls=("time.sleep", "asyncio.sleep"),
)

CHANCE: Final = Hazard(
    rule="random",
    what="chance",
    why="a replay draws other numbers",
    instead="`rng = yield from Random()`, whose draws are the same on every replay",
    calls=("random.*", "secrets.*", "os.urandom", "os.getrandom", "numpy.random.*"),
    without_arguments=("random.Random", "numpy.random.default_rng"),
    harmless=frozenset(
        {"random.Random", "secrets.compare_digest", "numpy.random.Generator", "numpy.random.default_rng"}
    ),
)

UUID: Final = Hazard(
    rule="uuid",
    what="a random id",
    why="a replay makes another id",
    instead="`id = yield from Uuid()`, the same on every replay",
    calls=("uuid.uuid1", "uuid.uuid4", "uuid.uuid6", "uuid.uuid7", "uuid.getnode"),
)

ENVIRONMENT: Final = Hazard(
    rule="environment",
    what="the environment of the process",
    why="a replay may run in another process, on another machine",
    instead="an argument of the workflow, or `yield from SideEffect(lambda: os.environ.get(…))`, recorded once",
    calls=(
        "os.getenv",
        "os.getenvb",
        "os.putenv",
        "os.unsetenv",
        "os.getpid",
        "os.getppid",
        "os.getcwd",
        "os.cpu_count",
        "os.uname",
        "os.getlogin",
        "pathlib.Path.cwd",
        "pathlib.Path.home",
        "socket.gethostname",
        "socket.getfqdn",
        "platform.node",
        "platform.uname",
        "getpass.getuser",
    ),
    reads=("os.environ", "os.environb", "sys.argv"),
)

FILES: Final = Hazard(
    rule="files",
    what="the file system",
    why="a replay finds other files, and writes once more what was written already",
    instead="a @step that reads or writes and returns what the workflow has to know",
    calls=(
        "open",
        "io.open",
        *(f"os.{name}" for name in ("open", "listdir", "scandir", "walk", "stat", "lstat", "access", "statvfs")),
        *(f"os.{name}" for name in ("mkdir", "makedirs", "remove", "unlink", "rmdir", "removedirs", "truncate")),
        *(f"os.{name}" for name in ("rename", "renames", "replace", "link", "symlink", "chmod", "chown", "utime")),
        *(f"os.path.{name}" for name in ("exists", "isfile", "isdir", "islink", "getsize", "getmtime", "realpath")),
        *(f"pathlib.Path.{name}" for name in ("open", "read_text", "read_bytes", "write_text", "write_bytes")),
        *(f"pathlib.Path.{name}" for name in ("exists", "is_file", "is_dir", "stat", "iterdir", "glob", "rglob")),
        *(f"pathlib.Path.{name}" for name in ("mkdir", "touch", "unlink", "rmdir", "rename", "replace", "resolve")),
        "shutil.*",
        "tempfile.*",
        "glob.glob",
        "glob.iglob",
        "sqlite3.connect",
    ),
    harmless=frozenset({"tempfile.template"}),
)

NETWORK: Final = Hazard(
    rule="network",
    what="the network",
    why="a replay would make the call again and get another answer",
    instead="a @step that makes the call and returns the answer",
    calls=(
        *(f"socket.{name}" for name in ("socket", "create_connection", "create_server", "socketpair")),
        *(f"socket.{name}" for name in ("getaddrinfo", "gethostbyname", "gethostbyaddr", "getnameinfo")),
        "urllib.request.*",
        "http.client.HTTPConnection",
        "http.client.HTTPSConnection",
        "smtplib.SMTP",
        "ftplib.FTP",
        "asyncio.open_connection",
        "requests.*",
        "httpx.*",
        "aiohttp.*",
        "urllib3.*",
        "boto3.*",
        "psycopg.connect",
        "redis.*",
    ),
    harmless=frozenset({"urllib.request.Request"}),
)

PROCESS: Final = Hazard(
    rule="process",
    what="another process",
    why="a replay would start it again",
    instead="a @step that runs it and returns what it answered",
    calls=(
        *(f"subprocess.{name}" for name in ("run", "call", "check_call", "check_output", "getoutput", "Popen")),
        "subprocess.getstatusoutput",
        *(f"os.{name}" for name in ("system", "popen", "fork", "forkpty", "kill", "posix_spawn", "posix_spawnp")),
        *(f"os.{name}" for name in ("execv", "execve", "execvp", "spawnv", "spawnl", "_exit", "abort")),
        "asyncio.create_subprocess_exec",
        "asyncio.create_subprocess_shell",
        "multiprocessing.Process",
        "multiprocessing.Pool",
    ),
)

THREADS: Final = Hazard(
    rule="threads",
    what="a thread, task or event loop of its own",
    why="what it does is not recorded, and its order is another one on every replay",
    instead="`All`, `Map`, `First` or `Spawn`, which run branches side by side in a recorded order; or a @step",
    calls=(
        "threading.Thread",
        "threading.Thread.start",
        "threading.Timer",
        "concurrent.futures.ThreadPoolExecutor",
        "concurrent.futures.ProcessPoolExecutor",
        *(f"asyncio.{name}" for name in ("run", "create_task", "ensure_future", "gather", "wait", "wait_for")),
        *(f"asyncio.{name}" for name in ("as_completed", "to_thread", "get_running_loop", "get_event_loop")),
        *(f"asyncio.{name}" for name in ("new_event_loop", "TaskGroup", "timeout", "shield")),
    ),
)

IDENTITY: Final = Hazard(
    rule="identity",
    what="an object's `id()` or `hash()`",
    why="both differ from process to process",
    instead="a field that names the thing, or `hashlib` for a digest",
    calls=("id", "hash"),
)

HAZARDS: Final = (CLOCK, SLEEP, CHANCE, UUID, ENVIRONMENT, FILES, NETWORK, PROCESS, THREADS, IDENTITY)
"""Everything that guard and lint know by name."""
