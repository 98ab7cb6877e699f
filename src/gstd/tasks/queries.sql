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

-- name: job
SELECT j.id, j.account_id, j.name, j.state, j.module_hash, j.tier, j.quorum, j.priority, j.asset,
    j.reward, j.fee, j.referee, j.task_lock, j.task_count, j.made, j.dropped, j.limits, j.profile,
    j.created_at, j.deadline, j.closed_at, j.root, j.feed, j.on_failure,
    j.stopped, j.min_trust, j.pool_id
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

-- Graphs.

-- name: parent_jobs
-- Jobs that may be waited for, by the first job of their family. Edges will refer to it: locked
-- now, because jobs come before accounts.
SELECT j.id, j.root, r.task_count FROM job j JOIN job r ON r.id = j.root
WHERE j.id = ANY ($1) AND j.account_id = $2 ORDER BY r.id FOR KEY SHARE OF r;

-- name: insert_job_edges
INSERT INTO job_edge (child, place, parent, shape)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[]);

-- name: insert_task_edges
INSERT INTO task_edge (child, child_index, place, parent, parent_index)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::uuid[], $5::integer[]);

-- name: waiting_indexes
-- The indexes of these at which a job's tasks wait for something.
SELECT i.index FROM unnest($2::integer[]) AS i (index)
WHERE EXISTS (SELECT FROM job_edge e WHERE e.child = $1 AND e.shape <> 'some')
    OR EXISTS (SELECT FROM task_edge e WHERE e.child = $1 AND e.child_index = i.index);

-- name: tell_made
INSERT INTO graph_news (about, job_id, first, last) VALUES ('made', $1, $2, $3);

-- name: tell_unmade
-- Rows of these jobs will never be made.
INSERT INTO graph_news (about, job_id, first, last)
SELECT 'ended', j.root, CASE WHEN j.origins IS NULL THEN j.made ELSE 0 END, 2147483647
FROM job j
WHERE j.id = ANY ($1) AND j.made < j.task_count
    AND EXISTS (SELECT FROM job_edge e WHERE e.parent = j.root);

-- name: tell_stopped
INSERT INTO graph_news (about, job_id, first, last, reason)
SELECT 'stopped', n.job_id, 0, 0, n.reason
FROM unnest($1::uuid[], $2::text[]) AS n (job_id, reason);

-- name: take_news
DELETE FROM graph_news WHERE id IN (
    SELECT id FROM graph_news WHERE (about = 'stopped') = $1
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING about, job_id, first, last, reason;

-- name: blocked_between
SELECT t.id FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS n (job_id, first, last)
JOIN task t ON t.job_id = n.job_id AND t.index BETWEEN n.first AND n.last
WHERE t.state = 'blocked';

-- name: children_of
-- Tasks that wait for, or ($4 false) have used, or (null) either, what is at these indexes. Of a
-- job that waits for all of another, they are looked at when that is over or one of it is bad.
-- OFFSET 0 keeps the planner, which knows nothing of new jobs, at one index lookup per edge.
WITH news AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS n (root, first, last)
), edge AS (
    SELECT e.child, e.shape, n.root, n.first, n.last
    FROM news n JOIN job_edge e ON e.parent = n.root
), child AS (
    SELECT c.id, c.state, j.feed
    FROM edge e JOIN job j ON j.root = e.child
    CROSS JOIN LATERAL (
        SELECT id, state FROM task
        WHERE job_id = j.id AND index BETWEEN e.first AND e.last OFFSET 0
    ) c
    WHERE e.shape = 'one_to_one'
    UNION
    SELECT c.id, c.state, j.feed
    FROM edge e JOIN job j ON j.root = e.child
    CROSS JOIN LATERAL (
        SELECT child_index FROM task_edge
        WHERE parent = e.root AND parent_index BETWEEN e.first AND e.last AND child = e.child
        OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT id, state FROM task WHERE job_id = j.id AND index = t.child_index OFFSET 0
    ) c
    WHERE e.shape = 'some'
    UNION
    SELECT c.id, c.state, j.feed
    FROM (
        SELECT DISTINCT e.child FROM edge e
        WHERE e.shape = 'all' AND ($4 IS DISTINCT FROM true OR NOT EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id WHERE f.root = e.root
                AND u.state IN ('blocked', 'queued', 'running', 'verifying')
        ) OR EXISTS (
            SELECT FROM job f JOIN task b ON b.job_id = f.id WHERE f.root = e.root
                AND b.index BETWEEN e.first AND e.last AND b.standing = 'bad'
        ))
    ) e
    JOIN job j ON j.root = e.child JOIN task c ON c.job_id = j.id
)
SELECT id, state FROM child
WHERE $4::boolean IS NULL OR (state = 'blocked') = $4 AND ($4 OR feed <> 'none');

