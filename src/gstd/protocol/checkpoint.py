"""Signed checkpoints of the audit log, in the formats that other people's tools read.

A checkpoint is the body of C2SP's tlog-checkpoint, signed as a C2SP signed-note with Ed25519::

    gstd.example/log
    20852163
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
    time 2026-01-01T00:00:00Z

    — gstd.example/log Az3grlgtzPICa5OS8npVmf1…

The lines are origin, size, root, and our one extension line, the moment of signing. The key's name
is the origin. https://c2sp.org/tlog-checkpoint, https://c2sp.org/signed-note
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from datetime import UTC, datetime
from typing import Self

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gstd.kernel.canonical import sha256
from gstd.kernel.errors import GstdError
from gstd.protocol.merkle import HASH_BYTES
from gstd.protocol.signing import is_signed_by

ED25519 = b"\x01"
"""The signature type of signed-note that we make and check."""

MAX_NOTE = 1_000_000
"""Longer notes are refused unread: 16 witnesses with post-quantum signatures need a tenth."""

KEY_ID_BYTES = 4
PUBLIC_KEY = re.compile(r"[0-9a-f]{64}")
BODY = re.compile(
    r"(?P<origin>[^\n]+)\n"
    r"(?P<size>0|[1-9][0-9]{0,18})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"time (?P<at>[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z)\n"
)


class CheckpointError(GstdError):
    """The note is not a checkpoint that this log's key has signed."""

    code = "checkpoint_invalid"
    status = 422
    hint = "Compare the log's public key with the one you know, and fetch the checkpoint again."


class LogKey:
    """The log's private key. ``public`` is 64 hexadecimal digits."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()

    @classmethod
    def from_seed(cls, seed: bytes) -> Self:
        """The key of a stored 32-byte seed. Raises ``ValueError`` for any other length."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    def sign(self, message: bytes) -> bytes:
        """The 64-byte signature of ``message``."""
        return self._private.sign(message)


class Checkpoint(msgspec.Struct, frozen=True):
    """What a log commits to: its ``root`` (32 bytes) over its first ``size`` leaves.

    ``at`` is the moment of signing; a note carries its whole seconds, in UTC.
    """

    origin: str
    size: int
    root: bytes
    at: datetime

    def body(self) -> str:
        """The text that is signed. Raises ``ValueError`` for what the format cannot hold."""
        _check_name(self.origin)
        if not 0 <= self.size < 10**19 or len(self.root) != HASH_BYTES or self.at.tzinfo is None:
            raise ValueError("a checkpoint needs a size, a root of 32 bytes and a time with zone")
        at = self.at.astimezone(UTC).replace(microsecond=0, tzinfo=None).isoformat()
        return f"{self.origin}\n{self.size}\n{b64encode(self.root).decode()}\ntime {at}Z\n"


def sign(checkpoint: Checkpoint, key: LogKey) -> str:
    """The signed note of a checkpoint. Raises ``ValueError`` for what the format cannot hold."""
    return sign_text(checkpoint.body(), checkpoint.origin, key)


def sign_text(text: str, name: str, key: LogKey) -> str:
    """A signed note with one signature. Raises ``ValueError`` for what no note can hold."""
    _check_name(name)
    if not text.endswith("\n") or not _is_plain(text):
        raise ValueError("a note's text ends in a newline and has no other control characters")
    signature = _key_id(name, key.public) + key.sign(text.encode())
    return f"{text}\n— {name} {b64encode(signature).decode()}\n"


def open_note(text: str, public_key: str) -> Checkpoint:
    """The checkpoint in a note that this key (64 hexadecimal digits) has signed.

    The note may carry signatures of others (witnesses), which are not looked at. The origin is
    what the key has signed; a caller who expects a certain origin compares it. Raises
    ``CheckpointError`` for a malformed note, a foreign key, or a wrong signature.
    """
    name = text.partition("\n")[0]
    found = BODY.fullmatch(open_text(text, name, public_key))
    if found is None:
        raise CheckpointError("the note's text is not a checkpoint with a time")
    try:
        checkpoint = Checkpoint(
            origin=found["origin"],
            size=int(found["size"]),
            root=b64decode(found["root"], validate=True),
            at=datetime.fromisoformat(found["at"]),
        )
        is_exact = checkpoint.body() == found[0]
    except ValueError as error:
        raise CheckpointError(f"the note's text is not a checkpoint: {error}") from error
    if not is_exact:
        raise CheckpointError("the checkpoint is not written in the one exact way")
    return checkpoint


