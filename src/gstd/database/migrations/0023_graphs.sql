-- Dependency graphs: what a task waits for, who stands in for what failed, what is to be looked at.

-- A job and its reruns are one family: they share their first job's edges, and a rerun's task has
-- the index of the one it repeats. `origins` are the indexes of a rerun.
ALTER TABLE job
    ADD COLUMN root uuid REFERENCES job,
    ADD COLUMN origins integer[],
    ADD COLUMN stopped text, -- why what waited in it was ended
    ADD COLUMN on_failure text NOT NULL DEFAULT 'stop'
        CHECK (on_failure IN ('stop', 'skip', 'continue')),
    ADD COLUMN feed text NOT NULL DEFAULT 'concat' CHECK (feed IN ('none', 'concat', 'frames'));
UPDATE job SET root = id;
ALTER TABLE job ALTER COLUMN root SET NOT NULL;
CREATE INDEX job_root ON job (root);

-- `template` is the input before outputs of parents were added to it; `proven` says that the result
-- may be built on; `stale`, that it comes from an input which was revised meanwhile.
ALTER TABLE task
    ADD COLUMN template bytea,
    ADD COLUMN proven boolean NOT NULL DEFAULT false,
    ADD COLUMN stale boolean NOT NULL DEFAULT false;
UPDATE task SET proven = true WHERE state = 'accepted';

-- What a task is worth to those that wait for it.
ALTER TABLE task ADD COLUMN standing text GENERATED ALWAYS AS (
    CASE
        WHEN state IN ('failed', 'cancelled', 'expired') THEN 'bad'
        WHEN state <> 'accepted' OR stale OR NOT proven THEN 'waiting'
        WHEN status = 'ok' OR (status = 'exit' AND exit_code = 0) THEN 'good'
        ELSE 'bad'
    END
) STORED;
CREATE INDEX task_bad ON task (job_id, index) WHERE standing = 'bad';
CREATE INDEX task_unproven ON task (job_id) WHERE state = 'accepted' AND standing = 'waiting';
CREATE INDEX task_stale ON task (id) WHERE stale;
CREATE INDEX task_blocked ON task (job_id, index) WHERE state = 'blocked';

-- Edges between jobs, in the order in which outputs are read: every task of the child waits for
-- all tasks of the parent, for the one of its own index, or (some) for those in task_edge.
CREATE TABLE job_edge (
    child uuid NOT NULL REFERENCES job,
    place integer NOT NULL,
    parent uuid NOT NULL REFERENCES job,
    shape text NOT NULL CHECK (shape IN ('all', 'one_to_one', 'some')),
    PRIMARY KEY (child, place)
);
CREATE INDEX job_edge_parent ON job_edge (parent);

-- Edges between tasks, by index, because rows are made in chunks.
CREATE TABLE task_edge (
    child uuid NOT NULL REFERENCES job,
    child_index integer NOT NULL,
    place integer NOT NULL,
    parent uuid NOT NULL REFERENCES job,
    parent_index integer NOT NULL,
    PRIMARY KEY (child, child_index, place)
);
CREATE INDEX task_edge_parent ON task_edge (parent, parent_index);

-- What somebody must still look at, written in the transaction that caused it and taken by whoever
-- looks: tasks of a family have `ended`, rows of a job were `made` that wait, a job is `stopped`.
-- No foreign key: it would lock the job after its tasks.
CREATE TABLE graph_news (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    about text NOT NULL CHECK (about IN ('ended', 'made', 'stopped')),
    job_id uuid NOT NULL,
    first integer NOT NULL,
    last integer NOT NULL,
    reason text
);

GRANT SELECT, INSERT ON job_edge, task_edge TO gstd_app;
GRANT SELECT, INSERT, UPDATE, DELETE ON graph_news TO gstd_app;
