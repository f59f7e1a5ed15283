"""Provisioning a real PostgreSQL: it comes up, it survives a death after every step, and it undoes what it did."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dalsegno import Cancelled, Engine, Permanent, collect
from dalsegno.examples import provision
from dalsegno.examples.provision import MIGRATIONS, Migration, deprovision
from dalsegno.examples.provision_cluster import Cluster, is_running, place_programs

BROKEN = Migration(3, ("CREATE TABLE shop.late (id int)", "SELECT * FROM shop.nothing"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the user PostgreSQL runs as can reach, which pytest's own are not for everybody."""
    with tempfile.TemporaryDirectory(prefix="dalsegno-pg-") as name:
        Path(name).chmod(0o755)
        folder = Path(name, "cluster")
        yield folder
        if folder.exists():
            provision.stop.fn(Cluster(str(folder), str(place_programs(folder))))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    """An engine that serves the provisioning."""
    with Engine(f"lmdb:{tmp_path / 'store'}", workflows=collect(provision)) as engine:
        yield engine


def test_a_cluster_comes_up_and_goes_away(engine: Engine, folder: Path):
    """From nothing to a healthy, migrated server; and back to nothing."""
    made = engine.start(provision.provision, str(folder), id="cluster").result(timeout=60)
    assert made.customers == ("Ada", "Bob")
    assert is_running(made.cluster)
    with made.cluster.connect() as connection:
        assert connection.execute("SELECT number FROM shop.migration ORDER BY 1").fetchall() == [(1,), (2,)]
    engine.start(deprovision, str(folder), id="gone").result(timeout=60)
    assert not folder.exists()
    assert not made.cluster.sockets.exists()


def test_a_final_failure_undoes_everything_in_reverse(engine: Engine, folder: Path):
    """When a migration fails for good, all that was done is undone from the end, and the failure is raised."""
    run = engine.start(provision.provision, str(folder), [*MIGRATIONS, BROKEN], id="cluster")
    with pytest.raises(Exception, match=r'relation "shop.nothing" does not exist'):
        run.result(timeout=60)
    assert not folder.exists()
    assert run.state["left_behind"] == []
    events: list[Any] = [*run.history()]
    steps = [event.name for event in events if type(event).__name__ in ("StepCompleted", "StepFailed")]
    assert steps[:6] == ["install", "initialise", "start", "check_health", "create_roles", "create_schema"]
    assert steps[6:] == ["migrate"] * 3 + ["drop_schema", "drop_roles", "stop", "remove_data", "uninstall"]


def test_a_cancelled_run_leaves_a_clean_machine(engine: Engine, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Cancelling in the middle of a migration undoes what was done before the run ends as cancelled."""
    begun = threading.Event()
    connect = Cluster.connect

    def connected(cluster: Cluster):
        if (cluster.data / "slow").exists():
            begun.set()
        return connect(cluster)

    monkeypatch.setattr(Cluster, "connect", connected)
    # The server itself makes the mark, so it is seen by the next connection only: that of the second migration.
    slow = [Migration(1, ("COPY (SELECT 1) TO PROGRAM 'touch slow'",)), Migration(2, ("SELECT pg_sleep(600)",))]
    run = engine.start(provision.provision, str(folder), slow, id="cluster")
    assert begun.wait(60)
    run.cancel("changed our minds")
    with pytest.raises(Cancelled):
        run.result(timeout=60)
    assert not folder.exists()


def test_a_death_after_every_step_is_survived(folder: Path, tmp_path: Path):
    """Killed between the work of each step and its record, the run goes on and repeats that step harmlessly."""
    marks = tmp_path / "marks"
    marks.mkdir()
    script = Path(__file__).with_name("provision_that_dies.py")
    command = [sys.executable, str(script), f"lmdb:{tmp_path / 'store'}", str(folder), str(marks)]
    statuses: list[int] = []
    while not statuses or statuses[-1] == 9:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        statuses.append(done.returncode)
    assert statuses == [9] * 9 + [0], done.stderr
    assert done.stdout.startswith("18.")


def test_undoing_what_is_not_there_does_nothing(folder: Path):
    """Every undo step may run though its step never did, as after a failure half-way."""
    cluster = provision.install.fn(str(folder))
    for _ in range(2):
        provision.stop.fn(cluster)
        provision.remove_data.fn(cluster)
        provision.uninstall.fn(str(folder))
    assert not folder.exists()


def test_a_folder_of_somebody_else_is_left_alone(engine: Engine, folder: Path):
    """A folder that holds anything not made here is refused, and the undoing does not touch it."""
    for name in ("data", "programs"):
        (folder / name).mkdir(parents=True)
        (folder / name / "precious").touch()
    with pytest.raises(Permanent, match="something else"):
        engine.start(provision.provision, str(folder), id="cluster").result(timeout=60)
    assert sorted(path.name for path in folder.rglob("*")) == ["data", "precious", "precious", "programs"]
    shutil.rmtree(folder)


def test_by_hand(folder: Path, tmp_path: Path):
    """From a terminal: made, made sure of, removed."""
    command = [sys.executable, "-m", "dalsegno.examples", "provision", str(folder)]
    for more, word in ([], "is up"), ([], "is up"), (["--remove"], "removed"):
        done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert word in done.stdout, done.stderr
    assert not folder.exists()


def test_a_long_path_has_its_socket_elsewhere():
    """A folder whose path is too long for a socket's address gets a short one, always the same."""
    deep = Cluster("/srv/" + "deep/" * 30, "/bin")
    assert len(str(deep.sockets)) < 80
    assert deep.sockets == Cluster(deep.folder, "/elsewhere").sockets
    assert Cluster("/srv/pg", "/bin").sockets == Path("/srv/pg/sockets")
