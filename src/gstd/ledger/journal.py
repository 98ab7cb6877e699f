"""The ledger as a plain-text accounting journal, which ``hledger check`` verifies by itself.

Every leg of every transfer carries a balance assertion. What the database stored is asserted where
it stored something, so a program that shares no line with this one does the sums again.
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime
from typing import Final
from uuid import UUID

import msgspec

from gstd.kernel.money import NANO_PER_GSTD

ASSETS: Final = ("GSTD", "TEST")

# What may stand in an account's name or a description. Anything else could end the line or begin
# a comment, a tag or a sub-account.
_WORD: Final = re.compile(r"[a-z][a-z0-9_]*")


class AccountLine(msgspec.Struct, frozen=True):
    """An account of the ledger. One without an owner belongs to the platform."""

    id: int
    kind: str
    owner: UUID | None
    job_id: UUID | None
    asset: str


class TransferLine(msgspec.Struct, frozen=True):
    """A transfer of ``amount`` nano out of the account ``debit`` into the account ``credit``.

    The balances after it are nano as the database stored them, or None where it stores none.
    """

    id: int
    at: datetime
    kind: str
    ref: UUID
    seq: int
    asset: str
    debit: int
    credit: int
    amount: int
    debit_after: int | None
    credit_after: int | None


class JournalWriter:
    """Writes a journal piece by piece: the head, all accounts, all transfers in order of id.

    Balances are what an owner sees: a credit raises them, and what issues money is below zero.
    A journal is whole from the first transfer on, since every account starts at nothing. Pieces
    are ASCII and end with a line feed. Memory grows with the accounts, not with the transfers.

    Input that would make a misleading journal is refused with ``ValueError``. Input whose sums
    are wrong is written down as it is: finding that is the work of hledger.
    """

    def __init__(self) -> None:
        self._accounts: dict[int, tuple[str, str]] = {}
        self._taken: set[tuple[str, str]] = set()
        self._balances: dict[int, int] = {}
        self._last_id: int | None = None
        self._last_date = date.min

    def head(self) -> str:
        """The comment, the number format and the commodities, each with nine decimals."""
        return (
            "; Every transfer of the ledger, with the balance of both accounts after it.\n"
            "; A credit raises a balance. A date never steps back; the exact time is the tag at.\n"
            "; Verify it: hledger -f FILE check --strict ordereddates\n"
            "\n"
            "decimal-mark .\n"
        ) + "".join(f"commodity {_exact(NANO_PER_GSTD)} {asset}\n" for asset in ASSETS)

    def account(self, line: AccountLine) -> str:
        """The declaration of an account, which must come before its first transfer.

        Its name is ``user:OWNER:KIND`` or ``platform:KIND``, followed by ``:JOB`` where the account
        belongs to one. Accounts that differ only in the asset share a name, since hledger keeps
        commodities apart: the second one is a comment. Two of one name and asset are refused.
        """
        name = _account_name(line)
        if line.asset not in ASSETS:
            raise ValueError(f"account {line.id} holds {line.asset!r}, which is no asset")
        if line.id in self._accounts or (name, line.asset) in self._taken:
            raise ValueError(f"account {line.id}, {name} in {line.asset}, is declared already")
        declared = any((name, asset) in self._taken for asset in ASSETS)
        self._accounts[line.id] = (name, line.asset)
        self._taken.add((name, line.asset))
        self._balances[line.id] = 0
        return f"{';' if declared else 'account'} {name}  ; id:{line.id}, asset:{line.asset}\n"

    def entry(self, line: TransferLine) -> str:
        """A transfer as one transaction with two postings and two balance assertions.

        hledger checks assertions in order of date, then of the file. Clocks of processes differ, so
        the date is the later of the transfer's own in UTC and the last one written.
        """
        self._refuse_nonsense(line)
        debit, credit = self._name(line.debit, line), self._name(line.credit, line)
        self._balances[line.debit] -= line.amount
        self._balances[line.credit] += line.amount
        debit_after = self._after(line.debit, line.debit_after)
        credit_after = self._after(line.credit, line.credit_after)
        self._last_id = line.id
        at = line.at.astimezone(UTC)
        self._last_date = max(self._last_date, at.date())
        return (
            f"\n{self._last_date} {line.kind}  ; id:{line.id}, ref:{line.ref}, seq:{line.seq},"
            f" at:{at.isoformat(timespec='microseconds')}\n"
            f"    {debit}  {_exact(-line.amount)} {line.asset} = {debit_after} {line.asset}\n"
            f"    {credit}  {_exact(line.amount)} {line.asset} = {credit_after} {line.asset}\n"
        )

    def _refuse_nonsense(self, line: TransferLine) -> None:
        if self._last_id is not None and line.id <= self._last_id:
            raise ValueError(f"transfer {line.id} comes after transfer {self._last_id}")
        if _WORD.fullmatch(line.kind) is None:
            raise ValueError(f"transfer {line.id} has the kind {line.kind!r}, which is no word")
        if line.at.tzinfo is None:
            raise ValueError(f"transfer {line.id} has a time without a zone")
        if line.amount <= 0 or line.debit == line.credit:
            raise ValueError(f"transfer {line.id} moves nothing")

    def _name(self, account: int, line: TransferLine) -> str:
        name, asset = self._accounts.get(account, (None, None))
        if name is None:
            raise ValueError(f"transfer {line.id} needs account {account}, which is not declared")
        if asset != line.asset:
            raise ValueError(
                f"transfer {line.id} moves {line.asset}, account {account} has {asset}"
            )
        return name

    def _after(self, account: int, stored: int | None) -> str:
        # Only the sum of its transfers is known of an account whose balance is stored nowhere.
        return _exact(self._balances[account] if stored is None else stored)


def _account_name(line: AccountLine) -> str:
    if _WORD.fullmatch(line.kind) is None:
        raise ValueError(f"account {line.id} has the kind {line.kind!r}, which is no word")
    holder = "platform" if line.owner is None else f"user:{line.owner}"
    job = "" if line.job_id is None else f":{line.job_id}"
    return f"{holder}:{line.kind}{job}"


def _exact(nano: int) -> str:
    sign = "-" if nano < 0 else ""
    whole, fraction = divmod(abs(nano), NANO_PER_GSTD)
    return f"{sign}{whole}.{fraction:09d}"
