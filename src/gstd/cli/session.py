"""The CLI's way to the platform."""

from __future__ import annotations

from gstd.cli.credentials import find_credentials
from gstd.sdk.client import Client


def connect(url: str | None, api_key: str | None) -> Client:
    """A client with the credentials of options, environment or state folder."""
    credentials = find_credentials(url, api_key)
    return Client(credentials.url, credentials.api_key)
