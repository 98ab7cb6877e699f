-- name: insert_account
INSERT INTO account (id, name, roles, shard, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: insert_api_key
INSERT INTO api_key (id, account_id, token_hash, label, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: actor_of_key
SELECT a.id AS account_id, a.name, a.roles
FROM api_key k JOIN account a ON a.id = k.account_id
WHERE k.token_hash = $1 AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > $2);

-- name: account
SELECT id, name, roles, created_at FROM account WHERE id = $1;

-- name: any_account
SELECT EXISTS (SELECT FROM account);

-- name: insert_code
INSERT INTO enrolment_code (code_hash, account_id, expires_at) VALUES ($1, $2, $3);

-- name: take_code
SELECT account_id, expires_at, device_id FROM enrolment_code WHERE code_hash = $1 FOR UPDATE;

-- name: use_code
UPDATE enrolment_code SET device_id = $2 WHERE code_hash = $1;

-- name: insert_device
INSERT INTO device (id, account_id, name, public_key, enrolled_at, quota)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (public_key) DO NOTHING
RETURNING id;

-- name: devices_of_keys
SELECT d.id AS device_id, d.account_id, d.name, d.public_key, d.state, d.trust, d.failures,
    d.ejections, d.ejected_until, d.quota, d.limits, d.fuel_per_ms,
    ARRAY(SELECT m.pool_id FROM pool_member m WHERE m.account_id = d.account_id) AS pools
FROM device d WHERE d.public_key = ANY ($1);

-- name: device_actors
-- Some devices, or one of an account.
SELECT d.id AS device_id, d.account_id, d.name, d.public_key, d.state, d.trust, d.failures,
    d.ejections, d.ejected_until, d.quota, d.limits, d.fuel_per_ms,
    ARRAY(SELECT m.pool_id FROM pool_member m WHERE m.account_id = d.account_id) AS pools
FROM device d WHERE d.id = ANY ($1) AND ($2::uuid IS NULL OR d.account_id = $2) ORDER BY d.id;

-- name: devices_of_account
SELECT id, name, public_key, state, trust, accepted, rejected, enrolled_at, limits, fuel_per_ms
FROM device WHERE account_id = $1 ORDER BY id;

-- name: device
SELECT id, name, public_key, state, trust, accepted, rejected, enrolled_at, limits, fuel_per_ms
FROM device WHERE id = $1;

-- name: revoke_device
UPDATE device SET state = 'revoked' WHERE id = $1 AND account_id = $2 RETURNING id;

-- name: limit_device
UPDATE device SET limits = $3::jsonb WHERE id = $1 AND account_id = $2 RETURNING id;

-- name: lock_devices
SELECT id, account_id, state, trust, failures, ejections, ejected_until, quota, fuel_per_ms
FROM device WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: write_judged
UPDATE device d SET
    accepted = d.accepted + n.accepted, rejected = d.rejected + n.wrong, trust = n.trust,
    state = n.state, failures = n.failures, ejections = n.ejections,
    ejected_until = n.ejected_until, quota = n.quota, fuel_per_ms = n.fuel_per_ms
FROM unnest(
    $1::uuid[], $2::integer[], $3::integer[], $4::smallint[], $5::text[], $6::integer[],
    $7::integer[], $8::timestamptz[], $9::integer[], $10::double precision[]
) AS n (id, accepted, wrong, trust, state, failures, ejections, ejected_until, quota, fuel_per_ms)
WHERE d.id = n.id;

-- name: begin_idempotent
INSERT INTO idempotency (account_id, key_hash, request_hash, at) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: idempotent_answer
SELECT request_hash, status, sealed_body FROM idempotency WHERE account_id = $1 AND key_hash = $2;

-- name: finish_idempotent
UPDATE idempotency SET status = $3, sealed_body = $4 WHERE account_id = $1 AND key_hash = $2;

-- name: lock_account
SELECT id FROM account WHERE id = $1 FOR NO KEY UPDATE;

-- name: insert_pool
INSERT INTO pool (id, account_id, name, secret_hash, created_at) VALUES ($1, $2, $3, $4, $5);

-- name: join_pool
-- Waits for a secret that changes meanwhile.
INSERT INTO pool_member (pool_id, account_id, joined_at)
SELECT id, $2, $4 FROM pool WHERE id = $1 AND secret_hash = $3 FOR SHARE
ON CONFLICT DO NOTHING
RETURNING true;

-- name: count_pools
SELECT count(*) FROM pool_member WHERE account_id = $1;

-- name: pools_of_account
SELECT p.id, p.name, p.account_id = $1 AS is_owner, p.created_at,
    (SELECT count(*) FROM pool_member n WHERE n.pool_id = p.id) AS members
FROM pool_member m JOIN pool p ON p.id = m.pool_id
WHERE m.account_id = $1 AND ($2::uuid IS NULL OR p.id = $2) ORDER BY p.id;

-- name: pool_members
SELECT m.account_id, a.name, m.joined_at,
    (SELECT count(*) FROM device d WHERE d.account_id = a.id AND d.state = 'active') AS devices
FROM pool_member m JOIN account a ON a.id = m.account_id
WHERE m.pool_id = $1 ORDER BY m.joined_at, m.account_id;

-- name: leave_pool
DELETE FROM pool_member WHERE pool_id = $1 AND account_id = $2 RETURNING true;

-- name: change_pool_secret
UPDATE pool SET secret_hash = $2 WHERE id = $1;
