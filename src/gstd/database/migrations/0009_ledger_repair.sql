-- When something was wrong: reverse, forfeit, restitute, freeze, rule.

-- Takes money of earnings back into their tasks' escrow; tasks and earnings are locked.
CREATE FUNCTION ledger.take_back(
    p_earnings uuid[], p_amounts bigint[], p_fees bigint[], p_at timestamptz
) RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
BEGIN
    UPDATE ledger.escrow e SET released = e.released - b.amount, fee = e.fee - b.fee
    FROM (
        SELECT g.task_id, sum(i.amount) AS amount, sum(i.fee) AS fee
        FROM unnest(p_earnings, p_amounts, p_fees) AS i (id, amount, fee)
        JOIN ledger.earning g USING (id) GROUP BY g.task_id
    ) b
    WHERE e.task_id = b.task_id;
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'reverse', g.id, 2 * g.reversals + m.part, g.asset,
            ledger.account_id(m.owner, m.kind, g.asset), j.account_id, m.amount
        )::ledger.posting ORDER BY g.id, m.part)
        FROM unnest(p_earnings, p_amounts, p_fees) AS i (id, amount, fee)
        JOIN ledger.earning g USING (id)
        JOIN ledger.escrow e USING (task_id)
        JOIN ledger.job_escrow j USING (job_id)
        CROSS JOIN LATERAL (VALUES
            (0, g.owner, 'held'::ledger.account_kind, i.amount), (1, NULL, 'fee', i.fee)
        ) AS m (part, owner, kind, amount)
        WHERE m.amount > 0
    ), p_at);
    UPDATE ledger.earning g SET
        taken = g.taken + i.amount, fee_taken = g.fee_taken + i.fee, reversals = g.reversals + 1
    FROM unnest(p_earnings, p_amounts, p_fees) AS i (id, amount, fee)
    WHERE g.id = i.id;
END $$;

-- Held earnings of results that were found wrong: the gross goes back to the tasks, which can pay
-- another attempt with it. Earnings that are not held any more are left alone.
CREATE FUNCTION ledger.reverse_earnings(p_earnings uuid[], p_at timestamptz)
RETURNS TABLE (earning_id uuid, task_id uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_held uuid[];
    v_amounts bigint[];
    v_fees bigint[];
BEGIN
    PERFORM 1 FROM ledger.escrow e
    WHERE e.task_id IN (SELECT g.task_id FROM ledger.earning g WHERE g.id = ANY (p_earnings))
    ORDER BY e.task_id FOR NO KEY UPDATE;
    PERFORM 1 FROM ledger.earning g WHERE g.id = ANY (p_earnings) ORDER BY g.id FOR NO KEY UPDATE;
    SELECT array_agg(g.id), array_agg(g.amount - g.taken), array_agg(g.fee - g.fee_taken)
    INTO v_held, v_amounts, v_fees
    FROM ledger.earning g WHERE g.id = ANY (p_earnings) AND g.state = 'held';
    IF v_held IS NULL THEN
        RETURN;
    END IF;
    PERFORM ledger.take_back(v_held, v_amounts, v_fees, p_at);
    UPDATE ledger.earning g SET state = 'reversed', kept = false WHERE g.id = ANY (v_held);
    RETURN QUERY
        SELECT i.id, g.task_id, i.amount + i.fee
        FROM unnest(v_held, v_amounts, v_fees) AS i (id, amount, fee)
        JOIN ledger.earning g ON g.id = i.id;
END $$;

-- The holdback of devices that were proved to cheat: everything they hold goes to restitution.
CREATE FUNCTION ledger.forfeit(p_devices uuid[], p_at timestamptz)
RETURNS TABLE (earning_id uuid, owner uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_held uuid[];
BEGIN
    SELECT array_agg(h.id) INTO v_held FROM (
        SELECT g.id FROM ledger.earning g WHERE g.device_id = ANY (p_devices) AND g.state = 'held'
        ORDER BY g.id FOR NO KEY UPDATE
    ) h;
    IF v_held IS NULL THEN
        RETURN;
    END IF;
    UPDATE ledger.earning g SET state = 'forfeited', kept = false WHERE g.id = ANY (v_held);
    PERFORM ledger.open_accounts(
        array_agg(NULL::uuid), array_agg('restitution'::ledger.account_kind), array_agg(g.asset)
    ) FROM ledger.earning g WHERE g.id = ANY (v_held);
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'forfeit', g.id, 0, g.asset, ledger.account_id(g.owner, 'held', g.asset),
            ledger.account_id(NULL, 'restitution', g.asset), g.amount - g.taken
        )::ledger.posting ORDER BY g.id)
        FROM ledger.earning g WHERE g.id = ANY (v_held)
    ), p_at);
    RETURN QUERY
        SELECT g.id, g.owner, g.amount - g.taken FROM ledger.earning g WHERE g.id = ANY (v_held);
