"""Random repairs, deposits, withdrawals and corrections among all other movements."""

from __future__ import annotations

from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from gstd.kernel.ids import new_id
from gstd.ledger import frontier, repair
from gstd.ledger.frontier import Deposit, Withdrawal
from gstd.ledger.repair import Claim, Contest, Ruling
from tests.integration.ledger.movements import Movements, picks, small
from tests.integration.ledger.scenes import Correction, decide, propose

people = st.integers(0, 2)


class Repairs(Movements):
    """Everything else that can happen to the same jobs, tasks and owners."""

    @rule(numbers=st.lists(picks, min_size=1, max_size=3))
    def reverse(self, numbers: list[int]) -> None:
        ids = [self.pick(list(self.bank.earnings), number) for number in numbers]
        answers = self.do(lambda conn: repair.reverse_earnings(conn, ids, self.now))
        assert {item.earning_id: item.amount for item in answers} == self.bank.reverse(ids)

    @rule(number=st.integers(0, 2))
    def forfeit(self, number: int) -> None:
        devices = [[*self.devices, new_id()][number]]
        answers = self.do(lambda conn: repair.forfeit(conn, devices, self.now))
        assert {item.earning_id: item.amount for item in answers} == self.bank.forfeit(devices)

    @rule(items=st.lists(st.tuples(picks, picks, small), min_size=1, max_size=3))
    def restitute(self, items: list[tuple[int, int, int]]) -> None:
        claims: dict[UUID, Claim] = {}
        for ref, task, amount in items:
            key = self.pick(list(self.bank.claims), max(0, ref - 6))
            claims[key] = Claim(key, self.pick(list(self.bank.tasks), task), amount)
        batch = list(claims.values())
        answers = self.do(lambda conn: repair.restitute(conn, batch, self.now))
        assert answers == self.bank.restitute(batch)

    @precondition(lambda self: self.bank.earnings)
    @rule(
        items=st.lists(st.tuples(picks, picks, st.booleans(), small), min_size=1, max_size=3),
        is_same=st.booleans(),
    )
    def freeze(self, items: list[tuple[int, int, bool, int]], is_same: bool) -> None:
        contests: dict[UUID, Contest] = {}
        for dispute, number, is_earning, amount in items:
            key = self.pick(list(self.bank.freezes), max(0, dispute - 7))
            earning = self.bank.earnings.get(self.pick(list(self.bank.earnings), number))
            task = earning.task if earning else self.pick(list(self.bank.tasks), amount)
            attempt = earning.attempt if earning and is_same else new_id()
            if is_earning:
                about = earning.id if earning else new_id()
                contests[key] = Contest(key, task, attempt, about)
            else:
                contests[key] = Contest(key, task, attempt, None, amount)
        batch = list(contests.values())
        answers = self.do(lambda conn: repair.freeze(conn, batch, self.now))
        assert answers == {item.dispute_id: self.bank.freeze(item) for item in batch}

    @precondition(lambda self: self.bank.freezes)
    @rule(numbers=st.lists(picks, min_size=1, max_size=2, unique=True))
    def unfreeze(self, numbers: list[int]) -> None:
        disputes = [self.pick(list(self.bank.freezes), number) for number in numbers]
        answers = self.do(lambda conn: repair.unfreeze(conn, disputes, self.now))
        assert answers == {item for item in disputes if self.bank.unfreeze(item)}

    @precondition(lambda self: self.bank.freezes)
    @rule(
        items=st.lists(
            st.tuples(picks, st.integers(0, 40), st.integers(0, 2), people), min_size=1, max_size=3
        )
    )
    def rule_disputes(self, items: list[tuple[int, int, int, int]]) -> None:
        rulings: dict[UUID, Ruling] = {}
        for number, award, fee, owner in items:
            key = self.pick(list(self.bank.freezes), number)
            rulings[key] = Ruling(key, award, fee, self.owners[owner], self.devices[award % 2])
        batch = list(rulings.values())
        answers = self.do(lambda conn: repair.rule(conn, batch, self.now))
        assert answers == {item.dispute_id: self.bank.rule(item, self.now) for item in batch}

    @rule(owner=st.none() | people, amount=small, again=picks)
    def deposit(self, owner: int | None, amount: int, again: int) -> None:
        key = self.pick(list(self.bank.deposits), max(0, again - 6))
        item = Deposit(key, None if owner is None else self.owners[owner], amount)
        answers = self.do(lambda conn: frontier.deposit(conn, [item], self.now))
        assert answers == ({key} if self.bank.deposit(item) else set())

    @rule(number=picks, owner=people)
    def assign(self, number: int, owner: int) -> None:
        key, who = self.pick(list(self.bank.deposits), number), self.owners[owner]
        answers = self.do(lambda conn: frontier.assign_deposits(conn, {key: who}, self.now))
        assert answers == ({key} if self.bank.assign(key, who) else set())

    @rule(items=st.lists(st.tuples(people, small, picks), min_size=1, max_size=3))
    def reserve(self, items: list[tuple[int, int, int]]) -> None:
        wishes: dict[UUID, Withdrawal] = {}
        for owner, amount, again in items:
            key = self.pick(list(self.bank.withdrawals), max(0, again - 7))
            wishes[key] = Withdrawal(key, self.owners[owner], amount)
        batch = list(wishes.values())
        answers = self.do(lambda conn: frontier.reserve(conn, batch, self.now))
        assert answers == {item.id: self.bank.reserve(item) for item in batch}

    @rule(number=picks, is_confirmed=st.booleans())
    def end(self, number: int, is_confirmed: bool) -> None:
        key = self.pick(list(self.bank.withdrawals), number)
        end = frontier.confirm if is_confirmed else frontier.give_back
        answers = self.do(lambda conn: end(conn, [key], self.now))
        state = "confirmed" if is_confirmed else "returned"
        assert answers == ({key} if self.bank.end(key, state) else set())

    @rule(debit=people, step=st.integers(1, 2), amount=small, admin=people)
    def propose(self, debit: int, step: int, amount: int, admin: int) -> None:
        wish = Correction(new_id(), self.owners[debit], self.owners[(debit + step) % 3], amount)
        by = self.owners[admin]
        for _ in range(2):
            answer = self.do(lambda conn: propose(conn, wish, by, self.now))
            assert answer == self.bank.propose(wish, by)

    @rule(number=picks, admin=people, is_applied=st.booleans())
    def decide(self, number: int, admin: int, is_applied: bool) -> None:
        key, by = self.pick(list(self.bank.corrections), number), self.owners[admin]
        answer = self.do(lambda conn: decide(conn, key, by, apply=is_applied, now=self.now))
        assert answer == self.bank.decide(key, by, apply=is_applied)
