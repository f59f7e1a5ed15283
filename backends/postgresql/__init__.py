"""The store on PostgreSQL: one schema of a database, for as many machines as reach it.

    postgresql://user@host/database?schema=dalsegno&durability=full

Runs, histories, inboxes, timers and published values are tables that a person can read (`docs/postgresql.md`). The
driver is psycopg 3, which `pip install 'dalsegno[postgresql]'` brings.

| module | its one reason |
|---|---|
| `store` | the port, method by method |
| `options` | what the URL says |
| `migrations` | the tables, made and brought up to date |
| `connections`, `session` | one connection that writes, some that read; what happens when they break |
| `listening` | a hint that news have come |
| `transactional` | steps that write to the database in the transaction that records them |
| `failures` | what PostgreSQL's errors mean to the engine |
| `statements`, `wire`, `rows` | the statements, and values as bytes |
| `writing`, `planning` | a group of writes in one round trip or two, and the decisions in between |
| `queueing`, `queue_planning`, `queue_statements` | tasks and places: who takes them; a group of writes; in SQL |
| `reading`, `keeping` | answers as values of the port; purging, counting, checking |

Two levels of durability. `full`: a commit is on the disk of the server when it returns (and on that of a synchronous
standby, where the server has one). `relaxed`: the server may lose the last commits, of under a second, when it dies;
a killed process of ours loses nothing.
"""

from dalsegno.backends.postgresql.store import PostgresqlBackend

__all__ = ["PostgresqlBackend"]
