-- The complete set of money movements. Tables of 0003 grow; every function of the ledger is made
-- anew here. Lock order inside every function: job_escrow, escrow, earning, account, each by id.

DROP VIEW ledger.broken, ledger.balance;
DROP FUNCTION ledger.grant_test_credits, ledger.fund_jobs, ledger.allot, ledger.settle,
    ledger.charge_referee, ledger.refund_tasks, ledger.refund_unmade, ledger.vest_due, ledger.post,
    ledger.account_id, ledger.open_accounts;
DROP TYPE ledger.posting;

-- Kinds of accounts and transfers: more of them.
ALTER TABLE ledger.account DROP COLUMN accrual;
ALTER TABLE ledger.account DROP CONSTRAINT account_check, DROP CONSTRAINT account_check1,
    DROP CONSTRAINT account_balance_check, DROP CONSTRAINT account_owner_kind_asset_key,
    ALTER COLUMN kind TYPE text;
ALTER TABLE ledger.transfer DISABLE TRIGGER transfer_is_final;
ALTER TABLE ledger.transfer DROP CONSTRAINT transfer_kind_ref_seq_key,
    DROP CONSTRAINT transfer_debit_asset_fkey, DROP CONSTRAINT transfer_credit_asset_fkey,
    ALTER COLUMN kind TYPE text;
DROP TYPE ledger.account_kind, ledger.transfer_kind;
CREATE TYPE ledger.account_kind AS ENUM (
    'available',   -- what an owner may spend
    'held',        -- what an owner has earned and not yet vested
    'escrow',      -- what one job has locked
    'reserved',    -- what an owner withdraws and the chain has not confirmed
    'fee',         -- what the platform has earned
    'referee',     -- what re-execution was paid
    'restitution', -- what repairs the cost of wrong results
    'suspense',    -- deposits whose owner is not known
    'issued',      -- where test credits come from: below zero
    'chain'        -- the platform's wallet on the chain, seen from here: below zero
);
CREATE TYPE ledger.transfer_kind AS ENUM (
    'grant', 'deposit', 'assign', 'fund', 'reward', 'fee', 'referee', 'refund', 'vest', 'reverse',
    'forfeit', 'share', 'restitution', 'reserve', 'withdraw', 'return', 'correction'
);

-- Spendable accounts keep their balance, count their movements and chain them: `head` is the
-- SHA-256 of the head before and of the movement. The others are append-only, so that many
-- transactions may move money through one of them without waiting for each other; their `balance`
-- is folded up to `ledger.sweep.through`.
ALTER TABLE ledger.account
    ALTER COLUMN kind TYPE ledger.account_kind USING kind::ledger.account_kind,
    ADD COLUMN job_id uuid,
    ADD COLUMN version bigint NOT NULL DEFAULT 0,
    ADD COLUMN head bytea NOT NULL DEFAULT decode(repeat('00', 32), 'hex');
ALTER TABLE ledger.account
    ADD COLUMN spendable boolean NOT NULL
        GENERATED ALWAYS AS (kind IN ('available', 'restitution')) STORED;
UPDATE ledger.account a SET owner = j.owner, job_id = j.job_id
    FROM ledger.job_escrow j WHERE j.account_id = a.id;
ALTER TABLE ledger.account
    ADD UNIQUE NULLS NOT DISTINCT (owner, kind, asset, job_id),
    ADD CONSTRAINT account_platform CHECK (
        (owner IS NULL) = (kind IN ('fee', 'referee', 'restitution', 'suspense', 'issued', 'chain'))
    ),
    ADD CONSTRAINT account_of_job CHECK ((job_id IS NULL) = (kind <> 'escrow')),
    ADD CONSTRAINT account_not_overdrawn CHECK (balance >= 0 OR kind NOT IN ('available', 'restitution')),
    ADD CONSTRAINT account_test_asset CHECK (kind <> 'issued' OR asset = 'TEST'),
    ADD CONSTRAINT account_real_asset
        CHECK (kind NOT IN ('chain', 'reserved', 'suspense') OR asset = 'GSTD'),
    SET (fillfactor = 70);

