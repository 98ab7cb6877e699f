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
FROM (
    SELECT asset, kind, ledger.balance_of(id) AS balance FROM ledger.account WHERE owner = $1
) part
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
