"""A statement's proof: what an honest log makes passes, and every kind of tampering is named."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.kernel.errors import GstdError
from gstd.protocol import merkle
from gstd.protocol.audit import (
    AuditKey,
    ConsistencyProof,
    InclusionProof,
    SealedFact,
    StatementProof,
    check_history,
    check_statement_proof,
)
from gstd.protocol.checkpoint import (
    Checkpoint,
    CheckpointError,
    LogKey,
    open_note,
    sign,
    verifier_key,
)
from gstd.protocol.merkle import ProofError

KEY = LogKey.from_seed(bytes(range(32)))
OTHER = LogKey.from_seed(bytes(32))
ORIGIN = "gstd.example/log"
MORNING = datetime(2026, 1, 1, tzinfo=UTC)
SIZE = 300


def sealed(position: int, **changed: Any) -> SealedFact:
    """The fact at a position, written as PostgreSQL writes jsonb."""
    fields = {
        "position": position,
        "kind": "task.accepted",
        "at_us": 1_767_225_600_000_000 + position,
        "accounts": [str(UUID(int=position))],
        "job_id": str(UUID(int=1)),
        "task_id": None,
        "attempt_id": None,
        "data": {"reward_nano": "1500000000", "name": "Zoë"},
    }
    text = json.dumps(fields | changed, ensure_ascii=False, separators=(", ", ": "))
    return SealedFact(position=position, salt=position.to_bytes(16, "big").hex(), text=text)


LOG = [sealed(position) for position in range(1, SIZE + 1)]
TILES = merkle.append(0, [each.leaf() for each in LOG], {})


def note(size: int, key: LogKey = KEY, origin: str = ORIGIN, root: bytes | None = None) -> str:
    root = merkle.root(size, TILES) if root is None else root
    at = MORNING + timedelta(seconds=size)
    return sign(Checkpoint(origin=origin, size=size, root=root, at=at), key)


def audit_key(key: LogKey = KEY, origin: str = ORIGIN) -> AuditKey:
    vkey = verifier_key(origin, key.public)
    return AuditKey(origin=origin, public_key=key.public, verifier_key=vkey)


def inclusion(position: int, size: int = SIZE) -> InclusionProof:
    path = merkle.inclusion_path(position - 1, size, TILES)
    return InclusionProof(fact=LOG[position - 1], path=[each.hex() for each in path])


def statement(*positions: int, size: int = SIZE) -> StatementProof:
    facts = [inclusion(position, size) for position in positions]
    return StatementProof(key=audit_key(), checkpoint=note(size), facts=facts)


def growth(first: int, second: int) -> ConsistencyProof:
    path = [each.hex() for each in merkle.consistency_path(first, second, TILES)]
    return ConsistencyProof(first=first, second=second, path=path)


def with_fact(proof: StatementProof, **changed: Any) -> StatementProof:
    """The proof with its last fact changed."""
    *others, last = proof.facts
    fact = msgspec.structs.replace(last.fact, **changed)
    return msgspec.structs.replace(
        proof, facts=[*others, InclusionProof(fact=fact, path=last.path)]
    )


def with_path(proof: StatementProof, path: list[str]) -> StatementProof:
    *others, last = proof.facts
    return msgspec.structs.replace(
        proof, facts=[*others, InclusionProof(fact=last.fact, path=path)]
    )


PROOF = statement(1, 7, 256, 257, 300)


def test_a_leaf_is_the_hash_of_salt_and_text() -> None:
    fact = SealedFact(position=1, salt="00112233445566778899aabbccddeeff", text='{"é": 1}')
    content = b"\x00" + bytes.fromhex(fact.salt) + b'{"\xc3\xa9": 1}'
    assert fact.leaf() == hashlib.sha256(content).digest()


def test_a_fact_reads_its_text() -> None:
    fact = LOG[6].fact()
    assert (fact.position, fact.kind, fact.at_us) == (7, "task.accepted", 1_767_225_600_000_007)
    assert (fact.accounts, fact.job_id, fact.task_id) == ([UUID(int=7)], UUID(int=1), None)
    assert fact.data == {"reward_nano": "1500000000", "name": "Zoë"}


def test_an_honest_statement_survives_the_network_and_passes() -> None:
    proof = msgspec.json.decode(msgspec.json.encode(PROOF), type=StatementProof)
    point = check_statement_proof(proof, public_key=KEY.public)
    assert (point.size, point.root) == (SIZE, merkle.root(SIZE, TILES))
    assert check_statement_proof(proof) == point


@given(size=st.integers(1, SIZE), kept=st.integers(0, SIZE), data=st.data())
def test_honest_statements_pass_beside_any_kept_note(
    size: int, kept: int, data: st.DataObject
) -> None:
    positions = data.draw(st.lists(st.integers(1, size), unique=True, max_size=5))
    old, new = sorted((kept, size))
    proof = statement(*positions, size=size)
    check_statement_proof(
        proof, public_key=KEY.public, earlier=note(kept), consistency=growth(old, new)
    )


def test_a_kept_note_of_the_same_size_needs_no_proof() -> None:
    check_statement_proof(PROOF, earlier=note(SIZE))


@pytest.mark.parametrize(
    ("forged", "sentence"),
    [
        (with_fact(PROOF, text=LOG[299].text.replace("15", "95")), r"fact 300 \(task.accepted\)"),
        (with_fact(PROOF, text=LOG[299].text + " "), r"fact 300 \(task.accepted\) is not proved"),
        (with_fact(PROOF, salt="0" * 32), r"fact 300 \(task.accepted\) is not proved"),
        (with_fact(PROOF, salt="0" * 31 + " "), r"fact 300 .* the salt or the text is malformed"),
        (with_fact(PROOF, salt=LOG[299].salt[2:]), r"fact 300 .* the salt or the text"),
        (with_fact(PROOF, position=299), r"fact 299 \(task.accepted\): its own text .* 300"),
        (with_fact(PROOF, text="{}"), r"fact 300 \(unreadable\)"),
        (with_fact(PROOF, text="nothing"), r"fact 300 \(unreadable\)"),
        (with_fact(PROOF, text="\ud800"), r"fact 300 \(unreadable\)"),
        (with_fact(PROOF, text='{"data": ' + '{"a": ' * 100_000), r"fact 300 \(unreadable\)"),
        (with_fact(PROOF, text=sealed(300, kind="\x1b[2J").text), r"fact 300 \(unreadable\)"),
        (with_fact(PROOF, text=sealed(300, kind="task.failed").text), r"fact 300 \(task.failed\)"),
        (with_path(PROOF, []), r"fact 300 .* too few"),
        (with_path(PROOF, [*inclusion(300).path, "00" * 32]), r"fact 300 .* too many"),
        (with_path(PROOF, inclusion(299).path), r"fact 300 .* another root"),
        (with_path(PROOF, ["zz" * 32]), r"fact 300 .* malformed"),
        (with_path(PROOF, ["00" * 31]), r"fact 300 .* malformed"),
        (with_path(PROOF, [each.upper() for each in inclusion(300).path]), r"300 .* malformed"),
        (with_path(PROOF, [f"{each} " for each in inclusion(300).path]), r"300 .* malformed"),
        (statement(7, 8, 7), r"fact 7 \(task.accepted\) is listed twice"),
        (
            msgspec.structs.replace(PROOF, checkpoint=note(299)),
            r"fact 1 \(task.accepted\) is not proved",
        ),
        (
            msgspec.structs.replace(PROOF, checkpoint=note(7), facts=[inclusion(8)]),
            r"fact 8 \(task.accepted\) is not proved: leaf 7 is not in a tree of 7",
        ),
    ],
)
def test_a_tampered_fact_is_named(forged: StatementProof, sentence: str) -> None:
    with pytest.raises(ProofError, match=sentence) as caught:
        check_statement_proof(forged, public_key=KEY.public)
    assert (caught.value.code, bool(caught.value.advice)) == ("proof_invalid", True)


def test_every_flipped_digit_of_a_path_is_refused() -> None:
    proof = statement(257)
    path = proof.facts[0].path
    for at in range(len(path)):
        for digit in range(0, 64, 7):
            old = path[at]
            new = old[:digit] + f"{int(old[digit], 16) ^ 1:x}" + old[digit + 1 :]
            with pytest.raises(ProofError, match=r"fact 257 .* another root"):
                check_statement_proof(with_path(proof, [*path[:at], new, *path[at + 1 :]]))


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"checkpoint": note(SIZE, OTHER)}, "not signed by the key"),
        ({"checkpoint": note(SIZE, origin="gstd.example/b")}, "from gstd.example/b, not from"),
        ({"checkpoint": note(SIZE).replace("\n300\n", "\n301\n")}, "signature is not that of"),
        ({"checkpoint": "hello"}, "a note is a text"),
        ({"key": audit_key(OTHER)}, "the proof is from the key"),
        ({"key": audit_key(origin="gstd.example/b")}, "from gstd.example/log, not from"),
        (
            {"key": msgspec.structs.replace(audit_key(), verifier_key="a+b+c")},
            "not a verifier key",
        ),
        (
            {"key": msgspec.structs.replace(audit_key(), origin="gstd.example/b")},
            "verifier key is not of the same origin",
        ),
        (
            {
                "key": msgspec.structs.replace(
                    audit_key(), verifier_key=audit_key(OTHER).verifier_key
                )
            },
            "verifier key is not of the same origin",
        ),
    ],
)
def test_a_foreign_or_forged_checkpoint_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        check_statement_proof(msgspec.structs.replace(PROOF, **changed), public_key=KEY.public)


def test_a_whole_forged_log_passes_only_without_the_known_key() -> None:
    forged = StatementProof(key=audit_key(OTHER), checkpoint=note(SIZE, OTHER), facts=PROOF.facts)
    check_statement_proof(forged)
    for known in (KEY.public, ""):
        with pytest.raises(CheckpointError, match="the proof is from the key"):
            check_statement_proof(forged, public_key=known)


@pytest.mark.parametrize(
    ("kept", "proof", "sentence"),
    [
        (note(100), None, "consistency proof is missing"),
        (note(100), growth(99, 300), "300 facts does not continue the one of 100: .* for 99"),
        (note(100), growth(100, 299), "300 facts does not continue the one of 100: .* 299"),
        (
            note(100, root=bytes(32)),
            growth(100, 300),
            "300 facts does not continue the one of 100: .* earlier 100",
        ),
        (
            note(400, root=bytes(32)),
            ConsistencyProof(first=300, second=400, path=["00" * 32] * 5),
            "400 facts does not continue the one of 300",
        ),
        (
            note(100),
            ConsistencyProof(first=100, second=300, path=["0"]),
            "300 facts does not continue the one of 100: .* malformed",
        ),
        (note(300, root=bytes(32)), None, "two different roots for the same 300"),
        (None, growth(100, 300), "without the note"),
    ],
)
def test_a_rewritten_history_is_named(
    kept: str | None, proof: ConsistencyProof | None, sentence: str
) -> None:
    with pytest.raises(ProofError, match=sentence):
        check_statement_proof(PROOF, earlier=kept, consistency=proof)


@pytest.mark.parametrize("kept", [note(100, OTHER), note(100, origin="gstd.example/b"), ""])
def test_a_kept_note_of_another_log_is_refused(kept: str) -> None:
    with pytest.raises(CheckpointError):
        check_statement_proof(PROOF, earlier=kept, consistency=growth(100, 300))


def test_two_checkpoints_can_be_compared_alone() -> None:
    old, new = open_note(note(100), KEY.public), open_note(note(300), KEY.public)
    check_history(old, new, growth(100, 300))
    check_history(new, old, growth(100, 300))
    with pytest.raises(ProofError):
        check_history(old, new, growth(101, 300))


@given(st.data())
def test_whatever_arrives_ends_in_a_named_error(data: st.DataObject) -> None:
    """No input makes the check fail with anything but an error people can read."""
    words = st.text(max_size=40)
    fact = SealedFact(
        position=data.draw(st.integers()), salt=data.draw(words), text=data.draw(words)
    )
    facts = [InclusionProof(fact=fact, path=data.draw(st.lists(words, max_size=3)))]
    proof = data.draw(
        st.sampled_from(
            [
                msgspec.structs.replace(PROOF, facts=facts),
                msgspec.structs.replace(PROOF, checkpoint=data.draw(words)),
                with_path(PROOF, data.draw(st.lists(words, max_size=10))),
            ]
        )
    )
    with pytest.raises(GstdError):
        check_statement_proof(proof, public_key=data.draw(st.sampled_from([None, KEY.public])))