DROP INDEX ledger.transfer_debit, ledger.transfer_credit;
ALTER TABLE ledger.transfer
    ALTER COLUMN kind TYPE ledger.transfer_kind USING kind::ledger.transfer_kind,
    ADD COLUMN debit_version bigint,
    ADD COLUMN credit_version bigint;
UPDATE ledger.transfer t SET
    debit_version = CASE WHEN t.debit_after IS NOT NULL THEN (
        SELECT count(*) FROM ledger.transfer x WHERE x.id <= t.id AND t.debit IN (x.debit, x.credit)
    ) END,
    credit_version = CASE WHEN t.credit_after IS NOT NULL THEN (
        SELECT count(*) FROM ledger.transfer x WHERE x.id <= t.id AND t.credit IN (x.debit, x.credit)
    ) END;
ALTER TABLE ledger.transfer
    ADD UNIQUE (ref, kind, seq), -- the natural key of every movement: it happens once
    ADD CONSTRAINT transfer_after_debit CHECK ((debit_after IS NULL) = (debit_version IS NULL)),
    ADD CONSTRAINT transfer_after_credit CHECK ((credit_after IS NULL) = (credit_version IS NULL));
CREATE INDEX transfer_debit ON ledger.transfer (debit, kind, at, id);
CREATE INDEX transfer_credit ON ledger.transfer (credit, kind, at, id);
ALTER TABLE ledger.transfer ENABLE TRIGGER transfer_is_final;

ALTER TABLE ledger.escrow
    ADD COLUMN frozen bigint NOT NULL DEFAULT 0 CHECK (frozen >= 0),
    ADD COLUMN restored bigint NOT NULL DEFAULT 0 CHECK (restored BETWEEN 0 AND locked), -- by restitution
    DROP CONSTRAINT escrow_check,
    ADD CONSTRAINT escrow_not_overdrawn
        CHECK (released + fee + referee + refunded + frozen <= locked);

-- What one accepted attempt earned: its id is the attempt's, so an attempt is paid once, ever. A
-- ruling that awards more makes a second earning whose id is the dispute's.
ALTER TABLE ledger.earning RENAME COLUMN attempt_id TO id;
ALTER TABLE ledger.earning
    DROP CONSTRAINT earning_state_check,
    ADD COLUMN attempt_id uuid,
    ADD COLUMN taken bigint NOT NULL DEFAULT 0,     -- of the amount, what went back to the task
    ADD COLUMN fee_taken bigint NOT NULL DEFAULT 0, -- of the fee, likewise
    ADD COLUMN reversals smallint NOT NULL DEFAULT 0,
    ADD COLUMN kept boolean NOT NULL DEFAULT false, -- among its device's newest without proof
    ADD COLUMN due_at timestamptz,
    ADD CHECK (state IN ('held', 'frozen', 'vested', 'forfeited', 'reversed')),
    ADD CHECK (taken BETWEEN 0 AND amount AND fee_taken BETWEEN 0 AND fee),
    ADD CHECK (state <> 'reversed' OR taken = amount),
    ADD CHECK (NOT kept OR state IN ('held', 'frozen'));
UPDATE ledger.earning SET attempt_id = id, due_at = final_at;
ALTER TABLE ledger.earning ALTER COLUMN attempt_id SET NOT NULL, ALTER COLUMN due_at SET NOT NULL;
DROP INDEX ledger.earning_due;
CREATE INDEX earning_due ON ledger.earning (due_at, id) WHERE state = 'held';
CREATE INDEX earning_attempt ON ledger.earning (attempt_id);
CREATE INDEX earning_holdback ON ledger.earning (device_id, held_at DESC, id DESC) WHERE state = 'held';

CREATE TABLE ledger.referee_charge (
    run_id uuid PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES ledger.escrow,
    amount bigint NOT NULL CHECK (amount > 0)
);
CREATE INDEX referee_charge_task ON ledger.referee_charge (task_id);
INSERT INTO ledger.referee_charge (run_id, task_id, amount)
    SELECT t.ref, r.asked_by, t.amount FROM ledger.transfer t JOIN public.referee_run r ON r.id = t.ref
    WHERE t.kind = 'referee';

