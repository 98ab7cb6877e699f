-- A job's money from credits to vested earnings. Lock order inside every function of the ledger:
-- job_escrow, escrow, earning, account, each by id.

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
