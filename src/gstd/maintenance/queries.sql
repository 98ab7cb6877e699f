-- name: lead
INSERT INTO leader AS l (name, holder, term, expires_at) VALUES ($1, $2, 1, $3)
ON CONFLICT (name) DO UPDATE SET
    term = l.term + (l.holder <> $2)::integer, holder = $2, expires_at = $3
WHERE l.holder = $2 OR l.expires_at <= $4
RETURNING term;

-- name: resign
UPDATE leader SET expires_at = $3 WHERE name = $1 AND holder = $2;

-- name: renew
UPDATE leader SET expires_at = $3 WHERE name = $1 AND holder = $2 AND expires_at < $3;

-- name: superseded
SELECT EXISTS (SELECT FROM leader WHERE name = $1 AND holder <> $2);
