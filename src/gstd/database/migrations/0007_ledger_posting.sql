-- Posting: the one place where transfers are written and balances move.

-- A movement that is to be posted.
CREATE TYPE ledger.posting AS (
    kind ledger.transfer_kind,
    ref uuid,
    seq smallint,
    asset ledger.asset,
    debit bigint,
    credit bigint,
    amount bigint
);

-- Transfers are announced in the outbox by their ids, one row per posting call.
ALTER TABLE public.event_outbox ADD COLUMN transfers bigint[];

CREATE FUNCTION ledger.account_id(
    p_owner uuid, p_kind ledger.account_kind, p_asset ledger.asset
) RETURNS bigint LANGUAGE sql STABLE SET search_path = ledger, pg_temp AS $$
    SELECT id FROM ledger.account
    WHERE owner = p_owner AND kind = p_kind AND asset = p_asset AND job_id IS NULL
    UNION ALL
    SELECT id FROM ledger.account
    WHERE p_owner IS NULL AND owner IS NULL AND kind = p_kind AND asset = p_asset AND job_id IS NULL
$$;

-- Makes sure that the accounts exist (escrow accounts are made with their job).
CREATE FUNCTION ledger.open_accounts(
    p_owners uuid[], p_kinds ledger.account_kind[], p_assets ledger.asset[]
) RETURNS void LANGUAGE sql SET search_path = ledger, pg_temp AS $$
    INSERT INTO ledger.account (owner, kind, asset)
    SELECT DISTINCT owner, kind, asset FROM unnest(p_owners, p_kinds, p_assets) AS a (owner, kind, asset)
    WHERE ledger.account_id(owner, kind, asset) IS NULL
    ORDER BY owner, kind, asset
    ON CONFLICT DO NOTHING
$$;

-- An account's id; it is made if it is missing.
CREATE FUNCTION ledger.opened_account(
    p_owner uuid, p_kind ledger.account_kind, p_asset ledger.asset
) RETURNS bigint LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
BEGIN
    PERFORM ledger.open_accounts(ARRAY[p_owner], ARRAY[p_kind], ARRAY[p_asset]);
    RETURN ledger.account_id(p_owner, p_kind, p_asset);
END $$;

-- What one movement adds to an account's chain: kind, ref, seq, signed amount, balance after.
CREATE FUNCTION ledger.link(
    p_kind ledger.transfer_kind, p_ref uuid, p_seq smallint, p_delta bigint, p_after bigint
) RETURNS bytea LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT convert_to(p_kind::text, 'UTF8') || uuid_send(p_ref) || int2send(p_seq)
        || int8send(p_delta) || int8send(p_after)
$$;
CREATE FUNCTION ledger.chain_step(p_state bytea, p_head bytea, p_link bytea)
RETURNS bytea LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
BEGIN
    RETURN sha256(coalesce(p_state, p_head) || p_link);
END $$;
CREATE AGGREGATE ledger.chain(p_head bytea, p_link bytea) (SFUNC = ledger.chain_step, STYPE = bytea);

