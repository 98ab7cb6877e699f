"""From an outcome to the signed result that is handed in."""

from __future__ import annotations

from gstd.protocol.execution import Outcome, result_hash
from gstd.protocol.signing import DeviceKey, result_statement
from gstd.protocol.work import Claimed, SubmitItem


def signed_result(key: DeviceKey, claimed: Claimed, outcome: Outcome) -> SubmitItem:
    """The result of an attempt, signed by the device over its hash."""
    hashed = result_hash(
        module_hash=bytes.fromhex(claimed.module_hash),
        metered_hash=bytes.fromhex(claimed.metered_hash),
        profile=claimed.profile,
        input_hash=claimed.input.hash(),
        limits=claimed.limits,
        outcome=outcome,
    )
    statement = result_statement(
        task_id=claimed.task_id,
        revision=claimed.revision,
        attempt_id=claimed.attempt_id,
        device_key=key.public,
        profile=claimed.profile,
        result_hash=hashed,
    )
    return SubmitItem(
        attempt_id=claimed.attempt_id,
        task_id=claimed.task_id,
        revision=claimed.revision,
        status=outcome.status,
        exit_code=outcome.exit_code,
        fuel=outcome.fuel,
        stdout=outcome.stdout,
        stderr=outcome.stderr,
        signature=key.sign(statement),
    )
