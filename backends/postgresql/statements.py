"""The statements this store is made of. Each is prepared once on each connection that uses it.

Parameters and answers go as bytes (`wire`), so every parameter has its type written beside it. Lists come as arrays,
and stand in a statement as `rows_of` writes them: with a limit that PostgreSQL cannot know when it plans, for which it
takes a tenth of what it guesses, one row. So it always begins with the list and looks each of its rows up by an index.
Without that it may begin with the table while that is small, and go on so when the table is large.
"""

from __future__ import annotations

from typing import Final

import attrs

from dalsegno.backends.postgresql.rows import COLUMNS

OPEN: Final = "('running', 'paused', 'blocked')"


@attrs.frozen(slots=True, eq=False)
class Statement:
    """A statement, and the name it is prepared under."""

    name: bytes
    sql: bytes

    @classmethod
    def of(cls, name: str, sql: str) -> Statement:
        """The statement of this text, on one line."""
        return cls(f"dalsegno_{name}".encode(), " ".join(sql.split()).encode())


_statement = Statement.of


def rows_of(arrays: str, names: str) -> str:
    """A list of rows, given as arrays."""
    first = arrays.partition(",")[0]
    return f"(SELECT * FROM unnest({arrays}) AS listed ({names}) LIMIT cardinality({first}))"


