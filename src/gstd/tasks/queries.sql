-- name: insert_job
INSERT INTO job (
    id, account_id, shard, name, state, module_hash, metered_hash, profile, tier, quorum, asset,
    reward, fee, referee, task_lock, task_count, priority, deadline, limits, limits_hash,
    input_range, inputs_hash, created_at, min_trust, pool_id, class_id
) VALUES (
    $1, $2, $3, $4, 'open', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25
);

-- name: task_class
-- The class of these needs; it is made if it is missing.
WITH needs AS (
    SELECT $1::text AS profile, $2::bytea AS module_hash, $3::bigint AS memory_bytes,
        $4::bigint AS fuel, $5::integer AS wall_ms, $6::smallint AS min_trust, $7::bigint AS reward,
        $8::text AS asset, $9::uuid AS pool_id
), made AS (
    INSERT INTO task_class (
        profile, module_hash, memory_bytes, fuel, wall_ms, min_trust, reward, asset, pool_id
    )
    SELECT * FROM needs n WHERE NOT EXISTS (
        SELECT FROM task_class c
        WHERE c.profile = n.profile AND c.module_hash = n.module_hash
            AND c.memory_bytes = n.memory_bytes AND c.fuel = n.fuel AND c.wall_ms = n.wall_ms
            AND c.min_trust = n.min_trust AND c.reward = n.reward AND c.asset = n.asset
            AND c.pool_id IS NOT DISTINCT FROM n.pool_id
    )
    ON CONFLICT (profile, module_hash, memory_bytes, fuel, wall_ms, min_trust, reward, asset, pool_id)
        DO UPDATE SET profile = excluded.profile
    RETURNING id
)
SELECT id FROM made
UNION ALL
SELECT c.id FROM task_class c JOIN needs n
    ON c.profile = n.profile AND c.module_hash = n.module_hash
    AND c.memory_bytes = n.memory_bytes AND c.fuel = n.fuel AND c.wall_ms = n.wall_ms
    AND c.min_trust = n.min_trust AND c.reward = n.reward AND c.asset = n.asset
    AND c.pool_id IS NOT DISTINCT FROM n.pool_id
LIMIT 1;

-- name: open_leads
INSERT INTO requester_lead (account_id, level, lead_ms, at)
SELECT DISTINCT account_id, level, 0, $3::timestamptz
FROM unnest($1::uuid[], $2::smallint[]) AS n (account_id, level)
ORDER BY account_id, level
ON CONFLICT DO NOTHING;

-- name: lock_leads
SELECT r.account_id, r.level, r.lead_ms, r.at
FROM requester_lead r JOIN unnest($1::uuid[], $2::smallint[]) AS n (account_id, level)
    USING (account_id, level)
ORDER BY r.account_id, r.level FOR NO KEY UPDATE OF r;

-- name: write_leads
UPDATE requester_lead r SET lead_ms = n.lead_ms, at = $4
FROM unnest($1::uuid[], $2::smallint[], $3::bigint[]) AS n (account_id, level, lead_ms)
WHERE r.account_id = n.account_id AND r.level = n.level;

-- name: jobs_to_fill
SELECT id, account_id, task_count, made, task_lock, input_range, inputs_hash, priority, deadline,
    limits
FROM job j
WHERE state = 'open' AND made + dropped < task_count AND deadline > $3
    AND ($1::uuid[] IS NULL OR id = ANY ($1))
    AND (SELECT count(*) FROM task t WHERE t.job_id = j.id AND t.state = 'queued') < $2
ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED;

-- name: insert_tasks
INSERT INTO task (
    id, job_id, index, shard, state, reason, wanted, available_at, priority, deadline, class_id,
    order_key, input, input_hash, created_at, updated_at
)
SELECT n.id, j.id, n.index, j.shard, 'queued', 'waiting for a device', j.quorum, $7, j.priority,
    j.deadline, j.class_id, n.order_key, n.input, n.input_hash, $7, $7
FROM job j, unnest($2::uuid[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[])
    AS n (id, index, order_key, input, input_hash)
WHERE j.id = $1;

-- name: count_made
UPDATE job SET made = made + $2 WHERE id = $1;

-- name: lock_tasks
SELECT FROM task WHERE id = ANY ($1) AND state IN ('queued', 'running', 'verifying')
ORDER BY id FOR NO KEY UPDATE;

-- name: locked_tasks
SELECT t.id, t.job_id, j.account_id AS owner, t.state, t.wanted, t.retries, t.reason, t.revision,
    t.available_at, t.deadline, j.state = 'cancelled' AS cancelled, j.state = 'idle' AS idle,
    j.tier, j.quorum, j.reward, j.fee
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) AND t.state IN ('queued', 'running', 'verifying')
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
-- The conflicting row is locked, so a run that ends meanwhile is either seen here or sees the task.
INSERT INTO referee_run (
    id, metered_hash, profile, input_hash, limits_hash, module_hash, input, limits, asked_by, created_at
)
SELECT n.run_id, j.metered_hash, j.profile, t.input_hash, j.limits_hash, j.module_hash, t.input,
    j.limits, t.id, $3
