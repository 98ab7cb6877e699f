-- Accounts, their keys, and the devices linked to them.

CREATE TABLE account (
    id uuid PRIMARY KEY,
    name text NOT NULL,
    roles text[] NOT NULL CHECK (
        cardinality(roles) > 0 AND roles <@ ARRAY['requester', 'worker', 'admin']
    ),
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 63),
    created_at timestamptz NOT NULL
);

CREATE TABLE api_key (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    token_hash bytea NOT NULL UNIQUE CHECK (octet_length(token_hash) = 32),
    label text NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz
);

CREATE TABLE device (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    name text NOT NULL,
    public_key text NOT NULL UNIQUE CHECK (public_key ~ '^[0-9a-f]{64}$'),
    state text NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended', 'revoked')),
    trust smallint NOT NULL DEFAULT 500 CHECK (trust BETWEEN 0 AND 1000),
    accepted integer NOT NULL DEFAULT 0,
    rejected integer NOT NULL DEFAULT 0,
    enrolled_at timestamptz NOT NULL
);
CREATE INDEX device_account ON device (account_id);

CREATE TABLE enrolment_code (
    code_hash bytea PRIMARY KEY CHECK (octet_length(code_hash) = 32),
    account_id uuid NOT NULL REFERENCES account,
    expires_at timestamptz NOT NULL,
    device_id uuid REFERENCES device
);

-- One answer per key: the same request is answered again, another one is refused. Answers may hold
-- secrets, so only the key's hash is kept, and the body is sealed with the key itself.
CREATE TABLE idempotency (
    account_id uuid NOT NULL REFERENCES account,
    key_hash bytea NOT NULL CHECK (octet_length(key_hash) = 32),
    request_hash bytea NOT NULL,
    status smallint,
    sealed_body bytea,
    at timestamptz NOT NULL,
    PRIMARY KEY (account_id, key_hash)
);

GRANT SELECT ON schema_migration TO gstd_app;
GRANT SELECT, INSERT, UPDATE ON account, api_key, device, enrolment_code, idempotency TO gstd_app;
