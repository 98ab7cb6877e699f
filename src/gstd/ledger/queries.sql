-- name: grant_test_credits
SELECT ledger.grant_test_credits($1, $2, $3, $4);

-- name: fund_jobs
SELECT job_id, outcome, available
FROM ledger.fund_jobs($1, $2, $3::text[]::ledger.asset[], $4, $5);

-- name: allot
SELECT ledger.allot($1, $2, $3);

-- name: settle
SELECT ledger.settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10);

-- name: charge_referee
SELECT ledger.charge_referee($1, $2, $3, $4);

-- name: refund_tasks
SELECT task_id, amount FROM ledger.refund_tasks($1, $2);

-- name: refund_unmade
SELECT job_id, amount FROM ledger.refund_unmade($1, $2);

-- name: vest_due
SELECT earning_id, attempt_id, task_id, owner, amount FROM ledger.vest_due($1, $2, $3);

-- name: reverse_earnings
SELECT earning_id, task_id, amount FROM ledger.reverse_earnings($1, $2);

-- name: forfeit
SELECT earning_id, owner, amount FROM ledger.forfeit($1, $2);

-- name: restitute
SELECT ref, amount FROM ledger.restitute($1, $2, $3, $4);

-- name: freeze
SELECT dispute_id, outcome FROM ledger.freeze_money($1, $2, $3, $4, $5, $6);

-- name: unfreeze
SELECT ledger.unfreeze_money($1, $2);

-- name: rule
SELECT dispute_id, outcome FROM ledger.rule($1, $2, $3, $4, $5, $6);

-- name: deposit
SELECT ledger.deposit_funds($1, $2, $3, $4);

-- name: assign_deposits
SELECT ledger.assign_deposits($1, $2, $3);

-- name: reserve_withdrawals
SELECT withdrawal_id, outcome FROM ledger.reserve_withdrawals($1, $2, $3, $4);

-- name: end_withdrawals
SELECT ledger.end_withdrawals($1, $2, $3);

-- name: propose_correction
SELECT ledger.propose_correction(
    $1, $2, $3::text::ledger.account_kind, $4, $5::text::ledger.account_kind,
    $6::text::ledger.asset, $7, $8, $9, $10, $11
);

-- name: decide_correction
SELECT ledger.decide_correction($1, $2, $3, $4);

-- name: fold
SELECT ledger.fold($1);

-- name: balances
SELECT asset::text AS asset,
    coalesce(sum(balance) FILTER (WHERE kind = 'available'), 0)::bigint AS available,
    coalesce(sum(balance) FILTER (WHERE kind = 'escrow'), 0)::bigint AS escrow,
    coalesce(sum(balance) FILTER (WHERE kind = 'held'), 0)::bigint AS held,
    coalesce(sum(balance) FILTER (WHERE kind = 'reserved'), 0)::bigint AS reserved
FROM ledger.balance WHERE owner = $1
GROUP BY asset ORDER BY asset;

-- name: job_money
SELECT j.funded AS funded, coalesce(sum(e.released), 0)::bigint AS released,
    coalesce(sum(e.fee), 0)::bigint AS fee, coalesce(sum(e.referee), 0)::bigint AS referee,
    (j.returned + coalesce(sum(e.refunded), 0))::bigint AS refunded,
    coalesce(sum(e.restored), 0)::bigint AS restored, coalesce(sum(e.frozen), 0)::bigint AS frozen
FROM ledger.job_escrow j LEFT JOIN ledger.escrow e USING (job_id)
WHERE j.job_id = $1 GROUP BY j.job_id;

-- name: broken
SELECT invariant, what FROM ledger.broken ORDER BY invariant, what LIMIT 1000;

-- name: totals
SELECT (SELECT coalesce(sum(balance), 0)::text FROM ledger.balance) AS sum,
    (SELECT count(*) FROM ledger.account) AS accounts,
    (SELECT count(*) FROM ledger.transfer) AS transfers;