-- Money that waits for a ruling: either an earning that is contested, or part of a task's escrow.
CREATE TABLE ledger.freeze (
    dispute_id uuid PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES ledger.escrow,
    attempt_id uuid NOT NULL,
    earning_id uuid REFERENCES ledger.earning,
    amount bigint NOT NULL DEFAULT 0 CHECK (amount >= 0), -- of the escrow, fee included
    state text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'ruled', 'withdrawn')),
    award bigint CHECK (award >= 0),
    award_fee bigint CHECK (award_fee >= 0),
    opened_at timestamptz NOT NULL,
    closed_at timestamptz,
    CHECK ((earning_id IS NULL) = (amount > 0)),
    CHECK ((state = 'ruled') = (award IS NOT NULL)),
    CHECK ((state = 'open') = (closed_at IS NULL))
);
CREATE UNIQUE INDEX freeze_open ON ledger.freeze (attempt_id) WHERE state = 'open';
CREATE INDEX freeze_task ON ledger.freeze (task_id);

-- What arrived from the chain, booked once.
CREATE TABLE ledger.deposit (
    id uuid PRIMARY KEY,
    owner uuid,
    amount bigint NOT NULL CHECK (amount > 0),
    at timestamptz NOT NULL,
    assigned_at timestamptz
);

CREATE TABLE ledger.withdrawal (
    id uuid PRIMARY KEY,
    owner uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    state text NOT NULL DEFAULT 'reserved' CHECK (state IN ('reserved', 'confirmed', 'returned')),
    reserved_at timestamptz NOT NULL,
    ended_at timestamptz,
    CHECK ((state = 'reserved') = (ended_at IS NULL))
);
CREATE INDEX withdrawal_owner ON ledger.withdrawal (owner, id);

-- A mistake is mended by an opposite transfer that two admins want.
CREATE TABLE ledger.correction (
    id uuid PRIMARY KEY,
    debit bigint NOT NULL REFERENCES ledger.account,
    credit bigint NOT NULL REFERENCES ledger.account,
    asset ledger.asset NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    corrects bigint REFERENCES ledger.transfer,
    reason text NOT NULL CHECK (length(reason) BETWEEN 1 AND 2000),
    proposed_by uuid NOT NULL,
    proposed_at timestamptz NOT NULL,
    state text NOT NULL DEFAULT 'proposed' CHECK (state IN ('proposed', 'applied', 'rejected')),
    decided_by uuid,
    decided_at timestamptz,
    CHECK (debit <> credit),
    CHECK ((state = 'proposed') = (decided_by IS NULL)),
    CHECK (state <> 'applied' OR decided_by <> proposed_by)
);

-- What each account moved per day and kind, up to `sweep.through`.
CREATE TABLE ledger.day (
    account_id bigint NOT NULL REFERENCES ledger.account,
    day date NOT NULL,
    kind ledger.transfer_kind NOT NULL,
    paid_in numeric NOT NULL,
    paid_out numeric NOT NULL,
    transfers bigint NOT NULL,
    PRIMARY KEY (account_id, day, kind)
);

-- Transfers up to `through` are folded. `bound` was the newest id before `horizon` began: once
-- all older transactions have ended, nothing up to `bound` can appear any more.
CREATE TABLE ledger.sweep (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    through bigint NOT NULL DEFAULT 0,
    bound bigint NOT NULL DEFAULT 0,
    horizon xid8 NOT NULL DEFAULT '0'
);
INSERT INTO ledger.sweep DEFAULT VALUES;

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

