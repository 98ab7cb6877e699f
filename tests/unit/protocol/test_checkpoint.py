"""Signed notes and checkpoints: the published vectors, the round trip, and what is refused."""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gstd.protocol.checkpoint import (
    MAX_NOTE,
    Checkpoint,
    CheckpointError,
    LogKey,
    open_note,
    open_text,
    parse_verifier_key,
    sign,
    sign_text,
    verifier_key,
)

# The example of Go's golang.org/x/mod/sumdb/note, with the seed from its signer key.
GO_SIGNER = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
GO_VERIFIER = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
GO_TEXT = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
)
GO_NOTE = (
    f"{GO_TEXT}\n— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXg"
    "KvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)

KEY = LogKey.from_seed(bytes(range(32)))
OTHER = LogKey.from_seed(bytes(32))
ORIGIN = "gstd.example/log"
POINT = Checkpoint(
    origin=ORIGIN,
    size=20_852_163,
    root=bytes(range(32)),
    at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
)
NOTE = sign(POINT, KEY)
BODY, SIGNATURE = NOTE.split("\n\n")


def resigned(body: str, name: str = ORIGIN, key: LogKey = KEY) -> str:
    """A note over any body that the key really signed."""
    return sign_text(body, name, key)


def test_the_go_example_is_read() -> None:
    name, public = parse_verifier_key(GO_VERIFIER)
    assert name == "PeterNeumann"
    assert verifier_key(name, public) == GO_VERIFIER
    assert open_text(GO_NOTE, name, public) == GO_TEXT


def test_the_go_example_is_written() -> None:
    seed = b64decode(GO_SIGNER.split("+", 4)[4])[1:]
    key = LogKey.from_seed(seed)
    assert verifier_key("PeterNeumann", key.public) == GO_VERIFIER
    assert sign_text(GO_TEXT, "PeterNeumann", key) == GO_NOTE


def test_the_lines_of_a_checkpoint() -> None:
    lines = NOTE.split("\n")
    assert lines[:5] == [
        "gstd.example/log",
        "20852163",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "time 2026-01-02T03:04:05Z",
        "",
    ]
    assert lines[5].startswith("— gstd.example/log ")
    assert lines[6:] == [""]


@given(
    size=st.integers(0, 10**19 - 1),
    root=st.binary(min_size=32, max_size=32),
    at=st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 - zone below
    hours=st.integers(-14, 14),
)
def test_a_checkpoint_comes_back_with_whole_seconds(
    size: int, root: bytes, at: datetime, hours: int
) -> None:
    moment = at.replace(tzinfo=timezone(timedelta(hours=hours)))
    point = Checkpoint(origin=ORIGIN, size=size, root=root, at=moment)
    back = open_note(sign(point, KEY), KEY.public)
    assert back == msgspec.structs.replace(point, at=moment.replace(microsecond=0))
    assert back.at.tzinfo is UTC


@given(
    at=st.integers(0, len(NOTE.encode()) - 1),
    bit=st.integers(0, 7),
)
def test_every_flipped_bit_of_a_note_is_refused(at: int, bit: int) -> None:
    forged = bytearray(NOTE.encode())
    forged[at] ^= 1 << bit
    with pytest.raises(CheckpointError):
        open_note(forged.decode(errors="surrogateescape"), KEY.public)


@given(start=st.integers(0, len(NOTE)), end=st.integers(0, len(NOTE)))
def test_no_part_of_a_note_is_a_note(start: int, end: int) -> None:
    if NOTE[start:end] != NOTE:
        with pytest.raises(CheckpointError):
            open_note(NOTE[start:end], KEY.public)


@pytest.mark.parametrize("public", [OTHER.public, KEY.public.upper(), KEY.public[:-2], "", "é"])
def test_another_key_is_refused(public: str) -> None:
    with pytest.raises(CheckpointError, match="key"):
        open_note(NOTE, public)


def test_a_foreign_signature_under_our_key_id_is_refused() -> None:
    key_id = b64decode(SIGNATURE.split(" ")[2])[:4]
    forged = b64encode(key_id + OTHER.sign(f"{BODY}\n".encode())).decode()
    with pytest.raises(CheckpointError, match="the signature is not that of"):
        open_note(f"{BODY}\n\n— {ORIGIN} {forged}\n", KEY.public)
    # Beside a right one it does not pass either.
    with pytest.raises(CheckpointError, match="the signature is not that of"):
        open_note(f"{NOTE}— {ORIGIN} {forged}\n", KEY.public)


def test_signatures_of_witnesses_are_passed_over() -> None:
    witness = b64encode(b"\x04any" + bytes(72)).decode()
    before = f"{BODY}\n\n— witness.example {witness}\n{SIGNATURE}"
    after = f"{NOTE}— witness.example {witness}\n— {ORIGIN} {witness}\n"
    assert open_note(before, KEY.public) == open_note(after, KEY.public) == POINT


def test_a_key_under_another_name_is_another_key() -> None:
    with pytest.raises(CheckpointError, match="not signed by"):
        open_note(resigned(POINT.body(), "gstd.example/other"), KEY.public)


@pytest.mark.parametrize(
    "body",
    [
        BODY.replace("20852163", "020852163"),
        BODY.replace("20852163", "-1"),
        BODY.replace("20852163", "٣"),
        BODY.replace("20852163", "9" * 20),
        BODY.replace("8=\n", "9=\n"),  # the same 32 bytes in another spelling
        BODY.replace("Hh8=", "Hg=="),
        BODY.replace("\ntime 2026-01-02T03:04:05Z", ""),
        BODY.replace("03:04:05Z", "03:04:05+00:00"),
        BODY.replace("03:04:05Z", "03:04:05.5Z"),
        BODY.replace("01-02", "02-30"),
        f"{BODY}\nmore",
        f"{BODY}\n",
        f"\n{BODY}",
    ],
)
def test_a_signed_body_of_another_form_is_refused(body: str) -> None:
    assert body != BODY
    with pytest.raises(CheckpointError, match=r"checkpoint|not signed by") as caught:
        open_note(resigned(f"{body}\n"), KEY.public)
    assert caught.value.code == "checkpoint_invalid"
    assert caught.value.advice


@pytest.mark.parametrize(
    "note",
    [
        "",
        "\n\n",
        f"{BODY}\n",
        f"{BODY}\n\n",
        f"{BODY}\n{SIGNATURE}",
        NOTE.rstrip("\n"),
        f"{NOTE}\n",
        f"{NOTE} ",
        NOTE.replace("—", "-"),
        NOTE.replace("— ", "—  "),
        NOTE.replace("\n", "\r\n"),
        f"{NOTE}junk\n",
        f"{NOTE}— witness.example AAAA\n",
        f"{NOTE}— witness+example AAAAAAAA\n",
        f"{NOTE}— witness.example ====\n",
        f"{NOTE}— witness.example AAAAAAA= junk\n",
        f"{NOTE}— witness.example AAAAAAB=\n",  # five bytes, not in their one spelling
        f"{NOTE}— witness.example AAAAAAA\u0661\n",
        f"\ud800{NOTE}",
        NOTE + f"— witness.example {'AAAA' * (MAX_NOTE // 4)}\n",
    ],
)
def test_a_malformed_note_is_refused(note: str) -> None:
    with pytest.raises(CheckpointError, match=r"note|signature line"):
        open_note(note, KEY.public)


@pytest.mark.parametrize("origin", ["", "a b", "a+b", "a\nb", "a\tb", "a\u00a0b", "a\ud800"])
def test_no_origin_that_the_format_cannot_hold(origin: str) -> None:
    with pytest.raises(ValueError, match="name"):
        sign(msgspec.structs.replace(POINT, origin=origin), KEY)
    with pytest.raises(ValueError, match="name"):
        verifier_key(origin, KEY.public)


@pytest.mark.parametrize(
    "point",
    [
        msgspec.structs.replace(POINT, size=-1),
        msgspec.structs.replace(POINT, size=10**19),
        msgspec.structs.replace(POINT, root=bytes(31)),
        msgspec.structs.replace(POINT, at=datetime(2026, 1, 1)),  # noqa: DTZ001 - that is the point
    ],
)
def test_no_checkpoint_that_the_format_cannot_hold(point: Checkpoint) -> None:
    with pytest.raises(ValueError, match="a checkpoint needs"):
        sign(point, KEY)


@pytest.mark.parametrize("text", ["no newline", "a\x07\n", "\ud800\n"])
def test_no_text_that_a_note_cannot_hold(text: str) -> None:
    with pytest.raises(ValueError, match="newline"):
        sign_text(text, ORIGIN, KEY)


@given(
    name=st.text(
        st.characters(codec="ascii", exclude_characters="+ ", min_codepoint=33), min_size=1
    )
)
def test_verifier_keys_come_back(name: str) -> None:
    assert parse_verifier_key(verifier_key(name, KEY.public)) == (name, KEY.public)


def test_no_part_and_no_change_of_a_verifier_key_is_one() -> None:
    for start in range(len(GO_VERIFIER)):
        for end in range(start, len(GO_VERIFIER) + 1):
            if (start, end) != (0, len(GO_VERIFIER)):
                with pytest.raises(CheckpointError, match="not a verifier key"):
                    parse_verifier_key(GO_VERIFIER[start:end])
    for at, each in enumerate(GO_VERIFIER):
        with pytest.raises(CheckpointError, match="not a verifier key"):
            parse_verifier_key(GO_VERIFIER[:at] + chr(ord(each) + 1) + GO_VERIFIER[at + 1 :])


@pytest.mark.parametrize("public", ["", "00", KEY.public.upper(), KEY.public + "00"])
def test_no_verifier_key_of_what_is_no_key(public: str) -> None:
    with pytest.raises(ValueError, match="64"):
        verifier_key(ORIGIN, public)
