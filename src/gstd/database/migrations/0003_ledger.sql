-- The ledger: double entry, one row per transfer, every amount an integer number of nano.
-- The application's role executes these functions and cannot write the tables. Lock order inside
-- every function: job_escrow, escrow, earning, account, each by id.

CREATE SCHEMA ledger;

CREATE TYPE ledger.asset AS ENUM ('GSTD', 'TEST');
CREATE TYPE ledger.account_kind AS ENUM (
    'available', -- what an owner may spend
    'held',      -- what an owner has earned and not yet vested
    'escrow',    -- what one job has locked
    'fee',       -- what the platform has earned
    'referee',   -- what re-execution was paid
    'issued'     -- where money comes from: the one account below zero
);
CREATE TYPE ledger.transfer_kind AS ENUM (
    'grant', 'fund', 'reward', 'fee', 'referee', 'refund', 'vest'
);

-- Accrual accounts are append-only: their balance is the sum of their transfers, so that many
-- transactions may credit one of them without waiting for each other.
CREATE TABLE ledger.account (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    owner uuid,
    kind ledger.account_kind NOT NULL,
    asset ledger.asset NOT NULL,
    accrual boolean NOT NULL GENERATED ALWAYS AS (kind <> 'available') STORED,
    balance bigint NOT NULL DEFAULT 0 CHECK (balance >= 0),
    UNIQUE NULLS NOT DISTINCT (owner, kind, asset),
    UNIQUE (id, asset),
    CHECK (kind = 'available' OR balance = 0),
    CHECK ((owner IS NULL) = (kind IN ('fee', 'referee', 'issued')))
);
CREATE INDEX account_owner ON ledger.account (owner);

CREATE TABLE ledger.transfer (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind ledger.transfer_kind NOT NULL,
    ref uuid NOT NULL,
    seq smallint NOT NULL DEFAULT 0,
    asset ledger.asset NOT NULL,
    debit bigint NOT NULL,
    credit bigint NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    debit_after bigint CHECK (debit_after >= 0),
    credit_after bigint CHECK (credit_after >= 0),
    at timestamptz NOT NULL,
    UNIQUE (kind, ref, seq), -- the natural key of every movement: it happens once
    CHECK (debit <> credit),
    FOREIGN KEY (debit, asset) REFERENCES ledger.account (id, asset),
    FOREIGN KEY (credit, asset) REFERENCES ledger.account (id, asset)
);
CREATE INDEX transfer_debit ON ledger.transfer (debit, id);
CREATE INDEX transfer_credit ON ledger.transfer (credit, id);

CREATE FUNCTION ledger.forbid_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'transfers are never changed';
END $$;
CREATE TRIGGER transfer_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.transfer
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.forbid_change();

-- A job's money. Tasks get their share when their rows are made.
CREATE TABLE ledger.job_escrow (
    job_id uuid PRIMARY KEY,
    owner uuid NOT NULL,
    asset ledger.asset NOT NULL,
    account_id bigint NOT NULL UNIQUE REFERENCES ledger.account,
    funded bigint NOT NULL CHECK (funded > 0),
    allotted bigint NOT NULL DEFAULT 0 CHECK (allotted >= 0),
    returned bigint NOT NULL DEFAULT 0 CHECK (returned >= 0),
    CHECK (allotted + returned <= funded)
);

-- A task's money: locked = released + fee + referee + refunded + what is still there.
CREATE TABLE ledger.escrow (
    task_id uuid PRIMARY KEY,
    job_id uuid NOT NULL REFERENCES ledger.job_escrow,
    locked bigint NOT NULL CHECK (locked > 0),
    released bigint NOT NULL DEFAULT 0 CHECK (released >= 0),
    fee bigint NOT NULL DEFAULT 0 CHECK (fee >= 0),
    referee bigint NOT NULL DEFAULT 0 CHECK (referee >= 0),
    refunded bigint NOT NULL DEFAULT 0 CHECK (refunded >= 0),
    refunds smallint NOT NULL DEFAULT 0,
    CHECK (released + fee + referee + refunded <= locked)
);
CREATE INDEX escrow_job ON ledger.escrow (job_id);

