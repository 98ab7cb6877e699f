-- name: append
INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
SELECT e.kind, $2, ARRAY(SELECT jsonb_array_elements_text(e.accounts)::uuid),
    e.job_id, e.task_id, e.attempt_id, e.data
FROM jsonb_to_recordset($1::jsonb) AS e (
    kind text, accounts jsonb, job_id uuid, task_id uuid, attempt_id uuid, data jsonb
);

-- name: take_head
-- A plan stays while tables grow, so until this transaction ends everything is found by its id: a
-- plan that reads or joins a whole ledger would one day take minutes.
SELECT position, set_config('enable_seqscan', 'off', true),
    set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true)
FROM event_head FOR UPDATE SKIP LOCKED;

-- name: move_finished
-- An outbox row of transfers becomes one log row for each of them.
WITH moved AS (
    DELETE FROM event_outbox WHERE id = ANY (ARRAY(
        SELECT id FROM event_outbox
        WHERE xid < pg_snapshot_xmin(pg_current_snapshot())
        ORDER BY id LIMIT $2
    ))
    RETURNING *
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

-- name: audit_take_head
SELECT size FROM audit_head FOR UPDATE SKIP LOCKED;

-- name: audit_next_leaves
SELECT position, leaf FROM event_log WHERE position > $1 ORDER BY position LIMIT $2;

-- name: audit_tiles
SELECT t.level, t.index, t.hashes
FROM unnest($1::smallint[], $2::bigint[]) AS w (level, index)
JOIN audit_tile t ON t.level = w.level AND t.index = w.index;

-- name: audit_write_tiles
INSERT INTO audit_tile (level, index, hashes)
SELECT * FROM unnest($1::smallint[], $2::bigint[], $3::bytea[])
ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes;

-- name: audit_move_head
UPDATE audit_head SET size = $1;

-- name: audit_add_checkpoint
INSERT INTO audit_checkpoint (size, root, note, at) VALUES ($1, $2, $3, $4);

-- name: audit_latest
SELECT size, encode(root, 'hex') AS root, note, at FROM audit_checkpoint ORDER BY size DESC LIMIT 1;

-- name: audit_checkpoints
SELECT size, encode(root, 'hex') AS root, note, at FROM audit_checkpoint
WHERE size > $1 ORDER BY size LIMIT $2;

-- name: audit_leaves
SELECT position, replace(salt::text, '-', '') AS salt,
    audit_text(position, kind, at, accounts, job_id, task_id, attempt_id, data) AS text
FROM event_log
WHERE position > $1 AND position <= (SELECT max(size) FROM audit_checkpoint)
ORDER BY position LIMIT $2;

-- name: audit_facts
SELECT position, replace(salt::text, '-', '') AS salt,
    audit_text(position, kind, at, accounts, job_id, task_id, attempt_id, data) AS text
FROM event_log
WHERE position = ANY($1::bigint[]) AND ($2::uuid IS NULL OR accounts @> ARRAY[$2::uuid])
ORDER BY position;

-- name: audit_positions
SELECT transfer_id, position FROM event_log WHERE transfer_id = ANY ($1::bigint[]);

-- name: audit_heads
-- What the ends of log and tree say of each other.
SELECT h.size,
    coalesce((SELECT max(size) FROM audit_checkpoint), 0) AS checkpoint,
    e.position AS head,
    coalesce((SELECT max(position) FROM event_log), 0) AS last,
    (SELECT count(*) FROM event_log WHERE position < 1) AS odd
FROM audit_head h, event_head e;

-- name: audit_next_after
SELECT least(
    (SELECT min(position) FROM event_log WHERE position > $1),
    (SELECT min(id) FROM ledger.transfer WHERE id > $1)
) - 1;

-- name: audit_gaps
-- Ranges of positions without a row, from $1 + 1 to $2.
SELECT position + 1 AS first, next - 1 AS last FROM (
    SELECT position, lead(position) OVER (ORDER BY position) AS next FROM (
        SELECT position FROM event_log WHERE position > $1 AND position <= $2
        UNION ALL SELECT $1 UNION ALL SELECT $2::bigint + 1
    ) AS here
) AS pair
WHERE next > position + 1 ORDER BY position LIMIT $3;

-- name: audit_changed_leaves
SELECT position, kind, encode(leaf, 'hex') AS sealed, encode(said, 'hex') AS present
FROM (
    SELECT position, kind, leaf, audit_leaf(salt, audit_text(
        position, kind, at, accounts, job_id, task_id, attempt_id, data
    )) AS said
    FROM event_log WHERE position > $1 AND position <= $2
) AS row
WHERE leaf <> said ORDER BY position LIMIT $3;

-- name: audit_changed_hashes
-- Leaves that the tree's lowest tiles do not have as the log has them.
SELECT position, kind, encode(hash, 'hex') AS sealed, encode(leaf, 'hex') AS present
FROM (
    SELECT l.position, l.kind, l.leaf,
        substring(t.hashes FROM ((l.position - 1) % 256 * 32 + 1)::integer FOR 32) AS hash
    FROM event_log l LEFT JOIN audit_tile t ON t.level = 0 AND t.index = (l.position - 1) / 256
    WHERE l.position > $1 AND l.position <= $2
) AS row
WHERE hash IS DISTINCT FROM leaf ORDER BY position LIMIT $3;

-- name: audit_full_tiles
-- Full tiles whose last leaf lies in the range, and what the tile above says of them.
SELECT c.level, c.index, c.hashes,
    substring(p.hashes FROM (c.index % 256 * 32 + 1)::integer FOR 32) AS above
FROM audit_tile c
LEFT JOIN audit_tile p ON p.level = c.level + 1 AND p.index = c.index / 256
WHERE octet_length(c.hashes) = 8192
    AND (c.index + 1) * 256::numeric ^ (c.level + 1) > $1
    AND (c.index + 1) * 256::numeric ^ (c.level + 1) <= $2
ORDER BY c.level, c.index LIMIT $3;

-- name: audit_changed_transfers
WITH logged AS (
    SELECT position, transfer_id, at, accounts, job_id,
        CASE WHEN jsonb_typeof(data) = 'object' THEN data ELSE '{}' END AS data
    FROM event_log
    WHERE position > $1 AND position <= $2 AND (kind = 'transfer' OR transfer_id IS NOT NULL)
), pair AS (
    SELECT l.position, coalesce(l.transfer_id::text, l.data ->> 'id', '?') AS transfer,
        f.id IS NULL AS is_missing,
        l.data || jsonb_build_object('at', l.at, 'job_id', l.job_id, 'accounts',
            ARRAY(SELECT a FROM unnest(l.accounts) a ORDER BY a)) AS sealed,
        f.data || jsonb_build_object('at', f.at, 'job_id', f.job_id, 'accounts',
            ARRAY(SELECT a FROM unnest(f.accounts) a ORDER BY a)) AS present
    FROM logged l LEFT JOIN ledger.transfer_fact f ON f.id = l.transfer_id
)
SELECT position, transfer, NULL AS field, sealed ->> 'amount_nano' AS sealed, NULL AS present
FROM pair WHERE is_missing
UNION ALL
SELECT p.position, p.transfer, d.field, d.sealed, d.present
FROM pair p CROSS JOIN LATERAL (
    SELECT coalesce(s.key, n.key) AS field, s.value AS sealed, n.value AS present
    FROM jsonb_each_text(p.sealed) s FULL JOIN jsonb_each_text(p.present) n ON n.key = s.key
    WHERE s.value IS DISTINCT FROM n.value
) AS d
WHERE NOT p.is_missing
ORDER BY position, field LIMIT $3;

-- name: audit_unlogged_transfers
SELECT t.id, t.kind::text AS kind, t.amount::text AS amount FROM ledger.transfer t
WHERE t.id > $1 AND t.id <= $2
    AND NOT EXISTS (SELECT FROM event_log l WHERE l.transfer_id = t.id)
    AND t.id NOT IN (
        SELECT w.id FROM event_outbox o, unnest(o.transfers) AS w (id) WHERE w.id IS NOT NULL
    )
ORDER BY t.id LIMIT $3;

-- name: audit_changed_attempts
-- What was logged of attempts, against their rows: the device, the result field by field, and of
-- several ends the last. Fields that an event does not have are not compared.
WITH logged AS (
    SELECT l.position, l.attempt_id,
        CASE WHEN jsonb_typeof(l.data) = 'object' THEN l.data ELSE '{}' END
            || CASE WHEN l.kind = ANY($4::text[]) THEN jsonb_build_object('state', substr(l.kind, 9))
                ELSE '{}' END AS sealed
    FROM event_log l
    WHERE l.position > $1 AND l.position <= $2 AND l.kind LIKE 'attempt.%'
        AND NOT (l.kind = ANY($4::text[]) AND (
            EXISTS (
                SELECT FROM event_log n WHERE n.attempt_id = l.attempt_id
                    AND n.position > l.position AND n.kind = ANY($4::text[])
            ) OR EXISTS (
                SELECT FROM event_outbox o
                WHERE o.attempt_id = l.attempt_id AND o.kind = ANY($4::text[])
            )
        ))
), pair AS (
    SELECT l.position, l.attempt_id, a.id IS NULL AS is_missing, l.sealed, jsonb_build_object(
        'device_id', a.device_id, 'state', a.state, 'verdict', a.verdict, 'status', a.status,
        'exit_code', a.exit_code, 'fuel', a.fuel, 'output_bytes', a.output_bytes,
        'result_hash', encode(a.result_hash, 'hex'), 'output_hash', encode(a.output_hash, 'hex'),
        'stderr_hash', encode(a.stderr_hash, 'hex'), 'signature', encode(a.signature, 'hex')
    ) AS present
    FROM logged l LEFT JOIN attempt a ON a.id = l.attempt_id
)
SELECT max(position) AS position, attempt_id, NULL AS field, NULL AS sealed, NULL AS present
FROM pair WHERE is_missing GROUP BY attempt_id
UNION ALL
SELECT p.position, p.attempt_id, s.key, s.value, p.present ->> s.key
FROM pair p CROSS JOIN LATERAL jsonb_each_text(p.sealed) s
WHERE NOT p.is_missing AND s.value IS DISTINCT FROM p.present ->> s.key
ORDER BY position, field LIMIT $3;

-- name: audit_unlogged_results
-- Results that no event tells of, so that there is nothing to compare them with.
SELECT a.id, encode(a.result_hash, 'hex') AS result_hash FROM attempt a
WHERE a.result_hash IS NOT NULL
    AND NOT EXISTS (
        SELECT FROM event_log l WHERE l.attempt_id = a.id AND l.kind = 'attempt.submitted'
    )
    AND NOT EXISTS (
        SELECT FROM event_outbox o WHERE o.attempt_id = a.id AND o.kind = 'attempt.submitted'
    )
ORDER BY a.id LIMIT $1;

-- name: audit_unlogged_attempts
SELECT a.id, a.state, a.verdict FROM attempt a
WHERE 'attempt.' || a.state = ANY($1::text[])
    AND NOT EXISTS (
        SELECT FROM event_log l WHERE l.attempt_id = a.id AND l.kind = ANY($1::text[])
    )
    AND NOT EXISTS (
        SELECT FROM event_outbox o WHERE o.attempt_id = a.id AND o.kind = ANY($1::text[])
    )
ORDER BY a.id LIMIT $2;

-- name: standing
SELECT h.position AS head, (SELECT count(*) FROM event_outbox) AS unnumbered,
    (SELECT count(*) FROM recorded_error) AS errors
FROM event_head h;
