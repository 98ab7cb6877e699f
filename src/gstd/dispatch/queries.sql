-- name: ready_classes
-- The classes that have something ready: one probe of the index each, whatever they hold.
WITH RECURSIVE ready AS (
    (SELECT class_id FROM task WHERE wanted > 0 AND NOT delayed
        ORDER BY class_id, order_key, id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT t.class_id FROM task t
        WHERE t.wanted > 0 AND NOT t.delayed AND t.class_id > r.class_id
        ORDER BY t.class_id, t.order_key, t.id LIMIT 1
    )
    FROM ready r WHERE r.class_id IS NOT NULL
)
SELECT class_id FROM ready WHERE class_id IS NOT NULL;

-- name: needs
SELECT * FROM task_class WHERE id = ANY ($1);

-- name: heads
-- The first tasks of each class in each level, as far as they may count among the first $2 of the
-- level, from the index alone. Of the class whose own first is the n-th no more than $2 - n + 1 can;
-- where many classes share a level, each gives a part of that at first.
WITH first AS (
    SELECT c.id AS class_id, l.level, found.order_key
    FROM unnest($1::integer[]) AS c (id)
    CROSS JOIN generate_series(0::bigint, 3::bigint) AS l (level)
    CROSS JOIN LATERAL (
        SELECT t.order_key FROM task t
        WHERE t.wanted > 0 AND NOT t.delayed AND t.class_id = c.id
            AND t.order_key >= l.level << 51 AND t.order_key < (l.level + 1) << 51
            AND t.deadline > $3
        ORDER BY t.order_key, t.id LIMIT 1
    ) found
), placed AS (
    SELECT class_id, level, row_number() OVER (PARTITION BY level ORDER BY order_key, class_id) AS place,
        least(count(*) OVER (PARTITION BY level), $2::bigint) AS lanes
    FROM first
), lane AS (
    SELECT class_id, level, least($2::bigint - place + 1, 2 + 2 * $2::bigint / lanes) AS most
    FROM placed WHERE place <= $2::bigint
)
SELECT lane.class_id, lane.level, lane.most, head.id AS task_id, head.order_key
FROM lane CROSS JOIN LATERAL (
    SELECT t.id, t.order_key FROM task t
    WHERE t.wanted > 0 AND NOT t.delayed AND t.class_id = lane.class_id
        AND t.order_key >= lane.level << 51 AND t.order_key < (lane.level + 1) << 51
        AND t.deadline > $3
    ORDER BY t.order_key, t.id LIMIT lane.most
) head
ORDER BY lane.level, lane.class_id, head.order_key, head.id;

-- name: candidates
-- Found by id before anything is asked of them: never by a walk through all that is ready.
WITH found AS MATERIALIZED (
    SELECT id, job_id, class_id, order_key, wanted, delayed, deadline FROM task WHERE id = ANY ($1)
)
SELECT t.id AS task_id, t.job_id, t.class_id, t.order_key, t.wanted, t.deadline, j.reward, j.asset,
    j.module_hash, j.limits, j.profile
FROM found t JOIN job j ON j.id = t.job_id
WHERE t.wanted > 0 AND NOT t.delayed AND t.deadline > $2
ORDER BY t.order_key, t.id;

-- name: places
-- Where tasks stand in the queue; what is not ready wants nothing.
SELECT id AS task_id, class_id, order_key,
    CASE WHEN delayed OR deadline <= $2 THEN 0 ELSE wanted END AS wanted
FROM task WHERE id = ANY ($1);

-- name: ready_page
-- What is ready, in the order of the index, after one of them.
SELECT id AS task_id, class_id, order_key, wanted FROM task
WHERE wanted > 0 AND NOT delayed AND deadline > $4 AND (class_id, order_key, id) > ($1, $2, $3)
ORDER BY class_id, order_key, id LIMIT $5;

-- name: earlier_attempts
-- Accounts that hold or lost these tasks, and devices that failed at them a short while ago.
SELECT task_id, account_id, device_id,
    state IN ('running', 'submitted', 'accepted', 'rejected') AS bars_account
FROM attempt
WHERE task_id = ANY ($1) AND account_id = ANY ($2) AND (
    state IN ('running', 'submitted', 'accepted', 'rejected')
    OR (state IN ('expired', 'released') AND verdict <> 'shutting_down' AND decided_at > $3)
);

-- name: running_on
-- At the wall clock no heartbeat helps, so the end of an attempt's own time is no silence.
SELECT device_id, count(*)::integer AS attempts,
    bool_or(lease_until < $2 AND lease_until < ends_at) AS is_silent