-- What one accepted attempt earned. Its key is the attempt, so an attempt is paid once, ever.
CREATE TABLE ledger.earning (
    attempt_id uuid PRIMARY KEY,
    task_id uuid NOT NULL REFERENCES ledger.escrow,
    owner uuid NOT NULL,
    device_id uuid NOT NULL,
    asset ledger.asset NOT NULL,
    amount bigint NOT NULL CHECK (amount > 0),
    fee bigint NOT NULL CHECK (fee >= 0),
    state text NOT NULL DEFAULT 'held' CHECK (state IN ('held', 'vested')),
    held_at timestamptz NOT NULL,
    final_at timestamptz NOT NULL,
    vested_at timestamptz,
    CHECK ((state = 'vested') = (vested_at IS NOT NULL))
);
CREATE INDEX earning_due ON ledger.earning (final_at, attempt_id) WHERE state = 'held';
CREATE INDEX earning_task ON ledger.earning (task_id);
CREATE INDEX earning_owner ON ledger.earning (owner, attempt_id);

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

-- Makes sure that the accounts exist.
CREATE FUNCTION ledger.open_accounts(
    p_owners uuid[], p_kinds ledger.account_kind[], p_assets ledger.asset[]
) RETURNS void LANGUAGE sql SET search_path = ledger, pg_temp AS $$
    INSERT INTO ledger.account (owner, kind, asset)
    SELECT DISTINCT owner, kind, asset FROM unnest(p_owners, p_kinds, p_assets) AS a (owner, kind, asset)
    WHERE NOT EXISTS (
        SELECT FROM ledger.account x
        WHERE x.owner IS NOT DISTINCT FROM a.owner AND x.kind = a.kind AND x.asset = a.asset
    )
    ORDER BY owner, kind, asset
    ON CONFLICT DO NOTHING
$$;

CREATE FUNCTION ledger.account_id(
    p_owner uuid, p_kind ledger.account_kind, p_asset ledger.asset
) RETURNS bigint LANGUAGE sql STABLE SET search_path = ledger, pg_temp AS $$
    SELECT id FROM ledger.account
    WHERE owner IS NOT DISTINCT FROM p_owner AND kind = p_kind AND asset = p_asset
$$;

-- Posts movements: locks the accounts that keep a balance, writes the rows with both balances
-- after, and moves the balances. A balance below zero raises a check violation.
CREATE FUNCTION ledger.post(p_postings ledger.posting[], p_at timestamptz)
RETURNS void LANGUAGE plpgsql SET search_path = ledger, pg_temp AS $$
DECLARE
    v_posted bigint;
BEGIN
    IF coalesce(cardinality(p_postings), 0) = 0 THEN
        RETURN;
    END IF;
    PERFORM 1 FROM ledger.account
    WHERE NOT accrual AND id IN (
        SELECT debit FROM unnest(p_postings) UNION SELECT credit FROM unnest(p_postings)
    )
    ORDER BY id FOR NO KEY UPDATE;

    WITH posting AS (
        SELECT * FROM unnest(p_postings) WITH ORDINALITY
            AS p (kind, ref, seq, asset, debit, credit, amount, n)
    ), leg AS (
        SELECT n, debit AS account_id, -amount AS delta FROM posting
        UNION ALL
        SELECT n, credit, amount FROM posting
    ), after AS (
        SELECT leg.n, leg.account_id, a.balance
            + sum(leg.delta) OVER (PARTITION BY leg.account_id ORDER BY leg.n) AS balance
        FROM leg JOIN ledger.account a ON a.id = leg.account_id AND NOT a.accrual
    ), moved AS (
        UPDATE ledger.account a SET balance = a.balance + d.delta
        FROM (SELECT account_id, sum(delta) AS delta FROM leg GROUP BY account_id) d
        WHERE a.id = d.account_id AND NOT a.accrual
    )
    INSERT INTO ledger.transfer
        (kind, ref, seq, asset, debit, credit, amount, debit_after, credit_after, at)
    SELECT p.kind, p.ref, p.seq, p.asset, p.debit, p.credit, p.amount, d.balance, c.balance, p_at
    FROM posting p
    LEFT JOIN after d ON d.n = p.n AND d.account_id = p.debit
    LEFT JOIN after c ON c.n = p.n AND c.account_id = p.credit
    ORDER BY p.n;
    GET DIAGNOSTICS v_posted = ROW_COUNT;
    ASSERT v_posted = cardinality(p_postings), 'every posting becomes one transfer';
END $$;

