-- name: count_unfinished
-- Tasks that are not final, by state, up to $1 of them.
SELECT state, count(*)::integer AS tasks FROM (
    SELECT state FROM task WHERE state IN ('blocked', 'queued', 'running', 'verifying')
    ORDER BY id LIMIT $1
) AS unfinished GROUP BY state;

-- name: count_open_jobs
SELECT count(*) FROM job WHERE state = 'open';

-- Graphs.

-- name: parent_jobs
-- Jobs that may be waited for, by the first job of their family. Edges will refer to it: locked
-- now, because jobs come before accounts.
SELECT j.id, j.root, r.task_count FROM job j JOIN job r ON r.id = j.root
WHERE j.id = ANY ($1) AND j.account_id = $2 ORDER BY r.id FOR KEY SHARE OF r;

-- name: insert_job_edges
INSERT INTO job_edge (child, place, parent, shape)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::uuid[], $4::text[]);

-- name: insert_task_edges
INSERT INTO task_edge (child, child_index, place, parent, parent_index)
SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[], $4::uuid[], $5::integer[]);

-- name: waiting_indexes
-- The indexes of these at which a job's tasks wait for something.
SELECT i.index FROM unnest($2::integer[]) AS i (index)
WHERE EXISTS (SELECT FROM job_edge e WHERE e.child = $1 AND e.shape <> 'some')
    OR EXISTS (SELECT FROM task_edge e WHERE e.child = $1 AND e.child_index = i.index);

-- name: tell_made
INSERT INTO graph_news (about, job_id, first, last) VALUES ('made', $1, $2, $3);

-- name: tell_unmade
-- Rows of these jobs will never be made.
INSERT INTO graph_news (about, job_id, first, last)
SELECT 'ended', j.root, CASE WHEN j.origins IS NULL THEN j.made ELSE 0 END, 2147483647
FROM job j
WHERE j.id = ANY ($1) AND j.made < j.task_count
    AND EXISTS (SELECT FROM job_edge e WHERE e.parent = j.root);

-- name: tell_stopped
INSERT INTO graph_news (about, job_id, first, last, reason)
SELECT 'stopped', n.job_id, 0, 0, n.reason
FROM unnest($1::uuid[], $2::text[]) AS n (job_id, reason);

-- name: take_news
DELETE FROM graph_news WHERE id IN (
    SELECT id FROM graph_news WHERE (about = 'stopped') = $1
    ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED
)
RETURNING about, job_id, first, last, reason;

-- name: blocked_between
SELECT t.id FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS n (job_id, first, last)
JOIN task t ON t.job_id = n.job_id AND t.index BETWEEN n.first AND n.last
WHERE t.state = 'blocked';

-- name: children_of
-- Tasks that wait for, or ($4 false) have used, or (null) either, what is at these indexes. Of a
-- job that waits for all of another, they are looked at when that is over or one of it is bad.
-- OFFSET 0 keeps the planner, which knows nothing of new jobs, at one index lookup per edge.
WITH news AS (
    SELECT * FROM unnest($1::uuid[], $2::integer[], $3::integer[]) AS n (root, first, last)
), edge AS (
    SELECT e.child, e.shape, n.root, n.first, n.last
    FROM news n JOIN job_edge e ON e.parent = n.root
), child AS (
    SELECT c.id, c.state, j.feed
    FROM edge e JOIN job j ON j.root = e.child
    CROSS JOIN LATERAL (
        SELECT id, state FROM task
        WHERE job_id = j.id AND index BETWEEN e.first AND e.last OFFSET 0
    ) c
    WHERE e.shape = 'one_to_one'
    UNION
    SELECT c.id, c.state, j.feed
    FROM edge e JOIN job j ON j.root = e.child
    CROSS JOIN LATERAL (
        SELECT child_index FROM task_edge
        WHERE parent = e.root AND parent_index BETWEEN e.first AND e.last AND child = e.child
        OFFSET 0
    ) t
    CROSS JOIN LATERAL (
        SELECT id, state FROM task WHERE job_id = j.id AND index = t.child_index OFFSET 0
    ) c
    WHERE e.shape = 'some'
    UNION
    SELECT c.id, c.state, j.feed
    FROM (
        SELECT DISTINCT e.child FROM edge e
        WHERE e.shape = 'all' AND ($4 IS DISTINCT FROM true OR NOT EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id WHERE f.root = e.root
                AND u.state IN ('blocked', 'queued', 'running', 'verifying')
        ) OR EXISTS (
            SELECT FROM job f JOIN task b ON b.job_id = f.id WHERE f.root = e.root
                AND b.index BETWEEN e.first AND e.last AND b.standing = 'bad'
        ))
    ) e
    JOIN job j ON j.root = e.child JOIN task c ON c.job_id = j.id
)
SELECT id, state FROM child
WHERE $4::boolean IS NULL OR (state = 'blocked') = $4 AND ($4 OR feed <> 'none');

