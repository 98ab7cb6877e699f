-- The log is an audit log: every row is a leaf of one Merkle tree (RFC 9162), its index is the
-- row's position - 1. Transfers are logged too, one row each, when their transaction is numbered.

ALTER TABLE event_log
    ADD COLUMN transfer_id bigint UNIQUE,
    ADD COLUMN salt uuid NOT NULL DEFAULT gen_random_uuid();
CREATE INDEX event_log_attempt ON event_log (attempt_id, position) WHERE attempt_id IS NOT NULL;

-- The text that is sealed: everything a log row says. The salt keeps a leaf from being guessed.
CREATE FUNCTION audit_text(
    p_position bigint, p_kind text, p_at timestamptz, p_accounts uuid[], p_job uuid, p_task uuid,
    p_attempt uuid, p_data jsonb
) RETURNS text LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT jsonb_build_object(
        'position', p_position, 'kind', p_kind,
        'at_us', (extract(epoch FROM p_at) * 1000000)::bigint,
        'accounts', to_jsonb(p_accounts), 'job_id', p_job, 'task_id', p_task, 'attempt_id', p_attempt,
        'data', p_data
    )::text
$$;
CREATE FUNCTION audit_leaf(p_salt uuid, p_text text) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT sha256('\x00'::bytea || uuid_send(p_salt) || convert_to(p_text, 'UTF8'))
$$;

ALTER TABLE event_log ADD COLUMN leaf bytea;
UPDATE event_log SET leaf = audit_leaf(
    salt, audit_text(position, kind, at, accounts, job_id, task_id, attempt_id, data)
);
ALTER TABLE event_log ALTER COLUMN leaf SET NOT NULL;

-- What the log says about a transfer: whoever owns one of its accounts may read it.
CREATE VIEW ledger.transfer_fact AS
    SELECT t.id, t.at,
        ARRAY(SELECT DISTINCT o FROM unnest(ARRAY[d.owner, c.owner]) o WHERE o IS NOT NULL) AS accounts,
        coalesce(d.job_id, c.job_id) AS job_id,
        jsonb_build_object(
            'id', t.id, 'kind', t.kind, 'ref', t.ref, 'seq', t.seq, 'asset', t.asset,
            'debit', t.debit, 'credit', t.credit, 'amount_nano', t.amount::text,
            'debit_after', t.debit_after::text, 'credit_after', t.credit_after::text,
            'debit_version', t.debit_version, 'credit_version', t.credit_version
        ) AS data
    FROM ledger.transfer t
    JOIN ledger.account d ON d.id = t.debit
    JOIN ledger.account c ON c.id = t.credit;

INSERT INTO event_outbox (kind, at, accounts, data, transfers)
    SELECT 'transfers', now(), '{}', '{}', array_agg(id ORDER BY id) FROM ledger.transfer
    HAVING count(*) > 0;

-- Complete and growing tiles of the tree, 256 hashes wide (C2SP tlog-tiles).
CREATE TABLE audit_tile (
    level smallint NOT NULL CHECK (level >= 0),
    index bigint NOT NULL CHECK (index >= 0),
    hashes bytea NOT NULL CHECK (octet_length(hashes) BETWEEN 32 AND 8192 AND octet_length(hashes) % 32 = 0),
    PRIMARY KEY (level, index)
);

-- Signed heads of the tree, as C2SP notes.
CREATE TABLE audit_checkpoint (
    size bigint PRIMARY KEY CHECK (size > 0),
    root bytea NOT NULL CHECK (octet_length(root) = 32),
    note text NOT NULL,
    at timestamptz NOT NULL
);

CREATE TABLE audit_head (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    size bigint NOT NULL DEFAULT 0
);
INSERT INTO audit_head DEFAULT VALUES;

GRANT SELECT ON ledger.transfer_fact TO gstd_app;
GRANT SELECT, INSERT, UPDATE ON audit_tile TO gstd_app;
GRANT SELECT, INSERT ON audit_checkpoint TO gstd_app;
GRANT SELECT, UPDATE ON audit_head TO gstd_app;
