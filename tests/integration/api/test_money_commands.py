"""The commands that check and copy what happened, as processes that talk to a real server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn

from gstd.protocol.checkpoint import Checkpoint, open_note, sign
from tests.integration.api.house import House, Person
from tests.integration.api.sealed import Scene
from tests.servers import until

FORK = bytes(range(32))
"""The root of a tree that the log never was."""


class Ended(msgspec.Struct, frozen=True):
    """What a command said, and how it ended."""

    code: int | None
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@asynccontextmanager
async def served(house: House) -> AsyncIterator[str]:
    """The application on a port of this machine."""
    config = uvicorn.Config(house.app, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        await until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await task


class Shell:
    """Runs ``gstd`` as a person, in a folder of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    async def gstd(self, person: Person, *words: str, before: str = "true") -> Ended:
        """``before`` is what the shell does first, such as a limit that it sets."""
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            f'{before} && exec "$@"',
            "sh",
            sys.executable,
            "-m",
            "gstd.cli.main",
            *words,
            cwd=self.folder,
            env={
                **os.environ,
                "GSTD_URL": self.url,
                "GSTD_API_KEY": person.key,
                "GSTD_STATE": str(self.folder),
                "COLUMNS": "400",
            },
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate()
        return Ended(process.returncode, out.decode(), err.decode())

    def files(self) -> dict[str, str]:
        return {path.name: path.read_text() for path in self.folder.iterdir()}


@pytest.fixture
async def shell(scene: Scene, tmp_path: Path) -> AsyncIterator[Shell]:
    folder = tmp_path / "here"
    folder.mkdir()
    async with served(scene.house) as url:
        yield Shell(url, folder)


async def forged(scene: Scene, size: int) -> str:
    """A head of this size over other leaves, signed with the platform's own key."""
    at = scene.house.platform.clock.now()
    head = Checkpoint(origin="gstd/audit/v1", size=size, root=FORK, at=at)
    return sign(head, scene.house.platform.log_key)


async def test_a_sound_log_is_said_to_be_sound_and_its_head_is_kept(
    scene: Scene, shell: Shell
) -> None:
    note = await scene.admin.client.audit_checkpoint()
    ended = await shell.gstd(scene.admin, "admin", "audit", "verify", "--keep", "head")
    assert ended.code == 0, ended
    assert ended.out.startswith("Nothing was tampered with: ")
    assert shell.files() == {"head": note}
    again = await shell.gstd(scene.admin, "admin", "audit", "verify", "--since", "head", "--json")
    assert again.code == 0, again
    assert (again.json["ok"], again.json["findings"]) == (True, [])
    assert again.json["checkpoint"] == note


FINDINGS = {
    "changed row": (
        "UPDATE ledger.transfer SET amount = amount + 1 WHERE id = 1",
        "transfer 1",
        "amount_nano is not what was logged",
    ),
    "row changed to what looks like colours": (
        "UPDATE attempt SET status = '[/]'",
        "attempt ",
        "status is not what was logged",
    ),
    "deleted row": (
        "DELETE FROM event_log WHERE position = 3",
        "position 3",
        "missing from the log",
    ),
}


@pytest.mark.parametrize("name", FINDINGS)
async def test_what_was_tampered_with_is_named_and_ends_with_1(
    scene: Scene, shell: Shell, name: str
) -> None:
    statement, subject, detail = FINDINGS[name]
    await scene.tamper(statement)
    words = ("admin", "audit", "verify", "--keep", "head")
    ended = await shell.gstd(scene.admin, *words)
    assert ended.code == 1, ended
    assert ended.out.startswith("What was tampered with")
    assert any(subject in line and detail in line for line in ended.out.splitlines()), ended.out
    assert "Traceback" not in ended.err
    told = await shell.gstd(scene.admin, *words, "--json")
    assert told.code == 1, told
    assert told.json["ok"] is False
    assert any(
        item["subject"].startswith(subject) and item["detail"] == detail
        for item in told.json["findings"]
    ), told.out
    assert shell.files() == {}, "the head of a log that is not sound is not worth keeping"


async def test_the_values_of_a_changed_row_are_told(scene: Scene, shell: Shell) -> None:
    await scene.tamper(FINDINGS["changed row"][0])
    told = await shell.gstd(scene.admin, "admin", "audit", "verify", "--json")
    [found] = [item for item in told.json["findings"] if item["field"] == "amount_nano"]
    assert int(found["present"]) == int(found["sealed"]) + 1


