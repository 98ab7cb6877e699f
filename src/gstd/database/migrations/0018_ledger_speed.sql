-- The same promises for less work. A check constraint is read and compiled anew by every statement
-- that writes its table, and every index is opened by it; a balance moves far more often than an
-- account is made.

-- What an account is, is said when it is made and never changes.
CREATE FUNCTION ledger.define_account() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    v_broken text := CASE
        WHEN (NEW.owner IS NULL) <> (NEW.kind IN (
            'fee', 'referee', 'restitution', 'suspense', 'issued', 'chain'
        )) THEN 'account_platform'
        WHEN (NEW.job_id IS NULL) <> (NEW.kind <> 'escrow') THEN 'account_of_job'
        WHEN NEW.kind = 'issued' AND NEW.asset <> 'TEST' THEN 'account_test_asset'
        WHEN NEW.kind IN ('chain', 'reserved', 'suspense') AND NEW.asset <> 'GSTD'
            THEN 'account_real_asset'
    END;
BEGIN
    IF v_broken IS NOT NULL THEN
        RAISE EXCEPTION 'no account can be like that: %', v_broken
            USING ERRCODE = 'check_violation', CONSTRAINT = v_broken;
    END IF;
    NEW.spendable := NEW.kind IN ('available', 'restitution');
    RETURN NEW;
END $$;
CREATE FUNCTION ledger.forbid_redefinition() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'what an account is never changes';
END $$;

ALTER TABLE ledger.account ALTER COLUMN spendable DROP EXPRESSION;
ALTER TABLE ledger.account
    DROP CONSTRAINT account_platform, DROP CONSTRAINT account_of_job,
    DROP CONSTRAINT account_test_asset, DROP CONSTRAINT account_real_asset,
    DROP CONSTRAINT account_not_overdrawn,
    ADD CONSTRAINT account_not_overdrawn CHECK (balance >= 0 OR NOT spendable),
    DROP CONSTRAINT account_id_asset_key; -- the foreign keys that needed it are gone
DROP INDEX ledger.account_owner; -- the unique key begins with the owner too
CREATE TRIGGER account_is_defined BEFORE INSERT ON ledger.account
    FOR EACH ROW EXECUTE FUNCTION ledger.define_account();
-- Per statement: a trigger per row would lock each row once more before it is changed.
CREATE TRIGGER account_is_final BEFORE UPDATE OF id, owner, kind, asset, job_id, spendable
    ON ledger.account FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid_redefinition();
-- As constraints do, they also hold where a session has switched triggers off.
ALTER TABLE ledger.account
    ENABLE ALWAYS TRIGGER account_is_defined, ENABLE ALWAYS TRIGGER account_is_final;
REVOKE ALL ON FUNCTION ledger.define_account, ledger.forbid_redefinition FROM PUBLIC;

-- Ids hardly compress.
ALTER TABLE public.event_outbox ALTER COLUMN transfers SET STORAGE EXTERNAL;

-- Stable as the text of an enum is, and so it is inlined.
ALTER FUNCTION ledger.link(ledger.transfer_kind, uuid, smallint, bigint, bigint) STABLE;

-- Posts movements: locks the accounts that keep a balance, writes the rows with both balances
-- after, and moves balances, versions and heads. A balance below zero raises a check violation.
-- The transaction has its number before its transfers have theirs; `sweep` relies on it.
CREATE OR REPLACE FUNCTION ledger.post(p_postings ledger.posting[], p_at timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_ids bigint[];
    v_one ledger.posting;
    v_account bigint;
    v_delta bigint;
    v_after bigint;
    v_version bigint;
    v_debit_after bigint;
    v_debit_version bigint;
    v_credit_after bigint;
    v_credit_version bigint;
BEGIN
    IF coalesce(cardinality(p_postings), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM pg_current_xact_id();
    IF cardinality(p_postings) = 1 THEN -- the same as below, one row at a time
        v_one := p_postings[1];
        FOREACH v_account IN ARRAY ARRAY[
            least(v_one.debit, v_one.credit), greatest(v_one.debit, v_one.credit)
        ] LOOP
            v_delta := CASE WHEN v_account = v_one.debit THEN -v_one.amount ELSE v_one.amount END;
            UPDATE ledger.account a SET
                balance = a.balance + v_delta, version = a.version + 1,
                head = sha256(a.head || ledger.link(
                    v_one.kind, v_one.ref, v_one.seq, v_delta, a.balance + v_delta
                ))
            WHERE a.id = v_account AND a.asset = v_one.asset AND a.spendable
            RETURNING a.balance, a.version INTO v_after, v_version;
            IF NOT FOUND THEN
                ASSERT EXISTS (
                    SELECT FROM ledger.account a WHERE a.id = v_account AND a.asset = v_one.asset
                ), 'every posting becomes one transfer';
            ELSIF v_account = v_one.debit THEN
                v_debit_after := v_after;
                v_debit_version := v_version;
            ELSE
                v_credit_after := v_after;
                v_credit_version := v_version;
            END IF;
        END LOOP;
        INSERT INTO ledger.transfer (
            kind, ref, seq, asset, debit, credit, amount,
            debit_after, credit_after, debit_version, credit_version, at
        ) VALUES (
            v_one.kind, v_one.ref, v_one.seq, v_one.asset, v_one.debit, v_one.credit, v_one.amount,
            v_debit_after, v_credit_after, v_debit_version, v_credit_version, p_at
        ) RETURNING ARRAY[id] INTO v_ids;
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
