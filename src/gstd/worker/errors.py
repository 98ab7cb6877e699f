"""What stops a worker, or one of its attempts."""

from __future__ import annotations

from gstd.kernel.errors import GstdError
from gstd.sdk.errors import ApiError

FATAL_CODES = frozenset({"device_barred", "not_authenticated", "not_allowed"})
"""Refusals that no later try of the same device can change."""


class KeyFileError(GstdError):
    """The device's key file cannot be used."""

    code = "key_file"
    status = 400
    hint = "Restore the file from a backup, or delete it and enrol this device anew."


class KeyFileOpenToOthersError(KeyFileError):
    """Others than its owner may read the device's key file."""

    code = "key_file_open_to_others"
    hint = "Run `chmod 600` on it; if others may have read it, delete it and enrol anew."


class ModuleMismatchError(GstdError):
    """The bytes of a module do not have the hash they were asked by."""

    code = "module_mismatch"
    status = 502
    hint = "The task is given back. If it persists, look for a proxy that changes downloads."


class LeaseOverError(GstdError):
    """The attempt's lease ended before the platform could be reached."""

    code = "lease_over"
    status = 409
    hint = "The task goes to another device. Check the network."


def is_fatal(error: BaseException) -> bool:
    """Whether the error means that this device has to stop working."""
    return isinstance(error, ApiError) and error.code in FATAL_CODES
