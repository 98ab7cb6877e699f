-- A job on which nothing has happened for days ends by itself, and its money goes back.
ALTER TABLE job DROP CONSTRAINT job_state_check,
    ADD CHECK (state IN ('open', 'cancelled', 'idle', 'closed'));
CREATE INDEX job_open_since ON job (created_at) WHERE state = 'open';
CREATE INDEX task_activity ON task (job_id, updated_at);
