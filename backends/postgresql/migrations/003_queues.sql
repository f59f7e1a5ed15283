-- Queues: where steps wait for a worker, and runs for leave to begin (`dalsegno.core.queues` says what is promised).
--
-- A task of a step and the place of a run are rows of one table, `tasks`, of two kinds. What is taken is found by an
-- index over the line alone, so that taking costs what is taken, however much waits.
--
-- Locks, in the order in which everybody takes them: the counter of messages, rows of runs, leases, then here: the
-- table `queues`, shared (alone only for who declares limits); rows of queues that count who is at work or have a rate;
-- rows of keys; tasks. Each kind in the order of its primary key. Who takes waits for rows of queues only, and passes over
-- keys and tasks that are locked: so nobody who holds a task waits for a key or a queue.

CREATE SEQUENCE task_numbers;

CREATE TABLE queues (
    name        text NOT NULL,
    kind        text NOT NULL CHECK (kind IN ('run', 'step')),
    declared    boolean NOT NULL DEFAULT false,
    concurrency bigint,                 -- at work at a time; of these limits, null is none
    per_key     bigint,                 -- in line or at work at a time, of one key
    rate_count  bigint,
    rate_per    double precision,       -- seconds
    at_work     bigint,                 -- counted where there is a limit to it
    turn        bigint NOT NULL DEFAULT 0,  -- of the task that was taken last
    looked_us   bigint NOT NULL DEFAULT -9223372036854775808,   -- by the clock of who took last
    credit      numeric NOT NULL DEFAULT 0, -- tokens, in microseconds of rate_per, so that a part of one is exact
    PRIMARY KEY (name, kind),
    CHECK ((concurrency IS NULL) = (at_work IS NULL))
) WITH (fillfactor = 50);

CREATE TABLE queue_keys (               -- the keys of which something waits or is at work
    queue    text NOT NULL,
    kind     text NOT NULL,
    key_hash uuid NOT NULL,             -- a digest of key: of one length, however long the key is
    turn     bigint NOT NULL DEFAULT 0, -- the last one given to a task of this key
    standing integer NOT NULL DEFAULT 0,    -- tasks in line or at work
    held     integer NOT NULL DEFAULT 0,    -- tasks behind or aside
    key      text NOT NULL,
    PRIMARY KEY (queue, kind, key_hash)
) WITH (fillfactor = 50);

