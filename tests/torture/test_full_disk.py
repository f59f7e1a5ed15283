"""A disk, a file or a quota without room: nothing is lost, reading goes on, and work resumes without a restart."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from dalsegno import Client, StoreFull
from tests.torture import cast
from tests.torture.means import small_disk, without_mounts
from tests.torture.proof import prove
from tests.torture.stage import Process, Stage, until

PIECES, SIZE = 30, 20_000
SIGNALS = 5
LITTLE = PIECES * SIZE // 2

Relief = Callable[[], object]
Tightening = Callable[[Process, Client], Relief]


@contextmanager
def limited_file(folder: Path) -> Iterator[tuple[Stage, Tightening]]:
    """The worker's files may not grow, and then they may."""
    stage = Stage(folder)

    def tighten(worker: Process, client: Client) -> Relief:
        worker.limit_files((stage.store / "data.mdb").stat().st_size + LITTLE)
        return lambda: worker.limit_files(resource.RLIM_INFINITY)

    yield stage, tighten


@contextmanager
def full_disk(folder: Path) -> Iterator[tuple[Stage, Tightening]]:
    """Another file takes the room of a small file system, and then is deleted."""
    with small_disk(folder, 8 << 20) as disk:
        stage, filler = Stage(folder, store=disk / "store"), disk / "filler"

        def tighten(worker: Process, client: Client) -> Relief:
            with filler.open("wb", buffering=0) as file:
                try:
                    while True:
                        file.write(bytes(4096))
                except OSError:
                    file.truncate(file.tell() - LITTLE)
            return filler.unlink

        yield stage, tighten


@contextmanager
def small_quota(folder: Path) -> Iterator[tuple[Stage, Tightening]]:
    """The quota is used up, and then a closed run is purged."""
    stage = Stage(folder, options=f"?quota={PIECES * SIZE * 2}")

    def tighten(worker: Process, client: Client) -> Relief:
        stage.add(cast.bulky, "ballast", (PIECES, SIZE), PIECES)
        stage.begin(client)
        ballast = client.get("ballast")
        until(lambda: ballast.ended, "the ballast did not end")

        def purge() -> None:
            del stage.expected["ballast"]
            assert client.backend.purge([ballast.record.number]) == 1

        return purge

    yield stage, tighten


Way = Callable[[Path], AbstractContextManager[tuple[Stage, Tightening]]]
mounted = pytest.mark.skipif(without_mounts() != "", reason=without_mounts() or "small file systems can be mounted")
WAYS = [(limited_file, False), (small_quota, True), pytest.param(full_disk, True, marks=mounted)]
"""Each way to be out of room, and whether all processes are."""


@pytest.mark.parametrize(("way", "for_all"), WAYS)
def test_a_full_store_waits_for_room(tmp_path: Path, way: Way, for_all: bool):
    """When there is no room the engine waits and can be read; once there is, it goes on by itself, and all is there."""
    with way(tmp_path) as (stage, tighten), Client(stage.url) as client, stage.worker() as worker:
        assert worker.wait_until_ready(), worker.last_words()
        relieve = tighten(worker, client)
        stage.plan(0, SIGNALS, length=3)
        stage.add(cast.bulky, "bulky", (PIECES, SIZE), PIECES)
        stage.begin(client)
        until(lambda: stage.has_said("the store takes no writes"), worker.last_words)
        assert not client.get("bulky").ended
        assert client.runs()
        if for_all:
            with pytest.raises(StoreFull):
                client.start(cast.rounds, ["x" * 2 * LITTLE], id="one more")
        relieve()
        with stage.sender(1, SIGNALS) as sender:
            sender.go()
            assert not sender.lives_for(60), "the sender did not end"
            assert sender.status == 0, sender.last_words()
        stage.wait_for_ends(worker, client)
        assert worker.end() == 0, worker.last_words()
        figures = prove(stage, client)
    print(f"out of room: {figures}")