-- Test credits out of nothing. The asset can never leave the platform.
CREATE FUNCTION ledger.grant_test_credits(
    p_ref uuid, p_owner uuid, p_amount bigint, p_at timestamptz
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_available bigint := ledger.opened_account(p_owner, 'available', 'TEST');
BEGIN
    PERFORM 1 FROM ledger.account WHERE id = v_available FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM ledger.transfer WHERE kind = 'grant' AND ref = p_ref) THEN
        RETURN false;
    END IF;
    PERFORM ledger.post(ARRAY[ROW(
        'grant', p_ref, 0, 'TEST', ledger.opened_account(NULL, 'issued', 'TEST'), v_available, p_amount
    )::ledger.posting], p_at);
    RETURN true;
END $$;

-- Locks the money of whole jobs, each one wholly or not at all, in the given order.
-- Outcome per job: funded, replayed or insufficient; `available` is what the owner had before.
CREATE FUNCTION ledger.fund_jobs(
    p_jobs uuid[], p_owners uuid[], p_assets ledger.asset[], p_totals bigint[], p_at timestamptz
) RETURNS TABLE (job_id uuid, outcome text, available bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_item record;
    v_escrow bigint;
BEGIN
    PERFORM ledger.open_accounts(
        p_owners, array_fill('available'::ledger.account_kind, ARRAY[cardinality(p_owners)]), p_assets
    );
    PERFORM 1 FROM ledger.account a
    JOIN (SELECT DISTINCT owner, asset FROM unnest(p_owners, p_assets) AS o (owner, asset)) o
        USING (owner, asset)
    WHERE a.kind = 'available' ORDER BY a.id FOR NO KEY UPDATE OF a;

    FOR v_item IN
        SELECT * FROM unnest(p_jobs, p_owners, p_assets, p_totals) WITH ORDINALITY
            AS i (job, owner, asset, total, n) ORDER BY n
    LOOP
        job_id := v_item.job;
        SELECT a.balance INTO STRICT available FROM ledger.account a
        WHERE a.owner = v_item.owner AND a.kind = 'available' AND a.asset = v_item.asset;
        IF EXISTS (SELECT FROM ledger.job_escrow e WHERE e.job_id = v_item.job) THEN
            outcome := 'replayed';
        ELSIF available < v_item.total THEN
            outcome := 'insufficient';
        ELSE
            INSERT INTO ledger.account (owner, kind, asset, job_id)
            VALUES (v_item.owner, 'escrow', v_item.asset, v_item.job) RETURNING id INTO STRICT v_escrow;
            INSERT INTO ledger.job_escrow (job_id, owner, asset, account_id, funded)
            VALUES (v_item.job, v_item.owner, v_item.asset, v_escrow, v_item.total);
            PERFORM ledger.post(ARRAY[ROW(
                'fund', v_item.job, 0, v_item.asset,
                ledger.account_id(v_item.owner, 'available', v_item.asset), v_escrow, v_item.total
            )::ledger.posting], p_at);
            outcome := 'funded';
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;

-- Gives new tasks of one job their share of its money. A task that has its share gets no second.
CREATE FUNCTION ledger.allot(p_job uuid, p_tasks uuid[], p_each bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_new bigint;
BEGIN
    PERFORM 1 FROM ledger.job_escrow WHERE job_id = p_job FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % has no escrow', p_job USING ERRCODE = 'no_data_found';
    END IF;
    INSERT INTO ledger.escrow (task_id, job_id, locked)
    SELECT task, p_job, p_each FROM unnest(p_tasks) AS task ORDER BY task
    ON CONFLICT (task_id) DO NOTHING;
    GET DIAGNOSTICS v_new = ROW_COUNT;
    UPDATE ledger.job_escrow SET allotted = allotted + p_each * v_new WHERE job_id = p_job;
END $$;

-- Moves rewards and fees of earnings that were just made from escrow; their tasks are locked.
CREATE FUNCTION ledger.pay_earnings(p_earnings uuid[], p_at timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_tasks bigint;
    v_touched bigint;
BEGIN
    SELECT count(DISTINCT task_id) INTO v_tasks FROM ledger.earning WHERE id = ANY (p_earnings);
    UPDATE ledger.escrow e SET released = e.released + s.amount, fee = e.fee + s.fee
    FROM (
        SELECT task_id, sum(amount) AS amount, sum(fee) AS fee
        FROM ledger.earning WHERE id = ANY (p_earnings) GROUP BY task_id
    ) s
    WHERE e.task_id = s.task_id;
    GET DIAGNOSTICS v_touched = ROW_COUNT;
    ASSERT v_touched = v_tasks, 'every settled task has its escrow';

    PERFORM ledger.open_accounts(array_agg(owner), array_agg(kind), array_agg(asset)) FROM (
        SELECT owner, 'held'::ledger.account_kind AS kind, asset
        FROM ledger.earning WHERE id = ANY (p_earnings)
        UNION
        SELECT NULL, 'fee', asset FROM ledger.earning WHERE id = ANY (p_earnings)
    ) x;
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            m.kind, g.id, 0, g.asset, j.account_id, m.id, m.amount
        )::ledger.posting ORDER BY g.id, m.kind)
        FROM ledger.earning g
        JOIN ledger.escrow e USING (task_id)
        JOIN ledger.job_escrow j USING (job_id)
        CROSS JOIN LATERAL (
            SELECT 'reward'::ledger.transfer_kind AS kind, x.id, g.amount FROM ledger.account x
            WHERE x.owner = g.owner AND x.kind = 'held' AND x.asset = g.asset AND x.job_id IS NULL
            UNION ALL
            SELECT 'fee', x.id, g.fee FROM ledger.account x
            WHERE x.owner IS NULL AND x.kind = 'fee' AND x.asset = g.asset AND x.job_id IS NULL
        ) m
        WHERE g.id = ANY (p_earnings) AND m.amount > 0
    ), p_at);
