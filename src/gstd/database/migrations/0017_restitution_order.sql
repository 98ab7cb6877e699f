-- Restitution takes its locks in one order; promises hold without an account, too.

-- Fills the escrow of tasks from restitution, in the given order and as far as it reaches.
-- Returns what each got; a claim that was answered before gets the same answer. The funds of all
-- assets are locked by id before the first claim: calls that name them in another order never wait
-- for each other in a circle. A claim below zero is refused, and all of its call with it.
CREATE OR REPLACE FUNCTION ledger.restitute(
    p_refs uuid[], p_tasks uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS TABLE (ref uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
    v_fund record;
    v_assets ledger.asset[];
BEGIN
    FOR v_item IN SELECT i.ref, i.amount FROM unnest(p_refs, p_amounts) AS i (ref, amount) LOOP
        IF v_item.amount IS NULL OR v_item.amount < 0 THEN
            RAISE EXCEPTION 'claim % asks for % nano, which is no amount', v_item.ref, v_item.amount
                USING ERRCODE = 'check_violation';
        END IF;
    END LOOP;
    PERFORM 1 FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ORDER BY e.task_id FOR NO KEY UPDATE;
    SELECT array_agg(DISTINCT j.asset) INTO v_assets
    FROM ledger.escrow e JOIN ledger.job_escrow j USING (job_id) WHERE e.task_id = ANY (p_tasks);
    PERFORM ledger.open_accounts(
        array_agg(NULL::uuid), array_agg('restitution'::ledger.account_kind), array_agg(asset)
    ) FROM unnest(v_assets) AS a (asset);
    PERFORM 1 FROM ledger.account a
    WHERE a.owner IS NULL AND a.kind = 'restitution' AND a.asset = ANY (v_assets)
    ORDER BY a.id FOR NO KEY UPDATE;
    FOR v_item IN
        SELECT i.ref, i.task_id, i.amount, j.asset, j.account_id
        FROM unnest(p_refs, p_tasks, p_amounts) WITH ORDINALITY AS i (ref, task_id, amount, n)
        JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id) ORDER BY i.n
    LOOP
        ref := v_item.ref;
        SELECT t.amount INTO amount FROM ledger.transfer t
        WHERE t.kind = 'restitution' AND t.ref = v_item.ref AND t.seq = 0;
        IF NOT FOUND THEN
            SELECT a.id, a.balance INTO STRICT v_fund FROM ledger.account a
            WHERE a.owner IS NULL AND a.kind = 'restitution' AND a.asset = v_item.asset;
            amount := least(v_item.amount, v_fund.balance);
            IF amount > 0 THEN
                UPDATE ledger.escrow e SET locked = e.locked + amount, restored = e.restored + amount
                WHERE e.task_id = v_item.task_id;
                PERFORM ledger.post(ARRAY[ROW(
                    'restitution', v_item.ref, 0, v_item.asset, v_fund.id, v_item.account_id, amount
                )::ledger.posting], p_at);
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- The ledger's promises as in 0011, but an account that is missing no longer hides what it should
-- hold: held earnings, open withdrawals and deposits without owner are compared with no account as
-- with an empty one, and so is an escrow account without its job.
CREATE OR REPLACE VIEW ledger.broken AS
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
    SELECT 'an escrow account holds what its job and tasks have left', 'job ' || coalesce(j.job_id, b.job_id)
    FROM ledger.job_escrow j
    FULL JOIN (SELECT id, job_id, balance FROM ledger.balance WHERE kind = 'escrow') b
        ON b.id = j.account_id
    LEFT JOIN (
        SELECT job_id, sum(locked) AS locked, sum(restored) AS restored,
            sum(released + fee + referee + refunded) AS spent
        FROM ledger.escrow GROUP BY job_id
    ) e ON e.job_id = j.job_id
    WHERE j.allotted <> coalesce(e.locked - e.restored, 0)
        OR coalesce(b.balance, 0)
            <> coalesce(j.funded + coalesce(e.restored, 0) - j.returned - coalesce(e.spent, 0), 0)
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
    SELECT 'a held account holds the held earnings', 'owner ' || owner || ' ' || asset
    FROM (SELECT owner, asset, balance FROM ledger.balance WHERE kind = 'held') b
    FULL JOIN (
        SELECT owner, asset, sum(amount - taken) AS amount
        FROM ledger.earning WHERE state IN ('held', 'frozen') GROUP BY owner, asset
    ) g USING (owner, asset)
    WHERE coalesce(b.balance, 0) <> coalesce(g.amount, 0)
    UNION ALL
    SELECT 'a reserved account holds the open withdrawals', 'owner ' || owner
    FROM (SELECT owner, balance FROM ledger.balance WHERE kind = 'reserved') b
    FULL JOIN (
        SELECT owner, sum(amount) AS amount FROM ledger.withdrawal WHERE state = 'reserved' GROUP BY owner
    ) w USING (owner)
    WHERE coalesce(b.balance, 0) <> coalesce(w.amount, 0)
    UNION ALL
    SELECT 'suspense holds the deposits without owner', 'difference ' || (b.balance - d.amount)
    FROM (SELECT coalesce(sum(balance), 0) AS balance FROM ledger.balance WHERE kind = 'suspense') b,
        (SELECT coalesce(sum(amount), 0) AS amount FROM ledger.deposit WHERE owner IS NULL) d
    WHERE b.balance <> d.amount
    UNION ALL
    SELECT 'the days add up to what is folded', 'account ' || coalesce(d.account_id, l.account_id)
    FROM (SELECT account_id, sum(paid_in - paid_out) AS delta, sum(transfers) AS legs
        FROM ledger.day GROUP BY account_id) d
    FULL JOIN (
        SELECT account_id, sum(delta) AS delta, count(*) AS legs
        FROM ledger.leg, ledger.sweep WHERE id <= through GROUP BY account_id
    ) l USING (account_id)
    WHERE (d.delta, d.legs) IS DISTINCT FROM (l.delta, l.legs);
