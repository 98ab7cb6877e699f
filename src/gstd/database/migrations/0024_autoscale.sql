-- What the autoscale signal reads every few seconds: each index holds just the rows it counts.
CREATE INDEX task_ready ON task (available_at) INCLUDE (wanted) WHERE wanted > 0;
CREATE INDEX job_created ON job (created_at);
CREATE INDEX attempt_submitted ON attempt (submitted_at) WHERE submitted_at IS NOT NULL;
