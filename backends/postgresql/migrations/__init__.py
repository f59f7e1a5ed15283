"""The tables of a store, made and brought up to date.

The files beside this one are applied in their order, each once; the table `migrations` remembers which. Several
workers may start at once: whoever finds something to be done takes a lock in the database, looks again, does it, and
the others find it done. All of it is one transaction, so that a store is never half-way.

A schema that is newer than this release is refused, since what it means is not known here; one that holds other tables
of the same names is left as it is.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

import psycopg
from psycopg import sql

from dalsegno.core.errors import StoreUnusable

LOCK_CLASS = 0x64616C6D  # "dalm"

Connection = psycopg.Connection[tuple[Any, ...]]


def scripts() -> dict[int, str]:
    """The migrations of this release, by their numbers."""
    folder = files(__name__)
    found = sorted(file.name for file in folder.iterdir() if file.name.endswith(".sql"))
    return {int(name.partition("_")[0]): (folder / name).read_text("utf-8") for name in found}


def migrate(connection: Connection, schema: str, place: str, may_write: bool, made_with: str) -> int:
    """See that the schema is there and is what this release writes; answers its number in the database.

    Raises `StoreUnusable`.
    """
    wanted = scripts()
    latest = max(wanted)
    found, number = _look(connection, schema)
    if found == latest:
        return number
    if found > latest:
        raise StoreUnusable(
            f"{place} has version {found} of the tables, and this release of dalsegno knows versions up to {latest}: "
            "a later release was here. Upgrade dalsegno to open it.",
            found=found,
            readable=latest,
        )
    if not may_write:
        what = "holds no store, so there is nothing to read" if not found else f"has version {found} of the tables"
        raise StoreUnusable(f"{place} {what}; it was opened for reading only. Open it once for writing.")
    try:
        with connection.transaction():
            connection.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [LOCK_CLASS, schema])
            found = _version(connection, schema)
            if not found:
                _create_schema(connection, schema)
            connection.execute(sql.SQL("SET LOCAL search_path = {}, pg_temp").format(sql.Identifier(schema)))
            for version in range(found + 1, latest + 1):
                connection.execute(wanted[version].encode())
                connection.execute("INSERT INTO migrations (version, made_with) VALUES (%s, %s)", [version, made_with])
    except (
        psycopg.errors.DuplicateTable,
        psycopg.errors.DuplicateObject,
        psycopg.errors.DuplicateFunction,
    ) as error:
        raise _foreign(place, error) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise StoreUnusable(
            f"{place}: the role may not make the tables of a store ({error}). Have an owner open the store once, or "
            "grant CREATE; see docs/postgresql.md"
        ) from error
    return _look(connection, schema)[1]


def _look(connection: Connection, schema: str) -> tuple[int, int]:
    """The version of the tables in a schema, and the schema's number; version 0 where there are none of ours.

    One statement where the tables are there, as they are whenever a store is opened but for the first time.
    """
    query = sql.SQL(
        "SELECT (SELECT coalesce(max(version), 0) FROM {}.migrations), "
        "(SELECT oid::bigint FROM pg_namespace WHERE nspname = {})"
    ).format(sql.Identifier(schema), sql.Literal(schema))
    try:
        ((version, number),) = connection.execute(query).fetchall()
    except psycopg.ProgrammingError:  # there is no such table, or it is somebody else's
        return _version(connection, schema), 0
    return int(version), int(number)


def _version(connection: Connection, schema: str) -> int:
    """The version of the tables in a schema, 0 where there are none of ours."""
    # Not to_regclass(): in a transaction that waited for the lock it may answer from before the wait.
    there = (
        "SELECT FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
        "WHERE nspname = %s AND relname = 'migrations' AND relkind = 'r'"
    )
    if not connection.execute(there, [schema]).fetchall():
        return 0
    query = sql.SQL("SELECT coalesce(max(version), 0) FROM {}.migrations").format(sql.Identifier(schema))
    ((version,),) = connection.execute(query).fetchall()
    return int(version)


def _create_schema(connection: Connection, schema: str) -> None:
    # Not IF NOT EXISTS: that asks for the right to create schemas also where this one is there.
    if not connection.execute("SELECT FROM pg_namespace WHERE nspname = %s", [schema]).fetchall():
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))


def _foreign(place: str, error: psycopg.Error) -> StoreUnusable:
    return StoreUnusable(
        f"{place} holds something of another program: {error}. Give the store a schema of its own: ?schema=NAME"
    )
