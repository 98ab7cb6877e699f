"""Checks a submitted result against the attempt it is for."""

from __future__ import annotations

from uuid import UUID

import msgspec

from gstd.kernel.canonical import sha256
from gstd.protocol.execution import STDERR_BYTES, Limits, Outcome, result_hash
from gstd.protocol.signing import is_signed_by, result_statement
from gstd.protocol.work import SubmitItem
from gstd.tasks.model import Result
from gstd.verification.errors import BadSignatureError, OutputTooLargeError, WrongTaskError


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What exactly an attempt had to run."""

    attempt_id: UUID
    task_id: UUID
    revision: int
    module_hash: bytes
    metered_hash: bytes
    profile: str
    input_hash: bytes
    limits: Limits


def check_result(item: SubmitItem, work: Work, device_key: str) -> Result:
    """The result's hashes, computed from its bytes and from what the platform knows.

    Raises ``WrongTaskError``, ``OutputTooLargeError`` or ``BadSignatureError``.
    """
    if (item.task_id, item.revision) != (work.task_id, work.revision):
        raise WrongTaskError
    if len(item.stdout) > work.limits.output_bytes or len(item.stderr) > STDERR_BYTES:
        raise OutputTooLargeError(
            f"{len(item.stdout)} bytes of output, {work.limits.output_bytes} allowed"
        )
    result = result_of(
        work,
        Outcome(
            status=item.status,
            exit_code=item.exit_code,
            fuel=item.fuel,
            stdout=item.stdout,
            stderr=item.stderr,
        ),
    )
    statement = result_statement(
        task_id=work.task_id,
        revision=work.revision,
        attempt_id=work.attempt_id,
        device_key=device_key,
        profile=work.profile,
        result_hash=result.result_hash,
    )
    if not is_signed_by(device_key, statement, item.signature):
        raise BadSignatureError
    return result


def result_of(work: Work, outcome: Outcome) -> Result:
    """The hashes of an outcome of this work."""
    return Result(
        result_hash=result_hash(
            module_hash=work.module_hash,
            metered_hash=work.metered_hash,
            profile=work.profile,
            input_hash=work.input_hash,
            limits=work.limits,
            outcome=outcome,
        ),
        status=outcome.status.value,
        exit_code=outcome.exit_code,
        fuel=outcome.fuel,
        output_hash=sha256(outcome.stdout),
        output_bytes=len(outcome.stdout),
    )