def open_text(text: str, name: str, public_key: str) -> str:
    """The text of a note, up to its last empty line, if the named key has signed it.

    Signatures of other keys are passed over; every signature of this one must be right. Raises
    ``CheckpointError`` for a malformed note, a foreign key, or a wrong signature.
    """
    _check_public(public_key)
    body, signatures = _parse_note(text)
    key_id = _key_id(name, public_key)
    own = [
        each[KEY_ID_BYTES:]
        for signer, each in signatures
        if signer == name and each[:KEY_ID_BYTES] == key_id
    ]
    if not own:
        raise CheckpointError(f"the note is not signed by the key {public_key}")
    if not all(is_signed_by(public_key, body.encode(), each) for each in own):
        raise CheckpointError(f"the signature is not that of the key {public_key}")
    return body


def verifier_key(origin: str, public: str) -> str:
    """The key as other tools take it, signed-note's *vkey*: ``origin+key id+base64``.

    Raises ``ValueError`` for an origin with spaces or plus, or a key that is not 64 digits.
    """
    _check_name(origin)
    if PUBLIC_KEY.fullmatch(public) is None:
        raise ValueError("a public key has 64 lower-case hexadecimal digits")
    encoded = b64encode(ED25519 + bytes.fromhex(public)).decode()
    return f"{origin}+{_key_id(origin, public).hex()}+{encoded}"


def parse_verifier_key(text: str) -> tuple[str, str]:
    """Origin and public key (64 hexadecimal digits) of a *vkey*.

    Raises ``CheckpointError`` for anything but the exact form, or a key id that does not fit.
    """
    origin, _, rest = text.partition("+")
    encoded = rest.partition("+")[2]  # base64 has plus signs of its own
    try:
        public = b64decode(encoded, validate=True)[len(ED25519) :].hex()
        is_exact = verifier_key(origin, public) == text
    except ValueError as error:
        raise CheckpointError(f"not a verifier key: {error}") from error
    if not is_exact:
        raise CheckpointError("not a verifier key: its parts do not fit together")
    return origin, public


def _parse_note(text: str) -> tuple[str, list[tuple[str, bytes]]]:
    if len(text) > MAX_NOTE or not _is_plain(text):
        raise CheckpointError("the note is too long or has characters that no note may have")
    body, separator, tail = text.rpartition("\n\n")
    lines = tail.split("\n")
    if not separator or len(lines) < 2 or lines.pop():
        raise CheckpointError("a note is a text, an empty line and lines with signatures")
    return body + "\n", [_parse_signature(line) for line in lines]


def _is_plain(text: str) -> bool:
    """Whether the text is valid UTF-8 without control characters other than newline."""
    try:
        data = text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return min(data.replace(b"\n", b""), default=0x20) >= 0x20


def _parse_signature(line: str) -> tuple[str, bytes]:
    """Key name, and key id with signature. Raises ``CheckpointError`` for another form."""
    dash, name, encoded = (*line.split(" "), "", "")[:3]
    try:
        _check_name(name)
        signature = b64decode(encoded, validate=True)
    except ValueError as error:
        raise CheckpointError(f"a malformed signature line: {error}") from error
    exact = f"— {name} {b64encode(signature).decode()}"
    if dash != "—" or line != exact or len(signature) <= KEY_ID_BYTES:
        raise CheckpointError("a malformed signature line")
    return name, signature


def _key_id(name: str, public: str) -> bytes:
    """The first four bytes of SHA-256 over name, newline, type and public key (signed-note)."""
    return sha256(name.encode() + b"\n" + ED25519 + bytes.fromhex(public))[:KEY_ID_BYTES]


def _check_name(name: str) -> None:
    is_odd = any(each.isspace() or each == "+" or each < " " for each in name)
    if not name or is_odd or not _is_plain(name):
        raise ValueError("a key's name is not empty and has no spaces, plus or control characters")


def _check_public(public_key: str) -> None:
    if PUBLIC_KEY.fullmatch(public_key) is None:
        raise CheckpointError("a public key has 64 lower-case hexadecimal digits")
