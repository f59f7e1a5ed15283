-- What transactional steps have answered, each written in the transaction that holds the step's own effects.
--
-- A row is there from that commit until the run closes. Usually the next transition tells of it, and nobody reads it
-- again; after a crash in between it is what happened.

CREATE TABLE step_outcomes (
    run     bigint NOT NULL,
    epoch   integer NOT NULL,
    attempt integer NOT NULL,
    crc     integer NOT NULL,           -- CRC-32 over run, step, name and result
    at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    step    text NOT NULL,              -- the command's id in the run
    name    text NOT NULL,
    result  bytea,                      -- null: this attempt, and those before it, shall not commit any more
    PRIMARY KEY (run, step)
);
ALTER TABLE step_outcomes ALTER result SET STORAGE EXTERNAL;

-- Record the outcome of a step in its own transaction, of which this is the last statement before the commit. The lock
-- on the run's row keeps others from claiming or closing it until then, and lets its other steps pass. Undone by an
-- error: DS001, the run is somebody else's or has ended; DS002, the body ended the transaction by itself; DS003, the
-- step has an outcome, or this attempt was given up.
CREATE FUNCTION record_step(
    a_run bigint, a_step text, a_name text, an_attempt integer, an_owner text, an_epoch integer, a_crc integer,
    a_result bytea
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('dalsegno.step', true) IS DISTINCT FROM a_run || '/' || a_step THEN
        RAISE EXCEPTION 'ended by the body' USING ERRCODE = 'DS002';
    END IF;
    PERFORM FROM runs WHERE number = a_run AND owner = an_owner AND epoch = an_epoch
        AND status IN ('running', 'paused', 'blocked') FOR SHARE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'refused' USING ERRCODE = 'DS001';
    END IF;
    INSERT INTO step_outcomes AS known (run, step, name, attempt, epoch, crc, result)
        VALUES (a_run, a_step, a_name, an_attempt, an_epoch, a_crc, a_result)
        ON CONFLICT (run, step) DO UPDATE SET name = excluded.name, attempt = excluded.attempt, epoch = excluded.epoch,
            crc = excluded.crc, result = excluded.result, at = excluded.at
        WHERE known.result IS NULL AND (known.epoch, known.attempt) < (excluded.epoch, excluded.attempt);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'settled' USING ERRCODE = 'DS003';
    END IF;
END $$;

-- Say what became of an attempt whose commit was not answered: its row, or none, and then it is given up, so that it
-- cannot commit later. While it is just committing, this waits for it.
CREATE FUNCTION settle_step(a_run bigint, a_step text, a_name text, an_attempt integer, an_epoch integer)
RETURNS SETOF step_outcomes LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM runs WHERE number = a_run AND status IN ('running', 'paused', 'blocked') FOR SHARE;
    IF FOUND THEN
        INSERT INTO step_outcomes AS known (run, step, name, attempt, epoch, crc)
            VALUES (a_run, a_step, a_name, an_attempt, an_epoch, 0)
            ON CONFLICT (run, step) DO UPDATE SET attempt = excluded.attempt, epoch = excluded.epoch
            WHERE known.result IS NULL AND (known.epoch, known.attempt) < (excluded.epoch, excluded.attempt);
    END IF;
    RETURN QUERY SELECT * FROM step_outcomes WHERE run = a_run AND step = a_step AND result IS NOT NULL;
END $$;

CREATE VIEW readable_step_outcomes AS
    SELECT r.workflow_id, r.generation, o.step, o.name, o.attempt, o.at, octet_length(o.result) AS bytes, o.run
    FROM step_outcomes o JOIN runs r ON r.number = o.run;
