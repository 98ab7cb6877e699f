-- name: candidates
SELECT t.id AS task_id, t.job_id, t.wanted, j.reward, j.asset,
    j.module_hash, j.limits, j.profile
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.wanted > 0 AND NOT t.delayed AND t.deadline > $1
ORDER BY t.order_key, t.id
LIMIT $2;

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
SELECT id FROM task WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: claim
-- Runs under the tasks' locks. Offers that were claimed before give their attempt again.
WITH item AS (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::smallint[], $5::smallint[])
        WITH ORDINALITY AS i (offer_id, task_id, attempt_id, bits, count, n)
), open AS (
    SELECT DISTINCT ON (i.task_id) i.*, t.revision, t.job_id,
        $8::timestamptz + interval '1 ms' * ((j.limits ->> 'wall_ms')::integer + $11::integer) AS ends_at
    FROM item i JOIN task t ON t.id = i.task_id JOIN job j ON j.id = t.job_id
    WHERE t.wanted > 0 AND t.available_at <= $8 AND t.deadline > $8
        AND NOT EXISTS (SELECT FROM attempt a WHERE a.offer_id = i.offer_id)
        AND NOT EXISTS (
            SELECT FROM attempt a WHERE a.task_id = i.task_id AND (
                (a.account_id = $7 AND a.state IN ('running', 'submitted', 'accepted', 'rejected'))
                OR (a.device_id = $6 AND a.state IN ('expired', 'released')
                    AND a.verdict <> 'shutting_down' AND a.decided_at > $10)
            )
        )
    ORDER BY i.task_id, i.n
), taken AS (
    UPDATE task t SET
        wanted = t.wanted - 1,
        state = CASE WHEN t.wanted = 1 THEN 'running' ELSE t.state END,
        reason = CASE WHEN t.wanted = 1 THEN 'running on a device' ELSE t.reason END,
        updated_at = $8
    FROM open WHERE t.id = open.task_id
), new AS (
    INSERT INTO attempt (
        id, task_id, revision, device_id, account_id, offer_id, pow_bits, pow_count,
        pow_verified_at, state, claimed_at, lease_until, ends_at
    )
    SELECT attempt_id, task_id, revision, $6, $7, offer_id, bits, count, $8, 'running', $8,
        least($9, ends_at), ends_at
    FROM open ORDER BY task_id
    RETURNING id, task_id, revision, offer_id
), logged AS (
    INSERT INTO event_outbox (kind, at, accounts, job_id, task_id, attempt_id, data)
    SELECT 'attempt.claimed', $8, ARRAY[j.account_id, $7], j.id, new.task_id, new.id,
        jsonb_build_object('device_id', $6::uuid)
    FROM new JOIN open USING (offer_id) JOIN job j ON j.id = open.job_id
), mine AS (
    SELECT id, task_id, revision, offer_id FROM new
    UNION ALL
    SELECT id, task_id, revision, offer_id FROM attempt
    WHERE offer_id = ANY ($1) AND device_id = $6 AND state = 'running' AND lease_until > $8
)
SELECT mine.offer_id, mine.id AS attempt_id, mine.task_id, mine.revision, j.module_hash,
    j.metered_hash, j.profile, t.input, j.limits
FROM mine JOIN task t ON t.id = mine.task_id JOIN job j ON j.id = t.job_id;

-- name: heartbeat
UPDATE attempt SET lease_until = least($3, ends_at), heartbeats = heartbeats + 1, heartbeat_at = $4
WHERE id = ANY ($1) AND device_id = $2 AND state = 'running' AND lease_until > $4
RETURNING id, lease_until;

-- name: attempts
SELECT a.id AS attempt_id, a.task_id, a.revision, a.state, a.lease_until, a.signature, t.job_id,
    j.account_id AS owner, j.module_hash, j.metered_hash, j.profile, t.input_hash, j.limits
FROM attempt a JOIN task t ON t.id = a.task_id JOIN job j ON j.id = t.job_id
WHERE a.id = ANY ($1) AND a.device_id = $2;

-- name: submit
UPDATE attempt a SET state = 'submitted', submitted_at = $11, status = n.status,
    exit_code = n.exit_code, fuel = n.fuel, result_hash = n.result_hash,
    output_hash = n.output_hash, output_bytes = n.output_bytes, stderr_hash = n.stderr_hash,
    signature = n.signature
FROM unnest(
    $1::uuid[], $2::text[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::integer[],
    $8::bytea[], $9::bytea[]
) AS n (id, status, exit_code, fuel, result_hash, output_hash, output_bytes, stderr_hash, signature)
WHERE a.id = n.id AND a.device_id = $10 AND a.state = 'running' AND a.lease_until > $11;

-- name: release
UPDATE attempt a SET state = 'released', verdict = n.verdict, reason = n.reason, decided_at = $5
FROM unnest($1::uuid[], $2::text[], $3::text[]) AS n (id, verdict, reason)
WHERE a.id = n.id AND a.device_id = $4 AND a.state = 'running'
RETURNING a.id, a.task_id;

-- name: holds_module
SELECT EXISTS (
    SELECT FROM attempt a JOIN task t ON t.id = a.task_id JOIN job j ON j.id = t.job_id
    WHERE a.device_id = $1 AND a.state = 'running' AND j.metered_hash = $2
);