END $$;

-- Moves the rewards of accepted attempts from escrow to held earnings and takes the fees.
-- An attempt that has its earning already is skipped. Returns the attempts paid now.
-- `p_kept_until` is null for proved results; the others are kept until then, or until `p_keep`
-- newer ones of their device are there.
CREATE FUNCTION ledger.settle(
    p_tasks uuid[], p_attempts uuid[], p_owners uuid[], p_devices uuid[], p_amounts bigint[],
    p_fees bigint[], p_final_at timestamptz[], p_kept_until timestamptz[], p_keep integer,
    p_at timestamptz
) RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_new uuid[];
    v_devices uuid[];
    v_pushed uuid[];
BEGIN
    PERFORM 1 FROM ledger.escrow WHERE task_id = ANY (p_tasks) ORDER BY task_id FOR NO KEY UPDATE;

    WITH item AS (
        SELECT * FROM unnest(
            p_tasks, p_attempts, p_owners, p_devices, p_amounts, p_fees, p_final_at, p_kept_until
        ) AS i (task_id, id, owner, device_id, amount, fee, final_at, kept_until)
    ), new AS (
        INSERT INTO ledger.earning (
            id, attempt_id, task_id, owner, device_id, asset, amount, fee, held_at, final_at, kept, due_at
        )
        SELECT i.id, i.id, i.task_id, i.owner, i.device_id, j.asset, i.amount, i.fee, p_at, i.final_at,
            i.kept_until IS NOT NULL, greatest(i.kept_until, i.final_at)
        FROM item i JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
        ORDER BY i.id
        ON CONFLICT (id) DO NOTHING
        RETURNING id, device_id, kept
    )
    SELECT array_agg(id), array_agg(DISTINCT device_id) FILTER (WHERE kept)
    INTO v_new, v_devices FROM new;
    IF v_new IS NULL THEN
        RETURN;
    END IF;
    IF v_devices IS NOT NULL THEN
        SELECT array_agg(old.id) INTO v_pushed
        FROM unnest(v_devices) AS d (device_id)
        CROSS JOIN LATERAL (
            SELECT g.id, g.kept FROM ledger.earning g
            WHERE g.device_id = d.device_id AND g.state = 'held' AND g.kept
            ORDER BY g.held_at DESC, g.id DESC OFFSET p_keep
        ) old;
        PERFORM 1 FROM ledger.earning WHERE id = ANY (v_pushed) ORDER BY id FOR NO KEY UPDATE;
        UPDATE ledger.earning SET kept = false, due_at = final_at
        WHERE id = ANY (v_pushed) AND kept AND state IN ('held', 'frozen');
    END IF;
    PERFORM ledger.pay_earnings(v_new, p_at);
    RETURN QUERY SELECT unnest(v_new);