-- name: corrections
SELECT c.id, d.kind::text AS debit_kind, d.owner AS debit_owner, k.kind::text AS credit_kind,
    k.owner AS credit_owner, c.asset::text AS asset, c.amount::text AS amount_nano, c.reason,
    c.corrects, c.state, c.proposed_by, c.proposed_at, c.decided_by, c.decided_at
FROM ledger.correction c
JOIN ledger.account d ON d.id = c.debit JOIN ledger.account k ON k.id = c.credit
WHERE ($1::uuid IS NULL OR c.id = $1) AND ($2::uuid IS NULL OR c.id < $2)
ORDER BY c.id DESC LIMIT $3;

-- name: history_legs
-- A page's legs, newest first, with a bounded number of reads for any filter: every (account, side,
-- kind) is one ordered stream of an index. The first probe finds the streams whose newest rows are
-- newest; a page of n rows can only come from n of them. A job's streams are those of its escrow,
-- and of its owner's balance as the escrow sees it. ($7, $9, $10) is the one upper bound: beside a
-- second one on `at`, an index scan would begin at the wrong one and walk.
WITH own AS MATERIALIZED (
    SELECT a.id, a.kind, a.asset FROM ledger.account a
    WHERE a.owner = $1 AND ($2::text IS NULL OR a.asset::text = $2)
        AND ($3::text IS NULL OR a.kind::text = $3)
), stream AS MATERIALIZED (
    SELECT o.id AS scanned, s.side, s.side AS leg, k.kind
    FROM own o
    CROSS JOIN (VALUES (0), (1)) AS s (side)
    CROSS JOIN LATERAL unnest((CASE
        WHEN o.kind <> 'escrow' THEN enum_range(NULL::ledger.transfer_kind)::text[]
        WHEN s.side = 0 THEN '{reward,fee,referee,refund}'
        ELSE '{fund,reverse,restitution}'
    END)::ledger.transfer_kind[]) AS k (kind)
    WHERE ($4::text[] IS NULL OR k.kind::text = ANY ($4)) AND ($5::int IS NULL OR s.side = $5)
        AND ($8::uuid IS NULL
            OR o.id = (SELECT j.account_id FROM ledger.job_escrow j WHERE j.job_id = $8))
    UNION ALL
    SELECT j.account_id, 1 - m.leg, m.leg, m.kind
    FROM ledger.job_escrow j
    JOIN own o ON o.kind = 'available' AND o.asset = j.asset
    CROSS JOIN (VALUES (0, 'fund'::ledger.transfer_kind), (1, 'refund')) AS m (leg, kind)
    WHERE j.job_id = $8 AND j.owner = $1
        AND ($4::text[] IS NULL OR m.kind::text = ANY ($4)) AND ($5::int IS NULL OR m.leg = $5)
), newest AS MATERIALIZED (
    SELECT s.*
    FROM stream s
    CROSS JOIN LATERAL (
        (SELECT t.at, t.id FROM ledger.transfer t
        WHERE s.side = 0 AND t.debit = s.scanned AND t.kind = s.kind
            AND t.at >= coalesce($6::timestamptz, '-infinity')
            AND (t.at, t.id) < (coalesce($7::timestamptz, 'infinity'), $9::bigint + (1 - s.leg) * $10::int)
        ORDER BY t.at DESC, t.id DESC LIMIT 1)
        UNION ALL
        (SELECT t.at, t.id FROM ledger.transfer t
        WHERE s.side = 1 AND t.credit = s.scanned AND t.kind = s.kind
            AND t.at >= coalesce($6::timestamptz, '-infinity')
            AND (t.at, t.id) < (coalesce($7::timestamptz, 'infinity'), $9::bigint + (1 - s.leg) * $10::int)
        ORDER BY t.at DESC, t.id DESC LIMIT 1)
    ) f
    ORDER BY f.at DESC, f.id DESC, s.leg DESC LIMIT $11::int
)
SELECT f.at, f.id, s.leg
FROM newest s
CROSS JOIN LATERAL (
    (SELECT t.at, t.id FROM ledger.transfer t
    WHERE s.side = 0 AND t.debit = s.scanned AND t.kind = s.kind
        AND t.at >= coalesce($6::timestamptz, '-infinity')
        AND (t.at, t.id) < (coalesce($7::timestamptz, 'infinity'), $9::bigint + (1 - s.leg) * $10::int)
    ORDER BY t.at DESC, t.id DESC LIMIT $11::int)
    UNION ALL
    (SELECT t.at, t.id FROM ledger.transfer t
    WHERE s.side = 1 AND t.credit = s.scanned AND t.kind = s.kind
        AND t.at >= coalesce($6::timestamptz, '-infinity')
        AND (t.at, t.id) < (coalesce($7::timestamptz, 'infinity'), $9::bigint + (1 - s.leg) * $10::int)
    ORDER BY t.at DESC, t.id DESC LIMIT $11::int)
) f
ORDER BY f.at DESC, f.id DESC, s.leg DESC LIMIT $11::int;