-- name: waiting_tasks
-- What decides about blocked tasks, which are locked.
SELECT t.id, t.job_id, t.index, t.priority, t.template, j.root, j.limits, j.feed, j.on_failure
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) AND t.state = 'blocked';

-- name: prospects
-- Per task: whether any parent is still to come, and the first that ended badly. A parent is the
-- best of its family; it is to come as long as a row of it may still be made.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id WHERE c.id = ANY ($1)
), wanted AS (
    SELECT c.id, e.parent, c.index AS index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
), family AS (
    SELECT f.root, bool_or(f.made + f.dropped < f.task_count) AS growing, count(*) > 1 AS has_reruns
    FROM job f WHERE f.root IN (SELECT parent FROM wanted) GROUP BY f.root
), found AS (
    SELECT w.id, w.parent, w.index, w.place,
        CASE
            WHEN f.growing AND (b.standing IS NULL OR b.standing = 'bad' AND f.has_reruns) THEN 'waiting'
            ELSE coalesce(b.standing, 'bad')
        END AS standing
    FROM wanted w JOIN family f ON f.root = w.parent
    LEFT JOIN LATERAL (
        SELECT p.standing FROM job m JOIN task p ON p.job_id = m.id AND p.index = w.index
        WHERE m.root = w.parent
        ORDER BY array_position(ARRAY['good', 'waiting', 'bad'], p.standing) LIMIT 1
    ) b ON true
)
SELECT id, bool_or(standing = 'waiting') AS waiting,
    (array_agg(parent ORDER BY place) FILTER (WHERE standing = 'bad'))[1] AS bad_job,
    (array_agg(index ORDER BY place) FILTER (WHERE standing = 'bad'))[1] AS bad_index
FROM found GROUP BY id;

-- name: whole_jobs
-- The same of jobs all of which is waited for.
SELECT DISTINCT e.child, e.parent, e.place, x.waiting, x.bad_index
FROM job_edge e JOIN job r ON r.id = e.parent
CROSS JOIN LATERAL (
    SELECT EXISTS (
            SELECT FROM job f WHERE f.root = r.id AND f.made + f.dropped < f.task_count
        ) OR EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id
            WHERE f.root = r.id AND u.state IN ('blocked', 'queued', 'running', 'verifying')
        ) OR EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id
            WHERE f.root = r.id AND u.state = 'accepted' AND u.standing = 'waiting'
        ) AS waiting,
        (SELECT count(*) FROM job f WHERE f.root = r.id) AS members
) w
CROSS JOIN LATERAL (
    SELECT w.waiting, CASE WHEN w.members = 1 OR NOT w.waiting THEN coalesce((
        SELECT b.index FROM job f JOIN task b ON b.job_id = f.id AND b.standing = 'bad'
        WHERE f.root = r.id AND NOT EXISTS (
            SELECT FROM job g JOIN task s ON s.job_id = g.id AND s.index = b.index
            WHERE g.root = r.id AND s.standing = 'good'
        )
        ORDER BY b.index LIMIT 1
    ), CASE WHEN r.dropped > 0 AND (
        SELECT count(DISTINCT s.index) FROM job f JOIN task s ON s.job_id = f.id
        WHERE f.root = r.id AND s.standing = 'good'
    ) < r.task_count THEN r.made END) END AS bad_index
) x
WHERE e.child = ANY ($1) AND e.shape = 'all'
ORDER BY e.place;

