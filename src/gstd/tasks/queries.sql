-- name: lock_tasks
SELECT FROM task WHERE id = ANY ($1) AND state IN ('blocked', 'queued', 'running', 'verifying')
ORDER BY id FOR NO KEY UPDATE;

-- name: locked_tasks
SELECT t.id, t.job_id, j.account_id AS owner, t.state, t.wanted, t.retries, t.reason, t.revision,
    t.available_at, t.deadline, j.state = 'cancelled' AS cancelled, j.state = 'idle' AS idle,
    j.tier, j.quorum, j.reward, j.fee
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) AND t.state IN ('blocked', 'queued', 'running', 'verifying')
ORDER BY t.id;

-- name: attempts_of
SELECT a.task_id, a.id, a.device_id, a.account_id, a.state, a.verdict, a.decided_at,
    a.claimed_at, a.submitted_at,
    a.result_hash, a.status, a.exit_code, a.fuel, a.output_hash, a.output_bytes
FROM attempt a JOIN task t ON t.id = a.task_id AND t.revision = a.revision
WHERE a.task_id = ANY ($1) ORDER BY a.id;

-- name: runs_of
-- A run that another task failed to get is asked for anew. Each is looked up by its whole key, which
-- LIMIT keeps the planner to: a join by part of it would meet every run of the module.
SELECT t.id AS task_id, r.*
FROM task t JOIN job j ON j.id = t.job_id
CROSS JOIN LATERAL (
    SELECT r.id, r.state, r.asked_by, r.result_hash, r.status, r.exit_code, r.fuel, r.output_hash,
        r.output_bytes
    FROM referee_run r
    WHERE r.metered_hash = j.metered_hash AND r.profile = j.profile
        AND r.input_hash = t.input_hash AND r.limits_hash = j.limits_hash
        AND (r.state <> 'failed' OR r.asked_by = t.id)
    LIMIT 1
) r
WHERE t.id = ANY ($1);

-- name: ask_referee
-- Tasks with the same work share one run. The conflicting row is locked, so a run that ends meanwhile is either seen here or sees the task.
INSERT INTO referee_run (
    id, metered_hash, profile, input_hash, limits_hash, module_hash, input, limits, asked_by, created_at
)
SELECT DISTINCT ON (j.metered_hash, j.profile, t.input_hash, j.limits_hash)
    n.run_id, j.metered_hash, j.profile, t.input_hash, j.limits_hash, j.module_hash, t.input,
    j.limits, t.id, $3
FROM unnest($1::uuid[], $2::uuid[]) AS n (task_id, run_id)
JOIN task t ON t.id = n.task_id JOIN job j ON j.id = t.job_id
ORDER BY j.metered_hash, j.profile, t.input_hash, j.limits_hash, t.id
ON CONFLICT (metered_hash, profile, input_hash, limits_hash)
    DO UPDATE SET
        state = CASE referee_run.state WHEN 'failed' THEN 'queued' ELSE referee_run.state END,
        tries = CASE referee_run.state WHEN 'failed' THEN 0 ELSE referee_run.tries END,
        asked_by = CASE referee_run.state
            WHEN 'failed' THEN excluded.asked_by ELSE referee_run.asked_by END
RETURNING state;

-- name: update_tasks
-- Those that wait for what ended are looked at once this is committed.
WITH moved AS (
    UPDATE task t SET
        state = n.state, reason = n.reason, wanted = n.wanted, retries = n.retries,
        available_at = coalesce(n.available_at, t.available_at),
        delayed = coalesce(n.available_at, t.available_at) > $13,
        result_hash = n.result_hash, status = n.status, exit_code = n.exit_code, fuel = n.fuel,
        output_hash = n.output_hash, output_bytes = n.output_bytes, updated_at = $13,
        proven = n.proven
    FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::smallint[], $6::timestamptz[],
        $7::bytea[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[], $12::integer[],
        $14::boolean[]
    ) AS n (id, state, reason, wanted, retries, available_at, result_hash, status, exit_code, fuel,
        output_hash, output_bytes, proven)
    WHERE t.id = n.id
    RETURNING t.job_id, t.index, t.state
)
INSERT INTO graph_news (about, job_id, first, last)
SELECT 'ended', j.root, m.index, m.index FROM moved m JOIN job j ON j.id = m.job_id
WHERE m.state IN ('accepted', 'failed', 'cancelled', 'expired')
    AND EXISTS (SELECT FROM job_edge e WHERE e.parent = j.root);

-- name: decide_attempts
UPDATE attempt a SET state = n.state, verdict = n.verdict, decided_at = $4
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n (id, state, verdict)
WHERE a.id = n.id AND a.state IN ('running', 'submitted');

-- name: overdue_attempts
-- Attempts whose lease is over, and those of devices that may not work any more.
(
    SELECT task_id FROM attempt WHERE state = 'running' AND lease_until <= $1
    ORDER BY lease_until LIMIT 500
)
UNION
(
    SELECT a.task_id FROM attempt a JOIN device d ON d.id = a.device_id AND d.state <> 'active'
    WHERE a.state = 'running' LIMIT 500
);

-- name: expire_attempts
UPDATE attempt a SET state = 'expired', decided_at = $2,
    verdict = CASE WHEN a.lease_until <= $2 THEN 'lease_expired' ELSE 'device_barred' END
FROM device d
WHERE d.id = a.device_id AND a.task_id = ANY ($1) AND a.state = 'running'
    AND (a.lease_until <= $2 OR d.state <> 'active')
RETURNING a.id, a.task_id, a.device_id, a.account_id, a.verdict;

-- name: admit_delayed
-- Retries whose delay is over are ready again.
UPDATE task SET delayed = false
WHERE id IN (
    SELECT id FROM task WHERE wanted > 0 AND delayed AND available_at <= $1
    ORDER BY available_at LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
RETURNING id;

-- name: tasks_past_deadline
SELECT id FROM task WHERE state IN ('blocked', 'queued', 'running') AND deadline <= $1
ORDER BY deadline LIMIT 500;

-- name: tasks_to_reconsider
-- Everything that is not final and has not moved for a while.
SELECT id FROM task
WHERE state IN ('blocked', 'queued', 'running', 'verifying') AND updated_at <= $1 AND id > $2
ORDER BY id LIMIT $3;
