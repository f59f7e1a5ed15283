-- Queues, the other end: taking tasks, and letting runs begin.

-- A task as the port tells it.
CREATE VIEW told_tasks AS
    SELECT t.number, t.run, r.generation, t.attempt, t.priority, t.claim, t.deaths, t.timeout_us, t.at_us, t.once,
        t.cancelled, t.crc, t.queue, r.workflow_id, t.step, t.name, t.key, t.owner, t.payload, n.crc AS details_crc,
        n.details
    FROM tasks AS t JOIN runs AS r ON r.number = t.run LEFT JOIN notes AS n ON n.run = t.run AND n.step = t.step
    WHERE t.kind = 'step';

-- What a bucket of tokens holds at a time, where a token is as much as the microseconds that all of it takes to fill.
CREATE FUNCTION token_us(q queues) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT greatest(1, round(q.rate_per::numeric * 1000000))
$$;
CREATE FUNCTION credit_at(q queues, now_us bigint) RETURNS numeric LANGUAGE sql IMMUTABLE AS $$
    SELECT least(q.rate_count * token_us(q),
        q.credit + greatest(0, now_us::numeric - q.looked_us) * q.rate_count)
$$;

-- Have tasks that stand aside and are due enter the line, or the place behind their keys. A key that somebody else has
-- locked waits for the next time; so does what is beyond a number that takes a moment.
CREATE FUNCTION enter_line(a_kind text, a_queue text, now_us bigint, at_most integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    due record;
    entry record;
BEGIN
    FOR due IN SELECT number, key_hash FROM tasks WHERE kind = a_kind AND queue = a_queue AND state = 'aside'
        AND not_before_us <= now_us ORDER BY not_before_us, number LIMIT at_most
    LOOP
        SELECT greatest(q.turn, k.turn) + 1 AS turn, q.per_key IS NULL OR k.standing < q.per_key AS fits INTO entry
            FROM queue_keys AS k JOIN queues AS q ON q.name = k.queue AND q.kind = k.kind
            WHERE k.queue = a_queue AND k.kind = a_kind AND k.key_hash = due.key_hash FOR NO KEY UPDATE OF k SKIP LOCKED;
        CONTINUE WHEN NOT FOUND;
        UPDATE tasks SET state = CASE WHEN entry.fits THEN 'line' ELSE 'behind' END,
            turn = CASE WHEN entry.fits THEN entry.turn ELSE 0 END WHERE number = due.number AND state = 'aside';
        IF FOUND AND entry.fits THEN
            UPDATE queue_keys SET turn = entry.turn, standing = standing + 1, held = held - 1
                WHERE queue = a_queue AND kind = a_kind AND key_hash = due.key_hash;
        END IF;
    END LOOP;
END $$;

-- The first tasks of a line, locked; of steps with known names among so many.
CREATE FUNCTION first_in_line(a_kind text, a_queue text, room bigint, known text[], look_through integer)
RETURNS bigint[] LANGUAGE plpgsql AS $$
BEGIN
    IF known IS NULL THEN
        RETURN (SELECT array_agg(number) FROM (
            SELECT number FROM tasks WHERE kind = a_kind AND queue = a_queue AND state = 'line'
            ORDER BY priority DESC, turn, number LIMIT room FOR NO KEY UPDATE SKIP LOCKED) AS first);
    END IF;
    RETURN (SELECT array_agg(number) FROM (
        SELECT t.number FROM (
            SELECT number, name, count(*) FILTER (WHERE name <> ALL (known)) OVER (
                ORDER BY priority DESC, turn, number ROWS UNBOUNDED PRECEDING) AS passed
            FROM (SELECT number, name, priority, turn FROM tasks
                WHERE kind = a_kind AND queue = a_queue AND state = 'line'
                ORDER BY priority DESC, turn, number LIMIT look_through + room) AS line) AS seen,
        LATERAL (SELECT number FROM tasks WHERE number = seen.number AND state = 'line'
            FOR NO KEY UPDATE SKIP LOCKED) AS t
        WHERE seen.name = ANY (known) AND seen.passed < look_through LIMIT room) AS first);
END $$;

-- Which of these queues may have something to be taken, looked at without locks: mostly there is nothing, and whoever
-- finds nothing writes nothing.
CREATE FUNCTION worth_a_look(a_kind text, names text[], now_us bigint, known text[], look_through integer)
RETURNS text[] LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN (SELECT array_agg(a.name ORDER BY a.nth) FROM unnest(names) WITH ORDINALITY AS a (name, nth),
    LATERAL (SELECT FROM queues AS q WHERE q.kind = a_kind AND q.name = a.name
        AND (q.concurrency IS NULL OR q.at_work < q.concurrency)
        AND (q.rate_count IS NULL OR credit_at(q, now_us) >= token_us(q))
        AND (EXISTS (SELECT FROM tasks AS t WHERE t.kind = a_kind AND t.queue = a.name AND t.state = 'aside'
                AND t.not_before_us <= greatest(now_us, q.looked_us))
            OR EXISTS (SELECT FROM (SELECT t.name FROM tasks AS t
                WHERE t.kind = a_kind AND t.queue = a.name AND t.state = 'line'
                ORDER BY t.priority DESC, t.turn, t.number
                LIMIT CASE WHEN known IS NULL THEN 1 ELSE look_through END) AS seen
                WHERE known IS NULL OR seen.name = ANY (known))) OFFSET 0) AS found);
END $$;

-- Take tasks of one queue, or places; answers their numbers in order. Its row is locked where it has limits to all of
-- it. Where it has none, many take side by side, and its turn is noted by whoever gets at it.
CREATE FUNCTION take_of(a_kind text, a_queue text, claimant text, at_most bigint, a_now_us bigint, known text[],
    look_through integer, a_taking bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    q queues;
    now_us bigint;
    room bigint;
    taken bigint[];
BEGIN
    SELECT * INTO q FROM queues WHERE name = a_queue AND kind = a_kind;
    now_us := greatest(a_now_us, q.looked_us);
    room := least(at_most, q.concurrency - q.at_work, floor(credit_at(q, now_us) / token_us(q)));
    IF room <= 0 THEN
        RETURN '{}';
    END IF;
    IF EXISTS (SELECT FROM tasks WHERE kind = a_kind AND queue = a_queue AND state = 'aside' AND not_before_us <= now_us)
    THEN
        BEGIN
            PERFORM enter_line(a_kind, a_queue, now_us, look_through);
            taken := first_in_line(a_kind, a_queue, room, known, look_through);
            IF taken IS NULL THEN
                RAISE EXCEPTION 'nothing is taken, so that all stays as it is' USING ERRCODE = 'DS010';
            END IF;
        EXCEPTION WHEN SQLSTATE 'DS010' THEN
            RETURN '{}';
        END;
    ELSE
        taken := first_in_line(a_kind, a_queue, room, known, look_through);
        IF taken IS NULL THEN
            RETURN '{}';
        END IF;
    END IF;
    UPDATE tasks SET state = 'work', owner = claimant, claim = claim + 1, taking = a_taking WHERE number = ANY (taken);
    IF q.concurrency IS NULL AND q.rate_count IS NULL THEN
        PERFORM FROM queues WHERE name = a_queue AND kind = a_kind FOR NO KEY UPDATE SKIP LOCKED;
        IF NOT FOUND THEN
            RETURN taken;
        END IF;
    END IF;
    UPDATE queues SET looked_us = now_us, at_work = at_work + cardinality(taken),
        turn = (SELECT t.turn FROM tasks AS t WHERE t.number = taken[cardinality(taken)]),
        credit = coalesce(credit_at(q, now_us) - cardinality(taken) * token_us(q), 0)
        WHERE name = a_queue AND kind = a_kind;
    RETURN taken;
END $$;

CREATE FUNCTION take(a_kind text, names text[], claimant text, at_most bigint, now_us bigint, known text[],
    look_through integer, a_taking bigint) RETURNS bigint[] LANGUAGE plpgsql AS $$
DECLARE
    a_queue text;
    taken bigint[] := '{}';
BEGIN
    LOCK TABLE queues IN ROW SHARE MODE;
    names := worth_a_look(a_kind, names, now_us, known, look_through);
    IF names IS NULL OR at_most <= 0 THEN
        RETURN taken;
    END IF;
    IF a_kind = 'step' THEN
        -- Whoever ends the owner's lease waits for this, and then finds what he has taken. If it has ended, and he does
        -- not know it yet, he gets nothing.
        PERFORM FROM leases WHERE owner = claimant FOR KEY SHARE;
        IF NOT FOUND AND EXISTS (SELECT FROM leases) THEN
            RETURN taken;
        END IF;
    END IF;
    PERFORM FROM (SELECT DISTINCT one FROM unnest(names) AS listed (one) ORDER BY 1) AS a,
        LATERAL (SELECT FROM queues AS q WHERE q.name = a.one AND q.kind = a_kind
            AND (q.concurrency IS NOT NULL OR q.rate_count IS NOT NULL) FOR NO KEY UPDATE) AS locked;
    FOREACH a_queue IN ARRAY names LOOP
        EXIT WHEN cardinality(taken) >= at_most;
        taken := taken || take_of(a_kind, a_queue, claimant, at_most - cardinality(taken), now_us, known, look_through,
            a_taking);
    END LOOP;
    RETURN taken;
END $$;

-- Take tasks of steps.
CREATE FUNCTION take_tasks(names text[], claimant text, at_most bigint, now_us bigint, known text[],
    look_through integer, a_taking bigint, a_slot integer) RETURNS SETOF told_tasks LANGUAGE plpgsql AS $$
DECLARE
    taken bigint[] := take('step', names, claimant, at_most, now_us, known, look_through, a_taking);
BEGIN
    IF cardinality(taken) > 0 THEN
        UPDATE writers SET commits = commits + 1 WHERE slot = a_slot;
        RETURN QUERY SELECT told.* FROM unnest(taken) WITH ORDINALITY AS a (asked, nth),
            LATERAL (SELECT * FROM told_tasks AS t WHERE t.number = a.asked OFFSET 0) AS told ORDER BY a.nth;
    END IF;
END $$;

-- Let runs begin; answers them in order. The caller has the lock over the counter, and tells each by a message.
CREATE FUNCTION admit_runs(names text[], at_most bigint, now_us bigint, look_through integer)
RETURNS SETOF bigint LANGUAGE plpgsql AS $$
DECLARE
    taken bigint[] := take('run', names, '', at_most, now_us, NULL, look_through, 0);
BEGIN
    IF cardinality(taken) > 0 THEN
        PERFORM FROM (SELECT run FROM tasks WHERE number = ANY (taken) ORDER BY run) AS a,
            LATERAL (SELECT FROM runs WHERE number = a.run FOR NO KEY UPDATE) AS locked;
        UPDATE runs SET queued = false, active = true
            WHERE number = ANY ((SELECT array_agg(run) FROM tasks WHERE tasks.number = ANY (taken))::bigint[]);
        RETURN QUERY SELECT t.run FROM unnest(taken) WITH ORDINALITY AS a (asked, nth),
            LATERAL (SELECT run FROM tasks WHERE number = a.asked OFFSET 0) AS t ORDER BY a.nth;
    END IF;
END $$;