END $$;

-- Fills the escrow of tasks from restitution, in the given order and as far as it reaches.
-- Returns what each got; a claim that was answered before gets the same answer.
CREATE FUNCTION ledger.restitute(
    p_refs uuid[], p_tasks uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS TABLE (ref uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
    v_account bigint;
    v_fund record;
BEGIN
    PERFORM 1 FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ORDER BY e.task_id FOR NO KEY UPDATE;
    FOR v_item IN
        SELECT i.ref, i.task_id, i.amount, j.asset, j.account_id
        FROM unnest(p_refs, p_tasks, p_amounts) WITH ORDINALITY AS i (ref, task_id, amount, n)
        JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id) ORDER BY i.n
    LOOP
        ref := v_item.ref;
        SELECT t.amount INTO amount FROM ledger.transfer t
        WHERE t.kind = 'restitution' AND t.ref = v_item.ref AND t.seq = 0;
        IF NOT FOUND THEN
            v_account := ledger.opened_account(NULL, 'restitution', v_item.asset);
            SELECT a.id, a.balance INTO STRICT v_fund FROM ledger.account a
            WHERE a.id = v_account FOR NO KEY UPDATE;
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

-- Freezes what disputes are about: an earning (p_earnings) or a part of a task's escrow, fee
-- included (p_amounts). Nothing moves. Outcome per dispute: frozen, replayed, contested (another
-- open dispute about the attempt), vested (no longer held), short (the escrow has less), unknown.
CREATE FUNCTION ledger.freeze_money(
    p_disputes uuid[], p_tasks uuid[], p_attempts uuid[], p_earnings uuid[], p_amounts bigint[],
    p_at timestamptz
) RETURNS TABLE (dispute_id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
BEGIN
    PERFORM 1 FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ORDER BY e.task_id FOR NO KEY UPDATE;
    PERFORM 1 FROM ledger.earning g WHERE g.id = ANY (p_earnings) ORDER BY g.id FOR NO KEY UPDATE;
    FOR v_item IN
        SELECT * FROM unnest(p_disputes, p_tasks, p_attempts, p_earnings, p_amounts)
            AS i (dispute, task, attempt, earning, amount)
    LOOP
        dispute_id := v_item.dispute;
        IF EXISTS (SELECT FROM ledger.freeze f WHERE f.dispute_id = v_item.dispute) THEN
            outcome := 'replayed';
        ELSIF NOT EXISTS (SELECT FROM ledger.escrow e WHERE e.task_id = v_item.task) THEN
            outcome := 'unknown';
        ELSIF EXISTS (
            SELECT FROM ledger.freeze f WHERE f.attempt_id = v_item.attempt AND f.state = 'open'
        ) THEN
            outcome := 'contested';
        ELSIF v_item.earning IS NOT NULL THEN
            UPDATE ledger.earning g SET state = 'frozen'
            WHERE g.id = v_item.earning AND g.task_id = v_item.task
                AND g.attempt_id = v_item.attempt AND g.state = 'held';
            outcome := CASE WHEN FOUND THEN 'frozen' WHEN EXISTS (
                SELECT FROM ledger.earning g WHERE g.id = v_item.earning AND g.task_id = v_item.task
                    AND g.attempt_id = v_item.attempt
            ) THEN 'vested' ELSE 'unknown' END;
        ELSE
            UPDATE ledger.escrow e SET frozen = e.frozen + v_item.amount
            WHERE e.task_id = v_item.task AND v_item.amount <=
                e.locked - e.released - e.fee - e.referee - e.refunded - e.frozen;
            outcome := CASE WHEN FOUND THEN 'frozen' ELSE 'short' END;
        END IF;
        IF outcome = 'frozen' THEN
            INSERT INTO ledger.freeze (dispute_id, task_id, attempt_id, earning_id, amount, opened_at)
            VALUES (v_item.dispute, v_item.task, v_item.attempt, v_item.earning, v_item.amount, p_at);
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Locks what disputes have frozen, in the one order.
CREATE FUNCTION ledger.lock_frozen(p_disputes uuid[])
RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
BEGIN
    PERFORM 1 FROM ledger.escrow e
    WHERE e.task_id IN (SELECT f.task_id FROM ledger.freeze f WHERE f.dispute_id = ANY (p_disputes))
    ORDER BY e.task_id FOR NO KEY UPDATE;
    PERFORM 1 FROM ledger.earning g
    WHERE g.id IN (SELECT f.earning_id FROM ledger.freeze f WHERE f.dispute_id = ANY (p_disputes))
    ORDER BY g.id FOR NO KEY UPDATE;
END $$;

-- Disputes that end without a ruling: an earning is held again, escrow is free again.
-- Returns the disputes that were open.
CREATE FUNCTION ledger.unfreeze_money(p_disputes uuid[], p_at timestamptz)
RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_open uuid[];
BEGIN
    PERFORM ledger.lock_frozen(p_disputes);
    WITH closed AS (
        UPDATE ledger.freeze f SET state = 'withdrawn', closed_at = p_at
        WHERE f.dispute_id = ANY (p_disputes) AND f.state = 'open' RETURNING f.dispute_id
    )
    SELECT array_agg(dispute_id) INTO v_open FROM closed;
    UPDATE ledger.earning g SET state = 'held'
    FROM ledger.freeze f WHERE f.dispute_id = ANY (v_open) AND g.id = f.earning_id;
    UPDATE ledger.escrow e SET frozen = e.frozen - f.amount
    FROM (
        SELECT task_id, sum(amount) AS amount FROM ledger.freeze
        WHERE dispute_id = ANY (v_open) GROUP BY task_id
    ) f
    WHERE e.task_id = f.task_id;
    RETURN QUERY SELECT unnest(v_open);
END $$;

-- Rules disputes: of what is contested, p_awards go to the worker and p_fees to the platform, the
-- rest to the requester. A contested earning is cut down to its award; contested escrow becomes an
-- earning of its own, for p_owners and p_devices. Both vest at the next sweep: a ruling is final.
-- Outcome per dispute: ruled, replayed, excessive (more than is contested), withdrawn, unknown.
CREATE FUNCTION ledger.rule(
    p_disputes uuid[], p_awards bigint[], p_fees bigint[], p_owners uuid[], p_devices uuid[],
    p_at timestamptz
) RETURNS TABLE (dispute_id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
    v_freeze ledger.freeze;
    v_contested bigint;
    -- A dispute that appears later is not locked, and so unknown.
    v_known uuid[] := ARRAY(SELECT f.dispute_id FROM ledger.freeze f WHERE f.dispute_id = ANY (p_disputes));
BEGIN
    PERFORM ledger.lock_frozen(v_known);
    PERFORM 1 FROM ledger.account a
    WHERE a.kind = 'available' AND (a.owner, a.asset) IN (
        SELECT j.owner, j.asset FROM ledger.freeze f
        JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
        WHERE f.dispute_id = ANY (v_known)
    )
    ORDER BY a.id FOR NO KEY UPDATE;
    FOR v_item IN
        SELECT * FROM unnest(p_disputes, p_awards, p_fees, p_owners, p_devices)
            AS i (dispute, award, fee, owner, device)
    LOOP
        dispute_id := v_item.dispute;
        SELECT * INTO v_freeze FROM ledger.freeze f WHERE f.dispute_id = v_item.dispute;
        SELECT CASE WHEN g.id IS NULL THEN v_freeze.amount
            ELSE g.amount - g.taken + g.fee - g.fee_taken END
        INTO v_contested FROM (SELECT v_freeze.earning_id AS id) c LEFT JOIN ledger.earning g USING (id);
        IF v_item.dispute <> ALL (v_known) THEN
            outcome := 'unknown';
        ELSIF v_freeze.state <> 'open' THEN
            outcome := CASE v_freeze.state WHEN 'ruled' THEN 'replayed' ELSE v_freeze.state END;
        ELSIF v_freeze.earning_id IS NOT NULL THEN
            outcome := ledger.rule_earning(v_freeze, v_item.award, v_item.fee, p_at);
        ELSE
            outcome := ledger.rule_escrow(
                v_freeze, v_item.award, v_item.fee, v_item.owner, v_item.device, p_at
            );
        END IF;
        IF outcome = 'ruled' THEN
            UPDATE ledger.freeze f SET state = 'ruled', closed_at = p_at,
                award = v_item.award, award_fee = v_item.fee
            WHERE f.dispute_id = v_item.dispute;
            PERFORM ledger.give_back(
                ARRAY[v_freeze.task_id], v_contested - v_item.award - v_item.fee, p_at
            );
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

CREATE FUNCTION ledger.rule_earning(
    p_freeze ledger.freeze, p_award bigint, p_fee bigint, p_at timestamptz
) RETURNS text LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_earning ledger.earning;
BEGIN
    SELECT * INTO STRICT v_earning FROM ledger.earning WHERE id = p_freeze.earning_id;
    IF p_award > v_earning.amount - v_earning.taken OR p_fee > v_earning.fee - v_earning.fee_taken
        OR (p_award = 0 AND p_fee > 0)
    THEN
        RETURN 'excessive';
    END IF;
    PERFORM ledger.take_back(
        ARRAY[v_earning.id], ARRAY[v_earning.amount - v_earning.taken - p_award],
        ARRAY[v_earning.fee - v_earning.fee_taken - p_fee], p_at
    );
    UPDATE ledger.earning SET
        state = CASE WHEN p_award > 0 THEN 'held' ELSE 'reversed' END, kept = false, due_at = p_at
    WHERE id = v_earning.id;
    RETURN 'ruled';
END $$;

CREATE FUNCTION ledger.rule_escrow(
    p_freeze ledger.freeze, p_award bigint, p_fee bigint, p_owner uuid, p_device uuid,
    p_at timestamptz
) RETURNS text LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
BEGIN
    IF p_award + p_fee > p_freeze.amount OR (p_award = 0 AND p_fee > 0) THEN
        RETURN 'excessive';
    END IF;
    UPDATE ledger.escrow SET frozen = frozen - p_freeze.amount WHERE task_id = p_freeze.task_id;
    IF p_award > 0 THEN
        INSERT INTO ledger.earning (
            id, attempt_id, task_id, owner, device_id, asset, amount, fee, held_at, final_at, due_at
        )
        SELECT p_freeze.dispute_id, p_freeze.attempt_id, p_freeze.task_id, p_owner, p_device, j.asset,
            p_award, p_fee, p_at, p_at, p_at
        FROM ledger.escrow e JOIN ledger.job_escrow j USING (job_id)
        WHERE e.task_id = p_freeze.task_id;
        PERFORM ledger.pay_earnings(ARRAY[p_freeze.dispute_id], p_at);
    END IF;
    RETURN 'ruled';
END $$;
