-- The queue's heads are read from the index alone, expired tasks left out.
DROP INDEX task_ready;
CREATE INDEX task_ready ON task (class_id, order_key, id) INCLUDE (deadline)
    WHERE wanted > 0 AND NOT delayed;
