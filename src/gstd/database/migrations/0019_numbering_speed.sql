-- Numbering does less for each transfer.

-- Stable as `convert_to` is, and so it is inlined.
ALTER FUNCTION audit_leaf(uuid, text) STABLE;

-- What the log says about a transfer: whoever owns one of its accounts may read it.
CREATE OR REPLACE VIEW ledger.transfer_fact AS
    SELECT t.id, t.at,
        array_remove(ARRAY[
            least(d.owner, c.owner), nullif(greatest(d.owner, c.owner), least(d.owner, c.owner))
        ], NULL) AS accounts,
        coalesce(d.job_id, c.job_id) AS job_id,
        jsonb_build_object(
            'id', t.id, 'kind', t.kind, 'ref', t.ref, 'seq', t.seq, 'asset', t.asset,
            'debit', t.debit, 'credit', t.credit, 'amount_nano', t.amount::text,
            'debit_after', t.debit_after::text, 'credit_after', t.credit_after::text,
            'debit_version', t.debit_version, 'credit_version', t.credit_version
        ) AS data
    FROM ledger.transfer t
    JOIN ledger.account d ON d.id = t.debit
    JOIN ledger.account c ON c.id = t.credit;
