-- What the autoscale signal reads every few seconds, besides the queue's own index.
CREATE INDEX job_created ON job (created_at);
CREATE INDEX attempt_submitted ON attempt (submitted_at) WHERE submitted_at IS NOT NULL;
