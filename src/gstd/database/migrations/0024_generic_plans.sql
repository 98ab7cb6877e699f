-- A plan that is made anew for every call costs more than a small batch itself: the functions of a
-- task's way keep theirs. Their statements are written to be good for few rows and for many.
DO $$
DECLARE
    v_function regprocedure;
BEGIN
    FOR v_function IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'ledger'::regnamespace
            AND p.proname IN ('settle', 'charge_referee', 'refund_tasks', 'allot', 'vest_due')
    LOOP
        EXECUTE format('ALTER FUNCTION %s SET plan_cache_mode = force_generic_plan', v_function);
    END LOOP;
END $$;