-- Posts movements: locks the accounts that keep a balance, writes the rows with both balances
-- after, and moves balances, versions and heads. A balance below zero raises a check violation.
-- The transaction has its number before its transfers have theirs; `sweep` relies on it.
CREATE FUNCTION ledger.post(p_postings ledger.posting[], p_at timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_ids bigint[];
    v_one ledger.posting;
BEGIN
    IF coalesce(cardinality(p_postings), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM pg_current_xact_id();
    IF cardinality(p_postings) = 1 THEN -- the same as below, without what only many need
        v_one := p_postings[1];
        PERFORM 1 FROM ledger.account
        WHERE spendable AND id IN (v_one.debit, v_one.credit)
        ORDER BY id FOR NO KEY UPDATE;
        INSERT INTO ledger.transfer (
            kind, ref, seq, asset, debit, credit, amount,
            debit_after, credit_after, debit_version, credit_version, at
        )
        SELECT v_one.kind, v_one.ref, v_one.seq, v_one.asset, d.id, c.id, v_one.amount,
            CASE WHEN d.spendable THEN d.balance - v_one.amount END,
            CASE WHEN c.spendable THEN c.balance + v_one.amount END,
            CASE WHEN d.spendable THEN d.version + 1 END,
            CASE WHEN c.spendable THEN c.version + 1 END, p_at
        FROM ledger.account d, ledger.account c
        WHERE d.id = v_one.debit AND d.asset = v_one.asset
            AND c.id = v_one.credit AND c.asset = v_one.asset
        RETURNING ARRAY[id] INTO v_ids;
        ASSERT v_ids IS NOT NULL, 'every posting becomes one transfer';
        UPDATE ledger.account a SET
            balance = a.balance + l.delta, version = a.version + 1,
            head = ledger.chain_step(NULL, a.head, ledger.link(
                v_one.kind, v_one.ref, v_one.seq, l.delta, a.balance + l.delta
            ))
        FROM (VALUES (v_one.debit, -v_one.amount), (v_one.credit, v_one.amount)) AS l (id, delta)
        WHERE a.id = l.id AND a.spendable;
        INSERT INTO public.event_outbox (kind, at, accounts, data, transfers)
        VALUES ('transfers', p_at, '{}', '{}', v_ids);
        RETURN;
    END IF;
    PERFORM 1 FROM ledger.account
    WHERE spendable AND id IN (
        SELECT debit FROM unnest(p_postings) UNION SELECT credit FROM unnest(p_postings)
    )
    ORDER BY id FOR NO KEY UPDATE;

    -- Two legs per posting, side by side: nothing is joined back, so a plan made for few rows is
    -- as good for many.
    WITH leg AS MATERIALIZED (
        SELECT p.*, l.account_id, l.delta, l.is_credit, a.head, a.spendable,
            CASE WHEN a.spendable THEN (a.balance + sum(l.delta) OVER w)::bigint END AS balance,
            CASE WHEN a.spendable THEN a.version + row_number() OVER w END AS version
        FROM unnest(p_postings) WITH ORDINALITY
            AS p (kind, ref, seq, asset, debit, credit, amount, n)
        CROSS JOIN LATERAL (
            VALUES (p.debit, -p.amount, false), (p.credit, p.amount, true)
        ) AS l (account_id, delta, is_credit)
        JOIN ledger.account a ON a.id = l.account_id AND a.asset = p.asset
        WINDOW w AS (PARTITION BY l.account_id ORDER BY p.n)
    ), moved AS (
        UPDATE ledger.account a SET
            balance = a.balance + d.delta, version = a.version + d.legs, head = d.head
        FROM (
            SELECT account_id, sum(delta) AS delta, count(*) AS legs,
                ledger.chain(head, ledger.link(kind, ref, seq, delta, balance) ORDER BY n) AS head
            FROM leg WHERE spendable GROUP BY account_id
        ) d
        WHERE a.id = d.account_id
    ), posted AS (
        INSERT INTO ledger.transfer (
            kind, ref, seq, asset, debit, credit, amount,
            debit_after, credit_after, debit_version, credit_version, at
        )
        SELECT kind, ref, seq, asset, debit, credit, amount,
            balance, credit_after, version, credit_version, p_at
        FROM (
            SELECT leg.*, lead(n) OVER v AS credit_n, lead(balance) OVER v AS credit_after,
                lead(version) OVER v AS credit_version
            FROM leg WINDOW v AS (ORDER BY n, is_credit)
        ) pair
        WHERE NOT is_credit AND credit_n = n
        ORDER BY n
        RETURNING id
    )
    SELECT array_agg(id) INTO v_ids FROM posted;
    ASSERT cardinality(v_ids) = cardinality(p_postings), 'every posting becomes one transfer';
    INSERT INTO public.event_outbox (kind, at, accounts, data, transfers)
    VALUES ('transfers', p_at, '{}', '{}', v_ids);
END $$;
