"""Proofs of a statement: fetched, checked, kept in a file, and checked again offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from gstd.cli.files import read, replacing
from gstd.kernel.errors import InvalidInputError
from gstd.kernel.money import format_gstd
from gstd.protocol.audit import StatementProof, check_statement_proof
from gstd.protocol.money import StatementRow
from gstd.sdk import Client

AT_ONCE = 500
_HINT = "Give a file that `gstd wallet statement --proof FILE` wrote."


class Proved(msgspec.Struct, frozen=True):
    """What a file of proofs shows: how many transfers, under which key and newest tree size."""

    transfers: int
    public_key: str
    size: int
    lines: list[str]


async def fetch_proofs(client: Client, rows: Sequence[StatementRow]) -> list[StatementProof]:
    """Proofs of these rows' transfers, each checked against the platform's published key."""
    positions = sorted({row.position for row in rows if row.position is not None})
    key = await client.audit_key()
    proofs = [
        await client.audit_proof(positions[start : start + AT_ONCE])
        for start in range(0, len(positions), AT_ONCE)
    ]
    for proof in proofs:
        check_statement_proof(proof, public_key=key.public_key)
    return proofs


def write_proofs(path: Path, proofs: Sequence[StatementProof]) -> None:
    """Keep proofs in a file."""
    with replacing(path) as file:
        file.write(msgspec.json.format(msgspec.json.encode(proofs), indent=1))


def check_file(path: Path, public_key: str | None) -> Proved:
    """Check a file of proofs offline. Raises what is wrong with it.

    Without a pinned key the file is checked against the key that it brings along.
    """
    try:
        proofs = msgspec.json.decode(read(path), type=list[StatementProof])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{path} is not a file of proofs: {error}", hint=_HINT) from error
    if not proofs:
        raise InvalidInputError(f"{path} holds no proofs", hint=_HINT)
    pinned = public_key or proofs[0].key.public_key
    size = max(check_statement_proof(proof, public_key=pinned).size for proof in proofs)
    lines = [_line(fact.fact.fact().data) for proof in proofs for fact in proof.facts]
    return Proved(transfers=len(lines), public_key=pinned, size=size, lines=lines)


def _line(data: dict[str, object]) -> str:
    amount = format_gstd(int(str(data.get("amount_nano", "0"))))
    return f"transfer {data.get('id')}: {data.get('kind')} {amount} {data.get('asset')}"