-- name: waiting_tasks
-- What decides about blocked tasks, which are locked.
SELECT t.id, t.job_id, t.index, t.priority, t.template, j.root, j.limits, j.feed, j.on_failure
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) AND t.state = 'blocked';

-- name: prospects
-- Per task: whether any parent is still to come, and the first that ended badly. A parent is the
-- best of its family; it is to come as long as a row of it may still be made.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id WHERE c.id = ANY ($1)
), wanted AS (
    SELECT c.id, e.parent, c.index AS index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
), family AS (
    SELECT f.root, bool_or(f.made + f.dropped < f.task_count) AS growing, count(*) > 1 AS has_reruns
    FROM job f WHERE f.root IN (SELECT parent FROM wanted) GROUP BY f.root
), found AS (
    SELECT w.id, w.parent, w.index, w.place,
        CASE
            WHEN f.growing AND (b.standing IS NULL OR b.standing = 'bad' AND f.has_reruns) THEN 'waiting'
            ELSE coalesce(b.standing, 'bad')
        END AS standing
    FROM wanted w JOIN family f ON f.root = w.parent
    LEFT JOIN LATERAL (
        SELECT p.standing FROM job m JOIN task p ON p.job_id = m.id AND p.index = w.index
        WHERE m.root = w.parent
        ORDER BY array_position(ARRAY['good', 'waiting', 'bad'], p.standing) LIMIT 1
    ) b ON true
)
SELECT id, bool_or(standing = 'waiting') AS waiting,
    (array_agg(parent ORDER BY place) FILTER (WHERE standing = 'bad'))[1] AS bad_job,
    (array_agg(index ORDER BY place) FILTER (WHERE standing = 'bad'))[1] AS bad_index
FROM found GROUP BY id;

-- name: whole_jobs
-- The same of jobs all of which is waited for.
SELECT DISTINCT e.child, e.parent, e.place, x.waiting, x.bad_index
FROM job_edge e JOIN job r ON r.id = e.parent
CROSS JOIN LATERAL (
    SELECT EXISTS (
            SELECT FROM job f WHERE f.root = r.id AND f.made + f.dropped < f.task_count
        ) OR EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id
            WHERE f.root = r.id AND u.state IN ('blocked', 'queued', 'running', 'verifying')
        ) OR EXISTS (
            SELECT FROM job f JOIN task u ON u.job_id = f.id
            WHERE f.root = r.id AND u.state = 'accepted' AND u.standing = 'waiting'
        ) AS waiting,
        (SELECT count(*) FROM job f WHERE f.root = r.id) AS members
) w
CROSS JOIN LATERAL (
    SELECT w.waiting, CASE WHEN w.members = 1 OR NOT w.waiting THEN coalesce((
        SELECT b.index FROM job f JOIN task b ON b.job_id = f.id AND b.standing = 'bad'
        WHERE f.root = r.id AND NOT EXISTS (
            SELECT FROM job g JOIN task s ON s.job_id = g.id AND s.index = b.index
            WHERE g.root = r.id AND s.standing = 'good'
        )
        ORDER BY b.index LIMIT 1
    ), CASE WHEN r.dropped > 0 AND (
        SELECT count(DISTINCT s.index) FROM job f JOIN task s ON s.job_id = f.id
        WHERE f.root = r.id AND s.standing = 'good'
    ) < r.task_count THEN r.made END) END AS bad_index
) x
WHERE e.child = ANY ($1) AND e.shape = 'all'
ORDER BY e.place;