FROM unnest($1::uuid[], $2::uuid[]) AS n (task_id, run_id)
JOIN task t ON t.id = n.task_id JOIN job j ON j.id = t.job_id
ORDER BY j.metered_hash, j.profile, t.input_hash, j.limits_hash
ON CONFLICT (metered_hash, profile, input_hash, limits_hash)
    DO UPDATE SET
        state = CASE referee_run.state WHEN 'failed' THEN 'queued' ELSE referee_run.state END,
        tries = CASE referee_run.state WHEN 'failed' THEN 0 ELSE referee_run.tries END,
        asked_by = CASE referee_run.state
            WHEN 'failed' THEN excluded.asked_by ELSE referee_run.asked_by END
RETURNING state;

-- name: update_tasks
UPDATE task t SET
    state = n.state, reason = n.reason, wanted = n.wanted, retries = n.retries,
    available_at = coalesce(n.available_at, t.available_at),
    delayed = coalesce(n.available_at, t.available_at) > $13,
    result_hash = n.result_hash, status = n.status, exit_code = n.exit_code, fuel = n.fuel,
    output_hash = n.output_hash, output_bytes = n.output_bytes, updated_at = $13
FROM unnest(
    $1::uuid[], $2::text[], $3::text[], $4::smallint[], $5::smallint[], $6::timestamptz[],
    $7::bytea[], $8::text[], $9::bigint[], $10::bigint[], $11::bytea[], $12::integer[]
) AS n (id, state, reason, wanted, retries, available_at, result_hash, status, exit_code, fuel,
    output_hash, output_bytes)
WHERE t.id = n.id;

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

-- name: change_job
UPDATE job SET priority = $2, deadline = $3 WHERE id = $1;

-- name: queued_of_job
-- Tasks whose turn may still change, in the order they have.
SELECT t.id FROM task t
WHERE t.job_id = $1 AND t.state IN ('blocked', 'queued', 'running', 'verifying')
ORDER BY t.order_key, t.id;

-- name: task_to_change
SELECT t.job_id, t.state, t.priority, t.deadline, j.limits, j.created_at
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = $1 AND j.account_id = $2
FOR NO KEY UPDATE OF t;

-- name: reorder_tasks
UPDATE task t SET priority = $3, deadline = $4, order_key = n.order_key
FROM unnest($1::uuid[], $2::bigint[]) AS n (id, order_key)
WHERE t.id = n.id AND t.state IN ('blocked', 'queued', 'running', 'verifying');

-- name: lock_job
SELECT state, priority, deadline, limits, created_at FROM job
WHERE id = $1 AND account_id = $2 FOR UPDATE;

-- name: drop_unmade
UPDATE job SET dropped = task_count - made
WHERE id IN (
    SELECT id FROM job
    WHERE state = 'open' AND made + dropped < task_count AND deadline <= $1
    ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED
)
RETURNING id;

-- name: cancel_job
UPDATE job SET state = 'cancelled', closed_at = $2, dropped = task_count - made WHERE id = $1;

-- name: unfinished_tasks
SELECT id FROM task WHERE job_id = ANY ($1) AND state IN ('blocked', 'queued', 'running', 'verifying')
ORDER BY id;

-- name: end_idle_jobs
-- Jobs on which nothing has happened since $2. What is being verified is not idle.
UPDATE job SET state = 'idle', closed_at = $1, dropped = task_count - made
WHERE id IN (
    SELECT j.id FROM job j
    WHERE j.state = 'open' AND j.created_at <= $2 AND NOT EXISTS (
        SELECT FROM task t WHERE t.job_id = j.id AND (t.updated_at > $2 OR t.state = 'verifying')
    )
    ORDER BY j.id LIMIT 20 FOR UPDATE SKIP LOCKED
)
RETURNING id, account_id;

-- name: close_jobs
UPDATE job j SET state = 'closed', closed_at = $1
WHERE j.state = 'open' AND j.made + j.dropped = j.task_count AND NOT EXISTS (
    SELECT FROM task t
    WHERE t.job_id = j.id AND t.state IN ('blocked', 'queued', 'running', 'verifying')
)
RETURNING j.id, j.account_id;

