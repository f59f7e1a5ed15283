"""The wages on a real server, as they are typed in the example."""

from __future__ import annotations

import subprocess
import sys

from psycopg import sql

from tests.postgresql_server import Server, schema_of


def pay(url: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "dalsegno.examples", "wages", "--store", url, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=60)
    return done.returncode, done.stdout


def test_everybody_is_paid_once(postgresql: Server):
    """Killed between taking and giving, and started again, and again: each wage is paid once, and for the last one
    there is no money left."""
    own = schema_of(postgresql.schema())
    with postgresql.connect() as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(own)))
    url = postgresql.schema(options=f"-csearch_path={own}")
    told = (0, "Ada 100, Bob 100, Cyd 100, Dan 0; the company has 50\n")
    assert [pay(url, "--crash"), pay(url), pay(url)] == [(1, ""), told, told]
    with postgresql.connect() as connection:
        rows = connection.execute(sql.SQL("SELECT sum(balance) FROM {}.account").format(sql.Identifier(own))).fetchall()
    assert rows == [(350,)]
