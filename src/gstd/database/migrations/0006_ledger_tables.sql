-- The ledger grows to the complete set of movements: its tables. The functions of 0003 go; the files
-- that follow make every function anew.

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
