-- Where money enters and leaves, and how two admins mend a mistake.

-- Books what arrived from the chain; without an owner it waits in suspense. Returns what is new.
CREATE FUNCTION ledger.deposit_funds(
    p_deposits uuid[], p_owners uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_new uuid[];
BEGIN
    WITH new AS (
        INSERT INTO ledger.deposit (id, owner, amount, at)
        SELECT id, owner, amount, p_at FROM unnest(p_deposits, p_owners, p_amounts) AS d (id, owner, amount)
        ORDER BY id ON CONFLICT (id) DO NOTHING RETURNING id
    )
    SELECT array_agg(id) INTO v_new FROM new;
    PERFORM ledger.open_accounts(array_agg(x.owner), array_agg(x.kind), array_agg('GSTD'::ledger.asset))
    FROM (
        SELECT owner, CASE WHEN owner IS NULL THEN 'suspense' ELSE 'available' END::ledger.account_kind AS kind
        FROM ledger.deposit WHERE id = ANY (v_new)
        UNION SELECT NULL, 'chain'
    ) x;
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'deposit', d.id, 0, 'GSTD', ledger.account_id(NULL, 'chain', 'GSTD'),
            CASE WHEN d.owner IS NULL THEN ledger.account_id(NULL, 'suspense', 'GSTD')
                ELSE ledger.account_id(d.owner, 'available', 'GSTD') END,
            d.amount
        )::ledger.posting ORDER BY d.id)
        FROM ledger.deposit d WHERE d.id = ANY (v_new)
    ), p_at);
    RETURN QUERY SELECT unnest(v_new);
END $$;

-- Gives deposits in suspense to their owners. Returns those that were given now.
CREATE FUNCTION ledger.assign_deposits(p_deposits uuid[], p_owners uuid[], p_at timestamptz)
RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_given uuid[];
BEGIN
    PERFORM 1 FROM ledger.deposit WHERE id = ANY (p_deposits) ORDER BY id FOR NO KEY UPDATE;
    WITH given AS (
        UPDATE ledger.deposit d SET owner = i.owner, assigned_at = p_at
        FROM unnest(p_deposits, p_owners) AS i (id, owner)
        WHERE d.id = i.id AND d.owner IS NULL AND i.owner IS NOT NULL RETURNING d.id
    )
    SELECT array_agg(id) INTO v_given FROM given;
    PERFORM ledger.open_accounts(
        array_agg(owner), array_agg('available'::ledger.account_kind), array_agg('GSTD'::ledger.asset)
    ) FROM ledger.deposit WHERE id = ANY (v_given);
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'assign', d.id, 0, 'GSTD', ledger.account_id(NULL, 'suspense', 'GSTD'),
            ledger.account_id(d.owner, 'available', 'GSTD'), d.amount
        )::ledger.posting ORDER BY d.id)
        FROM ledger.deposit d WHERE d.id = ANY (v_given)
    ), p_at);
    RETURN QUERY SELECT unnest(v_given);
END $$;

-- Sets money aside that is to leave for the chain, in the given order.
-- Outcome per withdrawal: reserved, replayed or insufficient.
CREATE FUNCTION ledger.reserve_withdrawals(
    p_withdrawals uuid[], p_owners uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS TABLE (withdrawal_id uuid, outcome text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
    v_available record;
BEGIN
    PERFORM ledger.open_accounts(array_agg(o.owner), array_agg(k.kind), array_agg('GSTD'::ledger.asset))
    FROM unnest(p_owners) AS o (owner)
    CROSS JOIN (VALUES ('available'::ledger.account_kind), ('reserved')) AS k (kind);
    PERFORM 1 FROM ledger.account
    WHERE owner = ANY (p_owners) AND kind = 'available' AND asset = 'GSTD'
    ORDER BY id FOR NO KEY UPDATE;
    FOR v_item IN
        SELECT * FROM unnest(p_withdrawals, p_owners, p_amounts) WITH ORDINALITY
            AS i (id, owner, amount, n) ORDER BY n
    LOOP
        withdrawal_id := v_item.id;
        SELECT a.id, a.balance INTO STRICT v_available FROM ledger.account a
        WHERE a.owner = v_item.owner AND a.kind = 'available' AND a.asset = 'GSTD';
        IF EXISTS (SELECT FROM ledger.withdrawal w WHERE w.id = v_item.id) THEN
            outcome := 'replayed';
        ELSIF v_available.balance < v_item.amount THEN
            outcome := 'insufficient';
        ELSE
            INSERT INTO ledger.withdrawal (id, owner, amount, reserved_at)
            VALUES (v_item.id, v_item.owner, v_item.amount, p_at);
            PERFORM ledger.post(ARRAY[ROW(
                'reserve', v_item.id, 0, 'GSTD', v_available.id,
                ledger.account_id(v_item.owner, 'reserved', 'GSTD'), v_item.amount
            )::ledger.posting], p_at);
            outcome := 'reserved';
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Ends withdrawals: confirmed ones have left for the chain, others come back.
-- Returns those that were reserved until now.
CREATE FUNCTION ledger.end_withdrawals(
    p_withdrawals uuid[], p_confirmed boolean, p_at timestamptz
) RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_ended uuid[];
BEGIN
    PERFORM 1 FROM ledger.withdrawal WHERE id = ANY (p_withdrawals) ORDER BY id FOR NO KEY UPDATE;
    WITH ended AS (
        UPDATE ledger.withdrawal SET ended_at = p_at,
            state = CASE WHEN p_confirmed THEN 'confirmed' ELSE 'returned' END
        WHERE id = ANY (p_withdrawals) AND state = 'reserved' RETURNING id
    )
    SELECT array_agg(id) INTO v_ended FROM ended;
    PERFORM ledger.opened_account(NULL, 'chain', 'GSTD');
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            (CASE WHEN p_confirmed THEN 'withdraw' ELSE 'return' END)::ledger.transfer_kind, w.id, 0,
            'GSTD', ledger.account_id(w.owner, 'reserved', 'GSTD'),
            CASE WHEN p_confirmed THEN ledger.account_id(NULL, 'chain', 'GSTD')
                ELSE ledger.account_id(w.owner, 'available', 'GSTD') END,
            w.amount
        )::ledger.posting ORDER BY w.id)
        FROM ledger.withdrawal w WHERE w.id = ANY (v_ended)
    ), p_at);
    RETURN QUERY SELECT unnest(v_ended);
