-- Folding, balances, and every promise as the rows that break it.

-- Folds transfers that can no longer change into balances and days; returns how many. One call marks
-- the newest id, the next takes a number, and a later one folds once all older numbers have ended.
CREATE FUNCTION ledger.fold(p_limit integer)
RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_sweep ledger.sweep;
    v_to bigint;
    v_folded bigint;
BEGIN
    SELECT * INTO v_sweep FROM ledger.sweep FOR NO KEY UPDATE SKIP LOCKED;
    IF NOT FOUND OR v_sweep.horizon > pg_snapshot_xmin(pg_current_snapshot()) THEN
        RETURN 0;
    END IF;
    IF v_sweep.horizon = '0' AND v_sweep.bound > v_sweep.through THEN
        -- Who has an id up to `bound` had its number before the call that marked `bound` ended, and
        -- this call's is newer. (A snapshot's xmax would not do: it is the newest *ended* one's plus 1.)
        UPDATE ledger.sweep SET horizon = pg_current_xact_id();
        RETURN 0;
    END IF;
    v_to := least(v_sweep.bound, v_sweep.through + p_limit);
    WITH leg AS (
        SELECT debit AS account_id, kind, (at AT TIME ZONE 'UTC')::date AS day, 0 AS paid_in, amount AS paid_out
        FROM ledger.transfer WHERE id > v_sweep.through AND id <= v_to
        UNION ALL
        SELECT credit, kind, (at AT TIME ZONE 'UTC')::date, amount, 0
        FROM ledger.transfer WHERE id > v_sweep.through AND id <= v_to
    ), days AS (
        INSERT INTO ledger.day AS d (account_id, day, kind, paid_in, paid_out, transfers)
        SELECT account_id, day, kind, sum(paid_in), sum(paid_out), count(*)
        FROM leg GROUP BY account_id, day, kind
        ON CONFLICT (account_id, day, kind) DO UPDATE SET
            paid_in = d.paid_in + excluded.paid_in, paid_out = d.paid_out + excluded.paid_out,
            transfers = d.transfers + excluded.transfers
    ), folded AS (
        UPDATE ledger.account a SET balance = a.balance + l.delta
        FROM (SELECT account_id, sum(paid_in - paid_out) AS delta FROM leg GROUP BY account_id) l
        WHERE a.id = l.account_id AND NOT a.spendable
    )
    SELECT count(*) / 2 INTO v_folded FROM leg;
    UPDATE ledger.sweep SET through = v_to;
    IF v_to = v_sweep.bound THEN
        UPDATE ledger.sweep SET horizon = '0', bound = greatest(
            v_to, (SELECT last_value FROM ledger.transfer_id_seq WHERE is_called)
        );
    END IF;
    RETURN v_folded;
END $$;

-- Every leg of every transfer, signed as its account sees it.
CREATE VIEW ledger.leg AS
    SELECT id, kind, ref, seq, asset, at, debit AS account_id, -amount AS delta,
        debit_after AS after, debit_version AS version FROM ledger.transfer
    UNION ALL
    SELECT id, kind, ref, seq, asset, at, credit, amount, credit_after, credit_version
    FROM ledger.transfer;

-- The legs that are not folded yet. They are the newest, so they are always read by their ids,
-- whatever the planner guesses about how many there are.
CREATE FUNCTION ledger.unfolded() RETURNS SETOF ledger.leg
LANGUAGE sql STABLE ROWS 1000 SET search_path = ledger, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT l.* FROM ledger.sweep s JOIN ledger.leg l ON l.id > s.through
$$;

-- What accounts have: spendable ones say it, others have what is folded and what came since.
CREATE VIEW ledger.balance AS
    SELECT a.id, a.owner, a.job_id, a.kind, a.asset,
        (a.balance + CASE WHEN a.spendable THEN 0 ELSE coalesce(u.delta, 0) END)::bigint AS balance
    FROM ledger.account a
    LEFT JOIN (
        SELECT account_id, sum(delta) AS delta FROM ledger.unfolded() GROUP BY account_id
    ) u ON u.account_id = a.id;

-- The chains of what was there before.
UPDATE ledger.account a SET version = c.legs, head = c.head
FROM (
    SELECT account_id, count(*) AS legs, ledger.chain(
        decode(repeat('00', 32), 'hex'), ledger.link(kind, ref, seq, delta, after) ORDER BY id
    ) AS head
    FROM ledger.leg WHERE version IS NOT NULL GROUP BY account_id
) c
WHERE a.id = c.account_id AND a.spendable;