FROM attempt WHERE device_id = ANY ($1) AND state = 'running' GROUP BY device_id;

-- name: lock_tasks
SELECT FROM task WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: lock_tasks_of
-- An attempt never changes its task, so the tasks need no lock to be found.
SELECT FROM task WHERE id IN (SELECT task_id FROM attempt WHERE id = ANY ($1))
ORDER BY id FOR NO KEY UPDATE;

-- name: claim
-- Runs under the tasks' locks. Offers that were claimed before give their attempt again.
WITH item AS (
    SELECT *
    FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::smallint[], $6::smallint[])
        WITH ORDINALITY AS i (offer_id, task_id, attempt_id, device_id, bits, count, n)
), allowed AS (
    -- of several claims of one account for one task only the first
    SELECT DISTINCT ON (i.task_id, d.account_id) i.*, d.account_id, t.wanted, t.revision, t.job_id,
        j.account_id AS owner,
        $7::timestamptz + interval '1 ms' * ((j.limits ->> 'wall_ms')::integer + $10::integer) AS ends_at
    FROM item i JOIN device d ON d.id = i.device_id
    JOIN task t ON t.id = i.task_id JOIN job j ON j.id = t.job_id
    WHERE t.wanted > 0 AND t.available_at <= $7 AND t.deadline > $7
        AND d.state = 'active' AND d.trust >= j.min_trust
        AND (j.pool_id IS NULL OR EXISTS (
            SELECT FROM pool_member m WHERE m.pool_id = j.pool_id AND m.account_id = d.account_id
        ))
        AND NOT EXISTS (SELECT FROM attempt a WHERE a.offer_id = i.offer_id)
        AND NOT EXISTS (
            SELECT FROM attempt a WHERE a.task_id = i.task_id AND (
                (a.account_id = d.account_id
                    AND a.state IN ('running', 'submitted', 'accepted', 'rejected'))
                OR (a.device_id = d.id AND a.state IN ('expired', 'released')
                    AND a.verdict <> 'shutting_down' AND a.decided_at > $9)
            )
        )
    ORDER BY i.task_id, d.account_id, i.n
), open AS (
    -- of several accounts as many as the task wants
    SELECT * FROM (
        SELECT *, row_number() OVER (PARTITION BY task_id ORDER BY n) AS place FROM allowed
    ) a WHERE place <= wanted
), taken AS (
    UPDATE task t SET
        wanted = t.wanted - o.claims,
        state = CASE WHEN t.wanted = o.claims THEN 'running' ELSE t.state END,
        reason = CASE WHEN t.wanted = o.claims THEN 'running on a device' ELSE t.reason END,
        updated_at = $7
    FROM (SELECT task_id, count(*)::smallint AS claims FROM open GROUP BY task_id) o
    WHERE t.id = o.task_id
), new AS (
    INSERT INTO attempt (
        id, task_id, revision, device_id, account_id, offer_id, pow_bits, pow_count,
        pow_verified_at, state, claimed_at, lease_until, ends_at
    )
    SELECT attempt_id, task_id, revision, device_id, account_id, offer_id, bits, count, $7,
        'running', $7, least($8, ends_at), ends_at
    FROM open ORDER BY task_id, n
    RETURNING id, task_id, revision, offer_id, device_id
), logged AS (
    INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
    SELECT 'attempt.claimed', $7, ARRAY[owner, account_id], job_id, task_id, attempt_id,
        jsonb_build_object('device_id', device_id)
    FROM open ORDER BY n
), mine AS (
    SELECT id, task_id, revision, offer_id, device_id FROM new
    UNION
    SELECT a.id, a.task_id, a.revision, a.offer_id, a.device_id
    FROM item i JOIN attempt a ON a.offer_id = i.offer_id AND a.device_id = i.device_id
    WHERE a.state = 'running' AND a.lease_until - $7 > interval '0'
)
SELECT mine.device_id, mine.offer_id, mine.id AS attempt_id, mine.task_id, mine.revision,
    j.module_hash, j.metered_hash, j.profile, t.input, j.limits
FROM mine JOIN task t ON t.id = mine.task_id JOIN job j ON j.id = t.job_id;