async def test_a_checkpoint_that_forks_the_log_is_named(scene: Scene, shell: Shell) -> None:
    key = (await scene.admin.client.audit_key()).public_key
    size = open_note(await scene.admin.client.audit_checkpoint(), key).size
    note = await forged(scene, size - 1)
    await scene.tamper(
        f"INSERT INTO audit_checkpoint VALUES ({size - 1}, '\\x{FORK.hex()}', '{note}', now())"  # noqa: S608
    )
    ended = await shell.gstd(scene.admin, "admin", "audit", "verify")
    assert ended.code == 1, ended
    [line] = [line for line in ended.out.splitlines() if f"checkpoint {size - 1} " in line]
    assert "signed, but the log never had this root" in line
    told = await shell.gstd(scene.admin, "admin", "audit", "verify", "--json")
    assert told.code == 1
    assert [item["subject"] for item in told.json["findings"]] == [f"checkpoint {size - 1}"]


async def test_a_kept_checkpoint_of_another_branch_is_named(scene: Scene, shell: Shell) -> None:
    (shell.folder / "fork").write_text(await forged(scene, 3))
    (shell.folder / "none").write_bytes(b"\xff not a note")
    for file in ("fork", "none"):
        words = ("admin", "audit", "verify", "--since", file)
        ended = await shell.gstd(scene.admin, *words)
        assert ended.code == 1, ended
        assert "the kept checkpoint" in ended.out
        told = await shell.gstd(scene.admin, *words, "--json")
        assert {item["subject"] for item in told.json["findings"]} == {"the kept checkpoint"}


COPIES = [
    ("admin", ["admin", "audit", "verify", "--keep", "PATH"]),
    ("admin", ["admin", "ledger", "export", "PATH"]),
    ("requester", ["wallet", "export", "--csv", "PATH"]),
    ("requester", ["wallet", "statement", "--proof", "PATH"]),
]


@pytest.mark.parametrize(("who", "words"), COPIES, ids=[" ".join(words) for _, words in COPIES])
async def test_a_file_is_written_whole_or_not_at_all(
    scene: Scene, shell: Shell, who: str, words: list[str]
) -> None:
    person: Person = getattr(scene, who)

    async def run(path: str, before: str = "true") -> Ended:
        return await shell.gstd(
            person, *(path if word == "PATH" else word for word in words), before=before
        )

    (shell.folder / "file").write_text("old")
    full = await run("file", "ulimit -f 0")
    for ended in (full, await run("no/where"), await run(".")):
        assert ended.code == 1, ended
        assert ended.err.startswith("file_unwritable: "), ended.err
        assert "Traceback" not in ended.err
        assert "folder that exists" in ended.err
    assert shell.files() == {"file": "old"}
    done = await run("file")
    assert done.code == 0, done
    assert list(shell.files()) == ["file"]
    assert len(shell.files()["file"]) > 100


@pytest.mark.parametrize(("who", "words"), COPIES[1:3])
async def test_an_answer_that_breaks_off_leaves_the_old_file(
    scene: Scene, shell: Shell, who: str, words: list[str]
) -> None:
    async def break_off(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this")
        await writer.drain()
        writer.close()

    (shell.folder / "file").write_text("old")
    async with await asyncio.start_server(break_off, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        broken = Shell(f"http://{host}:{port}", shell.folder)
        ended = await broken.gstd(
            getattr(scene, who), *("file" if word == "PATH" else word for word in words)
        )
    assert ended.code == 1, ended
    assert "does not answer to the end" in ended.err
    assert shell.files() == {"file": "old"}


async def test_one_transfer_is_one_and_more_are_all(scene: Scene, shell: Shell) -> None:
    for rows, start in (
        (["--limit", "1"], "1 transfer is in the log of "),
        (["--all"], r"All \d+ transfers are in the log of "),
    ):
        words = ("wallet", "statement", *rows, "--proof", "proofs")
        assert (await shell.gstd(scene.requester, *words)).code == 0
        ended = await shell.gstd(scene.requester, "wallet", "verify", "proofs")
        assert ended.code == 0, ended
        assert re.match(start, ended.out.splitlines()[-1]), ended.out
