-- name: insert
INSERT INTO module (hash, metered_hash, profile, account_id, name, size, info, uploaded_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (hash) DO NOTHING;

-- name: get
SELECT hash, metered_hash, profile, name, size, info, uploaded_at FROM module WHERE hash = $1;

-- name: of_account
SELECT hash, metered_hash, profile, name, size, info, uploaded_at
FROM module WHERE account_id = $1 ORDER BY uploaded_at DESC, hash LIMIT $2;