-- name: size_of_job
SELECT r.task_count AS outputs, (
    SELECT coalesce(sum(s.output_bytes), 0)::bigint
    FROM job f JOIN task s ON s.job_id = f.id WHERE f.root = r.id AND s.standing = 'good'
) AS size
FROM job r WHERE r.id = $1;

-- name: outputs_of_job
-- One entry per index, in order; null where there is no good result.
SELECT o.output_hash FROM job r
CROSS JOIN LATERAL generate_series(0, r.task_count - 1) AS i (index)
LEFT JOIN LATERAL (
    SELECT s.output_hash FROM job f JOIN task s ON s.job_id = f.id AND s.index = i.index
    WHERE f.root = r.id AND s.standing = 'good' LIMIT 1
) o ON true
WHERE r.id = $1 ORDER BY i.index;

-- name: outputs_of_tasks
-- What tasks read of single parents, in order: those of one-to-one jobs have the place of the job.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id WHERE c.id = ANY ($1)
), wanted AS (
    SELECT c.id, e.parent, c.index AS index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
)
SELECT w.id AS task_id, w.place, o.output_hash, coalesce(o.output_bytes, 0) AS size
FROM wanted w LEFT JOIN LATERAL (
    SELECT s.output_hash, s.output_bytes FROM job f
    JOIN task s ON s.job_id = f.id AND s.index = w.index
    WHERE f.root = w.parent AND s.standing = 'good' LIMIT 1
) o ON true
ORDER BY w.id, w.place;

-- name: set_inputs
UPDATE task t SET input = n.input, input_hash = n.input_hash, order_key = n.order_key
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bigint[])
    AS n (id, input, input_hash, order_key)
WHERE t.id = n.id;

-- name: lock_stopped
SELECT id FROM job WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: drop_rest
UPDATE job j SET dropped = task_count - made, stopped = n.reason
FROM unnest($1::uuid[], $2::text[]) AS n (job_id, reason)
WHERE j.id = n.job_id AND j.stopped IS NULL;

-- name: blocked_of_jobs
SELECT id FROM task WHERE job_id = ANY ($1) AND state = 'blocked';

-- name: blocked_to_reconsider
SELECT id FROM task WHERE state = 'blocked' AND updated_at <= $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: whole_edges
SELECT child, parent, place FROM job_edge WHERE child = ANY ($1) AND shape = 'all' ORDER BY place;

-- name: lock_original
-- Two reruns of one family come one after the other.
SELECT r.id, r.name, r.module_hash, r.tier, r.quorum, r.priority, r.asset, r.reward, r.limits,
    r.min_trust, r.pool_id, r.feed, r.on_failure, r.task_count, r.input_range, r.inputs_hash
FROM job j JOIN job r ON r.id = j.root
WHERE j.id = $1 AND j.account_id = $2 FOR NO KEY UPDATE OF r;

-- name: family_is_open
SELECT EXISTS (
    SELECT FROM job f WHERE f.root = $1 AND (
        f.made + f.dropped < f.task_count OR EXISTS (
            SELECT FROM task t WHERE t.job_id = f.id
                AND t.state IN ('blocked', 'queued', 'running', 'verifying')
        )
    )
);

-- name: without_result
SELECT i.index FROM job r CROSS JOIN LATERAL generate_series(0, r.task_count - 1) AS i (index)
WHERE r.id = $1 AND NOT EXISTS (
    SELECT FROM job f JOIN task t ON t.job_id = f.id AND t.index = i.index
    WHERE f.root = r.id AND t.state = 'accepted'
)
ORDER BY i.index LIMIT $2;

