"""Logged facts, their proofs, and the check that needs nothing but the proof and a known key.

A leaf's content is its salt (16 raw bytes) and the fact's JSON text in UTF-8, exactly as the
server stored it; the leaf hash is SHA-256 of 0x00 and both. The salt hides a fact from whoever
sees only hashes. Leaf indexes count from 0, positions from 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec
from msgspec import Meta

from gstd.protocol.checkpoint import Checkpoint, CheckpointError, open_note, parse_verifier_key
from gstd.protocol.merkle import (
    HASH_BYTES,
    ProofError,
    leaf_hash,
    verify_consistency,
    verify_inclusion,
)
from gstd.protocol.types import HexHash, Name

SALT_BYTES = 16


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """What the text of a leaf says. ``at_us`` is microseconds since 1970 UTC."""

    position: Annotated[int, Meta(ge=1)]
    kind: Name
    at_us: int
    accounts: list[UUID]
    job_id: UUID | None
    task_id: UUID | None
    attempt_id: UUID | None
    data: dict[str, Any]


class SealedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A leaf as its content: the salt as 32 hexadecimal digits, the text as it was stored."""

    position: Annotated[int, Meta(ge=1)]
    salt: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$", min_length=32, max_length=32)]
    text: str

    def leaf(self) -> bytes:
        """The leaf's hash. Raises ``ProofError`` for another salt or text that is not UTF-8."""
        try:
            return leaf_hash(_unhex(self.salt, SALT_BYTES) + self.text.encode())
        except ValueError as error:
            raise ProofError(f"the salt or the text is malformed: {error}") from error

    def fact(self) -> Fact:
        """What the text says. Raises ``ProofError`` if it is not a fact at this position."""
        try:
            fact = msgspec.json.decode(self.text, type=Fact)
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            raise ProofError(f"fact {self.position} (unreadable): {error}") from error
        if fact.position != self.position:
            said = f"its own text says position {fact.position}"
            raise ProofError(f"fact {self.position} ({fact.kind}): {said}")
        return fact


class InclusionProof(msgspec.Struct, frozen=True, kw_only=True):
    """A fact and the path from its leaf to the root of the checkpoint it came with."""

    fact: SealedFact
    path: list[HexHash]


class ConsistencyProof(msgspec.Struct, frozen=True, kw_only=True):
    """That the log of ``first`` leaves is the beginning of the log of ``second`` leaves."""

    first: Annotated[int, Meta(ge=0)]
    second: Annotated[int, Meta(ge=0)]
    path: list[HexHash]


class AuditKey(msgspec.Struct, frozen=True, kw_only=True):
    """The log's name and key. ``verifier_key`` says both in signed-note's form, for other tools."""

    origin: str
    public_key: HexHash
    verifier_key: str


class StatementProof(msgspec.Struct, frozen=True, kw_only=True):
    """Facts with everything to check them offline. ``checkpoint`` is the text of a signed note."""

    key: AuditKey
    checkpoint: str
    facts: list[InclusionProof]


def check_statement_proof(
    proof: StatementProof,
    *,
    public_key: str | None = None,
    earlier: str | None = None,
    consistency: ConsistencyProof | None = None,
) -> Checkpoint:
    """Check everything a statement claims; the checkpoint under which all its facts stand.

    ``public_key`` is the key the reader knows; without it the proof is only checked against the
    key that it brings itself. ``earlier`` is a note the reader has kept from the same log; one of
    another size needs ``consistency`` between the two. (It may even be the longer one: a reader
    may check an old statement against what they know by now.)

    Raises ``CheckpointError`` for key, note and signature, ``ProofError`` for a fact, which is
    named by position and kind, or for a history that was rewritten.
    """
    known = proof.key.public_key if public_key is None else public_key
    _check_key(proof.key, known)
    checkpoint = _open(proof.checkpoint, proof.key.origin, known)
    for inclusion in proof.facts:
        check_inclusion(inclusion, checkpoint)
    _check_no_repeats(proof.facts)
    if earlier is not None:
        check_history(_open(earlier, proof.key.origin, known), checkpoint, consistency)
    elif consistency is not None:
        raise ProofError("a consistency proof says nothing without the note that was kept")
    return checkpoint


