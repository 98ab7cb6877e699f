-- name: insert_job
INSERT INTO job (
    id, account_id, shard, name, state, module_hash, metered_hash, profile, tier, quorum, asset,
    reward, fee, referee, task_lock, task_count, priority, deadline, limits, limits_hash,
    input_range, inputs_hash, created_at, min_trust, pool_id, class_id, root, origins, feed,
    on_failure
) VALUES (
    $1, $2, $3, $4, 'open', $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
    $20, $21, $22, $23, $24, $25, $26, $27, $28, $29
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
-- `room` is how many rows may exist by now: while a parent's rows are being made, as many as it has
-- where tasks follow one to one, and the first ones where all must be waited for.
SELECT j.id, account_id, task_count, made, task_lock, input_range, inputs_hash, priority, deadline,
    limits, root, origins[made + 1 : made + $2] AS origins, room,
    EXISTS (SELECT FROM job_edge e WHERE e.child = j.root) AS has_parents
FROM job j CROSS JOIN LATERAL (
    SELECT coalesce(min(CASE
        WHEN p.made + p.dropped = p.task_count THEN NULL
        WHEN e.shape = 'one_to_one' THEN p.made ELSE $2
    END), j.task_count) AS room
    FROM job_edge e JOIN job p ON p.id = e.parent
    WHERE e.child = j.root AND e.shape <> 'some'
) r
WHERE state = 'open' AND made + dropped < task_count AND made < room AND deadline > $3
    AND ($1::uuid[] IS NULL OR j.id = ANY ($1))
    AND NOT EXISTS ( -- half a chunk that waits is enough
        SELECT FROM task t WHERE t.job_id = j.id AND (t.state = 'queued' OR (
            t.state = 'blocked'
            AND EXISTS (SELECT FROM job_edge e WHERE e.child = j.root AND e.shape = 'all')
        ))
        OFFSET $2 / 2 LIMIT 1
    )
ORDER BY j.id LIMIT 20 FOR UPDATE OF j SKIP LOCKED;

-- name: insert_tasks
INSERT INTO task (
    id, job_id, index, shard, state, reason, wanted, available_at, priority, deadline, class_id,
    order_key, input, input_hash, created_at, updated_at, template
)
SELECT n.id, j.id, n.index, j.shard, n.state,
    CASE n.state WHEN 'blocked' THEN 'waiting for other tasks' ELSE 'waiting for a device' END,
    CASE n.state WHEN 'blocked' THEN 0 ELSE j.quorum END, $7, j.priority,
    j.deadline, j.class_id, n.order_key, n.input, n.input_hash, $7, $7,
    CASE n.state WHEN 'blocked' THEN n.input END
FROM job j, unnest($2::uuid[], $3::integer[], $4::bigint[], $5::bytea[], $6::bytea[], $8::text[])
    AS n (id, index, order_key, input, input_hash, state)
WHERE j.id = $1;

-- name: count_made
UPDATE job SET made = made + $2 WHERE id = $1;

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
-- Jobs on which nothing has happened since $2. What is being verified is not idle, nor what waits
-- for another job that is open.
UPDATE job SET state = 'idle', closed_at = $1, dropped = task_count - made
WHERE id IN (
    SELECT j.id FROM job j
    WHERE j.state = 'open' AND j.created_at <= $2 AND NOT EXISTS (
        SELECT FROM task t WHERE t.job_id = j.id AND (t.updated_at > $2 OR t.state = 'verifying')
    ) AND NOT EXISTS (
        SELECT FROM job_edge e JOIN job p ON p.root = e.parent
        WHERE e.child = j.root AND p.root <> j.root AND p.state = 'open'
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
