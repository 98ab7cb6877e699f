"""The audit log over HTTP: open heads, own proofs, and every tampering found and named."""

from __future__ import annotations

import pytest

from gstd.protocol.audit import check_statement_proof
from gstd.protocol.checkpoint import LogKey, open_note, sign
from gstd.sdk.errors import ApiError
from tests.integration.api.house import bearer, problem_of
from tests.integration.api.sealed import Scene


async def test_a_sound_log_is_sound_and_heads_are_open(scene: Scene) -> None:
    kept = await scene.admin.client.audit_checkpoint()
    report = await scene.verify(kept)
    assert report.findings == []
    assert report.ok
    assert report.checkpoint == kept
    assert report.checkpoints >= 2
    assert report.leaves == open_note(kept, report.public_key).size
    for path in ("key", "checkpoint", "checkpoints", "consistency?first=1&second=2"):
        assert (await scene.house.http.get(f"/api/v1/audit/{path}")).status_code == 200, path
    answer = await scene.house.http.get("/api/v1/audit/consistency?first=1&second=9999")
    problem_of(answer, 404, "audit_size_unknown")


async def test_an_account_proves_its_own_events_only(scene: Scene) -> None:
    client = scene.requester.client
    mine = [item.position for item in (await client.events()).items]
    proof = await client.audit_proof(mine)
    known = await client.audit_key()
    checked = check_statement_proof(proof, public_key=known.public_key)
    assert checked.size >= len(mine)
    assert len(proof.facts) == len(mine)
    theirs = await scene.admin.client.events()
    others = {item.position for item in theirs.items} - set(mine)
    with pytest.raises(ApiError) as raised:
        await client.audit_proof([min(others)])
    assert raised.value.code == "audit_fact_unknown"
    check_statement_proof(await scene.admin.client.audit_proof([min(others)]))
    for text in ("", "x", "1,,2", "-1", "9" * 19):
        answer = await scene.house.http.get(
            f"/api/v1/audit/proof?positions={text}", headers=bearer(scene.requester)
        )
        problem_of(answer, 400, "invalid_input")
    for route in ("leaves", "differences"):
        answer = await scene.house.http.get(
            f"/api/v1/admin/audit/{route}", headers=bearer(scene.requester)
        )
        problem_of(answer, 403, "not_allowed")


