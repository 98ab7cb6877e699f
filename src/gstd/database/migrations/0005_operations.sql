-- What the operators of the platform need: leadership of periodic work, recorded errors.

CREATE TABLE leader (
    name text PRIMARY KEY,
    holder text NOT NULL,
    term bigint NOT NULL,
    expires_at timestamptz NOT NULL
);

CREATE TABLE recorded_error (
    id uuid PRIMARY KEY,
    at timestamptz NOT NULL,
    code text NOT NULL,
    place text NOT NULL,
    request_id text,
    detail text NOT NULL,
    context jsonb NOT NULL
);
CREATE INDEX recorded_error_at ON recorded_error (at DESC);

GRANT SELECT, INSERT, UPDATE ON leader TO gstd_app;
GRANT SELECT, INSERT, DELETE ON recorded_error TO gstd_app;
