-- How often a device was heard during an attempt, and when last.
ALTER TABLE attempt
    ADD COLUMN heartbeats integer NOT NULL DEFAULT 0,
    ADD COLUMN heartbeat_at timestamptz;