def check_inclusion(proof: InclusionProof, checkpoint: Checkpoint) -> Fact:
    """The fact, once it is shown to stand at its position under the checkpoint.

    Raises ``ProofError`` that names the fact.
    """
    sealed, fact = proof.fact, proof.fact.fact()
    name = f"fact {fact.position} ({fact.kind})"
    try:
        path = _hashes(proof.path)
        leaf = sealed.leaf()
        verify_inclusion(sealed.position - 1, checkpoint.size, leaf, path, checkpoint.root)
    except ProofError as error:
        raise ProofError(f"{name} is not proved: {error.detail}") from error
    return fact


def check_history(
    kept: Checkpoint, checkpoint: Checkpoint, proof: ConsistencyProof | None = None
) -> None:
    """Check that one of two checkpoints continues the other; equal sizes need no proof.

    Raises ``ProofError`` with both sizes.
    """
    old, new = sorted((kept, checkpoint), key=lambda each: each.size)
    name = f"the log of {new.size} facts does not continue the one of {old.size}"
    if proof is None and old.size != new.size:
        raise ProofError(f"whether {name} is open: the consistency proof is missing")
    if proof is not None and (proof.first, proof.second) != (old.size, new.size):
        raise ProofError(f"{name}: the proof is for {proof.first} and {proof.second}")
    try:
        path = _hashes(proof.path) if proof else []
        verify_consistency(old.size, new.size, old.root, new.root, path)
    except ProofError as error:
        raise ProofError(f"{name}: {error.detail}") from error


def _check_key(key: AuditKey, known: str) -> None:
    if key.public_key != known:
        raise CheckpointError(f"the proof is from the key {key.public_key}, not from {known}")
    if parse_verifier_key(key.verifier_key) != (key.origin, key.public_key):
        raise CheckpointError("the verifier key is not of the same origin and public key")


def _open(note: str, origin: str, public_key: str) -> Checkpoint:
    checkpoint = open_note(note, public_key)
    if checkpoint.origin != origin:
        raise CheckpointError(f"the note is from {checkpoint.origin}, not from {origin}")
    return checkpoint


def _check_no_repeats(facts: Sequence[InclusionProof]) -> None:
    """A fact listed twice would count twice in a statement."""
    seen: set[int] = set()
    for inclusion in facts:
        sealed = inclusion.fact
        if sealed.position in seen:
            raise ProofError(f"fact {sealed.position} ({sealed.fact().kind}) is listed twice")
        seen.add(sealed.position)


def _hashes(path: Sequence[str]) -> list[bytes]:
    try:
        return [_unhex(each, HASH_BYTES) for each in path]
    except ValueError as error:
        raise ProofError(f"a hash in the path is malformed: {error}") from error


def _unhex(text: str, size: int) -> bytes:
    """Exactly ``size`` bytes from lower-case digits. Raises ``ValueError`` for another form."""
    data = bytes.fromhex(text)
    if len(data) != size or data.hex() != text:
        raise ValueError(f"{size} bytes must be {2 * size} lower-case hexadecimal digits")
    return data


class CheckpointView(msgspec.Struct, frozen=True, kw_only=True):
    """A signed head of the log. ``note`` alone counts; the other fields are for looking it up."""

    size: int
    root: HexHash
    note: str
    at: datetime


class CheckpointPage(msgspec.Struct, frozen=True, kw_only=True):
    """Checkpoints by size. ``next`` is the size to ask after, if there may be more."""

    items: list[CheckpointView]
    next: int | None


class LeafPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sealed facts by position. ``next`` is the position to ask after, if there may be more."""

    items: list[SealedFact]
    next: int | None


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One place where the log and what it describes disagree.

    ``subject`` is a row by name, ``transfer 7``; ``field`` is null when the row as a whole is
    meant. ``sealed`` is what the log or its tree says, ``present`` what stands there now.
    """

    subject: str
    detail: str
    position: int | None = None
    field: str | None = None
    sealed: str | None = None
    present: str | None = None


class DifferencePage(msgspec.Struct, frozen=True, kw_only=True):
    """Differences in a range of positions; ``next`` is what to ask after, null at the end."""

    items: list[Difference]
    next: int | None
