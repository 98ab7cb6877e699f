-- name: take_runs
UPDATE referee_run r SET state = 'running', tries = r.tries + 1, lease_until = $2
WHERE r.id IN (
    SELECT id FROM referee_run
    WHERE state = 'queued' OR (state = 'running' AND lease_until <= $1 AND tries < $4)
    ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING r.id, r.tries, r.asked_by, r.module_hash, r.metered_hash, r.profile, r.input_hash, r.input,
    r.limits;

-- name: abandon_runs
UPDATE referee_run SET state = 'failed', error = 'its referees died', lease_until = NULL, done_at = $1
WHERE state = 'running' AND lease_until <= $1 AND tries >= $2
RETURNING id;

-- name: lock_runs
-- In the order in which ``ask_referee`` takes them.
SELECT FROM referee_run WHERE id = ANY ($1)
ORDER BY metered_hash, profile, input_hash, limits_hash FOR NO KEY UPDATE;

-- name: keep_runs
UPDATE referee_run r SET lease_until = $3
FROM unnest($1::uuid[], $2::smallint[]) AS n (id, tries)
WHERE r.id = n.id AND r.tries = n.tries AND r.state = 'running';

-- name: return_runs
UPDATE referee_run r SET state = 'queued', tries = r.tries - 1, lease_until = NULL
FROM unnest($1::uuid[], $2::smallint[]) AS n (id, tries)
WHERE r.id = n.id AND r.tries = n.tries AND r.state = 'running';

-- name: finish_runs
UPDATE referee_run r SET state = 'done', result_hash = n.result_hash, status = n.status,
    exit_code = n.exit_code, fuel = n.fuel, output_hash = n.output_hash,
    output_bytes = n.output_bytes, done_at = $9, lease_until = NULL
FROM unnest(
    $1::uuid[], $2::smallint[], $3::bytea[], $4::text[], $5::bigint[], $6::bigint[], $7::bytea[],
    $8::integer[]
) AS n (id, tries, result_hash, status, exit_code, fuel, output_hash, output_bytes)
WHERE r.id = n.id AND r.tries = n.tries AND r.state = 'running';

-- name: fail_runs
UPDATE referee_run r SET state = CASE WHEN r.tries >= $4 THEN 'failed' ELSE 'queued' END,
    error = n.error, lease_until = NULL, done_at = CASE WHEN r.tries >= $4 THEN $5::timestamptz END
FROM unnest($1::uuid[], $2::smallint[], $3::text[]) AS n (id, tries, error)
WHERE r.id = n.id AND r.tries = n.tries AND r.state = 'running';

-- name: tasks_waiting_for
SELECT t.id FROM referee_run r
JOIN task t ON t.input_hash = r.input_hash AND t.state = 'verifying'
JOIN job j ON j.id = t.job_id AND j.metered_hash = r.metered_hash AND j.profile = r.profile
    AND j.limits_hash = r.limits_hash
WHERE r.id = ANY ($1);

-- name: count_open_runs
SELECT state, count(*)::integer AS runs FROM referee_run
WHERE state IN ('queued', 'running') GROUP BY state;