LEAF = (
    "UPDATE event_log SET leaf = audit_leaf(salt, audit_text("
    "position, kind, at, accounts, job_id, task_id, attempt_id, data))"
)
INSERT = """
    INSERT INTO ledger.transfer (id, kind, ref, seq, asset, debit, credit, amount, debit_after,
        credit_after, debit_version, credit_version, at)
    OVERRIDING SYSTEM VALUE
    SELECT 1000000000000, kind, gen_random_uuid(), seq, asset, debit, credit, amount, debit_after,
        credit_after, debit_version, credit_version, at
    FROM ledger.transfer ORDER BY id LIMIT 1
"""
TILE = """
    UPDATE audit_tile SET hashes =
        (SELECT string_agg(leaf, ''::bytea ORDER BY position) FROM event_log) WHERE level = 0
"""
TAMPERINGS = {
    "transfer changed": (
        ["UPDATE ledger.transfer SET amount = amount + 1 WHERE id = 1"],
        [("transfer 1", "amount_nano is not what was logged")],
    ),
    "transfer deleted": (
        ["DELETE FROM ledger.transfer WHERE id = 1"],
        [("transfer 1", "was logged and is gone")],
    ),
    "transfer inserted": ([INSERT], [("transfer 1000000000000", "was never logged (grant)")]),
    "row changed": (
        ["UPDATE event_log SET data = '{\"x\": 1}' WHERE position = 2"],
        [("position 2 ", "is not what its leaf"), ("positions 1 to ", "were rewritten")],
    ),
    "row changed with its leaf": (
        ["UPDATE event_log SET at = at + interval '1 hour' WHERE position = 2", LEAF],
        [("position 2 ", "not the one in the tree"), ("positions 1 to ", "were rewritten")],
    ),
    "row changed with its leaf and tile": (
        [
            "UPDATE event_log SET at = at + interval '1 hour' WHERE position = 2",
            LEAF,
            TILE,
        ],
        [("positions 1 to ", "were rewritten")],
    ),
    "row deleted": (
        ["DELETE FROM event_log WHERE position = 3"],
        [("position 3", "missing from the log")],
    ),
    "end cut off": (
        [
            "DELETE FROM event_log WHERE position > 3",
            "UPDATE event_head SET position = 3",
        ],
        [("positions 4 to ", "missing from the log")],
    ),
    "tile changed": (
        ["UPDATE audit_tile SET hashes = sha256('x') || substring(hashes FROM 33)"],
        [("position 1 ", "not the one in the tree")],
    ),
    "attempt changed": (
        ["UPDATE attempt SET state = 'rejected', verdict = 'wrong'"],
        [("attempt ", "state is not what"), ("attempt ", "verdict is not what")],
    ),
    **{
        f"attempt's {field} changed": (
            [f"UPDATE attempt SET {field} = {value}"],  # noqa: S608 - from the list below
            [("attempt ", f"{field} is not what was logged")],
        )
        for field, value in {
            "device_id": "gen_random_uuid()",
            "status": "'trap'",
            "exit_code": "7",
            "fuel": "fuel + 1",
            "result_hash": "sha256('x')",
            "output_hash": "sha256('x')",
            "output_bytes": "output_bytes + 1",
            "stderr_hash": "sha256('x')",
            "signature": "sha512('x')",
        }.items()
    },
    "result never logged": (
        [
            "DELETE FROM event_log WHERE kind = 'attempt.submitted'",
            "UPDATE attempt SET fuel = fuel + 1",
        ],
        [("attempt ", "its result was never logged")],
    ),
    "attempt deleted": (["DELETE FROM attempt"], [("attempt ", "was logged and is gone")]),
    "checkpoint's root changed": (
        ["UPDATE audit_checkpoint SET root = sha256('x')"],
        [("checkpoint ", "its row is not what its note says")],
    ),
}


@pytest.mark.parametrize("name", TAMPERINGS)
async def test_every_tampering_is_found_and_named(scene: Scene, name: str) -> None:
    statements, expected = TAMPERINGS[name]
    await scene.tamper(*statements)
    report = await scene.verify()
    assert not report.ok
    for subject, detail in expected:
        assert any(
            each.subject.startswith(subject) and detail in each.detail for each in report.findings
        ), (subject, detail, report.findings)


async def test_a_forged_checkpoint_is_named(scene: Scene) -> None:
    note = await scene.admin.client.audit_checkpoint()
    newest = open_note(note, (await scene.admin.client.audit_key()).public_key)
    forged = sign(newest, LogKey.from_seed(b"x" * 32))
    await scene.tamper(
        f"UPDATE audit_checkpoint SET note = '{forged}' WHERE size = {newest.size}"  # noqa: S608
    )
    report = await scene.verify()
    [found] = report.findings
    assert found.subject == f"checkpoint {newest.size}"
    assert found.detail.startswith("forged")


async def test_one_who_has_the_key_is_found_by_a_kept_checkpoint(scene: Scene) -> None:
    kept = await scene.admin.client.audit_checkpoint()
    await scene.tamper(
        "UPDATE event_log SET at = at + interval '1 hour' WHERE position = 2",
        LEAF,
        "DELETE FROM audit_tile",
        "DELETE FROM audit_checkpoint",
        "UPDATE audit_head SET size = 0",
    )
    await scene.house.number_events()  # seals it all anew with the right key
    assert (await scene.verify()).ok
    report = await scene.verify(kept)
    assert {each.subject for each in report.findings} == {"the kept checkpoint"}
