-- name: append
INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
SELECT e.kind, $2, ARRAY(SELECT jsonb_array_elements_text(e.accounts)::uuid),
    e.job_id, e.task_id, e.attempt_id, e.data
FROM jsonb_to_recordset($1::jsonb) AS e (
    kind text, accounts jsonb, job_id uuid, task_id uuid, attempt_id uuid, data jsonb
);

-- name: take_head
SELECT position FROM event_head FOR UPDATE SKIP LOCKED;

-- name: move_finished
-- An outbox row of transfers becomes one log row for each of them.
WITH finished AS (
    SELECT id FROM event_outbox
    WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY id LIMIT $2
), moved AS (
    DELETE FROM event_outbox WHERE id IN (SELECT id FROM finished) RETURNING *
), entry AS (
    SELECT id, NULL::bigint AS transfer_id, kind, at, accounts, job_id, task_id, attempt_id, data
    FROM moved WHERE transfers IS NULL
    UNION ALL
    SELECT m.id, f.id, 'transfer', f.at, f.accounts, f.job_id, NULL, NULL, f.data
    FROM moved m CROSS JOIN LATERAL unnest(m.transfers) AS t (id)
    JOIN ledger.transfer_fact f ON f.id = t.id
), numbered AS MATERIALIZED (
    SELECT $1 + row_number() OVER (ORDER BY id, transfer_id) AS position, gen_random_uuid() AS salt, entry.*
    FROM entry
), logged AS (
    INSERT INTO event_log (
        position, kind, at, accounts, job_id, task_id, attempt_id, data, transfer_id, salt, leaf
    )
    SELECT position, kind, at, accounts, job_id, task_id, attempt_id, data, transfer_id, salt,
        audit_leaf(salt, audit_text(
            position, kind, at, accounts, job_id, task_id, attempt_id, data
        ))
    FROM numbered
    RETURNING position
)
UPDATE event_head SET position = $1 + (SELECT count(*) FROM logged)
RETURNING (position - $1)::integer;

-- name: read
SELECT position, kind, at, job_id, task_id, attempt_id, data
FROM event_log
WHERE position > $1 AND ($2::uuid IS NULL OR accounts @> ARRAY[$2::uuid])
    AND ($3::uuid IS NULL OR job_id = $3)
ORDER BY position LIMIT $4;

-- name: position
SELECT position FROM event_head;

-- name: record_error
INSERT INTO recorded_error (id, at, code, place, request_id, detail, context)
VALUES ($1, $2, $3, $4, $5, $6, $7);

-- name: recorded_errors
SELECT id, at, code, place, request_id, detail, context FROM recorded_error
WHERE at > $1 ORDER BY at DESC LIMIT $2;
