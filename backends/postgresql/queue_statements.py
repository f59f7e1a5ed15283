"""The statements about queues; `statements` says how such are written. What takes more than one statement is a function
of the store's (`migrations`), so that locks are held for one round trip and no longer."""

from __future__ import annotations

from dalsegno.backends.postgresql.rows import COLUMNS
from dalsegno.backends.postgresql.statements import OPEN, Statement, rows_of

# --- looking, before a commit --------------------------------------------------------------------------------------

LOOK_TASKS = Statement.of(
    "look_tasks",
    f"""SELECT t.number, t.run, t.claim, t.state = 'work', t.cancelled, t.step FROM (
        SELECT asked FROM unnest($1::bigint[]) AS listed (asked)
        UNION SELECT found.number FROM {rows_of("$2::bigint[], $3::text[]", "run, step")} AS a, LATERAL (
            SELECT number FROM tasks WHERE tasks.run = a.run AND tasks.step = a.step AND kind = 'step' AND NOT cancelled
            OFFSET 0) AS found
        UNION SELECT found.number FROM {rows_of("$4::bigint[]", "run")} AS a, LATERAL (
            SELECT number FROM tasks WHERE tasks.run = a.run AND kind = 'step' OFFSET 0) AS found
    ) AS these, LATERAL (SELECT * FROM tasks WHERE number = asked AND kind = 'step' OFFSET 0) AS t
    UNION ALL SELECT 0, a.run, 0, false, true, '' FROM {rows_of("$4::bigint[]", "run")} AS a
        WHERE EXISTS (SELECT FROM notes WHERE notes.run = a.run) ORDER BY 1""",
)
"""Tasks by number, by run and step, and all of runs that end; a row with number 0 says that a run has notes."""
LOOK_PLACES = Statement.of(
    "look_places",
    f"""SELECT {COLUMNS}, nth FROM (SELECT a.nth, found.run FROM unnest($1::text[], $2::uuid[]) WITH ORDINALITY
        AS a (of_queue, hash, nth), LATERAL (
            SELECT run FROM tasks WHERE tasks.queue = a.of_queue AND tasks.dedup_hash = a.hash OFFSET 0) AS found
    ) AS these (nth, of_run) JOIN runs ON number = of_run""",
)

# --- writing -------------------------------------------------------------------------------------------------------

LOCK_QUEUES = Statement.of(
    "lock_queues",
    """SELECT lock_queues($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::uuid[],
        $7::text[])""",
)
PUT_TASKS = Statement.of(
    "put_tasks",
    """SELECT put_tasks($1::text[], $2::text[], $3::uuid[], $4::text[], $5::integer[], $6::bigint[], $7::text[],
        $8::text[], $9::integer[], $10::bytea[], $11::integer[], $12::bigint[], $13::boolean[], $14::bigint[],
        $15::bigint[], $16::text[], $17::uuid[])""",
)
END_TASKS = Statement.of("end_tasks", "SELECT end_tasks($1::bigint[], $2::integer[], $3::text)")
DROP_TASKS = Statement.of("drop_tasks", "SELECT drop_tasks($1::bigint[], $2::bigint[], $3::bigint[], $4::text)")
INHERIT_PLACES = Statement.of(
    "inherit_places",
    f"""UPDATE tasks SET run = a.following FROM {rows_of("$1::bigint[], $2::bigint[]", "before, following")} AS a
    WHERE tasks.run = a.before AND tasks.kind = 'run'""",
)
PLACE_RUNS = Statement.of(
    "place_runs",
    f"""UPDATE runs SET queue = a.in_queue, queued = a.waits
    FROM {rows_of("$1::bigint[], $2::text[], $3::boolean[]", "asked, in_queue, waits")} AS a WHERE number = a.asked""",
)

# --- working -------------------------------------------------------------------------------------------------------

_TASK = """number, run, generation, attempt, priority, claim, deaths, timeout_us, at_us, once, cancelled, crc, queue,
    workflow_id, step, name, key, owner, payload, details_crc, details"""
TAKE_TASKS = Statement.of(
    "take_tasks",
    f"""SELECT {_TASK} FROM take_tasks($1::text[], $2::text, $3::bigint, $4::bigint, $5::text[], $6::integer,
        $7::bigint, $8::integer)""",
)
TASKS_OF = Statement.of(
    "tasks_of", f"SELECT {_TASK} FROM told_tasks WHERE run = $1::bigint AND NOT cancelled ORDER BY number"
)
GIVE_BACK = Statement.of(
    "give_back", "SELECT give_back($1::text, $2::bigint[], $3::integer[], $4::bigint[], $5::text, $6::integer)"
)
OWNED = Statement.of(
    "owned", "SELECT number FROM tasks WHERE state = 'work' AND owner = $1::text AND NOT cancelled ORDER BY number"
)
NOTE_TASKS = Statement.of(
    "note_tasks", "SELECT note_tasks($1::text, $2::bigint[], $3::integer[], $4::bytea[], $5::integer)"
)
NOTE_RUN = Statement.of(
    "note_run", "SELECT note_run($1::bigint, $2::integer, $3::text[], $4::integer[], $5::bytea[], $6::integer)"
)
NOTES = Statement.of("notes", "SELECT crc, step, details FROM notes WHERE run = $1::bigint ORDER BY step")
WORTH_A_LOOK = Statement.of("worth_a_look", "SELECT worth_a_look('run', $1::text[], $2::bigint, NULL, 1) IS NOT NULL")
ADMIT = Statement.of("admit", "SELECT admit_runs($1::text[], $2::bigint, $3::bigint, $4::integer)")

