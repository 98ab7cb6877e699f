"""The leash: exit codes, forwarded signals, and the end of everything when the owner is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gstd.embedded import leash
from gstd.embedded.pids import group_is_running, is_running

LEASH = [sys.executable, "-I", "-S", leash.__file__]
STUBBORN = "trap '' TERM INT; echo $$; while :; do sleep 0.05; done"


@contextmanager
def held(*argv: str, through_env: bool = False) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A leash on ``argv`` and the owner's end of its pipe."""
    read_end, write_end = os.pipe()
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL if through_env else read_end,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, leash.LEASH_FD: str(read_end)} if through_env else None,
        pass_fds=(read_end,) if through_env else (),
        start_new_session=True,
    )
    os.close(read_end)
    with process:
        try:
            yield process, write_end
        finally:
            kill_group(process.pid)


def kill_group(group: int) -> None:
    """Leave nothing of a failed test behind."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return


def first_line(process: subprocess.Popen[str]) -> str:
    """What the command says first: it runs by then."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def gone(pid: int, seconds: float = 3.0) -> bool:
    """Whether ``pid`` ends in time."""
    until = time.monotonic() + seconds
    while is_running(pid) and time.monotonic() < until:
        time.sleep(0.01)
    return not is_running(pid)


def gone_group(group: int, seconds: float = 3.0) -> bool:
    """Whether the whole group ends in time."""
    until = time.monotonic() + seconds
    while group_is_running(group) and time.monotonic() < until:
        time.sleep(0.01)
    return not group_is_running(group)


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137)])
def test_the_exit_code_is_the_commands(script: str, code: int) -> None:
    with held(*LEASH, "--", "sh", "-c", script) as (process, owner):
        assert process.wait(5) == code
        os.close(owner)


def test_a_command_that_is_not_there_is_127() -> None:
    with held(*LEASH, "--", "/no/such/program") as (process, owner):
        assert process.wait(5) == 127
        os.close(owner)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on(signum: signal.Signals) -> None:
    script = "trap 'exit 3' TERM; trap 'exit 4' INT; echo up; while :; do sleep 0.05; done"
    with held(*LEASH, "--", "sh", "-c", script) as (process, owner):
        assert first_line(process) == "up"
        process.send_signal(signum)
        assert process.wait(5) == (3 if signum == signal.SIGTERM else 4)
        os.close(owner)


@pytest.mark.parametrize("through_env", [True, False])
def test_the_owners_death_sends_the_chosen_signal(through_env: bool) -> None:
    script = "trap 'echo asked; exit 0' INT; echo up; while :; do sleep 0.05; done"
    argv = [*LEASH, "--signal", "INT", "--", "sh", "-c", script]
    with held(*argv, through_env=through_env) as (process, owner):
        assert first_line(process) == "up"
        os.close(owner)
        assert first_line(process) == "asked"
        process.wait(5)


def test_who_does_not_obey_is_killed_with_its_group() -> None:
    script = f"sleep 60 & {STUBBORN}"
    with held(*LEASH, "--grace", "0.2", "--", "sh", "-c", script) as (process, owner):
        pid = int(first_line(process))
        os.close(owner)
        assert gone(pid)
        process.wait(5)
        assert gone_group(process.pid)


def test_a_running_stranger_can_be_held() -> None:
    with subprocess.Popen(["sleep", "60"]) as stranger:
        with held(*LEASH, "--pid", str(stranger.pid)) as (process, owner):
            os.close(owner)
            assert stranger.wait(5) == -signal.SIGTERM
            process.wait(5)
        with held(*LEASH, "--pid", str(stranger.pid)) as (process, owner):
            assert process.wait(5) == 0, "a stranger that is gone ends the leash"
            os.close(owner)


def test_the_command_inherits_no_descriptor_and_no_leash() -> None:
    script = "ls /proc/self/fd | tr '\\n' ' '; echo ${GSTD_LEASH_FD:-none}"
    argv = [*LEASH, "--", "sh", "-c", script]
    with held(*argv, through_env=True) as (process, owner):
        assert first_line(process) in {"0 1 2 3 none", "0 1 2 none"}, "3 is the folder ls reads"
        os.close(owner)


@pytest.mark.parametrize("argv", [[], ["--"], ["--what", "1", "--", "true"], ["--signal", "INT"]])
def test_nonsense_is_refused(argv: list[str]) -> None:
    with pytest.raises(ValueError, match=r"needed|unknown"):
        leash.main(argv)


def test_python_children_hold_their_own_leash() -> None:
    program = (
        "import os, time\n"
        "from gstd.embedded.leash import hold_leash\n"
        "print(hold_leash(0.2), 'GSTD_LEASH_FD' in os.environ, flush=True)\n"
        "time.sleep(60)\n"
    )
    argv = [sys.executable, "-c", program]
    with held(*argv, through_env=True) as (process, owner):
        assert first_line(process) == "True False"
        os.close(owner)
        assert process.wait(5) == -signal.SIGTERM
    stubborn = program.replace("print(", "import signal\nsignal.signal(15, lambda *_: 0)\nprint(")
    with held(sys.executable, "-c", stubborn, through_env=True) as (process, owner):
        assert first_line(process) == "True False"
        os.close(owner)
        assert process.wait(5) == -signal.SIGKILL


def test_without_a_leash_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(leash.LEASH_FD, raising=False)
    assert leash.hold_leash() is False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root drops to another account")
def test_another_account_gets_a_folder_it_could_not_reach(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o700)
    (folder / "file").touch()
    os.chown(folder, 65534, 65534)
    script = 'echo "$(id -u) $(id -G) $(pwd) $(ls /proc/self/fd/3/) $(ls $1 2>&1 | wc -l)"'
    inner = [*LEASH, "--user", "65534:65534", "--", "sh", "-c", 'exec sh -c "$0" - "$1"', script]
    with held("env", "-C", str(folder), *inner, f"{folder}") as (process, owner):
        assert first_line(process) == "65534 65534 / file 1"
        os.close(owner)
