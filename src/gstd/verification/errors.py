"""Broken rules about results."""

from __future__ import annotations

from gstd.kernel.errors import GstdError


class BadSignatureError(GstdError):
    """The signature is not this device's over this result."""

    code = "bad_signature"
    status = 422
    hint = "Sign the statement of docs/reference/protocol.md with the enrolled key, then resubmit."


class OutputTooLargeError(GstdError):
    """The result is larger than the task's limits allow."""

    code = "output_too_large"
    status = 422
    hint = "A run that exceeds its output limit ends with the status output_limit."


class WrongTaskError(GstdError):
    """The result names another task or revision than the attempt."""

    code = "wrong_task"
    status = 409
    hint = "Submit with the task id and revision that the claim returned."
