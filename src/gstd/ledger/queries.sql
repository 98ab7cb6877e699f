-- name: grant_test_credits
SELECT ledger.grant_test_credits($1, $2, $3, $4);

-- name: fund_jobs
SELECT job_id, outcome, available
FROM ledger.fund_jobs($1, $2, $3::text[]::ledger.asset[], $4, $5);

-- name: allot
SELECT ledger.allot($1, $2, $3);

-- name: settle
SELECT ledger.settle($1, $2, $3, $4, $5, $6, $7, $8);

-- name: charge_referee
SELECT ledger.charge_referee($1, $2, $3, $4);

-- name: refund_tasks
SELECT task_id, amount FROM ledger.refund_tasks($1, $2);

-- name: refund_unmade
SELECT job_id, amount FROM ledger.refund_unmade($1, $2);

-- name: vest_due
SELECT attempt_id, task_id, owner, amount FROM ledger.vest_due($1, $2);

-- name: balances
SELECT asset::text AS asset,
    coalesce(sum(available), 0)::bigint AS available,
    coalesce(sum(escrow), 0)::bigint AS escrow,
    coalesce(sum(held), 0)::bigint AS held
FROM (
    SELECT asset, balance AS available, 0 AS escrow, 0 AS held
    FROM ledger.account WHERE owner = $1 AND kind = 'available'
    UNION ALL
    SELECT j.asset, 0, j.funded - j.returned - coalesce(
        (SELECT sum(e.released + e.fee + e.referee + e.refunded)
         FROM ledger.escrow e WHERE e.job_id = j.job_id), 0), 0
    FROM ledger.job_escrow j WHERE j.owner = $1
    UNION ALL
    SELECT asset, 0, 0, amount FROM ledger.earning WHERE owner = $1 AND state = 'held'
) parts
GROUP BY asset ORDER BY asset;

-- name: job_money
SELECT j.funded AS funded, coalesce(sum(e.released), 0)::bigint AS released,
    coalesce(sum(e.fee), 0)::bigint AS fee, coalesce(sum(e.referee), 0)::bigint AS referee,
    (j.returned + coalesce(sum(e.refunded), 0))::bigint AS refunded
FROM ledger.job_escrow j LEFT JOIN ledger.escrow e USING (job_id)
WHERE j.job_id = $1 GROUP BY j.job_id;

-- name: broken
SELECT invariant, what FROM ledger.broken ORDER BY invariant, what LIMIT 1000;

-- name: totals
SELECT (SELECT coalesce(sum(balance), 0)::text FROM ledger.balance) AS sum,
    (SELECT count(*) FROM ledger.account) AS accounts,
    (SELECT count(*) FROM ledger.transfer) AS transfers;
