"""Whatever moves, hledger does the sums again, agrees to the nano, and sees every changed digit."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gstd.kernel.money import MAX_NANO
from gstd.ledger.journal import AccountLine, JournalWriter, TransferLine
from tests.unit.ledger import hledger

SCALE = int(os.environ.get("GSTD_TEST_SCALE", "1"))

ANNE, BERT, JOB, OTHER_JOB, REF = (UUID(int=number) for number in range(1, 6))
HOLDERS: list[tuple[str, UUID | None, UUID | None]] = [
    ("available", ANNE, None),
    ("available", BERT, None),
    ("held", BERT, None),
    ("reserved", BERT, None),
    ("escrow", ANNE, JOB),
    ("escrow", ANNE, OTHER_JOB),
    *((kind, None, None) for kind in ("fee", "referee", "restitution", "suspense", "issued")),
    ("chain", None, None),
]
ACCOUNTS = [
    AccountLine(id=number, kind=kind, owner=owner, job_id=job, asset=asset)
    for number, (asset, (kind, owner, job)) in enumerate(
        ((asset, holder) for asset in ("GSTD", "TEST") for holder in HOLDERS), start=1
    )
]
ISSUED, AVAILABLE, HELD = (
    next(line.id for line in ACCOUNTS if line.kind == kind and line.asset == "TEST")
    for kind in ("issued", "available", "held")
)
STORED = {line.id for line in ACCOUNTS if line.kind == "available"}

BEFORE_MIDNIGHT = datetime(2026, 2, 28, 23, 59, 59, 990_000, tzinfo=UTC)
DAYS = st.sampled_from([0, 0, 0, 1, 40])
CLOCK_ERRORS = st.integers(-20_000, 20_000).map(lambda steps: timedelta(microseconds=steps))
AMOUNTS = st.one_of(st.integers(1, 30), st.integers(1, MAX_NANO))


@st.composite
def histories(draw: st.DrawFn) -> list[TransferLine]:
    """Transfers as the ledger keeps them: some balances stored, clocks that differ at midnight."""
    sums: dict[int, int] = defaultdict(int)
    transfers: list[TransferLine] = []
    number, day = 0, 0
    for _ in range(draw(st.integers(1, 25))):
        number, day = number + draw(st.integers(1, 3)), day + draw(DAYS)
        asset = draw(st.sampled_from(["GSTD", "TEST"]))
        of_asset = [line.id for line in ACCOUNTS if line.asset == asset]
        debit, credit = draw(
            st.lists(st.sampled_from(of_asset), min_size=2, max_size=2, unique=True)
        )
        amount = draw(AMOUNTS)
        sums[debit] -= amount
        sums[credit] += amount
        transfers.append(
            TransferLine(
                id=number,
                at=BEFORE_MIDNIGHT + timedelta(days=day) + draw(CLOCK_ERRORS),
                kind="reward",
                ref=UUID(int=number),
                seq=0,
                asset=asset,
                debit=debit,
                credit=credit,
                amount=amount,
                debit_after=sums[debit] if debit in STORED else None,
                credit_after=sums[credit] if credit in STORED else None,
            )
        )
    return transfers


def grant(number: int = 1, **changes: object) -> TransferLine:
    """A plain transfer of five nano to Anne, with changes."""
    line = TransferLine(
        id=number,
        at=BEFORE_MIDNIGHT,
        kind="grant",
        ref=REF,
        seq=0,
        asset="TEST",
        debit=ISSUED,
        credit=AVAILABLE,
        amount=5,
        debit_after=None,
        credit_after=5,
    )
    return msgspec.structs.replace(line, **changes)


def written(transfers: list[TransferLine]) -> str:
    """The whole journal."""
    writer = JournalWriter()
    accounts = "".join(writer.account(line) for line in ACCOUNTS)
    return writer.head() + accounts + "".join(writer.entry(line) for line in transfers)


def name(line: AccountLine) -> str:
    """What the journal calls an account, said once more."""
    parts = ["platform"] if line.owner is None else ["user", str(line.owner)]
    return ":".join([*parts, line.kind, *([] if line.job_id is None else [str(line.job_id)])])


@settings(max_examples=60 * SCALE)
@given(histories())
def test_hledger_accepts_every_history_and_adds_up_the_same_to_the_nano(
    transfers: list[TransferLine],
) -> None:
    journal = written(transfers)
    assert hledger.complaint(journal) == ""

    names = {line.id: (name(line), line.asset) for line in ACCOUNTS}
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for line in transfers:
        sums[names[line.debit]] -= line.amount
        sums[names[line.credit]] += line.amount
    found = hledger.balances(journal)
    assert {key: nano for key, nano in found.items() if nano} == {
        key: nano for key, nano in sums.items() if nano
    }
    assert journal.count(" = ") == 2 * len(transfers)


@settings(max_examples=60 * SCALE)
@given(histories(), st.data())
def test_one_changed_digit_is_found_and_its_transfer_named(
    transfers: list[TransferLine], data: st.DataObject
) -> None:
    journal = written(transfers)
    start = journal.index("\n\n", journal.index("commodity"))
    numbers = list(re.finditer(r"(?<= )-?[0-9]+\.[0-9]{9}(?= )", journal[start:]))
    assert len(numbers) == 4 * len(transfers)
    number = data.draw(st.sampled_from(numbers))
    digits = [start + number.start() + at for at, char in enumerate(number[0]) if char.isdigit()]
    digit = data.draw(st.sampled_from(digits))
    other = str((int(journal[digit]) + data.draw(st.integers(1, 9))) % 10)

    said = hledger.complaint(journal[:digit] + other + journal[digit + 1 :])

    named = journal.rindex(" id:", 0, digit)
    assert journal[named : journal.index(",", named) + 1] in said


@settings(max_examples=30 * SCALE)
@given(histories(), st.data())
def test_a_wrong_balance_in_the_database_is_found(
    transfers: list[TransferLine], data: st.DataObject
) -> None:
    at = data.draw(st.integers(0, len(transfers) - 1))
    field = data.draw(st.sampled_from(["debit", "credit"]))
    stored = getattr(transfers[at], f"{field}_after")
    if stored is None:
        return
    wrong = {f"{field}_after": stored + data.draw(st.sampled_from([-1, 1]))}
    transfers[at] = msgspec.structs.replace(transfers[at], **wrong)
    assert f" id:{transfers[at].id}," in hledger.complaint(written(transfers))


def test_a_clock_that_steps_back_over_midnight_does_not_turn_the_dates() -> None:
    later = BEFORE_MIDNIGHT + timedelta(milliseconds=15)
    journal = written(
        [
            grant(1, at=later),
            grant(2, at=BEFORE_MIDNIGHT, credit_after=10),
            grant(3, credit_after=15),
        ]
    )
    assert re.findall(r"^2026-\S+ grant", journal, re.MULTILINE) == ["2026-03-01 grant"] * 3
    assert "at:2026-02-28T23:59:59.990000+00:00" in journal
    assert hledger.complaint(journal) == ""


def test_times_of_other_zones_are_written_in_utc() -> None:
    zone = timezone(timedelta(hours=5))
    journal = written([grant(at=BEFORE_MIDNIGHT.astimezone(zone))])
    assert "\n2026-02-28 grant" in journal
    assert "at:2026-02-28T23:59:59.990000+00:00" in journal


def test_an_entry_reads_like_this() -> None:
    assert written([grant(seq=3)]).endswith(
        f"\n2026-02-28 grant  ; id:1, ref:{REF}, seq:3, at:2026-02-28T23:59:59.990000+00:00\n"
        "    platform:issued  -0.000000005 TEST = -0.000000005 TEST\n"
        f"    user:{ANNE}:available  0.000000005 TEST = 0.000000005 TEST\n"
    )


def test_a_missing_transfer_is_found_at_the_next_one_of_its_account() -> None:
    vest = grant(2, debit=AVAILABLE, credit=HELD, debit_after=0, credit_after=None)
    assert hledger.complaint(written([grant(), vest])) == ""
    assert "id:2," in hledger.complaint(written([vest]))


def test_strict_checks_need_every_account_declared() -> None:
    journal = written([grant()])
    declared = next(
        line for line in journal.splitlines(True) if line.startswith("account platform:i")
    )
    assert "platform:issued" in hledger.complaint(journal.replace(declared, ""))


def test_accounts_of_two_assets_share_one_declaration() -> None:
    lines = [line for line in written([]).splitlines() if "platform:fee" in line]
    assert lines == [
        "account platform:fee  ; id:7, asset:GSTD",
        "; platform:fee  ; id:19, asset:TEST",
    ]


def test_an_empty_ledger_is_a_journal() -> None:
    assert hledger.complaint(written([])) == ""


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (grant(0), "after"),
        (grant(kind="grant\n2026-01-01 more"), "no word"),
        (grant(kind="a  ; b"), "no word"),
        (grant(kind="(code)"), "no word"),
        (grant(at=BEFORE_MIDNIGHT.replace(tzinfo=None)), "zone"),
        (grant(amount=0), "nothing"),
        (grant(amount=-5), "nothing"),
        (grant(credit=ISSUED), "nothing"),
        (grant(credit=999), "not declared"),
        (grant(asset="GSTD"), "moves GSTD"),
    ],
)
def test_transfers_that_would_mislead_are_refused(line: TransferLine, why: str) -> None:
    writer = JournalWriter()
    for account in ACCOUNTS:
        writer.account(account)
    writer.entry(grant(0))
    with pytest.raises(ValueError, match=why):
        writer.entry(line)


@pytest.mark.parametrize(
    "line",
    [
        AccountLine(id=1, kind="held", owner=ANNE, job_id=None, asset="TEST"),
        AccountLine(id=2, kind="available", owner=ANNE, job_id=None, asset="GSTD"),
        AccountLine(id=2, kind="held", owner=ANNE, job_id=None, asset="EUR"),
        AccountLine(id=2, kind="held:more", owner=ANNE, job_id=None, asset="GSTD"),
        AccountLine(id=2, kind="", owner=None, job_id=None, asset="GSTD"),
    ],
)
def test_accounts_that_would_collide_or_mislead_are_refused(line: AccountLine) -> None:
    writer = JournalWriter()
    writer.account(AccountLine(id=1, kind="available", owner=ANNE, job_id=None, asset="GSTD"))
    with pytest.raises(ValueError, match="account"):
        writer.account(line)