CREATE TABLE tasks (
    number        bigint PRIMARY KEY,
    run           bigint NOT NULL,
    turn          bigint NOT NULL,      -- 0 while behind or aside
    not_before_us bigint NOT NULL,
    at_us         bigint NOT NULL,
    timeout_us    bigint,
    taking        bigint NOT NULL DEFAULT 0,    -- which call took it: one whose answer was lost is undone by this
    priority      integer NOT NULL,     -- higher goes first
    attempt       integer NOT NULL,
    claim         integer NOT NULL DEFAULT 0,   -- how often it was taken
    deaths        integer NOT NULL DEFAULT 0,
    crc           integer NOT NULL,     -- CRC-32 over run, step, name and payload
    once          boolean NOT NULL,
    cancelled     boolean NOT NULL DEFAULT false,
    key_hash      uuid NOT NULL,
    kind          text NOT NULL CHECK (kind IN ('run', 'step')),
    state         text NOT NULL CHECK (state IN ('aside', 'line', 'behind', 'work')),
    queue         text NOT NULL,
    key           text NOT NULL,
    step          text NOT NULL,        -- the command's id in the run
    name          text NOT NULL,        -- the step's
    owner         text NOT NULL DEFAULT '',
    dedup_hash    uuid,
    dedup         text,
    payload       bytea NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX tasks_in_line ON tasks (kind, queue, priority DESC, turn, number) WHERE state = 'line';
CREATE INDEX tasks_behind ON tasks (kind, queue, key_hash, priority DESC, number) WHERE state = 'behind';
CREATE INDEX tasks_aside ON tasks (kind, queue, not_before_us, number) WHERE state = 'aside';
CREATE INDEX tasks_at_work ON tasks (owner, number) WHERE state = 'work';
CREATE INDEX tasks_by_run ON tasks (run, step);
CREATE UNIQUE INDEX tasks_by_dedup ON tasks (queue, dedup_hash) WHERE dedup_hash IS NOT NULL;
ALTER TABLE tasks ALTER payload SET STORAGE EXTERNAL;

CREATE TABLE notes (                    -- what was kept for steps of open runs
    run     bigint NOT NULL,
    crc     integer NOT NULL,           -- CRC-32 over details
    step    text NOT NULL,
    details bytea NOT NULL,
    PRIMARY KEY (run, step)
);
ALTER TABLE notes ALTER details SET STORAGE EXTERNAL;

ALTER TABLE runs
    ADD COLUMN queue text NOT NULL DEFAULT '',          -- where it has a place
    ADD COLUMN queued boolean NOT NULL DEFAULT false;   -- it waits there to be let in

-- Rows of these come and go quickly, and dead ones are in the way of those who read from the front.
ALTER TABLE tasks SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
ALTER TABLE queue_keys SET (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

-- A run that waits in a queue is nobody's to claim.
CREATE OR REPLACE FUNCTION claim_runs(numbers bigint[], claimant text, a_slot integer)
RETURNS SETOF runs LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs JOIN (SELECT * FROM unnest(numbers) AS listed (asked) LIMIT cardinality(numbers)) AS a
        ON number = asked ORDER BY number FOR NO KEY UPDATE OF runs;
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    RETURN QUERY UPDATE runs SET epoch = epoch + 1, owner = claimant,
            deaths = deaths + CASE WHEN active AND owner NOT IN ('', claimant) THEN 1 ELSE 0 END
        FROM (SELECT * FROM unnest(numbers) AS listed (asked) LIMIT cardinality(numbers)) AS a
        WHERE number = asked AND status IN ('running', 'paused', 'blocked') AND NOT queued
        AND (owner IN ('', claimant) OR NOT EXISTS (SELECT FROM leases WHERE leases.owner = runs.owner))
        RETURNING runs.*;
END $$;

-- --- what a commit does ---------------------------------------------------------------------------------------------

-- Lock the queues and keys of all that one commit is about to change: tasks that end (from work, maybe) and tasks that
-- are dropped, by their numbers; places, by their runs; and those to come, for which what is missing is made.
CREATE FUNCTION lock_queues(
    ended bigint[], dropped bigint[], leaving bigint[],
    new_kinds text[], new_queues text[], new_hashes uuid[], new_keys text[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    wanted integer;
    found_ integer;
BEGIN
    LOCK TABLE queues IN ROW SHARE MODE;
    IF cardinality(ended) + cardinality(leaving) > 0 THEN
        PERFORM FROM (
            SELECT DISTINCT t.queue, t.kind FROM tasks AS t WHERE t.number = ANY (ended)
            UNION SELECT t.queue, t.kind FROM tasks AS t WHERE t.run = ANY (leaving) AND t.kind = 'run' ORDER BY 1, 2
        ) AS a, LATERAL (SELECT FROM queues AS q WHERE q.name = a.queue AND q.kind = a.kind
            AND q.concurrency IS NOT NULL FOR NO KEY UPDATE) AS locked;
    END IF;
    IF cardinality(new_queues) > 0 THEN
        INSERT INTO queues (name, kind)
            SELECT DISTINCT a.queue, a.kind FROM unnest(new_queues, new_kinds) AS a (queue, kind)
            WHERE NOT EXISTS (SELECT FROM queues AS q WHERE q.name = a.queue AND q.kind = a.kind) ORDER BY 1, 2
            ON CONFLICT DO NOTHING;
    END IF;
    SELECT count(*) INTO wanted
        FROM (SELECT DISTINCT * FROM unnest(new_queues, new_kinds, new_hashes)) AS a;
    LOOP
        SELECT count(*) FILTER (WHERE is_new) INTO found_ FROM (
            SELECT queue, kind, key_hash, bool_or(is_new) AS is_new FROM (
                SELECT t.queue, t.kind, t.key_hash, false AS is_new FROM tasks AS t WHERE t.number = ANY (ended || dropped)
                UNION ALL SELECT t.queue, t.kind, t.key_hash, false FROM tasks AS t
                    WHERE t.run = ANY (leaving) AND t.kind = 'run'
                UNION ALL SELECT *, true FROM unnest(new_queues, new_kinds, new_hashes)
            ) AS one GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
        ) AS a, LATERAL (SELECT FROM queue_keys AS k WHERE k.queue = a.queue AND k.kind = a.kind
            AND k.key_hash = a.key_hash FOR NO KEY UPDATE) AS locked;
        EXIT WHEN found_ = wanted;
        -- A key may be new, or was forgotten while we waited for it.
        INSERT INTO queue_keys (queue, kind, key_hash, key)
            SELECT DISTINCT ON (a.queue, a.kind, a.key_hash) a.queue, a.kind, a.key_hash, a.key
            FROM unnest(new_queues, new_kinds, new_hashes, new_keys) AS a (queue, kind, key_hash, key)
            ORDER BY 1, 2, 3 ON CONFLICT DO NOTHING;
    END LOOP;
END $$;

-- Put tasks and places on their queues, which are locked.
CREATE FUNCTION put_tasks(
    kinds text[], queues_ text[], hashes uuid[], keys text[], priorities integer[], runs_ bigint[], steps text[],
    names text[], attempts integer[], payloads bytea[], crcs integer[], timeouts bigint[], onces boolean[],
    not_befores bigint[], ats bigint[], dedups text[], dedup_hashes uuid[]
) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    found_ bigint;
BEGIN
    -- What this very transaction has dropped before may have been the last of a key.
    INSERT INTO queue_keys (queue, kind, key_hash, key)
        SELECT DISTINCT ON (a.queue, a.kind, a.key_hash) a.queue, a.kind, a.key_hash, a.key
        FROM unnest(queues_, kinds, hashes, keys) AS a (queue, kind, key_hash, key) WHERE NOT EXISTS (
            SELECT FROM queue_keys AS k WHERE k.queue = a.queue AND k.kind = a.kind AND k.key_hash = a.key_hash)
        ORDER BY 1, 2, 3;
    WITH asked AS (
        SELECT a.*, greatest(q.turn, k.turn) AS base, q.per_key - k.standing AS room, row_number() OVER (
            PARTITION BY a.kind, a.queue, a.key_hash, a.not_before_us > 0 ORDER BY a.nth) AS place
        FROM unnest(kinds, queues_, hashes, keys, priorities, runs_, steps, names, attempts, payloads, crcs, timeouts,
            onces, not_befores, ats, dedups, dedup_hashes) WITH ORDINALITY
            AS a (kind, queue, key_hash, key, priority, run, step, name, attempt, payload, crc, timeout_us, once,
                not_before_us, at_us, dedup, dedup_hash, nth),
        LATERAL (SELECT turn, per_key FROM queues AS q WHERE q.name = a.queue AND q.kind = a.kind OFFSET 0) AS q,
        LATERAL (SELECT turn, standing FROM queue_keys AS k
            WHERE k.queue = a.queue AND k.kind = a.kind AND k.key_hash = a.key_hash OFFSET 0) AS k
    ), ordered AS (
        SELECT *, CASE WHEN not_before_us > 0 THEN 'aside' WHEN room IS NULL OR place <= room THEN 'line'
            ELSE 'behind' END AS new_state FROM asked ORDER BY nth
    ), put AS (
        INSERT INTO tasks (number, kind, queue, key_hash, key, priority, run, step, name, attempt, payload, crc,
            timeout_us, once, not_before_us, at_us, dedup, dedup_hash, state, turn)
        SELECT nextval('task_numbers'), kind, queue, key_hash, key, priority, run, step, name, attempt, payload, crc,
            timeout_us, once, not_before_us, at_us, dedup, dedup_hash, new_state,
            CASE new_state WHEN 'line' THEN base + place ELSE 0 END FROM ordered
        RETURNING queue, kind, key_hash, state, turn
    ), counted AS (
        UPDATE queue_keys AS k
            SET turn = greatest(k.turn, p.turn), standing = k.standing + p.standing, held = k.held + p.held
            FROM (SELECT queue, kind, key_hash, max(turn) AS turn, count(*) FILTER (WHERE state = 'line') AS standing,
                count(*) FILTER (WHERE state <> 'line') AS held FROM put GROUP BY 1, 2, 3 LIMIT cardinality(kinds)) AS p
            WHERE k.queue = p.queue AND k.kind = p.kind AND k.key_hash = p.key_hash
    ) SELECT count(*) INTO found_ FROM put;
    IF found_ <> cardinality(kinds) THEN
        RAISE EXCEPTION 'the row of a queue is gone, which nobody deletes';
    END IF;
END $$;

-- Have tasks of a key that stand behind enter the line, as many as there is room for. The key is locked.
CREATE FUNCTION line_up(a_queue text, a_kind text, a_hash uuid) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    base bigint;
    room bigint;
    entered integer;
BEGIN
    SELECT greatest(q.turn, k.turn), coalesce(q.per_key - k.standing, k.held) INTO base, room
        FROM queues AS q JOIN queue_keys AS k ON k.queue = q.name AND k.kind = q.kind
        WHERE q.name = a_queue AND q.kind = a_kind AND k.key_hash = a_hash AND k.held > 0;
    IF room > 0 THEN
        UPDATE tasks AS t SET state = 'line', turn = base + first.nth
            FROM (SELECT number, row_number() OVER (ORDER BY priority DESC, number) AS nth FROM (
                SELECT number, priority FROM tasks WHERE kind = a_kind AND queue = a_queue AND key_hash = a_hash
                AND state = 'behind' ORDER BY priority DESC, number LIMIT room) AS b) AS first
            WHERE t.number = first.number;
        GET DIAGNOSTICS entered = ROW_COUNT;
        UPDATE queue_keys SET turn = base + entered, standing = standing + entered, held = held - entered
            WHERE queue = a_queue AND kind = a_kind AND key_hash = a_hash AND entered > 0;
    END IF;
END $$;

-- Tasks have gone, of which is said where each stood: their places are free. Tells others of it where somebody may wait
-- for just that.
CREATE FUNCTION free_places(gone_queues text[], gone_kinds text[], gone_hashes uuid[], gone_states text[], channel text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    one record;
    standing_ integer;
    held_ integer;
    told boolean := channel = '';
BEGIN
    UPDATE queues AS q SET at_work = q.at_work - g.ended
        FROM (SELECT queue, kind, count(*) AS ended FROM unnest(gone_queues, gone_kinds, gone_states)
            AS g (queue, kind, state) WHERE state = 'work' GROUP BY 1, 2 LIMIT cardinality(gone_queues)) AS g
        WHERE q.name = g.queue AND q.kind = g.kind AND q.concurrency IS NOT NULL;
    FOR one IN SELECT g.queue, g.kind, g.key_hash, count(*) FILTER (WHERE state IN ('line', 'work')) AS stood,
            count(*) FILTER (WHERE state IN ('behind', 'aside')) AS held
        FROM unnest(gone_queues, gone_kinds, gone_hashes, gone_states) AS g (queue, kind, key_hash, state)
        GROUP BY 1, 2, 3 ORDER BY 1, 2, 3
    LOOP
        UPDATE queue_keys AS k SET standing = k.standing - one.stood, held = k.held - one.held
            WHERE k.queue = one.queue AND k.kind = one.kind AND k.key_hash = one.key_hash
            RETURNING k.standing, k.held INTO standing_, held_;
        IF standing_ = 0 AND held_ = 0 THEN
            DELETE FROM queue_keys AS k
                WHERE k.queue = one.queue AND k.kind = one.kind AND k.key_hash = one.key_hash;
        ELSIF held_ > 0 THEN
            PERFORM line_up(one.queue, one.kind, one.key_hash);
        END IF;
        IF NOT told AND EXISTS (SELECT FROM queues AS q WHERE q.name = one.queue AND q.kind = one.kind
                AND (q.per_key IS NOT NULL OR q.concurrency IS NOT NULL))
            AND EXISTS (SELECT FROM tasks AS t
                WHERE t.kind = one.kind AND t.queue = one.queue AND t.state = 'line') THEN
            PERFORM pg_notify(channel, '');
            told := true;
        END IF;
    END LOOP;
END $$;

-- Tasks have been answered. Undone by an error where one is not there any more as it was seen.
CREATE FUNCTION end_tasks(numbers bigint[], claims integer[], channel text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone record;
BEGIN
    WITH gone AS (
        DELETE FROM tasks AS t USING (SELECT * FROM unnest(numbers, claims) AS listed (asked, claim)
            LIMIT cardinality(numbers)) AS a WHERE t.number = a.asked AND t.claim = a.claim
        RETURNING t.queue, t.kind, t.key_hash, t.state)
    SELECT count(*), array_agg(queue) AS queues, array_agg(kind) AS kinds, array_agg(key_hash) AS hashes,
        array_agg(state) AS states INTO gone FROM gone;
    IF gone.count <> cardinality(numbers) THEN
        RAISE EXCEPTION 'a task was taken meanwhile' USING ERRCODE = '40001';
    END IF;
    PERFORM free_places(gone.queues, gone.kinds, gone.hashes, gone.states, channel);
END $$;

-- Tasks are wanted no more, and with them the places of these runs, whatever they wait for. Those of `waiting` have to
-- wait yet; undone by an error where one does not. Whoever takes meanwhile comes before or after this as a whole.
CREATE FUNCTION drop_tasks(numbers bigint[], waiting bigint[], leaving bigint[], channel text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone record;
BEGIN
    WITH listed AS (
        DELETE FROM tasks AS t USING (SELECT * FROM unnest(numbers) AS listed (asked) LIMIT cardinality(numbers)) AS a
            WHERE t.number = a.asked AND t.state <> 'work' RETURNING t.*
    ), places AS (
        DELETE FROM tasks AS t WHERE t.run = ANY (leaving) AND t.kind = 'run' RETURNING t.*
    ), gone AS (SELECT * FROM listed UNION ALL SELECT * FROM places)
    SELECT count(*) FILTER (WHERE number = ANY (waiting)) AS withdrawn, count(*), array_agg(queue) AS queues,
        array_agg(kind) AS kinds, array_agg(key_hash) AS hashes, array_agg(state) AS states INTO gone FROM gone;
    IF gone.withdrawn <> cardinality(waiting) THEN
        RAISE EXCEPTION 'a task was taken meanwhile' USING ERRCODE = '40001';
    END IF;
    UPDATE tasks AS t SET cancelled = true WHERE t.number = ANY (numbers) AND t.state = 'work';
    IF gone.count > 0 THEN
        PERFORM free_places(gone.queues, gone.kinds, gone.hashes, gone.states, channel);
    END IF;
END $$;