-- name: size_of_job
SELECT r.task_count AS outputs, (
    SELECT coalesce(sum(s.output_bytes), 0)::bigint
    FROM job f JOIN task s ON s.job_id = f.id WHERE f.root = r.id AND s.standing = 'good'
) AS size
FROM job r WHERE r.id = $1;

-- name: outputs_of_job
-- One entry per index, in order; null where there is no good result.
SELECT o.output_hash FROM job r
CROSS JOIN LATERAL generate_series(0, r.task_count - 1) AS i (index)
LEFT JOIN LATERAL (
    SELECT s.output_hash FROM job f JOIN task s ON s.job_id = f.id AND s.index = i.index
    WHERE f.root = r.id AND s.standing = 'good' LIMIT 1
) o ON true
WHERE r.id = $1 ORDER BY i.index;

-- name: outputs_of_tasks
-- What tasks read of single parents, in order: those of one-to-one jobs have the place of the job.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id WHERE c.id = ANY ($1)
), wanted AS (
    SELECT c.id, e.parent, c.index AS index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
)
SELECT w.id AS task_id, w.place, o.output_hash, coalesce(o.output_bytes, 0) AS size
FROM wanted w LEFT JOIN LATERAL (
    SELECT s.output_hash, s.output_bytes FROM job f
    JOIN task s ON s.job_id = f.id AND s.index = w.index
    WHERE f.root = w.parent AND s.standing = 'good' LIMIT 1
) o ON true
ORDER BY w.id, w.place;

-- name: set_inputs
UPDATE task t SET input = n.input, input_hash = n.input_hash, order_key = n.order_key
FROM unnest($1::uuid[], $2::bytea[], $3::bytea[], $4::bigint[])
    AS n (id, input, input_hash, order_key)
WHERE t.id = n.id;

-- name: lock_stopped
SELECT id FROM job WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: drop_rest
UPDATE job j SET dropped = task_count - made, stopped = n.reason
FROM unnest($1::uuid[], $2::text[]) AS n (job_id, reason)
WHERE j.id = n.job_id AND j.stopped IS NULL;

-- name: blocked_of_jobs
SELECT id FROM task WHERE job_id = ANY ($1) AND state = 'blocked';

-- name: blocked_to_reconsider
SELECT id FROM task WHERE state = 'blocked' AND updated_at <= $1 AND id > $2 ORDER BY id LIMIT $3;

-- name: whole_edges
SELECT child, parent, place FROM job_edge WHERE child = ANY ($1) AND shape = 'all' ORDER BY place;

-- name: lock_original
-- Two reruns of one family come one after the other.
SELECT r.id, r.name, r.module_hash, r.tier, r.quorum, r.priority, r.asset, r.reward, r.limits,
    r.min_trust, r.pool_id, r.feed, r.on_failure, r.task_count, r.input_range, r.inputs_hash
FROM job j JOIN job r ON r.id = j.root
WHERE j.id = $1 AND j.account_id = $2 FOR NO KEY UPDATE OF r;

-- name: family_is_open
SELECT EXISTS (
    SELECT FROM job f WHERE f.root = $1 AND (
        f.made + f.dropped < f.task_count OR EXISTS (
            SELECT FROM task t WHERE t.job_id = f.id
                AND t.state IN ('blocked', 'queued', 'running', 'verifying')
        )
    )
);

-- name: without_result
SELECT i.index FROM job r CROSS JOIN LATERAL generate_series(0, r.task_count - 1) AS i (index)
WHERE r.id = $1 AND NOT EXISTS (
    SELECT FROM job f JOIN task t ON t.job_id = f.id AND t.index = i.index
    WHERE f.root = r.id AND t.state = 'accepted'
)
ORDER BY i.index LIMIT $2;

-- name: built
-- `left` is what a task has left in escrow.
SELECT t.id, t.state, j.root, t.index, t.stale, j.task_lock,
    e.locked - e.released - e.fee - e.referee - e.refunded - e.frozen AS left,
    EXISTS (
        SELECT FROM attempt a
        WHERE a.task_id = t.id AND a.revision = t.revision AND a.state = 'submitted'
    ) AS has_results
