"""The checks have teeth: each deliberate break of a function fails its check."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

import asyncpg
import pytest

from gstd.database.connection import Database
from gstd.kernel.clock import ManualClock
from tests.integration.ledger import checks

Check = Callable[[Database, datetime], Awaitable[None]]

FAULTS: list[tuple[str, str, str, Check]] = [
    ("pay_earnings", "x.id, g.fee FROM", "x.id, g.fee / 2 FROM", checks.a_fee_is_taken),
    ("give_back", " - e.frozen", "", checks.a_refund_leaves_what_is_frozen),
    ("charge_referee", "least(", "greatest(", checks.a_charge_is_capped_by_the_escrow),
    (
        "settle",
        "ON CONFLICT (id) DO NOTHING",
        "ON CONFLICT (id) DO UPDATE SET amount = excluded.amount",
        checks.an_attempt_is_paid_once,
    ),
    ("settle", "OFFSET p_keep", "OFFSET p_keep + 1", checks.kept_earnings_wait_for_newer_ones),
    ("settle", ", due_at = final_at\n", "\n", checks.kept_earnings_wait_for_newer_ones),
    ("settle", "greatest(", "least(", checks.kept_earnings_wait_for_newer_ones),
    ("vest_due", " AND g.due_at <= p_now", "", checks.nothing_vests_before_it_is_due),
    (
        "vest_due",
        "sum(g.fee - g.fee_taken)",
        "sum(g.amount + g.fee)",
        checks.restitution_gets_a_share_of_fees_only,
    ),
    (
        "vest_due",
        "g.state = 'held' AND",
        "g.state IN ('held', 'frozen') AND",
        checks.a_frozen_earning_is_neither_forfeited_nor_reversed,
    ),
    (
        "rule",
        "v_contested - v_item.award - v_item.fee",
        "0",
        checks.a_ruling_gives_the_rest_to_the_requester,
    ),
    (
        "rule_earning",
        "ARRAY[v_earning.amount - v_earning.taken - p_award]",
        "ARRAY[0]",
        checks.a_ruling_gives_the_rest_to_the_requester,
    ),
    ("unfreeze_money", "e.frozen - f.amount", "e.frozen", checks.an_unfrozen_escrow_is_free_again),
    (
        "forfeit",
        "g.state = 'held'",
        "g.state IN ('held', 'frozen')",
        checks.a_frozen_earning_is_neither_forfeited_nor_reversed,
    ),
    (
        "reverse_earnings",
        "g.state = 'held'",
        "g.state IN ('held', 'frozen')",
        checks.a_frozen_earning_is_neither_forfeited_nor_reversed,
    ),
    (
        "restitute",
        "least(v_item.amount, v_fund.balance)",
        "v_item.amount",
        checks.restitution_ends_with_its_fund,
    ),
    ("restitute", "v_item.amount < 0", "false", checks.restitution_never_takes),
    ("pay_earnings", "'held'", "'available'", checks.a_reward_is_held),
    (
        "reserve_withdrawals",
        "v_available.balance < v_item.amount",
        "false",
        checks.nobody_withdraws_more_than_they_have,
    ),
    (
        "end_withdrawals",
        " AND state = 'reserved'",
        "",
        checks.nobody_withdraws_more_than_they_have,
    ),
    (
        "decide_correction",
        "p_apply AND v_wish.proposed_by = p_by",
        "false",
        checks.a_correction_needs_two_admins,
    ),
    ("fold", "a.balance + l.delta", "a.balance + 2 * l.delta", checks.folding_changes_no_balance),
    ("fold", "AND NOT a.spendable", "", checks.folding_changes_no_balance),
    ("post", "ledger.chain(head,", "ledger.chain('\\x00',", checks.every_promise_holds),
    ("post", "a.version + d.legs", "a.version + 1", checks.every_promise_holds),
    ("take_back", "fee = e.fee - b.fee", "fee = e.fee", checks.every_promise_holds),
    ("assign_deposits", "d.owner IS NULL AND", "", checks.a_deposit_is_given_once),
]
CHECKS = {check.__name__: check for *_, check in FAULTS}


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS.keys())
async def test_a_sound_ledger_passes(database: Database, clock: ManualClock, check: Check) -> None:
    await check(database, clock.now())


@pytest.mark.parametrize(
    ("name", "text", "instead", "check"),
    FAULTS,
    ids=[f"{name}: {text}" for name, text, *_ in FAULTS],
)
async def test_a_broken_function_fails_its_check(
    database: Database,
    database_urls: dict[str, str],
    clock: ManualClock,
    name: str,
    text: str,
    instead: str,
    check: Check,
) -> None:
    owner = await asyncpg.connect(database_urls["owner"])
    try:
        source = await owner.fetchval(
            "SELECT pg_get_functiondef(oid) FROM pg_proc "
            "WHERE proname = $1 AND pronamespace = 'ledger'::regnamespace",
            name,
        )
        assert text in source
        await owner.execute(source.replace(text, instead))
    finally:
        await owner.close()
    with pytest.raises((AssertionError, pytest.fail.Exception, asyncpg.PostgresError)):
        await check(database, clock.now())