-- name: barred_tasks
-- Which of these devices may not have which of the tasks, whoever else has them.
SELECT d.id AS device_id, t.id AS task_id, d.trust, j.min_trust
FROM unnest($1::uuid[], $2::uuid[]) AS n (device_id, task_id)
JOIN device d ON d.id = n.device_id
JOIN task t ON t.id = n.task_id JOIN job j ON j.id = t.job_id
WHERE d.trust < j.min_trust OR (j.pool_id IS NOT NULL AND NOT EXISTS (
    SELECT FROM pool_member m WHERE m.pool_id = j.pool_id AND m.account_id = d.account_id
));

-- name: heartbeat
-- Does without the tasks' locks, so it locks the attempts in order. A subtraction, here and below,
-- keeps the planner from reading all leases that run, of which it always expects too few.
WITH held AS (
    SELECT a.id FROM unnest($1::uuid[], $2::uuid[]) AS n (id, device_id)
    JOIN attempt a ON a.id = n.id AND a.device_id = n.device_id JOIN device d ON d.id = a.device_id
    WHERE a.state = 'running' AND a.lease_until - $4 > interval '0' AND d.state = 'active'
    ORDER BY a.id FOR NO KEY UPDATE OF a
)
UPDATE attempt a SET lease_until = least($3, a.ends_at), heartbeats = a.heartbeats + 1,
    heartbeat_at = $4
FROM held WHERE a.id = held.id
RETURNING a.id, a.device_id, a.lease_until;

-- name: attempts
SELECT a.id AS attempt_id, a.device_id, a.task_id, a.revision, a.state, a.lease_until, a.signature,
    d.state AS device_state, j.module_hash, j.metered_hash, j.profile, t.input_hash, j.limits
FROM unnest($1::uuid[], $2::uuid[]) AS n (id, device_id)
JOIN attempt a ON a.id = n.id AND a.device_id = n.device_id JOIN device d ON d.id = a.device_id
JOIN task t ON t.id = a.task_id JOIN job j ON j.id = t.job_id;

-- name: submit
-- Runs under the tasks' locks; heartbeats, which do without, lock attempts in the same order.
WITH item AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::uuid[], $3::text[], $4::bigint[], $5::bigint[], $6::bytea[], $7::bytea[],
        $8::integer[], $9::bytea[], $10::bytea[]
    ) AS n (
        id, device_id, status, exit_code, fuel, result_hash, output_hash, output_bytes, stderr_hash,
        signature
    )
), held AS (
    SELECT a.id FROM item i JOIN attempt a ON a.id = i.id AND a.device_id = i.device_id
    JOIN device d ON d.id = a.device_id
    WHERE a.state = 'running' AND a.lease_until - $11 > interval '0' AND d.state = 'active'
    ORDER BY a.id FOR NO KEY UPDATE OF a
), stored AS (
    UPDATE attempt a SET state = 'submitted', submitted_at = $11, status = i.status,
        exit_code = i.exit_code, fuel = i.fuel, result_hash = i.result_hash,
        output_hash = i.output_hash, output_bytes = i.output_bytes, stderr_hash = i.stderr_hash,
        signature = i.signature
    FROM held JOIN item i USING (id) WHERE a.id = held.id AND a.device_id = i.device_id
    RETURNING a.*
), logged AS (
    INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
    SELECT 'attempt.submitted', $11, ARRAY[j.account_id, s.account_id], j.id, t.id, s.id,
        -- All of the result, under the names of its row: sealed, it can be compared with the row.
        jsonb_build_object(
            'status', s.status, 'exit_code', s.exit_code, 'fuel', s.fuel,
            'result_hash', encode(s.result_hash, 'hex'),
            'output_hash', encode(s.output_hash, 'hex'), 'output_bytes', s.output_bytes,
            'stderr_hash', encode(s.stderr_hash, 'hex'), 'signature', encode(s.signature, 'hex')
        )
    FROM stored s JOIN task t ON t.id = s.task_id JOIN job j ON j.id = t.job_id ORDER BY s.id
)
SELECT id FROM stored;

-- name: release
-- Runs under the tasks' locks. Of an attempt that is named twice the first reason counts.
WITH item AS (
    SELECT DISTINCT ON (id, device_id) *
    FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])
        WITH ORDINALITY AS i (id, device_id, verdict, reason, n)
    ORDER BY id, device_id, n
), held AS (
    SELECT a.id FROM item i JOIN attempt a ON a.id = i.id AND a.device_id = i.device_id
    JOIN device d ON d.id = a.device_id
    WHERE a.state = 'running' AND d.state = 'active'
    ORDER BY a.id FOR NO KEY UPDATE OF a
), released AS (
    UPDATE attempt a SET state = 'released', verdict = i.verdict, reason = i.reason, decided_at = $5
    FROM held JOIN item i USING (id) WHERE a.id = held.id AND a.device_id = i.device_id
    RETURNING a.id, a.task_id, a.device_id, a.account_id, a.verdict
), logged AS (
    INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
    SELECT 'attempt.released', $5, ARRAY[j.account_id, r.account_id], j.id, t.id, r.id,
        jsonb_build_object('verdict', r.verdict)
    FROM released r JOIN task t ON t.id = r.task_id JOIN job j ON j.id = t.job_id ORDER BY r.id
)
SELECT id, device_id, task_id, verdict FROM released;