-- The ledger's promises, each as the rows that break it. No row: all hold.
CREATE VIEW ledger.broken AS
    SELECT 'sum of all balances is zero' AS invariant, asset || ' ' || sum(balance) AS what
    FROM ledger.balance GROUP BY asset HAVING sum(balance) <> 0
    UNION ALL
    SELECT 'only issued money is below zero', 'account ' || id || ' ' || balance
    FROM ledger.balance WHERE balance < 0 AND kind NOT IN ('issued', 'chain')
    UNION ALL
    SELECT 'a balance is the sum of its transfers', 'account ' || b.id
    FROM ledger.balance b
    LEFT JOIN (SELECT account_id, sum(delta) AS delta FROM ledger.leg GROUP BY account_id) l
        ON l.account_id = b.id
    WHERE b.balance <> coalesce(l.delta, 0)
    UNION ALL
    SELECT 'a spendable account counts and chains its transfers', 'account ' || a.id
    FROM ledger.account a
    LEFT JOIN (
        SELECT account_id, count(*) AS legs, bool_and(version = n AND after = sum) AS in_order,
            ledger.chain(
                decode(repeat('00', 32), 'hex'), ledger.link(kind, ref, seq, delta, after) ORDER BY n
            ) AS head
        FROM (
            SELECT l.*, row_number() OVER w AS n, sum(delta) OVER w AS sum
            FROM ledger.leg l JOIN ledger.account x ON x.id = l.account_id AND x.spendable
            WINDOW w AS (PARTITION BY account_id ORDER BY l.id)
        ) l GROUP BY account_id
    ) c ON c.account_id = a.id
    WHERE a.spendable AND (
        a.version <> coalesce(c.legs, 0) OR NOT coalesce(c.in_order, true)
        OR a.head <> coalesce(c.head, decode(repeat('00', 32), 'hex'))
    )
    UNION ALL
    SELECT 'a transfer stays within one asset', 'transfer ' || t.id
    FROM ledger.transfer t
    LEFT JOIN ledger.account d ON d.id = t.debit AND d.asset = t.asset
    LEFT JOIN ledger.account c ON c.id = t.credit AND c.asset = t.asset
    WHERE d.id IS NULL OR c.id IS NULL
    UNION ALL
    SELECT 'an escrow account holds what its job and tasks have left', 'job ' || j.job_id
    FROM ledger.job_escrow j
    JOIN ledger.balance b ON b.id = j.account_id
    LEFT JOIN (
        SELECT job_id, sum(locked) AS locked, sum(restored) AS restored,
            sum(released + fee + referee + refunded) AS spent
        FROM ledger.escrow GROUP BY job_id
    ) e ON e.job_id = j.job_id
    WHERE j.allotted <> coalesce(e.locked - e.restored, 0)
        OR b.balance <> j.funded + coalesce(e.restored, 0) - j.returned - coalesce(e.spent, 0)
    UNION ALL
    SELECT 'a task has released what its attempts earned', 'task ' || e.task_id
    FROM ledger.escrow e
    LEFT JOIN (
        SELECT task_id, sum(amount - taken) AS amount, sum(fee - fee_taken) AS fee
        FROM ledger.earning GROUP BY task_id
    ) g USING (task_id)
    WHERE e.released <> coalesce(g.amount, 0) OR e.fee <> coalesce(g.fee, 0)
    UNION ALL
    SELECT 'a task was charged for its referee runs', 'task ' || e.task_id
    FROM ledger.escrow e
    LEFT JOIN (SELECT task_id, sum(amount) AS amount FROM ledger.referee_charge GROUP BY task_id) c
        USING (task_id)
    WHERE e.referee <> coalesce(c.amount, 0)
    UNION ALL
    SELECT 'a task has frozen what its open disputes contest', 'task ' || e.task_id
    FROM ledger.escrow e
    LEFT JOIN (
        SELECT task_id, sum(amount) AS amount FROM ledger.freeze WHERE state = 'open' GROUP BY task_id
    ) f USING (task_id)
    WHERE e.frozen <> coalesce(f.amount, 0)
    UNION ALL
    SELECT 'an earning is frozen while its dispute is open', 'earning ' || g.id
    FROM ledger.earning g
    WHERE (g.state = 'frozen') <> EXISTS (
        SELECT FROM ledger.freeze f WHERE f.earning_id = g.id AND f.state = 'open'
    )
    UNION ALL
    SELECT 'a held account holds the held earnings', 'owner ' || b.owner || ' ' || b.asset
    FROM ledger.balance b
    LEFT JOIN (
        SELECT owner, asset, sum(amount - taken) AS amount
        FROM ledger.earning WHERE state IN ('held', 'frozen') GROUP BY owner, asset
    ) g USING (owner, asset)
    WHERE b.kind = 'held' AND b.balance <> coalesce(g.amount, 0)
    UNION ALL
    SELECT 'a reserved account holds the open withdrawals', 'owner ' || b.owner
    FROM ledger.balance b
    LEFT JOIN (
        SELECT owner, sum(amount) AS amount FROM ledger.withdrawal WHERE state = 'reserved' GROUP BY owner
    ) w USING (owner)
    WHERE b.kind = 'reserved' AND b.balance <> coalesce(w.amount, 0)
    UNION ALL
    SELECT 'suspense holds the deposits without owner', 'account ' || b.id
    FROM ledger.balance b
    WHERE b.kind = 'suspense'
        AND b.balance <> (SELECT coalesce(sum(amount), 0) FROM ledger.deposit WHERE owner IS NULL)
    UNION ALL
    SELECT 'the days add up to what is folded', 'account ' || coalesce(d.account_id, l.account_id)
    FROM (SELECT account_id, sum(paid_in - paid_out) AS delta, sum(transfers) AS legs
        FROM ledger.day GROUP BY account_id) d
    FULL JOIN (
        SELECT account_id, sum(delta) AS delta, count(*) AS legs
        FROM ledger.leg, ledger.sweep WHERE id <= through GROUP BY account_id
    ) l USING (account_id)
    WHERE (d.delta, d.legs) IS DISTINCT FROM (l.delta, l.legs);

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO gstd_app;
GRANT EXECUTE ON FUNCTION
    ledger.grant_test_credits, ledger.fund_jobs, ledger.allot, ledger.settle, ledger.charge_referee,
    ledger.refund_tasks, ledger.refund_unmade, ledger.vest_due, ledger.reverse_earnings, ledger.forfeit,
    ledger.restitute, ledger.freeze_money, ledger.unfreeze_money, ledger.rule, ledger.deposit_funds,
    ledger.assign_deposits, ledger.reserve_withdrawals, ledger.end_withdrawals,
    ledger.propose_correction, ledger.decide_correction, ledger.fold, ledger.unfolded,
    ledger.link, ledger.chain_step, ledger.chain
    TO gstd_app;
