-- The tables of a store. Run with the store's schema as the only one in the search path.
--
-- Times are microseconds since 1970 (columns that end in _us); the views at the end show them as people read them.
-- Texts may hold what PostgreSQL's cannot (NUL, half of a surrogate pair): such a character stands as U+001A and the
-- four or six digits of its code.

CREATE TABLE migrations (
    version     integer PRIMARY KEY,
    applied_at  timestamptz NOT NULL DEFAULT now(),
    made_with   text NOT NULL
);

CREATE SEQUENCE run_numbers;

CREATE TABLE runs (
    number          bigint PRIMARY KEY,
    created_at_us   bigint NOT NULL,
    closed_at_us    bigint,
    last_message    bigint NOT NULL,    -- the newest message that came for it, but for wakes
    workflow_key    uuid NOT NULL,      -- a digest of workflow_id: of one length, however long the id is
    generation      integer NOT NULL,
    head            integer NOT NULL,   -- how many events its history holds
    epoch           integer NOT NULL,
    deaths          integer NOT NULL,
    parent_generation integer,
    active          boolean NOT NULL,
    restore         boolean NOT NULL,
    status          text NOT NULL CHECK (status IN (
                        'running', 'paused', 'blocked', 'completed', 'failed', 'cancelled', 'terminated', 'continued')),
    owner           text NOT NULL,
    workflow_id     text NOT NULL,
    workflow        text NOT NULL,
    parent_id       text,
    parent_command  text,
    reason          text NOT NULL,
    digest          bytea NOT NULL,
    tags            jsonb NOT NULL
) WITH (fillfactor = 70);               -- room for a step's new version of the row beside the old one
CREATE UNIQUE INDEX runs_by_id ON runs (workflow_key, generation);
CREATE INDEX runs_by_status ON runs (status, number);
CREATE INDEX runs_active ON runs (number) WHERE active AND status = 'running';
CREATE INDEX runs_by_text ON runs USING hash (workflow_id);  -- for people: the store itself looks by workflow_key

CREATE TABLE events (
    run   bigint NOT NULL,
    seq   integer NOT NULL,
    crc   integer NOT NULL,             -- CRC-32 over run, seq and event
    event bytea NOT NULL,
    PRIMARY KEY (run, seq)
);
ALTER TABLE events ALTER event SET STORAGE EXTERNAL;  -- compressing has been done or was not wanted

CREATE TABLE messages (
    seq     bigint PRIMARY KEY,
    run     bigint NOT NULL,
    at_us   bigint NOT NULL,
    crc     integer NOT NULL,           -- CRC-32 over run, seq and all of the message
    failed  boolean NOT NULL,
    kind    text NOT NULL,
    name    text NOT NULL,
    payload bytea NOT NULL
);
CREATE INDEX messages_by_run ON messages (run, seq);
ALTER TABLE messages ALTER payload SET STORAGE EXTERNAL;

CREATE TABLE timers (
    deadline_us bigint NOT NULL,
    run         bigint NOT NULL,
    key         text NOT NULL
);
CREATE INDEX timers_by_deadline ON timers (deadline_us, run);
CREATE INDEX timers_by_run ON timers (run, deadline_us);

CREATE TABLE published (
    run   bigint NOT NULL,
    crc   integer NOT NULL,             -- CRC-32 over run, key and value
    key   text NOT NULL,
    value bytea NOT NULL
);
CREATE INDEX published_by_run ON published (run, hashtextextended(key, 0));
ALTER TABLE published ALTER value SET STORAGE EXTERNAL;

CREATE TABLE deduplications (
    workflow_key uuid NOT NULL,
    key_hash     uuid NOT NULL,
    run          bigint NOT NULL,       -- the run that accepted the message
    key          text NOT NULL,
    PRIMARY KEY (workflow_key, key_hash)
);
CREATE INDEX deduplications_by_run ON deduplications (run);

CREATE TABLE purging (                  -- runs that are gone, with rows still to be deleted
    run bigint PRIMARY KEY
);

CREATE TABLE counters (                 -- a row that is taken by whoever numbers messages, until his commit
    name  text PRIMARY KEY,
    value bigint NOT NULL
) WITH (fillfactor = 10);
INSERT INTO counters VALUES ('message', 0);

CREATE TABLE writers (                  -- commits of each connection that writes; their sum tells whether any has
    slot    integer PRIMARY KEY,
    commits bigint NOT NULL,
    backend integer NOT NULL,
    process text NOT NULL,
    since   timestamptz NOT NULL
) WITH (fillfactor = 10);

CREATE TABLE engine (                   -- who held the store last; whether it still does, an advisory lock tells
    one     boolean PRIMARY KEY DEFAULT true CHECK (one),
    owner   text NOT NULL,
    process integer NOT NULL,
    host    text NOT NULL,
    since   timestamptz NOT NULL
);

CREATE SEQUENCE lease_numbers;
CREATE TABLE leases (                   -- the engines at work; an advisory lock of each shows that his connection is there
    owner      text PRIMARY KEY,
    length_us  bigint NOT NULL,
    number     bigint NOT NULL,
    renewed_us bigint NOT NULL,
    lock       bigint NOT NULL,
    server     timestamptz NOT NULL     -- since when the server was up: after it restarted, all locks are gone
) WITH (fillfactor = 50);

-- Rows of these come and go quickly, and dead ones are in the way of those who read from the front.
ALTER TABLE messages SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE timers SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE runs SET (autovacuum_vacuum_scale_factor = 0.05);