FROM task t JOIN job j ON j.id = t.job_id JOIN ledger.escrow e ON e.task_id = t.id
WHERE t.id = ANY ($1) ORDER BY t.id;

-- name: lock_jobs_of
SELECT FROM job WHERE id IN (SELECT job_id FROM task WHERE id = ANY ($1))
ORDER BY id FOR NO KEY UPDATE;

-- name: lock_any_tasks
SELECT FROM task WHERE id = ANY ($1) ORDER BY id FOR NO KEY UPDATE;

-- name: any_tasks
SELECT t.id, t.job_id, j.account_id AS owner, t.state, t.wanted, t.retries, t.reason, t.revision,
    t.available_at, t.deadline, j.state = 'cancelled' AS cancelled, j.state = 'idle' AS idle,
    j.tier, j.quorum, j.reward, j.fee
FROM task t JOIN job j ON j.id = t.job_id
WHERE t.id = ANY ($1) ORDER BY t.id;

-- name: stale
UPDATE task SET stale = true WHERE id = ANY ($1);

-- name: not_stale
UPDATE task SET stale = false WHERE id = ANY ($1);

-- name: stale_tasks
SELECT id FROM task
WHERE stale AND state IN ('accepted', 'failed', 'cancelled', 'expired') ORDER BY id LIMIT $1;

-- name: next_revision
UPDATE task SET revision = revision + 1 WHERE id = ANY ($1);

-- name: reopen_jobs
UPDATE job SET state = 'open', closed_at = NULL
WHERE state = 'closed' AND id IN (SELECT job_id FROM task WHERE id = ANY ($1));

-- name: parent_views
SELECT e.parent AS job_id, e.shape, r.task_count AS tasks, r.task_count - g.good AS left
FROM (
    SELECT parent, min(shape) AS shape, min(place) AS place FROM job_edge
    WHERE child = $1 AND parent <> $1 GROUP BY parent
) e
JOIN job r ON r.id = e.parent
CROSS JOIN LATERAL (
    SELECT count(DISTINCT s.index)::integer AS good FROM job f JOIN task s ON s.job_id = f.id
    WHERE f.root = r.id AND s.standing = 'good'
) g
ORDER BY e.place;

-- name: task_waits
-- Per blocked task and job it waits for: how many tasks, and how many without a good result.
WITH child AS (
    SELECT c.id, c.index, j.root FROM task c JOIN job j ON j.id = c.job_id
    WHERE c.id = ANY ($1) AND c.state = 'blocked'
), whole AS (
    SELECT r.id, r.task_count AS tasks, r.task_count - (
        SELECT count(DISTINCT s.index)::integer FROM job f JOIN task s ON s.job_id = f.id
        WHERE f.root = r.id AND s.standing = 'good'
    ) AS left
    FROM job r WHERE r.id IN (
        SELECT e.parent FROM job_edge e
        WHERE e.shape = 'all' AND e.child IN (SELECT root FROM child)
    )
), single AS (
    SELECT c.id, e.parent, c.index, e.place
    FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'one_to_one'
    UNION ALL
    SELECT c.id, e.parent, e.parent_index, 64 + e.place
    FROM child c CROSS JOIN LATERAL (
        SELECT * FROM task_edge WHERE child = c.root AND child_index = c.index OFFSET 0
    ) e
)
SELECT c.id, e.parent, w.tasks, w.left, e.place
FROM child c JOIN job_edge e ON e.child = c.root AND e.shape = 'all' JOIN whole w ON w.id = e.parent
WHERE w.left > 0
UNION ALL
SELECT s.id, s.parent, count(*)::integer, count(*) FILTER (WHERE g.missing)::integer, min(s.place)
FROM single s CROSS JOIN LATERAL (
    SELECT NOT EXISTS (
        SELECT FROM job f JOIN task p ON p.job_id = f.id AND p.index = s.index
        WHERE f.root = s.parent AND p.standing = 'good'
    ) AS missing
) g
GROUP BY s.id, s.parent HAVING bool_or(g.missing)
ORDER BY place;