-- name: built
-- `left` is what a task has left in escrow.
SELECT t.id, t.state, j.root, t.index, t.stale, j.task_lock,
    e.locked - e.released - e.fee - e.referee - e.refunded - e.frozen AS left,
    EXISTS (
        SELECT FROM attempt a
        WHERE a.task_id = t.id AND a.revision = t.revision AND a.state = 'submitted'
    ) AS has_results
FROM task t JOIN job j ON j.id = t.job_id JOIN ledger.escrow e ON e.task_id = t.id
WHERE t.id = ANY ($1) ORDER BY t.id;

-- name: lock_jobs_of
SELECT FROM job WHERE id IN (SELECT job_id FROM task WHERE id = ANY ($1))
ORDER BY id FOR NO KEY UPDATE;

-- name: lock_any_tasks
SELECT FROM task WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: any_tasks
SELECT t.id, t.job_id, j.account_id AS owner, t.state, t.wanted, t.retries, t.reason, t.revision,
    t.available_at, t.deadline, j.state = 'cancelled' AS cancelled, j.state = 'idle' AS idle,
    j.tier, j.quorum, j.reward, j.fee
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) ORDER BY t.id;

-- name: stale
UPDATE task SET stale = true WHERE id = ANY ($1);

-- name: not_stale
UPDATE task SET stale = false WHERE id = ANY ($1);

-- name: stale_tasks
SELECT id FROM task
WHERE stale AND state IN ('accepted', 'failed', 'cancelled', 'expired') ORDER BY id LIMIT $1;

-- name: next_revision
UPDATE task SET revision = revision + 1 WHERE id = ANY ($1);

-- name: reopen_jobs
UPDATE job SET state = 'open', closed_at = NULL
WHERE state = 'closed' AND id IN (SELECT job_id FROM task WHERE id = ANY ($1));

-- name: parent_views
SELECT e.parent AS job_id, e.shape, r.task_count AS tasks, r.task_count - g.good AS left
FROM (
    SELECT parent, min(shape) AS shape, min(place) AS place FROM job_edge
    WHERE child = $1 AND parent <> $1 GROUP BY parent
) e
JOIN job r ON r.id = e.parent
CROSS JOIN LATERAL (
    SELECT count(DISTINCT s.index)::integer AS good FROM job f JOIN task s ON s.job_id = f.id
    WHERE f.root = r.id AND s.standing = 'good'
) g
ORDER BY e.place;

-- name: task_waits
-- Per blocked task and job it waits for: how many tasks, and how many without a good result.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id
    WHERE c.id = ANY ($1) AND c.state = 'blocked'
), whole AS (
    SELECT r.id, r.task_count AS tasks, r.task_count - (
        SELECT count(DISTINCT s.index)::integer FROM job f JOIN task s ON s.job_id = f.id
        WHERE f.root = r.id AND s.standing = 'good'
    ) AS left
    FROM job r WHERE r.id IN (
        SELECT e.parent FROM job_edge e
        WHERE e.shape = 'all' AND e.child IN (SELECT root FROM child)
    )
), single AS (
    SELECT c.id, e.parent, c.index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
)
SELECT c.id, e.parent, w.tasks, w.left, e.place
FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'all' JOIN whole w ON w.id = e.parent
WHERE w.left > 0
UNION ALL
SELECT s.id, s.parent, count(*)::integer, count(*) FILTER (WHERE g.missing)::integer, min(s.place)
FROM single s CROSS JOIN LATERAL (
    SELECT NOT EXISTS (
        SELECT FROM job f JOIN task p ON p.job_id = f.id AND p.index = s.index
        WHERE f.root = s.parent AND p.standing = 'good'
    ) AS missing
) g
GROUP BY s.id, s.parent HAVING bool_or(g.missing)
ORDER BY place;
