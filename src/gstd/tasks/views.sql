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
    AND ($6::text IS NULL OR t.state = $6)
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
