-- Modules, jobs, tasks, attempts and the referee's runs.

CREATE TABLE module (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 32),
    metered_hash bytea NOT NULL CHECK (octet_length(metered_hash) = 32),
    profile text NOT NULL,
    account_id uuid NOT NULL REFERENCES account,
    name text NOT NULL,
    size integer NOT NULL,
    info jsonb NOT NULL,
    uploaded_at timestamptz NOT NULL
);

-- One module mapped over inputs. Task rows are made in chunks: `made` of `task_count` exist.
CREATE TABLE job (
    id uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account,
    shard smallint NOT NULL CHECK (shard BETWEEN 0 AND 63),
    name text NOT NULL,
    state text NOT NULL CHECK (state IN ('open', 'cancelled', 'closed')),
    module_hash bytea NOT NULL REFERENCES module,
    metered_hash bytea NOT NULL,
    profile text NOT NULL,
    tier text NOT NULL CHECK (tier IN ('full', 'quorum')),
    quorum smallint NOT NULL CHECK (quorum BETWEEN 1 AND 5),
    asset text NOT NULL,
    reward bigint NOT NULL CHECK (reward > 0),
    fee bigint NOT NULL CHECK (fee >= 0),
    referee bigint NOT NULL CHECK (referee >= 0),
    task_lock bigint NOT NULL CHECK (task_lock = quorum * (reward + fee) + referee),
    task_count integer NOT NULL CHECK (task_count > 0),
    made integer NOT NULL DEFAULT 0 CHECK (made >= 0),
    dropped integer NOT NULL DEFAULT 0 CHECK (dropped >= 0), -- rows that will never be made
    priority smallint NOT NULL CHECK (priority BETWEEN 0 AND 3),
    deadline timestamptz NOT NULL,
    limits jsonb NOT NULL,
    limits_hash bytea NOT NULL,
    input_range jsonb,
    inputs_hash bytea,
    created_at timestamptz NOT NULL,
    closed_at timestamptz,
    CHECK ((input_range IS NULL) <> (inputs_hash IS NULL)),
    CHECK (made + dropped <= task_count),
    CHECK ((state = 'open') = (closed_at IS NULL))
);
CREATE INDEX job_account ON job (account_id, id);
CREATE INDEX job_open ON job (id) WHERE state = 'open';

-- One input of a job. `wanted` is how many attempts may still be claimed; while it is positive
-- the task is queued.
CREATE TABLE task (
    id uuid PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES job,
    index integer NOT NULL CHECK (index >= 0),
    shard smallint NOT NULL,
    state text NOT NULL CHECK (state IN (
        'blocked', 'queued', 'running', 'verifying', 'accepted', 'failed', 'cancelled', 'expired'
    )),
    reason text NOT NULL,
    revision smallint NOT NULL DEFAULT 0,
    wanted smallint NOT NULL CHECK (wanted >= 0),
    retries smallint NOT NULL DEFAULT 0,
    available_at timestamptz NOT NULL,
    priority smallint NOT NULL,
    deadline timestamptz NOT NULL,
    input bytea NOT NULL,
    input_hash bytea NOT NULL,
    result_hash bytea,
    status text,
    exit_code bigint,
    fuel bigint,
    output_hash bytea,
    output_bytes integer,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    UNIQUE (job_id, index),
    CHECK ((wanted > 0) = (state = 'queued')),
    CHECK (state <> 'accepted' OR output_hash IS NOT NULL)
) WITH (fillfactor = 80);
CREATE INDEX task_queue ON task (priority, deadline, id) WHERE wanted > 0;
CREATE INDEX task_unfinished ON task (job_id, deadline)
    WHERE state IN ('blocked', 'queued', 'running', 'verifying');
CREATE INDEX task_deadline ON task (deadline) WHERE state IN ('blocked', 'queued', 'running');
CREATE INDEX task_not_final ON task (id)
    WHERE state IN ('blocked', 'queued', 'running', 'verifying');
CREATE INDEX task_verifying ON task (input_hash) WHERE state = 'verifying';
CREATE INDEX task_job_state ON task (job_id, state);

-- One device's try at one task. Its id is the fencing token. No attempt without a proof of work.
CREATE TABLE attempt (
    id uuid PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES task,
    revision smallint NOT NULL,
    device_id uuid NOT NULL REFERENCES device,
    account_id uuid NOT NULL REFERENCES account,
    offer_id uuid NOT NULL UNIQUE,
    pow_bits smallint NOT NULL,
    pow_count smallint NOT NULL,
    pow_verified_at timestamptz NOT NULL,
    state text NOT NULL CHECK (state IN (
        'running', 'submitted', 'accepted', 'rejected', 'expired', 'released', 'cancelled'
    )),
    verdict text,
    claimed_at timestamptz NOT NULL,
    lease_until timestamptz NOT NULL,
    ends_at timestamptz NOT NULL, -- no heartbeat extends the lease beyond it
    submitted_at timestamptz,
    decided_at timestamptz,
    reason text,
    status text,
    exit_code bigint,
    fuel bigint,
    result_hash bytea,
    output_hash bytea,
    output_bytes integer,
    stderr_hash bytea,
    signature bytea,
    CHECK (lease_until <= ends_at),
    CHECK (state NOT IN ('submitted', 'accepted', 'rejected')
        OR (result_hash IS NOT NULL AND signature IS NOT NULL AND submitted_at IS NOT NULL))
) WITH (fillfactor = 80);
-- One account never holds two attempts of one task, and never gets a task again on which its
-- result was wrong.
CREATE UNIQUE INDEX attempt_account ON attempt (task_id, account_id)
    WHERE state IN ('running', 'submitted', 'accepted', 'rejected');
CREATE INDEX attempt_task ON attempt (task_id);
CREATE INDEX attempt_lease ON attempt (lease_until) WHERE state = 'running';
CREATE INDEX attempt_device ON attempt (device_id, state);

-- One re-execution by the platform; the same work is never run twice.
CREATE TABLE referee_run (
    id uuid PRIMARY KEY,
    metered_hash bytea NOT NULL,
    profile text NOT NULL,
    input_hash bytea NOT NULL,
    limits_hash bytea NOT NULL,
    module_hash bytea NOT NULL,
    input bytea NOT NULL,
    limits jsonb NOT NULL,
    asked_by uuid NOT NULL REFERENCES task,
    state text NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'running', 'done', 'failed')),
    tries smallint NOT NULL DEFAULT 0,
    lease_until timestamptz,
    result_hash bytea,
    status text,
    exit_code bigint,
    fuel bigint,
    output_hash bytea,
    output_bytes integer,
    error text,
    created_at timestamptz NOT NULL,
    done_at timestamptz,
    UNIQUE (metered_hash, profile, input_hash, limits_hash),
    CHECK ((state = 'done') = (result_hash IS NOT NULL))
);
CREATE INDEX referee_run_open ON referee_run (created_at) WHERE state IN ('queued', 'running');

GRANT SELECT, INSERT ON module TO gstd_app;
GRANT SELECT, INSERT, UPDATE ON job, task, attempt, referee_run TO gstd_app;