-- name: history_legs_of_task
WITH refs AS MATERIALIZED (
    SELECT $8::uuid AS ref
    UNION SELECT id FROM ledger.earning WHERE task_id = $8
    UNION SELECT run_id FROM ledger.referee_charge WHERE task_id = $8
    UNION SELECT dispute_id FROM ledger.freeze WHERE task_id = $8
)
SELECT t.at, t.id, l.leg
FROM refs
JOIN ledger.transfer t ON t.ref = refs.ref
CROSS JOIN (VALUES (0), (1)) AS l (leg)
JOIN ledger.account a ON a.id = CASE l.leg WHEN 0 THEN t.debit ELSE t.credit END
WHERE a.owner = $1 AND ($2::text IS NULL OR a.asset::text = $2)
    AND ($3::text IS NULL OR a.kind::text = $3)
    AND ($4::text[] IS NULL OR t.kind::text = ANY ($4)) AND ($5::int IS NULL OR l.leg = $5)
    AND t.at >= coalesce($6::timestamptz, '-infinity')
    AND (t.at, t.id, l.leg) < (coalesce($7::timestamptz, 'infinity'), $9::bigint, $10::int)
ORDER BY t.at DESC, t.id DESC, l.leg DESC LIMIT $11::int;

-- name: history_all_legs
SELECT x.at, x.id, x.leg
FROM ledger.account o
CROSS JOIN LATERAL (
    SELECT t.at, t.id, t.kind, 0 AS leg FROM ledger.transfer t WHERE t.debit = o.id
    UNION ALL
    SELECT t.at, t.id, t.kind, 1 FROM ledger.transfer t WHERE t.credit = o.id
) x
WHERE o.owner = $1 AND ($2::text IS NULL OR o.asset::text = $2)
    AND ($3::text IS NULL OR o.kind::text = $3)
    AND ($4::text[] IS NULL OR x.kind::text = ANY ($4)) AND ($5::int IS NULL OR x.leg = $5)
    AND x.at >= coalesce($6::timestamptz, '-infinity')
    AND x.at < coalesce($7::timestamptz, 'infinity')
ORDER BY x.at DESC, x.id DESC, x.leg DESC;

-- name: history_details
SELECT t.id, t.at, t.kind::text AS kind, own.kind::text AS part, w.leg, t.asset::text AS asset,
    t.amount, CASE w.leg WHEN 0 THEN t.debit_after ELSE t.credit_after END AS after,
    other.kind::text AS other, other.owner = own.owner AS other_is_own, other.job_id AS other_job_id,
    coalesce(own.job_id, other.job_id, e.job_id) AS job_id, e.task_id,
    coalesce(g.attempt_id, f.attempt_id) AS attempt_id
