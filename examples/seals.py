"""Seals: checksums of a library's packages, by steps that wait in queues, and two processes that share the work.

    $ python -m dalsegno.examples seals --store lmdb:./seals
    asyncio 33, email 29, http 5, json 5: 72 files, in ./seals-sums
    the first package was done after 18 files; as they came, it would have been after 33

One process only moves the workflow (`step_threads=0`), the other one only runs steps (`durable=0`): start more of the
latter, and it goes faster. Killed and started again, it goes on where it stood.

Each file is a task in the queue `read`, with its package as the key. At most four are at work at a time, two of a
package, over all processes, and the packages take turns: a small one need not wait until a large one, which came first,
is done.
What is sealed goes through the queue `notary`, which stands for a service that allows so many calls a second.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from pathlib import Path

from dalsegno import All, Client, Flow, Map, Queue, Rate, Run, Worker, step, workflow

QUEUES = [Queue("read", concurrency=4, per_key=2), Queue("notary", rate=Rate(count=50, per=1.0))]
PACKAGES = ("asyncio", "email", "http", "json")


@step
def list_files(folder: str, packages: list[str]) -> dict[str, list[str]]:
    """The Python files of each package, in order."""
    return {name: sorted(str(file) for file in Path(folder, name).rglob("*.py")) for name in packages}


@step(queue="read", start_timeout=3600, timeout=60)
def checksum(file: str) -> str:
    """The digest of a file."""
    return sha256(Path(file).read_bytes()).hexdigest()


@step(queue="notary", total_timeout=3600)
def seal(package: str, sums: dict[str, str], into: str) -> str:
    """Write a package's sums as `sha256sum --check` reads them; answers their digest. Doing it twice does no harm."""
    text = "".join(f"{digest}  {file}\n" for file, digest in sums.items())
    target = Path(into, f"{package}.sha256")
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_suffix(f".{os.getpid()}")
    beside.write_text(text, "utf-8")
    beside.replace(target)
    return sha256(text.encode()).hexdigest()


def seal_package(name: str, files: list[str], into: str) -> Flow[str]:
    """Read one package's files, however they are shared out, and seal it."""
    digests = yield from Map(checksum.options(key=name), files)
    return (yield from seal(name, dict(zip(files, digests, strict=True)), into))


@workflow
def seal_library(folder: str, packages: list[str], into: str) -> Flow[dict[str, str]]:
    """Seal packages side by side."""
    found = yield from list_files(folder, packages)
    sealed = yield from All([seal_package(name, files, into) for name, files in found.items()])
    return dict(zip(found, sealed, strict=True))


# --- as a program ----------------------------------------------------------------------------------------------------


def work(store: str, kind: str) -> None:
    """Be one of the two workers, until SIGTERM."""
    if kind == "workflows":
        Worker(store, workflows=[seal_library], step_threads=0, queues=QUEUES).run()
    else:
        serve = ["default", "read", "notary"]
        Worker(store, steps=[list_files, checksum, seal], durable=0, step_threads=4, serve=serve, queues=QUEUES).run()


@contextmanager
def workers(store: str, *kinds: str) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that work on a store, and are asked to stop in the end."""
    command = [sys.executable, "-m", "dalsegno.examples", "seals", "--store", store, "--work"]
    with ExitStack() as held:
        started = [held.enter_context(subprocess.Popen([*command, kind])) for kind in kinds]
        try:
            yield started
        finally:
            for one in started:
                one.terminate()


def read_before(run: Run[dict[str, str]]) -> int:
    """How many files were read when the first package had been read wholly."""
    branches = []
    for event in run.history():
        if type(event).__name__ == "StepCompleted" and getattr(event, "name", "") == "checksum":
            branches.append(getattr(event, "id", "").split(".")[1])  # the package's branch of the All
    return min(len(branches) - branches[::-1].index(branch) for branch in set(branches))


def story(run: Run[dict[str, str]], into: str) -> list[str]:
    """What is to be told of a run: how much was read, and how much of it before the first package was done."""
    sums = {name: len(Path(into, f"{name}.sha256").read_text("utf-8").splitlines()) for name in run.result()}
    counts = ", ".join(f"{name} {count}" for name, count in sums.items())
    first = next(iter(sums.values()))
    return [
        f"{counts}: {sum(sums.values())} files, in {into}",
        f"the first package was done after {read_before(run)} files; as they came, it would have been after {first}",
    ]


def main() -> None:
    """Seal the packages named."""
    library = sysconfig.get_path("stdlib")
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("packages", nargs="*", default=list(PACKAGES), help="folders to seal")
    parser.add_argument("--folder", default=library, help="where they are; the standard library by default")
    parser.add_argument("--store", default="lmdb:./seals")
    parser.add_argument("--into", default="./seals-sums", help="where the sums go")
    parser.add_argument("--work", choices=["workflows", "steps"], help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work(asked.store, asked.work)
        return
    with Client(asked.store) as client, workers(asked.store, "workflows", "steps"):
        packages = sorted(asked.packages)
        run = client.start(seal_library, asked.folder, packages, asked.into, id="seals", on_conflict="restart_closed")
        run.result(timeout=300)
        print("\n".join(story(run, asked.into)))
