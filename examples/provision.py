"""Provisioning real infrastructure: a PostgreSQL cluster on this machine, from nothing to migrated, or not at all.

    install, initialise, start, wait until healthy, create roles, create schemas, migrate, migrate, verify

Each is a step, so the run resumes at any point after any crash. Each step that leaves something behind has another
that takes it away; the workflow keeps the list of those, and when a later step finally fails it runs the list from its
end, and the failure is raised (a saga, after Garcia-Molina and Salem, 1987).

Cancelling the run undoes it, too. A cancelled run does not wait for the body it was waiting for, and that body may
still be at work while its undo begins; so the short steps are shielded (the cancellation comes between them), and the
undo of the long one, a migration, stops it first. The undoing itself is shielded against a second cancellation.

A step may be repeated after a crash that fell between its work and the record of it. So each one looks first: what is
there already is taken as done, and undoing what is not there does nothing. The undo of a step is put on the list
*before* the step runs, for a step that fails half-way leaves halves behind.

    $ python -m dalsegno.examples provision ./cluster              # and once more, with --remove
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dalsegno import Command, Engine, Flow, Permanent, Publish, Retry, Shield, collect, step, workflow
from dalsegno.examples.provision_cluster import Cluster, NotHealthy, is_running, make_private, place_programs


@dataclass(frozen=True, slots=True)
class Migration:
    """A change to the schema, known by its number; applied once, in a transaction of its own."""

    number: int
    statements: tuple[str, ...]


MIGRATIONS = (
    Migration(
        1,
        (
            "CREATE TABLE shop.customer (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text NOT NULL)",
            "CREATE TABLE shop.purchase (id bigint PRIMARY KEY, customer bigint NOT NULL REFERENCES shop.customer)",
            "INSERT INTO shop.customer (name) VALUES ('Ada'), ('Bob')",
        ),
    ),
    Migration(
        2,
        (
            "ALTER TABLE shop.customer ADD COLUMN joined date NOT NULL DEFAULT DATE '2024-01-01'",
            "CREATE INDEX ON shop.purchase (customer)",
        ),
    ),
)
OURS = ".provisioned"  # a file that says who made the folder: what is undone by removing has to be ours
ROLES = {"shop_owner": True, "shop_reader": False}  # and whether they may log in


# --- steps, each beside the one that takes it back -------------------------------------------------------------------


@step
def install(folder: str) -> Cluster:
    """Find PostgreSQL's programs in the Python package that ships them, or copy them to where they may be run."""
    cluster = Path(folder).resolve()
    cluster.mkdir(parents=True, exist_ok=True)
    if not Path(cluster, OURS).exists():
        if any(cluster.iterdir()):
            raise Permanent(f"{cluster} holds something else already; give the cluster a folder of its own")
        Path(cluster, OURS).touch()
    return Cluster(str(cluster), str(place_programs(cluster)))


@step
def uninstall(folder: str) -> None:
    """Take back `install`: remove the folder, if it is ours, and nothing that somebody else has put into it."""
    if Path(folder, OURS).exists():
        shutil.rmtree(Path(folder, "programs"), ignore_errors=True)
        Path(folder, OURS).unlink()
        if not any(Path(folder).iterdir()):
            Path(folder).rmdir()


@step
def initialise(cluster: Cluster) -> None:
    """Make the data folder. A half-made one, left by a crash, is made again."""
    if (cluster.data / "ready").exists():
        return
    shutil.rmtree(cluster.data, ignore_errors=True)
    make_private(cluster.data)
    cluster.run("initdb", "-D", str(cluster.data), "-U", "postgres", "--auth=trust", "--encoding=utf8", "--no-sync")
    (cluster.data / "ready").touch()


@step
def remove_data(cluster: Cluster) -> None:
    """Take back `initialise`."""
    shutil.rmtree(cluster.data, ignore_errors=True)


@step
def start(cluster: Cluster) -> None:
    """Start the server, without waiting for it: `check_health` does that, and a crash in between costs nothing."""
    if is_running(cluster):
        return
    make_private(cluster.sockets)
    # A server that was killed leaves its lock behind; pg_ctl sees that nobody holds it and starts all the same.
    options = f"-c listen_addresses='' -c unix_socket_directories='{cluster.sockets}'"
    cluster.run("pg_ctl", "-D", str(cluster.data), "-l", str(cluster.data / "log"), "-o", options, "--no-wait", "start")


@step
def stop(cluster: Cluster) -> None:
    """Take back `start`: stop the server, and remove the folder of its socket."""
    if is_running(cluster):
        cluster.run("pg_ctl", "-D", str(cluster.data), "--mode=immediate", "--wait", "stop")
    shutil.rmtree(cluster.sockets, ignore_errors=True)


@step(retry=Retry(max_attempts=30, initial=0.1, backoff=1.3, maximum=2), timeout=10)
def check_health(cluster: Cluster) -> str:
    """Ask the server for its version; tried again until it answers."""
    try:
        with cluster.connect() as connection:
            return str(connection.execute("SHOW server_version").fetchall()[0][0])
    except psycopg.OperationalError as error:
        raise NotHealthy(str(error)) from error


