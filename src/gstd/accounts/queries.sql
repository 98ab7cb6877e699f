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
SELECT id AS device_id, account_id, name, public_key, state, trust, failures, ejections, ejected_until,
    quota
FROM device WHERE public_key = ANY ($1);

-- name: devices_of_account
SELECT id, name, public_key, state, trust, accepted, rejected, enrolled_at
FROM device WHERE account_id = $1 ORDER BY id;

-- name: device
SELECT id, name, public_key, state, trust, accepted, rejected, enrolled_at FROM device WHERE id = $1;

-- name: revoke_device
UPDATE device SET state = 'revoked' WHERE id = $1 AND account_id = $2 RETURNING id;

-- name: lock_devices
SELECT id, account_id, state, trust, failures, ejections, ejected_until, quota
FROM device WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: write_judged
UPDATE device d SET
    accepted = d.accepted + n.accepted, rejected = d.rejected + n.wrong, trust = n.trust,
    state = n.state, failures = n.failures, ejections = n.ejections,
    ejected_until = n.ejected_until, quota = n.quota
FROM unnest(
    $1::uuid[], $2::integer[], $3::integer[], $4::smallint[], $5::text[], $6::integer[],
    $7::integer[], $8::timestamptz[], $9::integer[]
) AS n (id, accepted, wrong, trust, state, failures, ejections, ejected_until, quota)
WHERE d.id = n.id;

-- name: begin_idempotent
INSERT INTO idempotency (account_id, key_hash, request_hash, at) VALUES ($1, $2, $3, $4)
ON CONFLICT DO NOTHING
RETURNING true;

-- name: idempotent_answer
SELECT request_hash, status, sealed_body FROM idempotency WHERE account_id = $1 AND key_hash = $2;

-- name: finish_idempotent
UPDATE idempotency SET status = $3, sealed_body = $4 WHERE account_id = $1 AND key_hash = $2;