-- name: job
SELECT j.id, j.account_id, j.name, j.state, j.module_hash, j.tier, j.quorum, j.priority, j.asset,
    j.reward, j.fee, j.referee, j.task_lock, j.task_count, j.made, j.dropped, j.limits, j.profile,
    j.created_at, j.deadline, j.closed_at, j.min_trust, j.pool_id
FROM job j WHERE j.id = $1 AND ($2::uuid IS NULL OR j.account_id = $2);

-- name: jobs_of_account
SELECT id, name, state, module_hash, tier, task_count, task_lock, asset, created_at, closed_at
FROM job WHERE account_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3;

-- name: count_states
SELECT state, count(*)::integer AS tasks FROM task WHERE job_id = $1 GROUP BY state;

-- name: count_paid
SELECT count(*)::integer FROM task t
WHERE t.job_id = $1 AND t.state = 'accepted' AND NOT EXISTS (
    SELECT FROM ledger.earning g WHERE g.task_id = t.id AND g.state IN ('held', 'frozen')
);

-- name: count_wrong
SELECT count(*)::integer FROM attempt a JOIN task t ON t.id = a.task_id
WHERE t.job_id = $1 AND a.verdict = 'wrong';

-- name: tasks
SELECT t.id, t.job_id, t.index, t.state, t.reason, t.revision, t.retries, t.available_at,
    t.priority, t.deadline
FROM task t JOIN job j ON j.id = t.job_id
WHERE ($1::uuid IS NULL OR t.job_id = $1) AND ($2::uuid IS NULL OR t.id = $2)
    AND ($3::uuid IS NULL OR j.account_id = $3) AND t.index > $4
ORDER BY t.job_id, t.index LIMIT $5;

-- name: attempt_views
SELECT a.task_id, a.id, a.device_id, d.name AS device_name, a.revision, a.state, a.verdict, a.reason,
    a.claimed_at, a.submitted_at, a.decided_at, a.status, a.fuel, encode(a.result_hash, 'hex') AS result_hash,
    g.earned::text AS earned_nano, g.state AS earning_state
FROM attempt a JOIN device d ON d.id = a.device_id
LEFT JOIN LATERAL (
    SELECT sum(e.amount - e.taken) AS earned, min(e.state) AS state
    FROM ledger.earning e WHERE e.attempt_id = a.id
) g ON true
WHERE a.task_id = ANY ($1) ORDER BY a.id;

-- name: results
SELECT t.id AS task_id, t.index, t.status, t.exit_code, t.fuel,
    encode(t.output_hash, 'hex') AS output_hash, t.output_bytes,
    encode(t.result_hash, 'hex') AS result_hash
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.job_id = $1 AND ($2::uuid IS NULL OR j.account_id = $2) AND t.state = 'accepted' AND t.index > $3
ORDER BY t.index LIMIT $4;

-- name: output_of
SELECT t.state, t.output_hash, t.output_bytes FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = $1 AND ($2::uuid IS NULL OR j.account_id = $2);

-- name: devices_of_job
SELECT d.id AS device_id, d.name AS device_name, d.state, d.trust,
    count(*) FILTER (WHERE a.state = 'accepted')::integer AS accepted,
    count(*) FILTER (WHERE a.verdict = 'wrong')::integer AS rejected,
    coalesce(sum(g.held), 0)::text AS held_nano, coalesce(sum(g.vested), 0)::text AS vested_nano
FROM task t JOIN attempt a ON a.task_id = t.id JOIN device d ON d.id = a.device_id
LEFT JOIN LATERAL (
    SELECT sum(e.amount - e.taken) FILTER (WHERE e.state IN ('held', 'frozen')) AS held,
        sum(e.amount - e.taken) FILTER (WHERE e.state = 'vested') AS vested
    FROM ledger.earning e WHERE e.attempt_id = a.id
) g ON true
WHERE t.job_id = $1
GROUP BY d.id ORDER BY d.id;

-- name: moments_of_attempts
SELECT a.id AS attempt_id, a.offer_id, a.pow_bits, a.pow_count, a.heartbeats, a.heartbeat_at,
    a.lease_until, a.state, a.reason, d.name AS device_name
FROM attempt a JOIN device d ON d.id = a.device_id WHERE a.task_id = $1 ORDER BY a.id;

-- name: moments_of_task
SELECT position, at, kind, attempt_id, data FROM event_log WHERE task_id = $1 ORDER BY position;

-- name: count_unfinished
-- Tasks that are not final, by state, up to $1 of them.
SELECT state, count(*)::integer AS tasks FROM (
    SELECT state FROM task WHERE state IN ('blocked', 'queued', 'running', 'verifying')
    ORDER BY id LIMIT $1
) AS unfinished GROUP BY state;

-- name: count_open_jobs
SELECT count(*) FROM job WHERE state = 'open';
