"""The cage from inside: what a module that broke out of the engine could still do.

``inmate.py`` enters it with Python code in the module's place, on this kernel and on kernels that
lack a wall, as this user and, where this is root, as nobody.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from gstd.cli.doctor import Diagnosis, Finding, _rows
from gstd.cli.output import err
from gstd.cli.worker import say_walls
from gstd.protocol.execution import Limits, Outcome, TaskInput, result_hash
from gstd.sandbox.runner import Sandbox
from gstd.sandbox.walls import Wall, Walls

HERE = Path(__file__).parent
MANDELBROT = HERE.parents[2] / "examples/mandelbrot/mandelbrot.wasm"
TILE = TaskInput(args=("3", "2", "8", "64", "500"))
NOBODY = "65534"
USERS = ([], ["--user", NOBODY]) if os.geteuid() == 0 else ([],)
KERNELS: tuple[list[str], ...] = (
    [],
    ["--without", "landlock"],
    ["--without", "seccomp"],
    ["--without", "landlock", "seccomp"],
)

# Of the tile above, found before there was a cage.
FUEL = 352_261_410
PICTURE = "384df269793f2abd66ac94a3ee1264d2ca33562106c964031229470439333dd8"
RESULT = "f2d50057a4ad540f3991b287238967dd2dbe20cf3c8dd40fac076038657e8994"

NO_LANDLOCK_OF_ITS_OWN = {
    "make a socket pair",
    "make a file in memory",
    "fork",
    "limit the parent",
    "take shared memory",
    "take a stack",
}
"""What Landlock does not see."""


def inmate(*words: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, str(HERE / "inmate.py"), *words],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": str(HERE.parents[2] / "src"), "PATH": os.environ["PATH"]},
        timeout=60,
    )
    lines = [line.partition("\t") for line in done.stdout.splitlines()]
    return {name: text for name, tab, text in lines if tab} | {"log": done.stdout}


def attempts(*words: str) -> tuple[str, dict[str, str]]:
    """The walls that stood, and each attempt with its end."""
    found = inmate("attempts", *words)
    walls = found.pop("walls")
    assert found.pop("status") == "0"
    del found["log"]
    assert len(found) == 15
    return walls, found


@functools.cache
def has(wall: Wall) -> bool:
    """Whether this machine's kernel has the wall: without it there is nothing to try."""
    return wall in inmate("attempts")["walls"].split()


@pytest.mark.parametrize("user", USERS)
def test_a_child_reaches_nothing(user: list[str]) -> None:
    walls, found = attempts(*user)
    if walls != "landlock seccomp":
        pytest.skip("this kernel has not all walls")
    assert found.pop("take more memory") == "ENOMEM"
    assert set(found.values()) == {"EPERM"}


def test_without_walls_all_of_it_works() -> None:
    walls, found = attempts("--without", "landlock", "seccomp")
    assert walls == ""
    assert found.pop("take more memory") == "ENOMEM"
    if os.geteuid() != 0:
        del found["trace the parent"]  # Yama may forbid it
    assert set(found.values()) == {"done"}


@pytest.mark.parametrize("answer", [errno.EPERM, errno.EOPNOTSUPP, 0])
def test_a_wall_that_is_forbidden_or_only_pretended_counts_as_missing(answer: int) -> None:
    walls, found = attempts("--without", "landlock", "seccomp", "--answer", str(answer))
    assert walls == ""
    assert found["read a file"] == "done"


@pytest.mark.parametrize("user", USERS)
def test_seccomp_alone_is_enough(user: list[str]) -> None:
    walls, found = attempts("--without", "landlock", *user)
    if walls != "seccomp":
        pytest.skip("this kernel has no seccomp")
    assert found.pop("take more memory") == "ENOMEM"
    assert set(found.values()) == {"EPERM"}


