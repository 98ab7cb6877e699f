"""Where the CLI finds the platform's address and the API key."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from gstd.embedded.state import write_private
from gstd.kernel.errors import GstdError
from gstd.kernel.settings import Settings

FILE = "credentials.json"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A key and the address it is for."""

    api_key: str
    url: str = "http://127.0.0.1:8420"


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
    state = os.environ.get("GSTD_STATE", Settings().state)
    kept = load_credentials(Path(state).expanduser())
    api_key = api_key or os.environ.get("GSTD_API_KEY") or (kept and kept.api_key)
    url = url or os.environ.get("GSTD_URL") or (kept and kept.url)
    if not api_key:
        raise NoCredentialsError
    return Credentials(api_key=api_key, url=url or Credentials(api_key="").url)
