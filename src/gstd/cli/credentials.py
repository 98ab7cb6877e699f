"""Where the CLI finds the platform's address and the API key."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gstd.embedded.state import write_private
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Settings

FILE = "credentials.json"
DEFAULT_URL = "http://127.0.0.1:8420"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A key and the address it is for."""

    api_key: str
    url: str = DEFAULT_URL


class NoCredentialsError(GstdError):
    """There is no API key to ask with."""

    code = "no_credentials"
    hint = "Start a local platform with `gstd up`, or set GSTD_URL and GSTD_API_KEY."


def save_credentials(state_dir: Path, credentials: Credentials) -> None:
    """Keep them in the state folder, mode 0600."""
    write_private(state_dir / FILE, msgspec.json.encode(credentials).decode())


def load_credentials(state_dir: Path) -> Credentials | None:
    """What the state folder keeps, if anything."""
    path = state_dir / FILE
    if not path.exists():
        return None
    return msgspec.json.decode(path.read_bytes(), type=Credentials)


def find_credentials(url: str | None, api_key: str | None) -> Credentials:
    """By option, environment (GSTD_URL, GSTD_API_KEY) or the state folder, in this order.

    Raises ``NoCredentialsError``.
    """
    kept = load_credentials(_state_dir())
    api_key = api_key or os.environ.get("GSTD_API_KEY") or (kept.api_key if kept else None)
    if not api_key:
        raise NoCredentialsError
    return Credentials(api_key=api_key, url=platform_url(url))


def platform_url(url: str | None) -> str:
    """The address by option, environment (GSTD_URL) or the state folder, else the default."""
    kept = load_credentials(_state_dir())
    return url or os.environ.get("GSTD_URL") or (kept.url if kept else DEFAULT_URL)


def _state_dir() -> Path:
    return Path(os.environ.get("GSTD_STATE", Settings().state)).expanduser()