-- A place among the writers that no other connection has now. Its count goes on from whoever had it before.
CREATE FUNCTION take_slot(base bigint, process text) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    chosen integer := 0;
BEGIN
    WHILE NOT pg_try_advisory_lock(base + chosen) LOOP
        chosen := chosen + 1;
    END LOOP;
    INSERT INTO writers VALUES (chosen, 1, pg_backend_pid(), process, now())
        ON CONFLICT (slot) DO UPDATE
        SET commits = writers.commits + 1, backend = excluded.backend, process = excluded.process, since = now();
    RETURN chosen;
END $$;

-- Give open runs to an owner: not those that another one has who has a lease. Their rows are locked first, so that
-- the leases are looked at when nobody else can claim them any more.
CREATE FUNCTION claim_runs(numbers bigint[], claimant text, a_slot integer) RETURNS SETOF runs LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs JOIN (SELECT * FROM unnest(numbers) AS listed (asked) LIMIT cardinality(numbers)) AS a
        ON number = asked ORDER BY number FOR NO KEY UPDATE OF runs;
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    RETURN QUERY UPDATE runs SET epoch = epoch + 1, owner = claimant,
            deaths = deaths + CASE WHEN active AND owner NOT IN ('', claimant) THEN 1 ELSE 0 END
        FROM (SELECT * FROM unnest(numbers) AS listed (asked) LIMIT cardinality(numbers)) AS a
        WHERE number = asked AND status IN ('running', 'paused', 'blocked')
        AND (owner IN ('', claimant) OR NOT EXISTS (SELECT FROM leases WHERE leases.owner = runs.owner))
        RETURNING runs.*;
END $$;

-- The common transition: one event for an active run, nothing else. Undone by an error where it does not fit.
CREATE FUNCTION append_one(a_run bigint, a_epoch integer, a_head integer, a_crc integer, a_event bytea, a_slot integer)
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    UPDATE runs SET head = head + 1
        WHERE number = a_run AND epoch = a_epoch AND head = a_head
        AND active AND deaths = 0 AND status IN ('running', 'paused', 'blocked');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'DS001';
    END IF;
    INSERT INTO events (run, seq, crc, event) VALUES (a_run, a_head, a_crc, a_event);
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
END $$;

-- The same for many runs, each named once, with any number of events each.
CREATE FUNCTION append_many(
    runs_ bigint[], epochs integer[], heads integer[], counts integer[],
    event_runs bigint[], event_seqs integer[], event_crcs integer[], events_ bytea[], a_slot integer
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    done integer;
BEGIN
    UPDATE runs SET head = runs.head + a.count
        FROM (SELECT * FROM unnest(runs_, epochs, heads, counts) AS listed (run, epoch, head, count)
            LIMIT cardinality(runs_)) AS a      -- a limit, so that it begins here: see statements.py
        WHERE runs.number = a.run AND runs.epoch = a.epoch AND runs.head = a.head
        AND active AND deaths = 0 AND status IN ('running', 'paused', 'blocked');
    GET DIAGNOSTICS done = ROW_COUNT;
    IF done <> cardinality(runs_) THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'DS001';
    END IF;
    INSERT INTO events (run, seq, crc, event)
        SELECT * FROM unnest(event_runs, event_seqs, event_crcs, events_);
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
END $$;

-- Delete a bounded number of rows of runs that were purged, and the marks of those that have none left. Answers
-- whether there was anything to do.
CREATE FUNCTION sweep(at_most integer) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    marked bigint;
    left_over integer := at_most;
    gone integer;
    any_found boolean := false;
BEGIN
    FOR marked IN SELECT run FROM purging ORDER BY run LIMIT 500 FOR UPDATE SKIP LOCKED LOOP
        any_found := true;
        DELETE FROM events WHERE run = marked AND seq IN (SELECT seq FROM events WHERE run = marked LIMIT left_over);
        GET DIAGNOSTICS gone = ROW_COUNT;
        left_over := left_over - gone;
        EXIT WHEN left_over <= 0;
        DELETE FROM messages WHERE run = marked;    -- a closed run has none left of these; a damaged store may
        DELETE FROM timers WHERE run = marked;
        DELETE FROM published WHERE run = marked;
        GET DIAGNOSTICS gone = ROW_COUNT;
        left_over := left_over - gone;
        DELETE FROM purging WHERE run = marked;
        EXIT WHEN left_over <= 0;
    END LOOP;
    RETURN any_found;
END $$;

-- For people.

CREATE FUNCTION readable(us bigint) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS $$
    -- Beyond the year 100,000 or so there is no timestamp; such a deadline is never.
    SELECT CASE WHEN us BETWEEN -2208988800000000 AND 3093527980800000000
        THEN timestamptz 'epoch' + us * interval '1 microsecond' END
$$;

CREATE VIEW readable_runs AS
    SELECT workflow_id, generation, workflow, status, tags, readable(created_at_us) AS created,
        readable(closed_at_us) AS closed, active, owner, epoch, deaths, reason, head AS events,
        parent_id, parent_generation, parent_command, number
    FROM runs;

CREATE VIEW readable_events AS
    SELECT r.workflow_id, r.generation, e.seq, octet_length(e.event) AS bytes, e.run
    FROM events e JOIN runs r ON r.number = e.run;

CREATE VIEW readable_messages AS
    SELECT r.workflow_id, r.generation, m.kind, m.name, readable(m.at_us) AS sent, m.failed,
        octet_length(m.payload) AS bytes, m.seq, m.run
    FROM messages m JOIN runs r ON r.number = m.run;

CREATE VIEW readable_timers AS
    SELECT r.workflow_id, r.generation, readable(t.deadline_us) AS due, t.key, t.run
    FROM timers t JOIN runs r ON r.number = t.run;

CREATE VIEW readable_published AS
    SELECT r.workflow_id, r.generation, p.key, octet_length(p.value) AS bytes, p.run
    FROM published p JOIN runs r ON r.number = p.run;