-- Test credits out of nothing. The asset can never leave the platform.
CREATE FUNCTION ledger.grant_test_credits(
    p_ref uuid, p_owner uuid, p_amount bigint, p_at timestamptz
) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
    PERFORM ledger.open_accounts(
        ARRAY[NULL, p_owner], ARRAY['issued', 'available']::ledger.account_kind[],
        ARRAY['TEST', 'TEST']::ledger.asset[]
    );
    PERFORM 1 FROM ledger.account
    WHERE owner = p_owner AND kind = 'available' AND asset = 'TEST' FOR NO KEY UPDATE;
    IF EXISTS (SELECT FROM ledger.transfer WHERE kind = 'grant' AND ref = p_ref) THEN
        RETURN false;
    END IF;
    PERFORM ledger.post(ARRAY[ROW(
        'grant', p_ref, 0, 'TEST',
        ledger.account_id(NULL, 'issued', 'TEST'), ledger.account_id(p_owner, 'available', 'TEST'),
        p_amount
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
            INSERT INTO ledger.account (owner, kind, asset)
            VALUES (v_item.job, 'escrow', v_item.asset) RETURNING id INTO STRICT v_escrow;
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

-- Gives new tasks of one job their share of its money.
CREATE FUNCTION ledger.allot(p_job uuid, p_tasks uuid[], p_each bigint)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
BEGIN
    UPDATE ledger.job_escrow SET allotted = allotted + p_each * cardinality(p_tasks)
    WHERE job_id = p_job;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'job % has no escrow', p_job USING ERRCODE = 'no_data_found';
    END IF;
    INSERT INTO ledger.escrow (task_id, job_id, locked)
    SELECT task, p_job, p_each FROM unnest(p_tasks) AS task ORDER BY task;
END $$;

-- Moves the rewards of accepted attempts from escrow to held earnings and takes the fees.
-- An attempt that has its earning already is skipped. Returns the attempts paid now.
CREATE FUNCTION ledger.settle(
    p_tasks uuid[], p_attempts uuid[], p_owners uuid[], p_devices uuid[],
    p_amounts bigint[], p_fees bigint[], p_final_at timestamptz[], p_at timestamptz
) RETURNS SETOF uuid LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_new uuid[];
    v_tasks bigint;
    v_touched bigint;
BEGIN
    PERFORM 1 FROM ledger.escrow WHERE task_id = ANY (p_tasks) ORDER BY task_id FOR NO KEY UPDATE;

    WITH item AS (
        SELECT * FROM unnest(p_tasks, p_attempts, p_owners, p_devices, p_amounts, p_fees, p_final_at)
            AS i (task_id, attempt_id, owner, device_id, amount, fee, final_at)
    ), new AS (
        INSERT INTO ledger.earning
            (attempt_id, task_id, owner, device_id, asset, amount, fee, held_at, final_at)
        SELECT i.attempt_id, i.task_id, i.owner, i.device_id, j.asset, i.amount, i.fee, p_at, i.final_at
        FROM item i JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
        ORDER BY i.attempt_id
        ON CONFLICT (attempt_id) DO NOTHING
        RETURNING attempt_id
    )
    SELECT array_agg(attempt_id) INTO v_new FROM new;
    IF v_new IS NULL THEN
        RETURN;
    END IF;

    SELECT count(DISTINCT task_id) INTO v_tasks FROM ledger.earning WHERE attempt_id = ANY (v_new);
    UPDATE ledger.escrow e SET released = e.released + s.amount, fee = e.fee + s.fee
    FROM (
        SELECT task_id, sum(amount) AS amount, sum(fee) AS fee
        FROM ledger.earning WHERE attempt_id = ANY (v_new) GROUP BY task_id
    ) s
    WHERE e.task_id = s.task_id;
    GET DIAGNOSTICS v_touched = ROW_COUNT;
    ASSERT v_touched = v_tasks, 'every settled task has its escrow';

    PERFORM ledger.open_accounts(
        array_agg(owner), array_agg('held'::ledger.account_kind), array_agg(asset)
    ) FROM (SELECT DISTINCT owner, asset FROM ledger.earning WHERE attempt_id = ANY (v_new)) x;
    PERFORM ledger.open_accounts(
        array_agg(NULL::uuid), array_agg('fee'::ledger.account_kind), array_agg(asset)
    ) FROM (SELECT DISTINCT asset FROM ledger.earning WHERE attempt_id = ANY (v_new)) x;

    PERFORM ledger.post((
        SELECT array_agg(p ORDER BY (p).ref, (p).kind) FROM (
            SELECT ROW('reward', g.attempt_id, 0, g.asset, j.account_id, held.id, g.amount)::ledger.posting AS p
            FROM ledger.earning g
            JOIN ledger.escrow e USING (task_id)
            JOIN ledger.job_escrow j USING (job_id)
            JOIN ledger.account held
                ON held.owner = g.owner AND held.kind = 'held' AND held.asset = g.asset
            WHERE g.attempt_id = ANY (v_new)
            UNION ALL
            SELECT ROW('fee', g.attempt_id, 0, g.asset, j.account_id, fee.id, g.fee)::ledger.posting
            FROM ledger.earning g
            JOIN ledger.escrow e USING (task_id)
            JOIN ledger.job_escrow j USING (job_id)
            JOIN ledger.account fee ON fee.owner IS NULL AND fee.kind = 'fee' AND fee.asset = g.asset
            WHERE g.attempt_id = ANY (v_new) AND g.fee > 0
        ) x
    ), p_at);
    RETURN QUERY SELECT unnest(v_new);
END $$;

-- Takes what re-executing tasks cost, never more than their escrow still has. Once per run, and
-- one run per task in a call.
CREATE FUNCTION ledger.charge_referee(
    p_tasks uuid[], p_runs uuid[], p_amounts bigint[], p_at timestamptz
) RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_postings ledger.posting[];
BEGIN
    ASSERT (SELECT count(*) = count(DISTINCT task) FROM unnest(p_tasks) AS task),
        'a task is charged for one run in a call';
    PERFORM 1 FROM ledger.escrow WHERE task_id = ANY (p_tasks) ORDER BY task_id FOR NO KEY UPDATE;

    WITH item AS (
        SELECT i.task_id, i.run_id, j.asset, j.account_id,
            least(i.amount, e.locked - e.released - e.fee - e.referee - e.refunded) AS amount
        FROM unnest(p_tasks, p_runs, p_amounts) AS i (task_id, run_id, amount)
        JOIN ledger.escrow e USING (task_id) JOIN ledger.job_escrow j USING (job_id)
        WHERE NOT EXISTS (SELECT FROM ledger.transfer t WHERE t.kind = 'referee' AND t.ref = i.run_id)
    ), charged AS (
        UPDATE ledger.escrow e SET referee = e.referee + i.amount
        FROM item i WHERE e.task_id = i.task_id AND i.amount > 0
    )
    SELECT array_agg(ROW('referee', run_id, 0, asset, account_id, NULL, amount)::ledger.posting ORDER BY run_id)
    INTO v_postings FROM item WHERE amount > 0;
    IF v_postings IS NULL THEN
        RETURN;
    END IF;
    PERFORM ledger.open_accounts(
        array_agg(NULL::uuid), array_agg('referee'::ledger.account_kind), array_agg(asset)
    ) FROM (SELECT DISTINCT asset FROM unnest(v_postings)) x;
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            p.kind, p.ref, p.seq, p.asset, p.debit, ledger.account_id(NULL, 'referee', p.asset), p.amount
        )::ledger.posting)
        FROM unnest(v_postings) p
    ), p_at);