-- name: holds_module
SELECT EXISTS (
    SELECT FROM attempt a JOIN task t ON t.id = a.task_id JOIN job j ON j.id = t.job_id
    WHERE a.device_id = $1 AND a.state = 'running' AND j.metered_hash = $2
);

-- name: autoscale_load
-- One row. Rows are counted up to $3, so a look costs the same however long the queue is. What is
-- in the order of an index is read from it, whatever the planner takes the tables to hold.
SELECT
    coalesce((
        SELECT sum(wanted) FROM (
            SELECT wanted FROM task WHERE wanted > 0 AND NOT delayed
            ORDER BY class_id, order_key, id LIMIT $3
        ) AS ready
    ), 0)::bigint + coalesce((
        SELECT sum((task_count - made - dropped)::bigint * quorum) FROM job
        WHERE state = 'open' AND made + dropped < task_count AND deadline > $1
    ), 0)::bigint AS backlog,
    coalesce((
        SELECT sum((task_count - dropped)::bigint * quorum) FROM job
        WHERE created_at > $2 AND created_at <= $1
    ), 0)::bigint AS arrived,
    (
        SELECT avg(
            extract(epoch FROM submitted_at - claimed_at) + (pow_count::bigint << pow_bits) / $5::numeric
        ) FROM (
            SELECT submitted_at, claimed_at, pow_count, pow_bits FROM attempt
            WHERE submitted_at IS NOT NULL ORDER BY submitted_at DESC LIMIT $4
        ) AS lately
    )::double precision AS service_s,
    (
        SELECT count(*) FROM (
            SELECT FROM attempt WHERE state = 'running' ORDER BY lease_until LIMIT $3
        ) AS held
    ) AS running;

-- name: task_to_explain
SELECT t.id, t.class_id, t.state, t.reason, t.delayed, t.available_at, t.deadline, t.order_key,
    a.running, a.running_until, r.state AS run_state, r.lease_until AS run_until,
    (
        SELECT count(*) FROM referee_run o WHERE o.state = 'queued' AND o.created_at < r.created_at
    ) AS runs_ahead
FROM task t JOIN job j ON j.id = t.job_id
CROSS JOIN LATERAL (
    SELECT count(*) AS running, max(a.ends_at) AS running_until
    FROM attempt a WHERE a.task_id = t.id AND a.state = 'running'
) a
LEFT JOIN referee_run r ON r.metered_hash = j.metered_hash AND r.profile = j.profile
    AND r.input_hash = t.input_hash AND r.limits_hash = j.limits_hash
WHERE t.id = $1 AND ($2::uuid IS NULL OR j.account_id = $2);

-- name: class
SELECT * FROM task_class WHERE id = $1;

-- name: counted_classes
-- Jumps from class to class in the index; counts at most 1 000 tasks of each.
WITH RECURSIVE ready (id) AS (
    (SELECT class_id FROM task WHERE wanted > 0 AND NOT delayed ORDER BY class_id LIMIT 1)
    UNION ALL
    SELECT (
        SELECT t.class_id FROM task t
        WHERE t.wanted > 0 AND NOT t.delayed AND t.class_id > ready.id
        ORDER BY t.class_id LIMIT 1
    )
    FROM ready WHERE ready.id IS NOT NULL
)
SELECT c.*, (
    SELECT count(*) FROM (
        SELECT FROM task t WHERE t.class_id = c.id AND t.wanted > 0 AND NOT t.delayed LIMIT 1000
    ) AS counted
) AS tasks
FROM ready JOIN task_class c ON c.id = ready.id
LIMIT 1000;

-- name: count_ahead
SELECT count(*) FROM (
    SELECT FROM task t
    WHERE t.class_id = ANY ($1) AND t.wanted > 0 AND NOT t.delayed AND (t.order_key, t.id) < ($2, $3)
    LIMIT 10000
) AS ahead;

-- name: count_claims
SELECT count(*) FROM attempt WHERE device_id = ANY ($1) AND claimed_at > $2;