@pytest.mark.parametrize("user", USERS)
def test_landlock_alone_keeps_files_and_processes(user: list[str]) -> None:
    walls, found = attempts("--without", "seccomp", *user)
    if walls != "landlock":
        pytest.skip("this kernel has no landlock")
    assert {name for name, end in found.items() if end == "done"} <= NO_LANDLOCK_OF_ITS_OWN | {
        "connect to inet",  # before version 4
        "connect to unix",  # before version 6
        "kill the parent",
    }
    assert {found[name] for name in ("read a file", "write a file", "execve")} == {"EACCES"}
    assert found["trace the parent"] == "EPERM"


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_limit_of_processor_time_holds(kernel: list[str]) -> None:
    found = inmate("burn", *kernel)
    assert (found["burn"], found["status"]) == ("begun", str(-signal.SIGXCPU))


@pytest.mark.parametrize("wall", Wall)
def test_nothing_runs_when_a_wall_falls_after_the_trial(wall: Wall) -> None:
    if not has(wall):
        pytest.skip(f"this kernel has no {wall}")
    found = inmate("attempts", "--fallen", wall)
    assert wall in found["walls"]
    assert "Function not implemented" in found["failed"]
    assert "read a file" not in found


def check_tile(outcome: Outcome) -> None:
    module = hashlib.sha256(MANDELBROT.read_bytes()).digest()
    hashed = result_hash(
        module_hash=module,
        metered_hash=module,
        profile="wasmtime-50.0.1/fuel-1",
        input_hash=TILE.hash(),
        limits=Limits(),
        outcome=outcome,
    )
    assert (outcome.fuel, hashlib.sha256(outcome.stdout).hexdigest()) == (FUEL, PICTURE)
    assert hashed.hex() == RESULT


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_the_example_compiles_and_runs_alike_in_every_cage(
    kernel: list[str], user: list[str]
) -> None:
    found = inmate("tile", *kernel, *user)
    check_tile(msgspec.msgpack.decode(bytes.fromhex(found["tile"]), type=Outcome))


async def test_the_example_has_the_result_it_had_without_a_cage(box: Sandbox) -> None:
    check_tile(await box.run(MANDELBROT, TILE, Limits()))


def test_a_whole_cage_is_told_quietly() -> None:
    if not (has(Wall.LANDLOCK) and has(Wall.SECCOMP)):
        pytest.skip("this kernel has not all walls")
    found = inmate("box")
    assert found["words"] == "modules run caged by landlock and seccomp"
    assert found["doctor"] == f"ok: {found['words']}"
    assert "sandbox_cage_weak" not in found["log"]


@pytest.mark.parametrize("kernel", KERNELS[1:])
def test_a_weak_cage_is_told_loudly(kernel: list[str]) -> None:
    found = inmate("box", *kernel)
    assert found["words"].startswith("WEAK CAGE: ")
    for wall in kernel[1:]:
        assert f"no {wall}" in found["words"]
    assert found["doctor"] == f"weak: {found['words']}"
    # One sandbox and the doctor's: each warns once, also when its zygote was replaced.
    assert found["log"].count("sandbox_cage_weak") == 2
    check_tile(msgspec.msgpack.decode(bytes.fromhex(found["tile"]), type=Outcome))


@pytest.mark.parametrize(
    ("standing", "said"),
    [
        ((Wall.LANDLOCK, Wall.SECCOMP), "modules run caged by landlock and seccomp"),
        ((Wall.SECCOMP,), "no landlock. Only seccomp would hold"),
        ((), "no landlock and no seccomp. Nothing but a few limits"),
    ],
)
def test_the_worker_says_what_protects_its_machine(standing: tuple[Wall, ...], said: str) -> None:
    with err.capture() as captured:
        say_walls(Walls(standing))
    assert said in captured.get()


def test_the_doctor_marks_what_is_weak() -> None:
    weak = Finding(check="cage", ok=True, seen="WEAK CAGE", hint="Elsewhere.", weak=True)
    with err.capture() as captured:
        err.print(_rows(Diagnosis(True, [weak])))
    assert "Operational, but weak" in captured.get()
    assert "weak  cage   WEAK CAGE" in captured.get()