END $$;

-- Gives what tasks have left back to the requester. Returns the tasks that had something left.
CREATE FUNCTION ledger.refund_tasks(p_tasks uuid[], p_at timestamptz)
RETURNS TABLE (task_id uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_postings ledger.posting[];
BEGIN
    PERFORM 1 FROM ledger.escrow e WHERE e.task_id = ANY (p_tasks)
    ORDER BY e.task_id FOR NO KEY UPDATE;

    WITH rest AS (
        SELECT e.task_id AS id, e.job_id, e.refunds,
            e.locked - e.released - e.fee - e.referee - e.refunded AS left_over
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

-- Vests held earnings whose time has come, at most p_limit of them.
CREATE FUNCTION ledger.vest_due(p_now timestamptz, p_limit integer)
RETURNS TABLE (attempt_id uuid, task_id uuid, owner uuid, amount bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = ledger, pg_temp AS $$
DECLARE
    v_due uuid[];
BEGIN
    SELECT array_agg(d.attempt_id) INTO v_due FROM (
        SELECT g.attempt_id FROM ledger.earning g
        WHERE g.state = 'held' AND g.final_at <= p_now
        ORDER BY g.final_at, g.attempt_id LIMIT p_limit FOR NO KEY UPDATE SKIP LOCKED
    ) d;
    IF v_due IS NULL THEN
        RETURN;
    END IF;
    UPDATE ledger.earning g SET state = 'vested', vested_at = p_now WHERE g.attempt_id = ANY (v_due);
    PERFORM ledger.open_accounts(
        array_agg(x.owner), array_agg('available'::ledger.account_kind), array_agg(x.asset)
    ) FROM (SELECT DISTINCT g.owner, g.asset FROM ledger.earning g WHERE g.attempt_id = ANY (v_due)) x;
    PERFORM ledger.post((
        SELECT array_agg(ROW(
            'vest', g.attempt_id, 0, g.asset, held.id, available.id, g.amount
        )::ledger.posting ORDER BY g.attempt_id)
        FROM ledger.earning g
        JOIN ledger.account held
            ON held.owner = g.owner AND held.kind = 'held' AND held.asset = g.asset
        JOIN ledger.account available
            ON available.owner = g.owner AND available.kind = 'available' AND available.asset = g.asset
        WHERE g.attempt_id = ANY (v_due)
    ), p_now);
    RETURN QUERY
        SELECT g.attempt_id, g.task_id, g.owner, g.amount
        FROM ledger.earning g WHERE g.attempt_id = ANY (v_due);
END $$;

-- Every account with its balance; for accrual accounts that is the sum of their transfers.
CREATE VIEW ledger.balance AS
    SELECT a.id, a.owner, a.kind, a.asset,
        CASE WHEN a.accrual THEN
            coalesce((SELECT sum(t.amount) FROM ledger.transfer t WHERE t.credit = a.id), 0)
            - coalesce((SELECT sum(t.amount) FROM ledger.transfer t WHERE t.debit = a.id), 0)
        ELSE a.balance END AS balance
    FROM ledger.account a;

-- The ledger's promises, each as the rows that break it. No row: all hold.
CREATE VIEW ledger.broken AS
    SELECT 'sum of all balances is zero' AS invariant, asset || ' ' || sum(balance) AS what
    FROM ledger.balance GROUP BY asset HAVING sum(balance) <> 0
    UNION ALL
    SELECT 'only issued money is below zero', 'account ' || id || ' ' || balance
    FROM ledger.balance WHERE balance < 0 AND kind <> 'issued'
    UNION ALL
    SELECT 'a balance is the sum of its transfers', 'account ' || a.id
    FROM ledger.account a
    WHERE NOT a.accrual AND a.balance <>
        coalesce((SELECT sum(t.amount) FROM ledger.transfer t WHERE t.credit = a.id), 0)
        - coalesce((SELECT sum(t.amount) FROM ledger.transfer t WHERE t.debit = a.id), 0)
    UNION ALL
    SELECT 'an escrow account holds what its job and tasks have left', 'job ' || j.job_id
    FROM ledger.job_escrow j
    JOIN ledger.balance b ON b.id = j.account_id
    LEFT JOIN (
        SELECT job_id, sum(locked) AS locked, sum(released + fee + referee + refunded) AS spent
        FROM ledger.escrow GROUP BY job_id
    ) e USING (job_id)
    WHERE j.allotted <> coalesce(e.locked, 0)
        OR b.balance <> j.funded - j.returned - coalesce(e.spent, 0)
    UNION ALL
    SELECT 'a task has released what its attempts earned', 'task ' || e.task_id
    FROM ledger.escrow e
    LEFT JOIN (
        SELECT task_id, sum(amount) AS amount, sum(fee) AS fee FROM ledger.earning GROUP BY task_id
    ) g USING (task_id)
    WHERE e.released <> coalesce(g.amount, 0) OR e.fee <> coalesce(g.fee, 0)
    UNION ALL
    SELECT 'a held account holds the held earnings', 'owner ' || b.owner
    FROM ledger.balance b
    WHERE b.kind = 'held' AND b.balance <> coalesce((
        SELECT sum(g.amount) FROM ledger.earning g
        WHERE g.owner = b.owner AND g.asset = b.asset AND g.state = 'held'
    ), 0);

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA ledger FROM PUBLIC;
GRANT USAGE ON SCHEMA ledger TO gstd_app;
GRANT SELECT ON ALL TABLES IN SCHEMA ledger TO gstd_app;
GRANT EXECUTE ON FUNCTION
    ledger.grant_test_credits, ledger.fund_jobs, ledger.allot, ledger.settle,
    ledger.charge_referee, ledger.refund_tasks, ledger.refund_unmade, ledger.vest_due
    TO gstd_app;