FROM unnest($1::bigint[], $2::int[]) WITH ORDINALITY AS w (id, leg, n)
JOIN ledger.transfer t ON t.id = w.id
JOIN ledger.account own ON own.id = CASE w.leg WHEN 0 THEN t.debit ELSE t.credit END
JOIN ledger.account other ON other.id = CASE w.leg WHEN 0 THEN t.credit ELSE t.debit END
LEFT JOIN ledger.earning g ON g.id = t.ref
LEFT JOIN ledger.referee_charge c ON c.run_id = t.ref
LEFT JOIN ledger.freeze f ON f.dispute_id = t.ref
LEFT JOIN ledger.escrow e ON e.task_id = coalesce(g.task_id, c.task_id, f.task_id, t.ref)
ORDER BY w.n;

-- name: history_sums
-- What moved in [$5, $6) in whole days, if $7, and in the times from $8 to $9. Days are read where
-- they are folded; `tail` are the transfers that are not yet, in the same snapshot.
WITH own AS MATERIALIZED (
    SELECT a.id, a.kind AS part, a.asset FROM ledger.account a
    WHERE a.owner = $1 AND ($2::text IS NULL OR a.asset::text = $2)
        AND ($3::text IS NULL OR a.kind::text = $3)
), tail AS MATERIALIZED (
    SELECT t.kind, t.debit, t.credit, t.amount FROM ledger.transfer t
    WHERE t.id > (SELECT through FROM ledger.sweep) AND $7::boolean
        AND t.at >= coalesce($5::date::timestamp AT TIME ZONE 'UTC', '-infinity')
        AND t.at < coalesce($6::date::timestamp AT TIME ZONE 'UTC', 'infinity')
    ORDER BY t.id
), part AS (
    SELECT o.id, d.kind, d.paid_in, d.paid_out, d.transfers
    FROM own o JOIN ledger.day d ON d.account_id = o.id
    WHERE $7::boolean AND d.day >= coalesce($5::date, '-infinity')
        AND d.day < coalesce($6::date, 'infinity')
    UNION ALL
    SELECT o.id, t.kind, 0, t.amount, 1 FROM tail t JOIN own o ON o.id = t.debit
    UNION ALL
    SELECT o.id, t.kind, t.amount, 0, 1 FROM tail t JOIN own o ON o.id = t.credit
    UNION ALL
    SELECT o.id, k.kind, x.paid_in, x.paid_out, x.transfers
    FROM own o
    CROSS JOIN unnest(enum_range(NULL::ledger.transfer_kind)) AS k (kind)
    CROSS JOIN unnest($8::timestamptz[], $9::timestamptz[]) AS edge (since, until)
    CROSS JOIN LATERAL (
        SELECT 0::numeric AS paid_in, sum(t.amount) AS paid_out, count(*) AS transfers
        FROM ledger.transfer t
        WHERE t.debit = o.id AND t.kind = k.kind AND t.at >= edge.since AND t.at < edge.until
        UNION ALL
        SELECT sum(t.amount), 0, count(*) FROM ledger.transfer t
        WHERE t.credit = o.id AND t.kind = k.kind AND t.at >= edge.since AND t.at < edge.until
    ) x
    WHERE x.transfers > 0
)
SELECT o.asset::text AS asset, o.part::text AS part, p.kind::text AS kind,
    sum(p.paid_in)::text AS paid_in, sum(p.paid_out)::text AS paid_out,
    sum(p.transfers)::bigint AS transfers
FROM part p JOIN own o USING (id)
WHERE $4::text[] IS NULL OR p.kind::text = ANY ($4)
GROUP BY o.asset, o.part, p.kind ORDER BY o.asset, o.part, p.kind;

-- name: history_owns_job
SELECT EXISTS (SELECT FROM ledger.job_escrow WHERE job_id = $1 AND owner = $2);

-- name: history_accounts
SELECT id, kind::text AS kind, owner, job_id, asset::text AS asset FROM ledger.account ORDER BY id;

-- name: history_transfers
SELECT id, at, kind::text AS kind, ref, seq, asset::text AS asset, debit, credit, amount,
    debit_after, credit_after
FROM ledger.transfer ORDER BY id;