END $$;

-- Takes what re-executing tasks cost, never more than their escrow still has free. Once per run,
-- and one run per task in a call.
CREATE FUNCTION ledger.charge_referee(
    p_tasks uuid[], p_runs uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_runs uuid[];
BEGIN
    ASSERT (SELECT count(*) = count(DISTINCT task) FROM unnest(p_tasks) AS task),
        'a task is charged for one run in a call';
    PERFORM 1 FROM ledger.escrow WHERE task_id = ANY (p_tasks) ORDER BY task_id FOR NO KEY UPDATE;

    WITH item AS (
        SELECT i.task_id, i.run_id, least(
            i.amount, e.locked - e.released - e.fee - e.referee - e.refunded - e.frozen
        ) AS amount
        FROM unnest(p_tasks, p_runs, p_amounts) AS i (task_id, run_id, amount)
        JOIN ledger.escrow e USING (task_id)
    ), charged AS (
        INSERT INTO ledger.referee_charge (run_id, task_id, amount)
        SELECT run_id, task_id, amount FROM item WHERE amount > 0 ORDER BY run_id
        ON CONFLICT (run_id) DO NOTHING
        RETURNING run_id, task_id, amount
    ), taken AS (
        UPDATE ledger.escrow e SET referee = e.referee + c.amount
        FROM charged c WHERE e.task_id = c.task_id
    )
    SELECT array_agg(run_id) INTO v_runs FROM charged;
    PERFORM ledger.open_accounts(
        array_agg(NULL::uuid), array_agg('referee'::ledger.account_kind), array_agg(j.asset)
    )
    FROM ledger.referee_charge c JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
    WHERE c.run_id = ANY (v_runs);
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'referee', c.run_id, 0, j.asset, j.account_id,
            ledger.account_id(NULL, 'referee', j.asset), c.amount
        )::ledger.posting ORDER BY c.run_id)
        FROM ledger.referee_charge c
        JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
        WHERE c.run_id = ANY (v_runs)
    ), p_at);
END $$;

-- Gives what tasks have left, and is not frozen, back to the requester, at most p_most of each.
CREATE FUNCTION ledger.give_back(p_tasks uuid[], p_most bigint, p_at timestamptz)
RETURNS TABLE (task_id uuid, amount bigint)
LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_postings ledger.posting[];
BEGIN
    PERFORM 1 FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ORDER BY e.task_id FOR NO KEY UPDATE;

    WITH rest AS (
        SELECT e.task_id AS id, e.job_id, e.refunds,
            least(p_most, e.locked - e.released - e.fee - e.referee - e.refunded - e.frozen) AS left_over
        FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ), given AS (
        UPDATE ledger.escrow e SET refunded = e.refunded + r.left_over, refunds = e.refunds + 1
        FROM rest r WHERE e.task_id = r.id AND r.left_over > 0
    )
    SELECT array_agg(ROW(
        'refund', r.id, r.refunds, j.asset, j.account_id, a.id, r.left_over
    )::ledger.posting ORDER BY r.id)
    INTO v_postings
    FROM rest r
    JOIN ledger.job_escrow j USING (job_id)
    JOIN ledger.account a ON a.owner = j.owner AND a.kind = 'available' AND a.asset = j.asset
    WHERE r.left_over > 0;
    PERFORM ledger.post(v_postings, p_at);
    RETURN QUERY SELECT p.ref, p.amount FROM unnest(v_postings) p;
END $$;

-- Gives all that tasks have left back. Returns the tasks that had something left.
CREATE FUNCTION ledger.refund_tasks(p_tasks uuid[], p_at timestamptz)
RETURNS TABLE (task_id uuid, amount bigint)
LANGUAGE sql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
    SELECT task_id, amount FROM ledger.give_back(p_tasks, NULL, p_at)