# --- limits and counts ---------------------------------------------------------------------------------------------

DECLARE = Statement.of(
    "declare",
    """SELECT declare_queues($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[], $6::integer,
        $7::text)""",
)
_WAITING = "FROM tasks AS t WHERE t.kind = q.kind AND t.queue = q.name AND t.state ="
QUEUES = Statement.of(
    "queues",
    f"""SELECT q.name, q.kind, q.declared, q.concurrency, q.per_key, q.rate_count, q.rate_per::text,
        coalesce(k.tasks - coalesce(w.at_work, 0), 0)::bigint, coalesce(w.at_work, 0),
        CASE WHEN $1::boolean THEN least((SELECT min(t.at_us) {_WAITING} 'line'),
            (SELECT min(t.at_us) {_WAITING} 'behind'), (SELECT min(t.at_us) {_WAITING} 'aside')) END,
        next_us(q, EXISTS (SELECT {_WAITING} 'line'),
            (SELECT t.not_before_us {_WAITING} 'aside' ORDER BY t.not_before_us LIMIT 1))
    FROM queues AS q
    LEFT JOIN (SELECT queue, kind, sum(standing + held) AS tasks FROM queue_keys GROUP BY queue, kind) AS k
        ON k.queue = q.name AND k.kind = q.kind
    LEFT JOIN (SELECT queue, kind, count(*) AS at_work FROM tasks WHERE state = 'work' GROUP BY queue, kind) AS w
        ON w.queue = q.name AND w.kind = q.kind
    WHERE q.declared OR k.tasks > 0""",
)
TASK_COUNTS = Statement.of(
    "task_counts",
    """SELECT (SELECT coalesce(sum(standing + held), 0)::bigint FROM queue_keys WHERE kind = 'step'),
        (SELECT count(*) FROM queues AS q WHERE q.declared
            OR EXISTS (SELECT FROM queue_keys AS k WHERE k.queue = q.name AND k.kind = q.kind))""",
)

# --- checking ------------------------------------------------------------------------------------------------------

TASK_PAGE = Statement.of(
    "task_page",
    """SELECT number, run, crc, step, name, payload FROM tasks WHERE number > $1::bigint AND kind = 'step'
    ORDER BY number LIMIT $2::bigint""",
)
NOTE_PAGE = Statement.of(
    "note_page",
    """SELECT run, crc, step, details FROM notes WHERE (run, step) > ($1::bigint, $2::text)
    ORDER BY run, step LIMIT $3::bigint""",
)
_NOT_OPEN = f"NOT EXISTS (SELECT FROM runs WHERE runs.number = of.run AND runs.status IN {OPEN})"
LOST_TASKS = Statement.of(
    "lost_tasks", f"SELECT DISTINCT run FROM tasks AS of WHERE NOT (cancelled AND state = 'work') AND {_NOT_OPEN}"
)
LOST_NOTES = Statement.of("lost_notes", f"SELECT DISTINCT run FROM notes AS of WHERE {_NOT_OPEN}")
WRONG_PLACES = Statement.of(
    "wrong_places",
    f"""SELECT r.number FROM runs AS r LEFT JOIN tasks AS t ON t.run = r.number AND t.kind = 'run'
    WHERE r.status IN {OPEN}
        AND (r.queue, r.queued) IS DISTINCT FROM (coalesce(t.queue, ''), coalesce(t.state <> 'work', false))
    ORDER BY 1""",
)
WRONG_COUNTS = Statement.of(
    "wrong_counts",
    """SELECT coalesce(k.queue, t.queue), coalesce(k.kind, t.kind), coalesce(k.key, '') FROM queue_keys AS k
    FULL JOIN (SELECT queue, kind, key_hash, count(*) FILTER (WHERE state IN ('line', 'work')) AS standing,
        count(*) FILTER (WHERE state IN ('behind', 'aside')) AS held FROM tasks GROUP BY 1, 2, 3) AS t
    ON t.queue = k.queue AND t.kind = k.kind AND t.key_hash = k.key_hash
    WHERE (k.standing, k.held) IS DISTINCT FROM (t.standing, t.held)
    UNION ALL SELECT q.name, q.kind, '' FROM queues AS q WHERE q.at_work <> (SELECT count(*) FROM tasks AS t
        WHERE t.queue = q.name AND t.kind = q.kind AND t.state = 'work') ORDER BY 1, 2, 3""",
)
