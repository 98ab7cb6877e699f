-- The queue: a task's class says what it needs of a device, its order key who is next in a class.

-- What devices are matched by. Tasks of equal needs share a class, so nothing that a device cannot
-- run stands before what it can.
CREATE TABLE task_class (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    profile text NOT NULL,
    module_hash bytea NOT NULL,
    memory_bytes bigint NOT NULL,
    fuel bigint NOT NULL,
    wall_ms integer NOT NULL,
    min_trust smallint NOT NULL CHECK (min_trust BETWEEN 0 AND 1000),
    reward bigint NOT NULL,
    asset text NOT NULL,
    pool_id uuid,
    UNIQUE NULLS NOT DISTINCT (
        profile, module_hash, memory_bytes, fuel, wall_ms, min_trust, reward, asset, pool_id
    )
);

INSERT INTO task_class (profile, module_hash, memory_bytes, fuel, wall_ms, min_trust, reward, asset)
SELECT DISTINCT profile, module_hash, (limits ->> 'memory_bytes')::bigint, (limits ->> 'fuel')::bigint,
    (limits ->> 'wall_ms')::integer, 0, reward, asset
FROM job;

ALTER TABLE job
    ADD COLUMN min_trust smallint NOT NULL DEFAULT 0 CHECK (min_trust BETWEEN 0 AND 1000),
    ADD COLUMN pool_id uuid,
    ADD COLUMN class_id integer REFERENCES task_class;
UPDATE job j SET class_id = c.id FROM task_class c
WHERE c.profile = j.profile AND c.module_hash = j.module_hash
    AND c.memory_bytes = (j.limits ->> 'memory_bytes')::bigint
    AND c.fuel = (j.limits ->> 'fuel')::bigint AND c.wall_ms = (j.limits ->> 'wall_ms')::integer
    AND c.reward = j.reward AND c.asset = j.asset;
ALTER TABLE job ALTER COLUMN class_id SET NOT NULL;

-- `delayed` tasks wait for `available_at`; the scheduler lets them in.
ALTER TABLE task
    ADD COLUMN class_id integer,
    ADD COLUMN order_key bigint CHECK (order_key BETWEEN 0 AND (1::bigint << 53) - 1),
    ADD COLUMN delayed boolean NOT NULL DEFAULT false;
UPDATE task t SET class_id = j.class_id, delayed = t.available_at > now(),
    order_key = (t.priority::bigint << 51)
        | ((extract(epoch FROM t.created_at - '2025-01-01Z'::timestamptz) * 1000)::bigint << 10)
        | (t.index & 1023)
FROM job j WHERE j.id = t.job_id;
ALTER TABLE task ALTER COLUMN class_id SET NOT NULL, ALTER COLUMN order_key SET NOT NULL;

DROP INDEX task_queue;
CREATE INDEX task_ready ON task (class_id, order_key, id) WHERE wanted > 0 AND NOT delayed;
CREATE INDEX task_delayed ON task (available_at) WHERE wanted > 0 AND delayed;

-- How far a requester's use runs ahead of its share in a level: its next tasks are dated so much
-- later. Fades with time.
CREATE TABLE requester_lead (
    account_id uuid NOT NULL REFERENCES account,
    level smallint NOT NULL CHECK (level BETWEEN 0 AND 3),
    lead_ms bigint NOT NULL CHECK (lead_ms >= 0),
    at timestamptz NOT NULL,
    PRIMARY KEY (account_id, level)
);

GRANT SELECT, INSERT, UPDATE ON task_class, requester_lead TO gstd_app;
