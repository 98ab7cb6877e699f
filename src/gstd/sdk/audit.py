"""Rebuild the audit log's tree from its content and say what was tampered with.

Nothing the platform says is taken on trust except that it hands out what its tables hold: every
leaf is hashed here, and every signed head is compared with the tree that grows from them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from itertools import repeat

import msgspec

from gstd.protocol.audit import (
    AuditKey,
    CheckpointView,
    Difference,
    SealedFact,
    check_history,
)
from gstd.protocol.checkpoint import (
    Checkpoint,
    CheckpointError,
    open_note,
    parse_verifier_key,
)
from gstd.protocol.merkle import Frontier, ProofError
from gstd.sdk.client import Client
from gstd.sdk.errors import ApiError

Progress = Callable[[str, int, int], object]
"""Called with the step's name, how far it is, and its size."""

_NO_LEAF = bytes(32)
"""Stands where a leaf is missing: no later head can be right, and the rest is still read."""


class AuditReport(msgspec.Struct, frozen=True, kw_only=True):
    """``ok`` if nothing was found. ``checkpoint`` is the note of the newest head, to keep."""

    ok: bool
    origin: str
    public_key: str
    leaves: int
    checkpoints: int
    findings: list[Difference]
    checkpoint: str | None


async def verify(
    client: Client, *, kept: str | None = None, on_progress: Progress | None = None
) -> AuditReport:
    """Check the whole log. ``kept`` is the note of an earlier head. Raises ``SdkError``."""
    key = await client.audit_key()
    audit = _Audit(client, key, on_progress or _silent)
    return await audit.run(kept)


def _silent(_step: str, _done: int, _of: int) -> None:
    return None