BEGIN = _statement("begin", "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
COMMIT = _statement("commit", "COMMIT")
ROLLBACK = _statement("rollback", "ROLLBACK")
TICK = _statement("tick", "UPDATE writers SET commits = commits + 1 WHERE slot = $1::integer")

ANNOUNCE = _statement("announce", "SELECT pg_notify($1::text, '')")

# --- one round trip ------------------------------------------------------------------------------------------------

APPEND_ONE = _statement(
    "append_one", "SELECT append_one($1::bigint, $2::integer, $3::integer, $4::integer, $5::bytea, $6::integer)"
)
APPEND_MANY = _statement(
    "append_many",
    """SELECT append_many($1::bigint[], $2::integer[], $3::integer[], $4::integer[],
        $5::bigint[], $6::integer[], $7::integer[], $8::bytea[], $9::integer)""",
)

# --- looking, with locks -------------------------------------------------------------------------------------------

LOCK_COUNTER = _statement("lock_counter", "SELECT value FROM counters WHERE name = 'message' FOR UPDATE")

_NEWEST = "SELECT number FROM runs WHERE workflow_key = asked.key ORDER BY generation DESC LIMIT 1"

LOCK_RUNS = _statement(
    "lock_runs",
    f"""SELECT {COLUMNS} FROM runs JOIN (
        SELECT wanted FROM (
            SELECT run FROM {rows_of("$1::bigint[]", "run")} AS asked
            UNION SELECT newest.number FROM {rows_of("$2::uuid[]", "key")} AS asked, LATERAL ({_NEWEST}) AS newest
            UNION SELECT named.number FROM {rows_of("$3::uuid[], $4::integer[]", "key, nth")} AS asked
                JOIN runs AS named ON named.workflow_key = asked.key AND named.generation = asked.nth
        ) AS all_of_them (wanted) LIMIT cardinality($1) + cardinality($2) + cardinality($3)
    ) AS these ON number = wanted ORDER BY number FOR NO KEY UPDATE OF runs""",
)
NEWEST = _statement(
    "newest",
    f"""SELECT asked.at, newest.number FROM unnest($1::uuid[]) WITH ORDINALITY AS asked (key, at),
        LATERAL ({_NEWEST}) AS newest""",
)
ACCEPTED = _statement(
    "accepted",
    f"""SELECT d.workflow_key, d.key_hash, d.run FROM {rows_of("$1::uuid[], $2::uuid[]", "workflow_key, key_hash")}
        AS asked JOIN deduplications AS d USING (workflow_key, key_hash)""",
)
UNSEEN = _statement(
    "unseen",
    f"""SELECT m.run, m.seq FROM {rows_of("$1::bigint[], $2::bigint[]", "run, seen")} AS asked
        JOIN messages AS m ON m.run = asked.run AND m.seq > asked.seen WHERE m.kind <> 'wake'""",
)
NUMBERS = _statement("numbers", "SELECT nextval('run_numbers') FROM generate_series(1, $1::integer)")

# --- writing -------------------------------------------------------------------------------------------------------

INSERT_RUNS = _statement(
    "insert_runs",
    """INSERT INTO runs (number, workflow_key, workflow_id, generation, workflow, status, active, created_at_us, digest,
        closed_at_us, tags, parent_id, parent_generation, parent_command, epoch, owner, deaths, reason, restore, head,
        last_message)
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::boolean[],
        $8::bigint[], $9::bytea[], $10::bigint[], $11::jsonb[], $12::text[], $13::integer[], $14::text[],
        $15::integer[], $16::text[], $17::integer[], $18::text[], $19::boolean[], $20::integer[], $21::bigint[])""",
)
UPDATE_RUNS = _statement(
    "update_runs",
    f"""UPDATE runs SET status = new.status, active = new.active, closed_at_us = new.closed_at_us, deaths = new.deaths,
        reason = new.reason, restore = new.restore, head = new.head, last_message = new.last_message
    FROM {
        rows_of(
            "$1::bigint[], $2::text[], $3::boolean[], $4::bigint[], $5::integer[], $6::text[], $7::boolean[], "
            "$8::integer[], $9::bigint[]",
            "number, status, active, closed_at_us, deaths, reason, restore, head, last_message",
        )
    } AS new WHERE runs.number = new.number""",
)
INSERT_EVENTS = _statement(
    "insert_events",
    """INSERT INTO events (run, seq, crc, event)
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::integer[], $4::bytea[])""",
)
INSERT_MESSAGES = _statement(
    "insert_messages",
    """INSERT INTO messages (seq, run, at_us, crc, failed, kind, name, payload)
    SELECT * FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::integer[], $5::boolean[], $6::text[], $7::text[],
        $8::bytea[])""",
)
TAKE_MESSAGES = _statement(
    "take_messages",
    f"""DELETE FROM messages USING {rows_of("$1::bigint[], $2::bigint[]", "run, seq")} AS taken
    WHERE messages.seq = taken.seq AND messages.run = taken.run""",
)
CLEAR_MESSAGES = _statement(
    "clear_messages",
    f"DELETE FROM messages USING {rows_of('$1::bigint[]', 'run')} AS closed WHERE messages.run = closed.run",
)
CLEAR_TIMERS = _statement(
    "clear_timers", f"DELETE FROM timers USING {rows_of('$1::bigint[]', 'run')} AS closed WHERE timers.run = closed.run"
)
CLEAR_NOTES = _statement(
    "clear_notes", f"DELETE FROM notes USING {rows_of('$1::bigint[]', 'run')} AS closed WHERE notes.run = closed.run"
)
CLEAR_OUTCOMES = _statement(
    "clear_outcomes",
    f"DELETE FROM step_outcomes AS o USING {rows_of('$1::bigint[]', 'run')} AS closed WHERE o.run = closed.run",
)
DELETE_TIMERS = _statement(
    "delete_timers",
    f"""DELETE FROM timers USING {rows_of("$1::bigint[], $2::bigint[], $3::text[]", "run, deadline_us, key")} AS gone
    WHERE timers.run = gone.run AND timers.deadline_us = gone.deadline_us AND timers.key = gone.key""",
)
INSERT_TIMERS = _statement(
    "insert_timers",
    f"""INSERT INTO timers (run, deadline_us, key)
    SELECT * FROM {rows_of("$1::bigint[], $2::bigint[], $3::text[]", "run, deadline_us, key")} AS new
    WHERE NOT EXISTS (SELECT FROM timers AS t
        WHERE t.run = new.run AND t.deadline_us = new.deadline_us AND t.key = new.key)""",
)
_SAME_KEY = "hashtextextended(p.key, 0) = hashtextextended(new.key, 0) AND p.key = new.key"
DELETE_PUBLISHED = _statement(
    "delete_published",
    f"""DELETE FROM published AS p USING {rows_of("$1::bigint[], $2::text[]", "run, key")} AS new
    WHERE p.run = new.run AND {_SAME_KEY}""",
)
INSERT_PUBLISHED = _statement(
    "insert_published",
    """INSERT INTO published (run, crc, key, value)
    SELECT * FROM unnest($1::bigint[], $2::integer[], $3::text[], $4::bytea[])""",
)
INSERT_DEDUPLICATIONS = _statement(
    "insert_deduplications",
    """INSERT INTO deduplications (workflow_key, key_hash, run, key)
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[])""",
)
RAISE_COUNTER = _statement("raise_counter", "UPDATE counters SET value = $1::bigint WHERE name = 'message'")

SETTLE_STEP = _statement(
    "settle_step",
    """SELECT crc, name, result FROM settle_step($1::bigint, $2::text, $3::text, $4::integer, $5::integer)""",
)

# --- holding -------------------------------------------------------------------------------------------------------

CLAIM = _statement("claim", f"SELECT {COLUMNS} FROM claim_runs($1::bigint[], $2::text, $3::integer)")
RELEASE = _statement(
    "release",
    f"""WITH tick AS (UPDATE writers SET commits = commits + 1 WHERE slot = $3::integer)
    UPDATE runs SET owner = '' FROM {rows_of("$1::bigint[]", "asked_number")} AS asked
    WHERE number = asked_number AND owner = $2::text AND status IN {OPEN}""",
)
TAKE_SLOT = _statement("take_slot", "SELECT take_slot($1::bigint, $2::text)")
TRY_LOCK = _statement("try_lock", "SELECT pg_try_advisory_lock($1::integer, $2::integer)")
TRY_ENTER = _statement(  # the second lock is nobody else's, and is left alone where the first is refused
    "try_enter",
    """SELECT CASE WHEN pg_try_advisory_lock_shared($1::integer, $2::integer)
        THEN pg_try_advisory_lock($3::bigint) IS NOT NULL ELSE false END""",
)
UNLOCK_SHARED = _statement("unlock_shared", "SELECT pg_advisory_unlock_shared($1::integer, $2::integer)")
UNLOCK_OWNER = _statement("unlock_owner", "SELECT pg_advisory_unlock($1::bigint)")
JOIN = _statement("join", "SELECT join_store($1::text, $2::bigint, $3::bigint, $4::bigint, $5::text, $6::integer)")
RENEW = _statement(
    "renew",
    """UPDATE leases SET number = nextval('lease_numbers'), renewed_us = $2::bigint, server = pg_postmaster_start_time()
    WHERE owner = $1::text RETURNING number""",
)
END_LEASE = _statement("end_lease", "SELECT end_lease($1::text, $2::bigint, $3::text, $4::integer)")
LEASES = _statement(
    "leases",
    """SELECT owner, length_us, number, renewed_us, server = pg_postmaster_start_time() AND NOT EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND classid = ((lock >> 32) & 4294967295)::oid AND objid = (lock & 4294967295)::oid)
    FROM leases ORDER BY owner COLLATE "C\"""",
)
UNLOCK_ALL = _statement("unlock_all", "SELECT pg_advisory_unlock_all()")
SET_ENGINE = _statement("set_engine", "SELECT hold_alone($1::text, $2::integer, $3::text)")
GET_ENGINE = _statement("get_engine", "SELECT owner, process, host FROM engine")

# --- reading -------------------------------------------------------------------------------------------------------

HISTORY = _statement(
    "history",
    """SELECT seq, crc, event FROM events WHERE run = $1::bigint AND seq >= $2::integer
    ORDER BY seq LIMIT $3::bigint""",
)
HEAD = _statement("head", "SELECT head FROM runs WHERE number = $1::bigint")
INBOX = _statement(
    "inbox",
    """SELECT seq, at_us, crc, failed, kind, name, payload FROM messages WHERE run = $1::bigint AND seq > $2::bigint
    ORDER BY seq LIMIT $3::bigint""",
)
LOOK_UP = _statement(
    "look_up", f"SELECT {COLUMNS} FROM runs JOIN {rows_of('$1::bigint[]', 'asked')} AS these ON number = asked"
)
RECORD = _statement("record", f"SELECT {COLUMNS} FROM runs WHERE number = $1::bigint")
FIND_NEWEST = _statement(
    "find_newest",
    f"SELECT {COLUMNS} FROM runs WHERE workflow_key = $1::uuid ORDER BY generation DESC LIMIT 1",
)
FIND = _statement("find", f"SELECT {COLUMNS} FROM runs WHERE workflow_key = $1::uuid AND generation = $2::integer")
PUBLISHED = _statement("published", "SELECT crc, key, value FROM published WHERE run = $1::bigint")
_FITS = """number < $1::bigint AND ($2::text IS NULL OR workflow = $2) AND tags @> $3::jsonb
    ORDER BY number DESC LIMIT $4::bigint"""
RUNS = _statement("runs", f"SELECT {COLUMNS} FROM runs WHERE {_FITS}")
RUNS_BY_STATUS = _statement(
    "runs_by_status",
    f"""SELECT {COLUMNS} FROM unnest($5::text[]) AS asked (asked_status),
        LATERAL (SELECT * FROM runs WHERE status = asked_status AND {_FITS}) AS found
    ORDER BY number DESC LIMIT $4::bigint""",
)
ACTIVE = _statement(
    "active",
    """SELECT number FROM runs WHERE active AND status = 'running' AND number > $1::bigint
    ORDER BY number LIMIT $2::bigint""",
)
DUE = _statement(
    "due",
    """SELECT deadline_us, run, key FROM timers WHERE deadline_us <= $1::bigint
    ORDER BY deadline_us, run, key COLLATE "C" LIMIT $2::bigint""",
)
NEXT_DEADLINE = _statement("next_deadline", "SELECT deadline_us FROM timers ORDER BY deadline_us LIMIT 1")
NEWS = _statement("news", "SELECT seq, run FROM messages WHERE seq > $1::bigint ORDER BY seq LIMIT $2::bigint")
CHANGES = _statement("changes", "SELECT sum(commits)::bigint FROM writers")

# --- keeping house -------------------------------------------------------------------------------------------------

HIDE_RUNS = _statement(
    "hide_runs",
    f"""WITH hidden AS (
        DELETE FROM runs USING {rows_of("$1::bigint[]", "asked_number")} AS asked
        WHERE number = asked_number AND status NOT IN {OPEN} RETURNING number),
    marked AS (INSERT INTO purging SELECT number FROM hidden),
    freed AS (DELETE FROM deduplications USING hidden WHERE run = hidden.number),
    tick AS (UPDATE writers SET commits = commits + 1 WHERE slot = $2::integer)
    SELECT count(*) FROM hidden""",
)
SWEEP = _statement("sweep", "SELECT sweep($1::integer)")
COUNTS = _statement("counts", "SELECT status, count(*) FROM runs GROUP BY status")
SIZES = _statement(
    "sizes",
    """SELECT pg_total_relation_size('events')::bigint, (
        SELECT sum(pg_total_relation_size(c.oid))::bigint FROM pg_class AS c
        WHERE c.relkind = 'r' AND c.relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = 'runs'::regclass))""",
)
EVENT_PAGE = _statement(
    "event_page",
    """SELECT run, seq::bigint, crc, event FROM events WHERE (run, seq) > ($1::bigint, $2::bigint)
    ORDER BY run, seq LIMIT $3::bigint""",
)
MESSAGE_PAGE = _statement(
    "message_page",
    """SELECT run, seq, at_us, crc, failed, kind, name, payload FROM messages WHERE seq > $1::bigint
    ORDER BY seq LIMIT $2::bigint""",
)
PUBLISHED_PAGE = _statement(
    "published_page",
    """SELECT run, hashtextextended(key, 0), crc, key, value FROM published
    WHERE (run, hashtextextended(key, 0)) > ($1::bigint, $2::bigint)
    ORDER BY run, hashtextextended(key, 0) LIMIT $3::bigint""",
)
OUTCOME_PAGE = _statement(
    "outcome_page",
    """SELECT run, crc, step, name, result FROM step_outcomes WHERE (run, step) > ($1::bigint, $2::text)
        AND result IS NOT NULL ORDER BY run, step LIMIT $3::bigint""",
)
WRONG_HEADS = _statement(
    "wrong_heads",
    """SELECT r.number FROM runs AS r LEFT JOIN LATERAL (
        SELECT count(*) AS events, max(seq) AS last FROM events AS e WHERE e.run = r.number) AS h ON true
    WHERE r.head = 0 OR h.events <> r.head OR h.last <> r.head - 1""",
)
_NO_RUN = "NOT EXISTS (SELECT FROM runs WHERE runs.number = of.run)"
_NOT_GOING = "NOT EXISTS (SELECT FROM purging WHERE purging.run = of.run)"
_NOT_OPEN = f"NOT EXISTS (SELECT FROM runs WHERE runs.number = of.run AND runs.status IN {OPEN})"
LOST_EVENTS = _statement("lost_events", f"SELECT DISTINCT run FROM events AS of WHERE {_NO_RUN} AND {_NOT_GOING}")
LOST_MESSAGES = _statement("lost_messages", f"SELECT DISTINCT run FROM messages AS of WHERE {_NOT_OPEN}")
LOST_TIMERS = _statement("lost_timers", f"SELECT DISTINCT run FROM timers AS of WHERE {_NOT_OPEN}")
LOST_OUTCOMES = _statement("lost_outcomes", f"SELECT DISTINCT run FROM step_outcomes AS of WHERE {_NOT_OPEN}")
LOST_PUBLISHED = _statement(
    "lost_published", f"SELECT DISTINCT run FROM published AS of WHERE {_NO_RUN} AND {_NOT_GOING}"
)
LOST_KEYS = _statement("lost_keys", f"SELECT DISTINCT run FROM deduplications AS of WHERE {_NO_RUN}")
WRONG_COUNTER = _statement(
    "wrong_counter",
    "SELECT run FROM messages WHERE seq > (SELECT value FROM counters WHERE name = 'message') ORDER BY seq",
)
