"""Signing, lying on purpose, proofs, and the cache of modules."""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from pathlib import Path

import msgspec
import pytest

from gstd.proof_of_work.challenge import Challenge
from gstd.proof_of_work.solver import SolvingStoppedError
from gstd.protocol.execution import Limits, Outcome, Status, TaskInput, result_hash
from gstd.protocol.signing import DeviceKey, is_signed_by, result_statement
from gstd.protocol.types import Asset
from gstd.protocol.work import Claimed, Offer, SubmitItem
from gstd.worker.errors import ModuleMismatchError
from gstd.worker.misbehave import Misbehaviour, alteration, flip
from gstd.worker.modules import ModuleCache
from gstd.worker.proofs import Solver, is_acceptable
from gstd.worker.results import signed_result

KEY = DeviceKey.from_seed(bytes(32))
CLAIMED = Claimed(
    attempt_id=uuid.uuid4(),
    task_id=uuid.uuid4(),
    revision=2,
    lease_ms=15_000,
    module_hash="aa" * 32,
    metered_hash="bb" * 32,
    profile="p",
    input=TaskInput(args=("1",)),
    limits=Limits(),
)
OUTCOME = Outcome(status=Status.EXIT, exit_code=3, fuel=9, stdout=b"42\n", stderr=b"!")


def statement_of(item: SubmitItem) -> bytes:
    """What the platform makes of a submitted result."""
    outcome = Outcome(
        status=item.status,
        exit_code=item.exit_code,
        fuel=item.fuel,
        stdout=item.stdout,
        stderr=item.stderr,
    )
    hashed = result_hash(
        module_hash=bytes.fromhex(CLAIMED.module_hash),
        metered_hash=bytes.fromhex(CLAIMED.metered_hash),
        profile=CLAIMED.profile,
        input_hash=CLAIMED.input.hash(),
        limits=CLAIMED.limits,
        outcome=outcome,
    )
    return result_statement(
        task_id=CLAIMED.task_id,
        revision=CLAIMED.revision,
        attempt_id=CLAIMED.attempt_id,
        device_key=KEY.public,
        profile=CLAIMED.profile,
        result_hash=hashed,
    )


@pytest.mark.parametrize("misbehaviour", [None, Misbehaviour.FLIP])
def test_even_a_lie_is_signed_rightly(misbehaviour: Misbehaviour | None) -> None:
    item = signed_result(KEY, CLAIMED, alteration(misbehaviour)(OUTCOME))
    assert is_signed_by(KEY.public, statement_of(item), item.signature)
    assert (item.stdout == OUTCOME.stdout) is (misbehaviour is None)
    assert (item.status, item.exit_code, item.fuel, item.stderr) == (Status.EXIT, 3, 9, b"!")


def test_flip_changes_one_byte_and_gives_an_empty_output_one() -> None:
    assert flip(OUTCOME).stdout == b"52\n"
    assert flip(flip(OUTCOME)) == OUTCOME
    assert len(flip(msgspec.structs.replace(OUTCOME, stdout=b"")).stdout) == 1


def offer_of(challenge: Challenge, key: bytes) -> Offer:
    return Offer(
        offer_id=challenge.offer_id,
        task_id=challenge.task_id,
        job_id=uuid.uuid4(),
        reward_nano="1",
        asset=Asset.TEST,
        module_hash="aa" * 32,
        limits=Limits(),
        prefix=challenge.prefix(key),
        bits=challenge.bits,
        count=challenge.count,
        expires_at=challenge.expires_at,
    )


def challenge_with(bits: int, count: int) -> Challenge:
    return Challenge(
        offer_id=uuid.uuid4(),
        task_id=uuid.uuid4(),
        worker=KEY.public,
        bits=bits,
        count=count,
        expires_at=1,
    )


async def test_claim_carries_a_proof_that_solves_the_challenge() -> None:
    challenge = challenge_with(bits=6, count=8)
    item = await Solver().claim(offer_of(challenge, b"k"))
    assert challenge.is_solved_by(b"k", item.nonces)
    assert (item.offer_id, item.expires_at) == (challenge.offer_id, 1)


async def test_stopped_solver_ends_the_work_in_its_thread() -> None:
    solver = Solver()
    solving = asyncio.create_task(solver.claim(offer_of(challenge_with(bits=60, count=1), b"k")))
    await asyncio.sleep(0)
    solver.stop()
    with pytest.raises(SolvingStoppedError):
        await solving


@pytest.mark.parametrize(
    ("bits", "count", "acceptable"),
    [
        (18, 16, True),
        (20, 16, True),
        (21, 16, False),
        (1, 0, False),
        (-1, 4, False),
        (90, 1, False),
    ],
)
def test_absurd_offers_are_left_alone(bits: int, count: int, acceptable: bool) -> None:
    offer = offer_of(challenge_with(bits=18, count=8), b"k")
    assert is_acceptable(msgspec.structs.replace(offer, bits=bits, count=count)) is acceptable


class Source:
    """Where modules come from."""

    def __init__(self, *modules: bytes) -> None:
        self.modules = {hashlib.sha256(module).hexdigest(): module for module in modules}
        self.fetched: list[str] = []

    async def fetch(self, metered_hash: str) -> bytes:
        self.fetched.append(metered_hash)
        await asyncio.sleep(0)
        return self.modules[metered_hash]


async def test_attempts_that_need_a_module_at_once_share_one_download() -> None:
    source = Source(b"one")
    (wanted,) = source.modules
    cache = ModuleCache(source.fetch)
    assert await asyncio.gather(*(cache.get(wanted) for _ in range(5))) == [b"one"] * 5
    assert source.fetched == [wanted]


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


async def test_memory_forgets_what_was_used_longest_ago() -> None:
    source = Source(b"aa", b"bb", b"cc")
    first, second, third = source.modules
    cache = ModuleCache(source.fetch, memory_bytes=4)
    for wanted in (first, second, first, third, first, second):
        await cache.get(wanted)
    assert source.fetched == [first, second, third, second]


async def test_disk_outlives_the_process_and_is_checked(tmp_path: Path) -> None:
    source = Source(b"one")
    (wanted,) = source.modules
    await ModuleCache(source.fetch, tmp_path / "modules").get(wanted)
    assert await ModuleCache(source.fetch, tmp_path / "modules").get(wanted) == b"one"
    assert len(source.fetched) == 1
    (tmp_path / "modules" / wanted).write_bytes(b"two")
    assert await ModuleCache(source.fetch, tmp_path / "modules").get(wanted) == b"one"
    assert len(source.fetched) == 2


async def test_disk_keeps_within_its_bytes(tmp_path: Path) -> None:
    source = Source(b"aa", b"bb", b"cc")
    first, second, third = source.modules
    cache = ModuleCache(source.fetch, tmp_path, memory_bytes=0, disk_bytes=4)
    for moment, wanted in enumerate((first, second)):
        await cache.get(wanted)
        os.utime(tmp_path / wanted, (moment, moment))
    await cache.get(first)
    await cache.get(third)
    assert names(tmp_path) == {first, third}


async def test_folder_that_cannot_be_written_only_means_no_cache(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    source = Source(b"one")
    (wanted,) = source.modules
    assert await ModuleCache(source.fetch, tmp_path / "file").get(wanted) == b"one"


async def test_bytes_with_another_hash_are_refused() -> None:
    source = Source()
    source.modules["ab" * 32] = b"other"
    with pytest.raises(ModuleMismatchError):
        await ModuleCache(source.fetch).get("ab" * 32)