@step
def create_roles(cluster: Cluster) -> None:
    """Create the roles that are not there yet."""
    with cluster.connect() as connection:
        there = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
        for name, login in ROLES.items():
            if name not in there:
                kind = sql.SQL("LOGIN" if login else "NOLOGIN")
                connection.execute(sql.SQL("CREATE ROLE {} {}").format(sql.Identifier(name), kind))


@step
def drop_roles(cluster: Cluster) -> None:
    """Take back `create_roles`."""
    with cluster.connect() as connection:
        for name in reversed(ROLES):
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))


@step
def create_schema(cluster: Cluster) -> None:
    """Create the schema, and the table that remembers which migrations it has had."""
    with cluster.connect() as connection, connection.transaction():
        connection.execute("CREATE SCHEMA IF NOT EXISTS shop AUTHORIZATION shop_owner")
        connection.execute("CREATE TABLE IF NOT EXISTS shop.migration (number integer PRIMARY KEY)")


@step
def drop_schema(cluster: Cluster) -> None:
    """Take back `create_schema`, and every migration with it."""
    with cluster.connect() as connection:
        # The body of a migration may still be at work though its run was cancelled, and holds its locks till it ends.
        others = "FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        connection.execute(f"SELECT pg_terminate_backend(pid) {others}")
        connection.execute("DROP SCHEMA IF EXISTS shop CASCADE")


@step
def migrate(cluster: Cluster, migration: Migration) -> bool:
    """Apply a migration, in the transaction that remembers it; answers whether there was anything to do."""
    with cluster.connect() as connection, connection.transaction():
        taken = "INSERT INTO shop.migration (number) VALUES (%s) ON CONFLICT DO NOTHING"
        if connection.execute(taken, [migration.number]).rowcount == 0:
            return False
        for statement in migration.statements:
            connection.execute(statement.encode())  # bytes: psycopg's types take a str only where it is a literal
        return True


@step
def verify(cluster: Cluster) -> list[str]:
    """Look at what there is: the customers by name. Raises `Permanent` where the schema is not what it should be."""
    with cluster.connect() as connection:
        applied = [number for (number,) in connection.execute("SELECT number FROM shop.migration ORDER BY 1")]
        if applied != [migration.number for migration in MIGRATIONS]:
            raise Permanent(f"the schema has had the migrations {applied}")
        return [name for (name,) in connection.execute("SELECT name FROM shop.customer ORDER BY joined, name")]


# --- the workflow ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Provisioned:
    """A cluster that is up, healthy and migrated."""

    cluster: Cluster
    version: str
    customers: tuple[str, ...]


@workflow
def provision(folder: str, migrations: Sequence[Migration] = MIGRATIONS) -> Flow[Provisioned]:
    """Make a cluster in `folder`, or leave nothing behind and raise what made it impossible."""
    undo: list[Command[None]] = []
    try:
        undo.append(uninstall(folder))
        cluster = yield from Shield(install(folder))
        undo.append(remove_data(cluster))
        yield from Shield(initialise(cluster))
        undo.append(stop(cluster))
        yield from Shield(start(cluster))
        version = yield from check_health(cluster)
        yield from Publish("version", version)
        undo.append(drop_roles(cluster))
        yield from Shield(create_roles(cluster))
        undo.append(drop_schema(cluster))
        yield from Shield(create_schema(cluster))
        for migration in migrations:
            yield from migrate(cluster, migration)
        customers = yield from verify(cluster)
    except Exception:  # `Cancelled` is one
        yield from Shield(_take_back(undo))
        raise
    return Provisioned(cluster, version, tuple(customers))


def _take_back(undo: Sequence[Command[None]]) -> Flow[None]:
    """Run the list from its end. What cannot be undone is published, and does not keep the rest from being undone."""
    left: list[str] = []
    for command in reversed(undo):
        try:
            yield from command
        except Exception as error:
            left.append(f"{command.name}: {error}")
    yield from Publish("left_behind", left)


@workflow
def deprovision(folder: str) -> Flow[None]:
    """Stop the cluster in `folder` and remove everything of it."""
    cluster = yield from install(folder)
    yield from stop(cluster)
    yield from remove_data(cluster)
    yield from uninstall(folder)


def main() -> None:
    """Provision a cluster, or remove it."""
    parser = argparse.ArgumentParser(description="Make a PostgreSQL cluster in a folder, durably.")
    parser.add_argument("folder", type=Path, help="where it is to live")
    parser.add_argument("--store", default="lmdb:./provision-store", help="where to remember (default: %(default)s)")
    parser.add_argument("--remove", action="store_true", help="stop it and remove everything of it")
    options = parser.parse_args()
    folder = str(options.folder.resolve())
    with Engine(options.store, workflows=collect(sys.modules[__name__])) as engine:
        # A run under way goes on; one that has ended is followed by another, whose steps find what is there.
        if options.remove:
            engine.start(deprovision, folder, id=f"remove {folder}", on_conflict="restart_closed").result()
            print("removed")
        else:
            made = engine.start(provision, folder, id=f"provision {folder}", on_conflict="restart_closed").result()
            print(f"PostgreSQL {made.version} is up: psql -h {made.cluster.sockets} -U postgres")
