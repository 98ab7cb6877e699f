-- Transactions append to the outbox without numbers. Whoever holds the log's head moves the rows
-- of finished transactions into the log and numbers them without gaps.

CREATE TABLE event_outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind text NOT NULL,
    at timestamptz NOT NULL,
    accounts uuid[] NOT NULL,
    job_id uuid,
    task_id uuid,
    attempt_id uuid,
    data jsonb NOT NULL
);

CREATE TABLE event_log (
    position bigint PRIMARY KEY,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    accounts uuid[] NOT NULL,
    job_id uuid,
    task_id uuid,
    attempt_id uuid,
    data jsonb NOT NULL
);
CREATE INDEX event_log_accounts ON event_log USING gin (accounts);
CREATE INDEX event_log_task ON event_log (task_id, position) WHERE task_id IS NOT NULL;

CREATE TABLE event_head (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    position bigint NOT NULL
);
INSERT INTO event_head (position) VALUES (0);

GRANT SELECT, INSERT, DELETE ON event_outbox TO gstd_app;
GRANT SELECT, INSERT ON event_log TO gstd_app;
GRANT SELECT, UPDATE ON event_head TO gstd_app;