END $$;

-- An admin's wish to mend a mistake; nothing moves. Only between accounts that nothing else counts
-- on. Outcome: proposed, replayed, or unknown (no such transfer to correct).
CREATE FUNCTION ledger.propose_correction(
    p_id uuid, p_debit_owner uuid, p_debit_kind ledger.account_kind, p_credit_owner uuid,
    p_credit_kind ledger.account_kind, p_asset ledger.asset, p_amount bigint, p_corrects bigint,
    p_reason text, p_by uuid, p_at timestamptz
) RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM ledger.correction WHERE id = p_id) THEN
        RETURN 'replayed';
    END IF;
    IF p_corrects IS NOT NULL AND NOT EXISTS (SELECT FROM ledger.transfer WHERE id = p_corrects) THEN
        RETURN 'unknown';
    END IF;
    IF NOT ARRAY[p_debit_kind, p_credit_kind]
        <@ ARRAY['available', 'fee', 'referee', 'restitution']::ledger.account_kind[]
    THEN
        RAISE EXCEPTION 'no correction between % and %', p_debit_kind, p_credit_kind
            USING ERRCODE = 'check_violation';
    END IF;
    INSERT INTO ledger.correction (
        id, debit, credit, asset, amount, corrects, reason, proposed_by, proposed_at
    ) VALUES (
        p_id, ledger.opened_account(p_debit_owner, p_debit_kind, p_asset),
        ledger.opened_account(p_credit_owner, p_credit_kind, p_asset),
        p_asset, p_amount, p_corrects, p_reason, p_by, p_at
    );
    RETURN 'proposed';
END $$;

-- The second admin's word. Outcome: applied, rejected, replayed, same_admin, insufficient or unknown.
CREATE FUNCTION ledger.decide_correction(p_id uuid, p_by uuid, p_apply boolean, p_at timestamptz)
RETURNS text LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_wish ledger.correction;
BEGIN
    SELECT * INTO v_wish FROM ledger.correction WHERE id = p_id FOR NO KEY UPDATE;
    PERFORM 1 FROM ledger.account WHERE id = v_wish.debit FOR NO KEY UPDATE;
    IF v_wish.id IS NULL THEN
        RETURN 'unknown';
    ELSIF v_wish.state <> 'proposed' THEN
        RETURN 'replayed';
    ELSIF p_apply AND v_wish.proposed_by = p_by THEN
        RETURN 'same_admin';
    ELSIF p_apply AND v_wish.amount > (SELECT b.balance FROM ledger.balance b WHERE b.id = v_wish.debit) - (
        -- Fees of earnings that are not vested may have to go back.
        SELECT coalesce(sum(g.fee - g.fee_taken), 0) FROM ledger.earning g
        JOIN ledger.account a ON a.id = v_wish.debit AND a.kind = 'fee' AND a.asset = g.asset
        WHERE g.state IN ('held', 'frozen')
    ) THEN
        RETURN 'insufficient';
    END IF;
    UPDATE ledger.correction SET decided_by = p_by, decided_at = p_at,
        state = CASE WHEN p_apply THEN 'applied' ELSE 'rejected' END
    WHERE id = p_id;
    IF NOT p_apply THEN
        RETURN 'rejected';
    END IF;
    PERFORM ledger.post(ARRAY[ROW(
        'correction', p_id, 0, v_wish.asset, v_wish.debit, v_wish.credit, v_wish.amount
    )::ledger.posting], p_at);
    RETURN 'applied';
END $$;
