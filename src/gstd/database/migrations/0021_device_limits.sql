-- What devices take, how fast they were measured, and private pools of devices.

-- `limits` is what the owner set; `fuel_per_ms` comes from accepted results alone.
ALTER TABLE device
    ADD COLUMN limits jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN fuel_per_ms double precision CHECK (fuel_per_ms > 0);

-- A pool's jobs go only to devices of its members. Whoever has the secret may join.
CREATE TABLE pool (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    name text NOT NULL,
    secret_hash bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
    created_at timestamptz NOT NULL
);

CREATE TABLE pool_member (
    pool_id uuid NOT NULL REFERENCES pool,
    account_id uuid NOT NULL REFERENCES account,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (pool_id, account_id)
);
CREATE INDEX pool_member_account ON pool_member (account_id);

ALTER TABLE job ADD FOREIGN KEY (pool_id) REFERENCES pool;

GRANT SELECT, INSERT, UPDATE ON pool TO gstd_app;
GRANT SELECT, INSERT, DELETE ON pool_member TO gstd_app;