$$;

-- Gives back the money of tasks whose rows were never made. Returns the jobs that had some.
CREATE FUNCTION ledger.refund_unmade(p_jobs uuid[], p_at timestamptz)
RETURNS TABLE (job_id uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_postings ledger.posting[];
BEGIN
    PERFORM 1 FROM ledger.job_escrow j WHERE j.job_id = ANY (p_jobs)
    ORDER BY j.job_id FOR NO KEY UPDATE;

    WITH rest AS (
        SELECT j.job_id AS id, j.owner, j.asset, j.account_id,
            j.funded - j.allotted - j.returned AS left_over
        FROM ledger.job_escrow j WHERE j.job_id = ANY (p_jobs)
    ), given AS (
        UPDATE ledger.job_escrow j SET returned = j.returned + r.left_over
        FROM rest r WHERE j.job_id = r.id AND r.left_over > 0
    )
    SELECT array_agg(ROW(
        'refund', r.id, 0, r.asset, r.account_id, a.id, r.left_over
    )::ledger.posting ORDER BY r.id)
    INTO v_postings
    FROM rest r
    JOIN ledger.account a ON a.owner = r.owner AND a.kind = 'available' AND a.asset = r.asset
    WHERE r.left_over > 0;
    PERFORM ledger.post(v_postings, p_at);
    RETURN QUERY SELECT p.ref, p.amount FROM unnest(v_postings) p;
END $$;

-- Vests held earnings whose time has come, at most p_limit of them. What vests cannot come back,
-- so only now a share of the fees on it goes to restitution.
CREATE FUNCTION ledger.vest_due(p_now timestamptz, p_limit integer, p_share_bps integer)
RETURNS TABLE (earning_id uuid, attempt_id uuid, task_id uuid, owner uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_due uuid[];
BEGIN
    SELECT array_agg(d.id) INTO v_due FROM (
        SELECT g.id FROM ledger.earning g
        WHERE g.state = 'held' AND g.due_at <= p_now
        ORDER BY g.due_at, g.id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
    ) d;
    IF v_due IS NULL THEN
        RETURN;
    END IF;
    UPDATE ledger.earning g SET state = 'vested', vested_at = p_now, kept = false
    WHERE g.id = ANY (v_due);
    PERFORM ledger.open_accounts(array_agg(x.owner), array_agg(x.kind), array_agg(x.asset)) FROM (
        SELECT g.owner, 'available'::ledger.account_kind AS kind, g.asset
        FROM ledger.earning g WHERE g.id = ANY (v_due)
        UNION
        SELECT NULL, 'restitution', g.asset FROM ledger.earning g WHERE g.id = ANY (v_due)
    ) x;
    PERFORM ledger.post((
        SELECT array_agg(p ORDER BY (p).kind, (p).ref) FROM (
            SELECT ROW(
                'vest', g.id, 0, g.asset, ledger.account_id(g.owner, 'held', g.asset),
                ledger.account_id(g.owner, 'available', g.asset), g.amount - g.taken
            )::ledger.posting AS p
            FROM ledger.earning g WHERE g.id = ANY (v_due)
            UNION ALL
            SELECT ROW(
                'share', f.ref, 0, f.asset, ledger.account_id(NULL, 'fee', f.asset),
                ledger.account_id(NULL, 'restitution', f.asset), f.share
            )::ledger.posting
            FROM (
                SELECT g.asset, (array_agg(g.id ORDER BY g.id))[1] AS ref,
                    trunc(sum(g.fee - g.fee_taken) * p_share_bps / 10000)::bigint AS share
                FROM ledger.earning g WHERE g.id = ANY (v_due) GROUP BY g.asset
            ) f
            WHERE f.share > 0
        ) x
    ), p_now);
    RETURN QUERY
        SELECT g.id, g.attempt_id, g.task_id, g.owner, g.amount - g.taken
        FROM ledger.earning g WHERE g.id = ANY (v_due);
END $$;

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
