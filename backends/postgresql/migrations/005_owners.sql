-- Queues, what is said of them: whose tasks are whose, limits, notes; and what people see.

-- Put tasks at work back in line, in the place they had; cancelled ones are gone. Only those of that claim.
CREATE FUNCTION put_back(numbers bigint[], claims integer[], died integer, channel text)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    gone record;
    returned bigint;
BEGIN
    IF coalesce(cardinality(numbers), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM lock_queues(numbers, '{}', '{}', '{}', '{}', '{}', '{}');
    WITH back AS (
        UPDATE tasks AS t SET state = 'line', owner = '', taking = 0, deaths = t.deaths + died
            FROM (SELECT * FROM unnest(numbers, claims) AS listed (asked, claim) LIMIT cardinality(numbers)) AS a
            WHERE t.number = a.asked AND t.claim = a.claim AND t.state = 'work' AND NOT t.cancelled
            RETURNING t.queue, t.kind
    ), counted AS (
        UPDATE queues AS q SET at_work = q.at_work - b.count
            FROM (SELECT queue, kind, count(*) FROM back GROUP BY 1, 2 LIMIT cardinality(numbers)) AS b
            WHERE q.name = b.queue AND q.kind = b.kind AND q.concurrency IS NOT NULL
    ) SELECT count(*) INTO returned FROM back;
    WITH gone AS (
        DELETE FROM tasks AS t
            USING (SELECT * FROM unnest(numbers, claims) AS listed (asked, claim) LIMIT cardinality(numbers)) AS a
            WHERE t.number = a.asked AND t.claim = a.claim AND t.state = 'work' AND t.cancelled
            RETURNING t.queue, t.kind, t.key_hash, t.state)
    SELECT count(*), array_agg(queue) AS queues, array_agg(kind) AS kinds, array_agg(key_hash) AS hashes,
        array_agg(state) AS states INTO gone FROM gone;
    IF gone.count > 0 THEN
        PERFORM free_places(gone.queues, gone.kinds, gone.hashes, gone.states, channel);
    END IF;
    IF returned > 0 AND channel <> '' THEN
        PERFORM pg_notify(channel, '');
    END IF;
END $$;

-- An owner gives back what he says, of that claim or, for 0, of any; or all of certain calls whose answer he never got.
CREATE FUNCTION give_back(an_owner text, numbers bigint[], claims_ integer[], takings bigint[], channel text,
    a_slot integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    his record;
BEGIN
    SELECT array_agg(t.number ORDER BY t.number) AS numbers, array_agg(t.claim ORDER BY t.number) AS claims INTO his
        FROM tasks AS t WHERE t.state = 'work' AND t.owner = an_owner AND (t.taking = ANY (takings)
            OR EXISTS (SELECT FROM unnest(numbers, claims_) AS a (asked, claim)
                WHERE a.asked = t.number AND a.claim IN (0, t.claim)));
    IF his.numbers IS NOT NULL THEN
        PERFORM put_back(his.numbers, his.claims, 0, channel);
        UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    END IF;
END $$;

-- What an owner had at work goes back, who has died or left.
CREATE FUNCTION bury(an_owner text, channel text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    his record;
BEGIN
    SELECT array_agg(number ORDER BY number) AS numbers, array_agg(claim ORDER BY number) AS claims INTO his
        FROM tasks WHERE state = 'work' AND owner = an_owner;
    PERFORM put_back(his.numbers, his.claims, 1, channel);
END $$;

-- End a lease, if it has this number, or whichever it has. Answers its number.
CREATE FUNCTION end_lease(an_owner text, a_number bigint, channel text, a_slot integer)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY DELETE FROM leases AS l WHERE l.owner = an_owner AND (a_number IS NULL OR l.number = a_number)
        RETURNING l.number;
    IF FOUND THEN
        PERFORM bury(an_owner, channel);
        UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    END IF;
END $$;

-- Somebody holds the store for himself: all others are dead.
CREATE FUNCTION hold_alone(an_owner text, a_process integer, a_host text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    another text;
BEGIN
    INSERT INTO engine (owner, process, host, since) VALUES (an_owner, a_process, a_host, now())
        ON CONFLICT (one) DO UPDATE SET owner = excluded.owner, process = excluded.process, host = excluded.host,
            since = excluded.since;
    FOR another IN SELECT DISTINCT owner FROM tasks WHERE state = 'work' AND owner NOT IN ('', an_owner) ORDER BY 1 LOOP
        PERFORM bury(another, '');
    END LOOP;
END $$;

-- Give an owner a lease, or a new one. Tasks of owners who have none are in line again: they held the store alone, or
-- took them when their lease had ended and they did not know yet.
CREATE FUNCTION join_store(an_owner text, a_length_us bigint, now_us bigint, a_lock bigint, channel text,
    a_slot integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    another text;
BEGIN
    INSERT INTO leases (owner, length_us, number, renewed_us, lock, server)
        VALUES (an_owner, a_length_us, nextval('lease_numbers'), now_us, a_lock, pg_postmaster_start_time())
        ON CONFLICT (owner) DO UPDATE SET length_us = excluded.length_us, number = excluded.number,
            renewed_us = excluded.renewed_us, lock = excluded.lock, server = excluded.server;
    FOR another IN SELECT DISTINCT t.owner FROM tasks AS t WHERE t.state = 'work' AND t.owner <> ''
        AND NOT EXISTS (SELECT FROM leases AS l WHERE l.owner = t.owner) ORDER BY 1 LOOP
        PERFORM bury(another, channel);
        UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    END LOOP;
END $$;

-- When time alone may let another one go: a token comes, or the first of those aside is due.
CREATE FUNCTION next_us(q queues, has_line boolean, first_us bigint) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT CASE WHEN q.at_work >= q.concurrency THEN NULL WHEN has_line THEN token_at WHEN first_us IS NOT NULL
        THEN greatest(first_us, token_at) END
    FROM (SELECT CASE WHEN q.rate_count IS NOT NULL AND q.credit < token_us(q)
        THEN (q.looked_us + ceil((token_us(q) - q.credit) / q.rate_count))::bigint END) AS t (token_at)
$$;

-- Have limits hold for queues of these names, of both kinds, one after the other. Nobody else changes anything in them meanwhile.
CREATE FUNCTION declare_queues(names text[], concurrencies bigint[], per_keys bigint[], rate_counts bigint[],
    rate_pers text[], a_slot integer, channel text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    waiting record;
BEGIN
    LOCK TABLE queues IN EXCLUSIVE MODE;
    LOCK TABLE queue_keys IN EXCLUSIVE MODE;
    LOCK TABLE tasks IN EXCLUSIVE MODE;
    FOR nth IN 1 .. cardinality(names) LOOP
        INSERT INTO queues AS q (name, kind, declared, concurrency, per_key, rate_count, rate_per, at_work, credit)
            SELECT names[nth], of.kind, true, concurrencies[nth], per_keys[nth], rate_counts[nth],
                rate_pers[nth]::double precision,
                CASE WHEN concurrencies[nth] IS NOT NULL THEN (SELECT count(*) FROM tasks AS t
                    WHERE t.kind = of.kind AND t.queue = names[nth] AND t.state = 'work') END,
                coalesce(rate_counts[nth]
                    * greatest(1, round(rate_pers[nth]::double precision::numeric * 1000000)), 0)
            FROM unnest(ARRAY['run', 'step']) AS of (kind)
            ON CONFLICT (name, kind) DO UPDATE SET declared = true, concurrency = excluded.concurrency,
                per_key = excluded.per_key, rate_count = excluded.rate_count, rate_per = excluded.rate_per,
                at_work = excluded.at_work, credit = CASE WHEN (q.rate_count, q.rate_per)
                    IS NOT DISTINCT FROM (excluded.rate_count, excluded.rate_per) THEN q.credit ELSE excluded.credit END;
        FOR waiting IN SELECT queue, kind, key_hash FROM queue_keys WHERE queue = names[nth] AND held > 0 LOOP
            PERFORM line_up(waiting.queue, waiting.kind, waiting.key_hash);
        END LOOP;
    END LOOP;
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    PERFORM pg_notify(channel, '');
END $$;

-- Keep notes for steps of an open run; empty ones are forgotten.
CREATE FUNCTION keep_notes(runs_ bigint[], steps text[], crcs integer[], details_ bytea[])
RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM notes AS n USING (SELECT * FROM unnest(runs_, steps, details_) AS listed (run, step, details)
        WHERE details = '' ORDER BY run, step LIMIT cardinality(runs_)) AS a WHERE n.run = a.run AND n.step = a.step;
    INSERT INTO notes (run, step, crc, details)
        SELECT run, step, crc, details FROM unnest(runs_, steps, crcs, details_) AS listed (run, step, crc, details)
        WHERE details <> '' ORDER BY run, step
        ON CONFLICT (run, step) DO UPDATE SET crc = excluded.crc, details = excluded.details;
END $$;

CREATE FUNCTION note_run(a_run bigint, an_epoch integer, steps text[], crcs integer[], details_ bytea[], a_slot integer)
RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs WHERE number = a_run AND epoch = an_epoch AND status IN ('running', 'paused', 'blocked') FOR SHARE;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    PERFORM keep_notes(array_fill(a_run, ARRAY[cardinality(steps)]), steps, crcs, details_);
    UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    RETURN true;
END $$;

-- Keep what tasks of an owner have told. The lock on each has whoever drops it wait, and then drop the note as well.
CREATE FUNCTION note_tasks(an_owner text, numbers bigint[], crcs integer[], details_ bytea[], a_slot integer)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    his record;
BEGIN
    SELECT array_agg(t.run) AS runs, array_agg(t.step) AS steps, array_agg(a.crc) AS crcs,
        array_agg(a.details) AS details INTO his
        FROM (SELECT * FROM unnest(numbers, crcs, details_) AS listed (asked, crc, details) ORDER BY 1) AS a,
        LATERAL (SELECT run, step FROM tasks WHERE number = a.asked AND state = 'work' AND owner = an_owner
            AND NOT cancelled FOR SHARE) AS t;
    IF his.runs IS NOT NULL THEN
        PERFORM keep_notes(his.runs, his.steps, his.crcs, his.details);
        UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
    END IF;
END $$;

-- For people.

CREATE OR REPLACE VIEW readable_runs AS
    SELECT workflow_id, generation, workflow, status, tags, readable(created_at_us) AS created,
        readable(closed_at_us) AS closed, active, owner, epoch, deaths, reason, head AS events,
        parent_id, parent_generation, parent_command, number, queue, queued
    FROM runs;

CREATE VIEW readable_tasks AS
    SELECT r.workflow_id, r.generation, t.kind, t.queue, t.key, t.priority, t.step, t.name, t.attempt, t.state,
        t.cancelled, t.owner, t.claim, t.deaths, readable(nullif(t.at_us, 0)) AS put,
        readable(nullif(t.not_before_us, 0)) AS not_before, t.turn, octet_length(t.payload) AS bytes, t.number, t.run
    FROM tasks AS t LEFT JOIN runs AS r ON r.number = t.run;

CREATE VIEW readable_queues AS
    SELECT q.name, q.kind, q.concurrency, q.per_key, q.rate_count, q.rate_per, count(t.number) AS tasks,
        count(t.number) FILTER (WHERE t.state = 'work') AS at_work,
        readable(min(t.at_us) FILTER (WHERE t.state <> 'work')) AS oldest
    FROM queues AS q LEFT JOIN tasks AS t ON t.queue = q.name AND t.kind = q.kind GROUP BY q.name, q.kind;
