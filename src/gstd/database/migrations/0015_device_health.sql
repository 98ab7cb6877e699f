-- How reliably a device ends what it takes: a circuit breaker and a quota that heals.
ALTER TABLE device
    ADD COLUMN failures integer NOT NULL DEFAULT 0 CHECK (failures >= 0),
    ADD COLUMN ejections integer NOT NULL DEFAULT 0 CHECK (ejections >= 0),
    ADD COLUMN ejected_until timestamptz,
    ADD COLUMN quota integer NOT NULL DEFAULT 4 CHECK (quota >= 1);