class _Audit:
    def __init__(self, client: Client, key: AuditKey, on_progress: Progress) -> None:
        self._client = client
        self._key = key
        self._progress = on_progress
        self._found: list[Difference] = []
        self._tree = Frontier()
        self._facts: deque[SealedFact] = deque()
        self._after: int | None = 0
        self._expected = 0
        self._checked = 0
        self._right: Checkpoint | None = None
        self._wrong: list[Checkpoint] = []
        """Heads since the last right one that the tree does not lead to."""

    async def run(self, kept: str | None) -> AuditReport:
        self._check_key()
        earlier = None if kept is None else self._open("the kept checkpoint", kept)
        newest, note = await self._rebuild(earlier)
        if earlier is not None:
            await self._check_earlier(earlier, newest)
        await self._compare()
        return AuditReport(
            ok=not self._found,
            origin=self._key.origin,
            public_key=self._key.public_key,
            leaves=self._tree.size,
            checkpoints=self._checked,
            findings=self._found,
            checkpoint=note,
        )

    def _check_key(self) -> None:
        try:
            parsed = parse_verifier_key(self._key.verifier_key)
        except CheckpointError as error:
            self._add("the log's key", error.detail)
            return
        if parsed != (self._key.origin, self._key.public_key):
            self._add("the log's key", "the verifier key is not of the same origin and key")

    def _open(self, subject: str, note: str) -> Checkpoint | None:
        try:
            opened = open_note(note, self._key.public_key)
        except CheckpointError as error:
            self._add(subject, f"forged: {error.detail}")
            return None
        if opened.origin != self._key.origin:
            self._add(subject, f"forged: it is of the log {opened.origin}")
            return None
        return opened

    async def _rebuild(self, earlier: Checkpoint | None) -> tuple[Checkpoint | None, str | None]:
        """Grow the tree leaf by leaf and stop at every head on the way; the newest head."""
        self._expected = await self._size_to_expect()
        newest, note = None, None
        async for view in self._checkpoints():
            subject = f"checkpoint {view.size}"
            signed = self._open(subject, view.note)
            if signed is None:
                continue
            if (signed.size, signed.root.hex()) != (view.size, view.root):
                self._add(subject, "its row is not what its note says")
            if signed.size < self._tree.size:
                continue  # the row's size was changed: named above
            if earlier is not None and self._tree.size < earlier.size <= signed.size:
                await self._grow(earlier.size)
                if self._tree.root() != earlier.root:
                    self._add("the kept checkpoint", "the log's beginning was rewritten since")
            await self._grow(signed.size)
            self._compare_head(signed)
            newest, note = signed, view.note
        self._name_wrong(None)
        return newest, note

    async def _size_to_expect(self) -> int:
        try:
            note = await self._client.audit_checkpoint()
        except ApiError as error:
            if error.code == "audit_nothing_sealed":
                return 0
            raise
        line = note.split("\n")[1:2]
        return int(line[0]) if line and line[0].isdecimal() else 0

    async def _checkpoints(self) -> AsyncIterator[CheckpointView]:
        after: int | None = 0
        while after is not None:
            page = await self._client.audit_checkpoints(after=after)
            for item in page.items:
                yield item
            after = page.next

    async def _grow(self, size: int) -> None:
        """Append leaves up to ``size``, as their rows are now; what is missing is named."""
        while self._tree.size < size:
            if not self._facts and self._after is not None:
                page = await self._client.audit_leaves(after=self._after)
                self._facts.extend(page.items)
                self._after = page.next
                self._progress("leaves", self._tree.size, max(self._expected, size))
                continue
            position = self._tree.size + 1
            if self._facts and self._facts[0].position <= position:
                self._append(self._facts.popleft(), position)
                continue
            until = min(self._facts[0].position if self._facts else size + 1, size + 1)
            self._add_missing(position, until - 1)
            self._tree.extend(repeat(_NO_LEAF, until - position))
        self._progress("leaves", self._tree.size, max(self._expected, size))

    def _append(self, fact: SealedFact, position: int) -> None:
        if fact.position < position:
            self._add(f"position {fact.position}", "is listed out of order")
            return
        try:
            leaf = fact.leaf()
        except ProofError as error:
            self._add(f"position {position}", error.detail)
            leaf = _NO_LEAF
        self._tree.append(leaf)

    def _add_missing(self, first: int, last: int) -> None:
        subject = f"position {first}" if first == last else f"positions {first} to {last}"
        self._add(subject, "missing from the log", position=first)

    def _compare_head(self, signed: Checkpoint) -> None:
        self._checked += 1
        if self._tree.root() == signed.root:
            self._name_wrong(signed)
            self._right = signed
        else:
            self._wrong.append(signed)

    def _name_wrong(self, following: Checkpoint | None) -> None:
        """Say what the heads that did not fit mean, now that a later one fits or none comes."""
        wrong, self._wrong = self._wrong, []
        if following is not None:
            for each in wrong:
                self._add(f"checkpoint {each.size}", "signed, but the log never had this root")
            return
        if wrong:
            first = 1 if self._right is None else self._right.size + 1
            self._found.append(
                Difference(
                    subject=f"positions {first} to {wrong[0].size}",
                    detail=f"were rewritten: checkpoint {wrong[0].size} was signed over others",
                    position=first,
                    field="root",
                    sealed=wrong[0].root.hex(),
                )
            )

    async def _check_earlier(self, earlier: Checkpoint, newest: Checkpoint | None) -> None:
        """The platform must also be able to prove that it continues what was kept."""
        if newest is None or newest.size < earlier.size:
            size = 0 if newest is None else newest.size
            detail = f"the log was cut: it had {earlier.size} leaves and has {size}"
            self._add("the kept checkpoint", detail)
            return
        try:
            proof = await self._client.audit_consistency(earlier.size, newest.size)
            check_history(earlier, newest, proof)
        except (ApiError, ProofError) as error:
            self._add("the kept checkpoint", str(error))

    async def _compare(self) -> None:
        after: int | None = 0
        while after is not None:
            self._progress("rows", min(after, self._expected), self._expected)
            page = await self._client.audit_differences(after=after)
            for item in page.items:
                if not any((item.subject, item.detail) == _name(each) for each in self._found):
                    self._found.append(item)
            after = page.next
        self._progress("rows", self._expected, self._expected)

    def _add(self, subject: str, detail: str, position: int | None = None) -> None:
        self._found.append(Difference(subject=subject, detail=detail, position=position))


def _name(found: Difference) -> tuple[str, str]:
    return found.subject, found.detail
