-- name: take_runs
UPDATE referee_run r SET state = 'running', tries = r.tries + 1, lease_until = $2
WHERE r.id IN (
    SELECT id FROM referee_run
    WHERE state = 'queued' OR (state = 'running' AND lease_until <= $1)
    ORDER BY created_at LIMIT $3 FOR UPDATE SKIP LOCKED
)
RETURNING r.id, r.tries, r.asked_by, r.module_hash, r.metered_hash, r.profile, r.input_hash, r.input,
    r.limits;

-- name: finish_run
UPDATE referee_run SET state = 'done', result_hash = $3, status = $4, exit_code = $5, fuel = $6,
    output_hash = $7, output_bytes = $8, done_at = $9, lease_until = NULL
WHERE id = $1 AND tries = $2 AND state = 'running';

-- name: fail_run
UPDATE referee_run SET state = CASE WHEN tries >= $4 THEN 'failed' ELSE 'queued' END,
    error = $3, lease_until = NULL, done_at = CASE WHEN tries >= $4 THEN $5::timestamptz END
WHERE id = $1 AND tries = $2 AND state = 'running';

-- name: tasks_waiting_for
SELECT t.id FROM referee_run r
JOIN task t ON t.input_hash = r.input_hash AND t.state = 'verifying'
JOIN job j ON j.id = t.job_id AND j.metered_hash = r.metered_hash AND j.profile = r.profile
    AND j.limits_hash = r.limits_hash
WHERE r.id = $1;
